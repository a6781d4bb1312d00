"""The plots of a benchmark."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_semiseg import atomic
from napari_semiseg.engine.benchmark_budget import Budget, budget_of
from napari_semiseg.engine.benchmark_report import COLUMNS, name_of
from napari_semiseg.methods._registry import find_method

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Record = Mapping[str, Any]
COLORS = 10
MARKERS = "osD^v"
AMOUNTS = (("-", "full"), (":", "none"), ("-.", "left"), ((0, (5, 1)), "bottom"))
"""Line and filling of the marker for each amount of labels; a line needs two budgets, a marker one."""
AT_ONCE = "--"
"""How the line of a method looks that is fitted at once: more time changes nothing."""


def write_plots(out: Path, rows: Sequence[Record]) -> list[Path]:
    """Draw Dice over labels, over minutes (over steps too, if they were counted), and the spread over images.

    Parameters
    ----------
    out : Path
        The folder of the benchmark.
    rows : sequence of mapping
        The finished rows; where there is none, nothing is drawn.

    Returns
    -------
    list of Path
    """
    if not rows:
        return []
    plots: dict[str, Callable[[Axes], None]] = {
        "labels": lambda axes: _over_labels(axes, rows),
        "minutes": lambda axes: _over_length(axes, rows, "minutes", lambda row: row["seconds_training"] / 60),
    }
    if any(budget is not None and budget.steps for budget in map(budget_of, rows)):
        plots["steps"] = lambda axes: _over_length(axes, rows, "steps", lambda row: float(row["steps"]))
    written = [_drawn(out / f"dice_over_{name}.png", draw) for name, draw in plots.items()]
    return [*written, _drawn(out / "dice_by_image.png", lambda axes: _by_image(axes, rows))]


def _drawn(path: Path, draw: Callable[[Axes], None]) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_ylabel(COLUMNS["dice"])
    draw(axes)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside right upper", fontsize="small", handlelength=3)
    with atomic.staged(path) as file:
        figure.savefig(file, dpi=120, format="png")
    return path


def _over_labels(axes: Axes, rows: Sequence[Record]) -> None:
    shown = _longest(axes, rows)
    amounts = sorted({row["cells"] for row in shown})
    for name, look in _looks(rows).items():
        own = [row for row in shown if name_of(row) == name]
        if not own:
            continue
        if find_method(own[0]["method"]).labels == "unused":
            mean, _ = _mean_and_sd(own)
            axes.axhline(mean, color=look["color"], linestyle=AT_ONCE, label=f"{name} (no label)")
            continue
        groups = [[row for row in own if row["cells"] == count] for count in sorted({row["cells"] for row in own})]
        _curve(axes, groups, lambda row: float(row["cells"]), label=name, **look)
    axes.set_xscale("symlog", base=2, linthresh=1)  # none is an amount of labels too
    axes.set_xlim(-0.5, 1.2 * (amounts[-1] or 1))
    axes.set_xticks(amounts, [str(amount) for amount in amounts])
    axes.set_xlabel("labeled cells")


def _over_length(axes: Axes, rows: Sequence[Record], unit: str, taken: Callable[[Record], float]) -> None:
    """Draw a curve for each method and amount of labels, over what the trainings took."""
    looks, end = _looks(rows), max(map(taken, rows))
    for name, labeled in dict.fromkeys((name_of(row), row["labeled"]) for row in rows):
        own = [row for row in rows if (name_of(row), row["labeled"]) == (name, labeled)]
        amounts = _amounts(rows, name)
        label = name if len(amounts) == 1 else f"{name}, {_short(labeled)}"
        line, filling = AMOUNTS[amounts.index(labeled) % len(AMOUNTS)]
        if budget_of(own[0]) is None:
            ready, mean = float(np.mean([taken(row) for row in own])), _mean_and_sd(own)[0]
            axes.plot([ready, max(ready, end)], [mean] * 2, AT_ONCE, color=looks[name]["color"])
            line = AT_ONCE
        _curve(axes, _by_budget(own), taken, label=label, linestyle=line, fillstyle=filling, **looks[name])
    axes.set_xlim(left=-0.02 * end)
    axes.set_xlabel(f"{unit} of training")


def _curve(
    axes: Axes, groups: Sequence[Sequence[Record]], place: Callable[[Record], float], *, label: str, **look: Any
) -> None:
    """Draw the mean of each group, where it lies in the mean, with a standard deviation up and down."""
    places = [float(np.mean([place(row) for row in group])) for group in groups]
    means, spreads = zip(*map(_mean_and_sd, groups), strict=True)
    axes.errorbar(places, means, yerr=spreads, capsize=3, label=label, **look)


def _by_image(axes: Axes, rows: Sequence[Record]) -> None:
    shown = _longest(axes, rows)
    groups = list(dict.fromkeys((name_of(row), row["labeled"]) for row in shown))
    spread = [
        [image["dice"] for row in shown if (name_of(row), row["labeled"]) == group for image in row["images"]]
        for group in groups
    ]
    axes.boxplot(spread, showmeans=True)
    names = [f"{name}\n{_short(labeled)}" for name, labeled in groups]
    axes.set_xticks(range(1, len(groups) + 1), names, rotation=30)
    axes.set_xlabel("method, labels")


def _longest(axes: Axes, rows: Sequence[Record]) -> list[Record]:
    """Return the rows of the longest budget and those that have none; where there are several, the title says so."""
    budgets = {budget for row in rows if (budget := budget_of(row)) is not None}
    if len(budgets) < 2:
        return list(rows)
    longest = max(budgets, key=lambda budget: budget.length)
    axes.set_title(f"{longest} a training", fontsize="medium")
    return [row for row in rows if budget_of(row) in (None, longest)]


def _by_budget(rows: Sequence[Record]) -> list[list[Record]]:
    budgets = sorted({budget_of(row) for row in rows}, key=lambda budget: (budget or Budget()).length)
    return [[row for row in rows if budget_of(row) == budget] for budget in budgets]


def _mean_and_sd(rows: Sequence[Record]) -> tuple[float, float]:
    """Return mean and standard deviation over runs, as the table gives them; one run has none (NaN)."""
    scores = [row["scores"]["dice"] for row in rows]
    return float(np.mean(scores)), float(np.std(scores, ddof=1)) if len(scores) > 1 else float("nan")


def _looks(rows: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """Give each method and variant a color, and a marker where there are more of them than colors."""
    names = dict.fromkeys(map(name_of, rows))
    return {
        name: {"color": f"C{number % COLORS}", "marker": MARKERS[number // COLORS % len(MARKERS)]}
        for number, name in enumerate(names)
    }


def _amounts(rows: Sequence[Record], name: str) -> list[str]:
    return list(dict.fromkeys(row["labeled"] for row in rows if name_of(row) == name))


def _short(labeled: str) -> str:
    """Name an amount of labels where there is little room."""
    return Path(labeled).name if Path(labeled).is_file() else labeled
