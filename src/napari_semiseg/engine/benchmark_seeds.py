"""With which seeds each method of a benchmark is trained: so many, or these."""

from __future__ import annotations

from typing import Any

from napari_semiseg.errors import InputError

MOST = 1_000
"""Seeds in one benchmark."""


def count_or_seeds(given: object) -> int | tuple[int, ...]:
    """Read a count, or seeds: a number, numbers, or a text, in which a comma makes the difference.

    Parameters
    ----------
    given : object
        "3" is a count, "3,4" are two seeds, and "3," is one.

    Returns
    -------
    int or tuple of int
        A count, or the seeds in the order in which they were given, each once.

    Raises
    ------
    InputError
        If it is neither.
    """
    if isinstance(given, str):
        given = given.removesuffix(",").split(",") if "," in given else given
    if isinstance(given, list | tuple):
        seeds = tuple(dict.fromkeys(_number(part, 0, 2**31 - 1) for part in given))
        if not 1 <= len(seeds) <= MOST:
            raise _neither(given)
        return seeds
    return _number(given, 1, MOST)


def seeds_of(asked: int | tuple[int, ...]) -> tuple[int, ...]:
    """Return the seeds; of a count, so many from 0 on."""
    return tuple(range(asked)) if isinstance(asked, int) else asked


def _number(part: Any, least: int, most: int) -> int:
    try:
        number = int(part)
    except (TypeError, ValueError, OverflowError):
        raise _neither(part) from None
    if (number != part and not isinstance(part, str)) or not least <= number <= most:  # int(2.5) is 2
        raise _neither(part)
    return number


def _neither(given: object) -> InputError:
    said = given.strip() if isinstance(given, str) else given
    return InputError(
        f"--seeds takes a count from 1 to {MOST:,}, or seeds with commas between, as --seeds 3,4: '{said}' is neither."
    )
