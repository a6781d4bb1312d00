"""How long the trainings of a benchmark last: so many minutes, so many steps, or as long as the preset says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from napari_semiseg.errors import InputError
from napari_semiseg.methods._base import FittedMethod
from napari_semiseg.methods._registry import find_method

MOST = {"minutes": 100_000, "steps": 10_000_000}
_EXAMPLES = {"minutes": "2,5,10", "steps": "100,200,400"}


@dataclass(frozen=True)
class Budget:
    """What one training may take.

    Attributes
    ----------
    minutes : float or None
        In (0, 100,000].
    steps : int or None
        Optimizer steps, in [1, 10,000,000]. Where both are None, the preset says how long.
    """

    minutes: float | None = None
    steps: int | None = None

    def __str__(self) -> str:
        return words([self])

    @property
    def length(self) -> float:
        """Minutes or steps, to sort by; 0 where the preset says how long."""
        return self.minutes or self.steps or 0


def numbers_of(given: object, unit: Literal["minutes", "steps"]) -> tuple[float, ...]:
    """Read one length, or several: a number, numbers, or a text with commas between.

    Parameters
    ----------
    given : object
        None is no length.
    unit : {"minutes", "steps"}
        Steps are whole numbers.

    Returns
    -------
    tuple of float or of int
        Each once, the shortest first; empty for None.

    Raises
    ------
    InputError
        If something in it is no such number.
    """
    if given is None:
        return ()
    parts = given.split(",") if isinstance(given, str) else given if isinstance(given, list | tuple) else [given]
    return tuple(sorted({_number(part, unit) for part in parts}))


def _number(part: Any, unit: Literal["minutes", "steps"]) -> float:
    kind = float if unit == "minutes" else int
    try:
        number = kind(part)
    except (TypeError, ValueError, OverflowError):
        number = 0
    cut = isinstance(part, float) and number != part  # int(2.5) is 2
    if cut or not 0 < number <= MOST[unit]:
        numbers = "whole numbers from 1" if unit == "steps" else "numbers above 0 and up"
        said = part.strip() if isinstance(part, str) else part
        raise InputError(
            f"--{unit} takes {numbers} to {MOST[unit]:,}, with commas between, as --{unit} {_EXAMPLES[unit]}: "
            f"'{said}' is none."
        )
    return number


def budgets_of(request: Mapping[str, Any]) -> tuple[Budget, ...]:
    """Return the budgets of a benchmark, the shortest first, from its request as `results.json` holds it."""
    counted = [Budget(minutes=minutes) for minutes in numbers_of(request["minutes"], "minutes")]
    counted += [Budget(steps=int(steps)) for steps in numbers_of(request["steps"], "steps")]
    return tuple(counted) or (Budget(),)


def budget_of(row: Mapping[str, Any]) -> Budget | None:
    """Return what a finished row was given; None of a method that is fitted at once, whatever the request said."""
    if issubclass(find_method(row["method"]), FittedMethod):
        return None
    kept = row.get("budget", {})
    return Budget(kept.get("minutes"), kept.get("steps"))


def words(budgets: Iterable[Budget]) -> str:
    """Say budgets of one unit: "2, 5 and 10 minutes"; "" where the preset says how long."""
    every = list(budgets)
    unit = "minutes" if every[0].minutes else "steps"
    *others, last = [f"{budget.length:.15g}" for budget in every]
    if not every[0].length:
        return ""
    return f"{', '.join(others)} and {last} {unit}" if others else f"{last} {unit}"
