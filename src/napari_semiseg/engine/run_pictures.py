"""The curves of a run as pictures for a report: loss terms, scores, what the method counted, patches over time."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_semiseg.engine.report import Picture
from napari_semiseg.events import REGION, PatchesCounted, StepDone, Validated
from napari_semiseg.io.event_log import read_events

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Points = list[tuple[int, float]]
Histograms = dict[int, tuple[list[int], list[int]]]
COLORS = ("#0072b2", "#e69f00", "#cc79a7", "#009e73", "#d55e00", "#56b4e9", "#8a7d00")
"""Okabe and Ito's, which the color-blind tell apart; the yellow darkened for a white ground."""


def run_pictures(run: Path) -> Iterator[Picture]:
    """Draw what ``events.jsonl`` of a run folder tells; nothing where it tells nothing."""
    losses: defaultdict[str, Points] = defaultdict(list)
    counters: defaultdict[str, Points] = defaultdict(list)
    scores: defaultdict[str, Points] = defaultdict(list)
    patches: Histograms = {}
    try:
        for event in read_events(run / "events.jsonl"):
            match event:
                case StepDone(step, terms, counted):
                    _note(losses, step + 1, terms)
                    _note(counters, step + 1, counted)
                case Validated(step, values):
                    _note(scores, step, {name: value for name, value in values.items() if not name.startswith(REGION)})
                case PatchesCounted(step, _, confidence, entropy):
                    patches[step] = (confidence, entropy)
    except OSError:
        return
    if any(value > 0 for points in losses.values() for _, value in points):
        yield Picture(_plotted(losses, log=True), "Loss terms, each with its weight, over steps.")
    if scores:
        named = {name.replace("_dice", " (no training)"): points for name, points in scores.items()}
        yield Picture(_plotted(named, top=1.0), "Dice on the validation tiles, over steps.")
    shares, counts = shares_and_counts(counters)
    if shares:
        yield Picture(_plotted(shares, top=1.0), "What the method counted, in shares, over steps.")
    if counts:
        yield Picture(_plotted(counts, log=True), "What the method counted, in numbers, over steps.")
    if patches:
        yield Picture(_heated(patches), "Patches by mean confidence (left) and by mean entropy (right), over steps.")


def shares_and_counts(curves: Mapping[str, Points]) -> tuple[dict[str, Points], dict[str, Points]]:
    """Divide curves into those that stay in [0, 1] and the others."""
    shares = {name: points for name, points in curves.items() if all(0 <= value <= 1 for _, value in points)}
    return shares, {name: points for name, points in curves.items() if name not in shares}


def _note(curves: defaultdict[str, Points], step: int, values: Mapping[str, float]) -> None:
    for name, value in values.items():
        if math.isfinite(value):
            curves[name].append((step, value))


def _plotted(curves: Mapping[str, Points], *, log: bool = False, top: float | None = None) -> NDArray[np.uint8]:
    def draw(axes: Axes) -> None:
        for number, (name, points) in enumerate(curves.items()):
            kept = [(step, value) for step, value in points if value > 0 or not log]
            steps, values = zip(*kept, strict=True) if kept else ((), ())
            axes.plot(steps, values, color=COLORS[number % len(COLORS)], label=name, linewidth=1.2)
        if log:
            axes.set_yscale("log")
        if top is not None:
            axes.set_ylim(-0.02, top + 0.02)
        axes.set_xlabel("steps")
        axes.legend(fontsize="small")

    return _figure(1, lambda axes: draw(axes[0]))


def _heated(patches: Histograms) -> NDArray[np.uint8]:
    steps = sorted(patches)
    columns = [np.array([patches[step][part] for step in steps], float).T for part in (0, 1)]

    def draw(axes: list[Axes]) -> None:
        for one, counts, name in zip(axes, columns, ("mean confidence", "mean entropy (bits)"), strict=True):
            shares = counts / np.maximum(counts.sum(0), 1)
            extent = (steps[0], max(steps[-1], steps[0] + 1), 0, 1)
            one.imshow(shares, origin="lower", aspect="auto", extent=extent, cmap="viridis", interpolation="nearest")
            one.set_xlabel("steps")
            one.set_ylabel(name)

    return _figure(2, draw)


def _figure(columns: int, draw: Callable[[list[Axes]], None]) -> NDArray[np.uint8]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), layout="constrained", dpi=120)
    canvas = FigureCanvasAgg(figure)
    draw([figure.add_subplot(1, columns, number + 1) for number in range(columns)])
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels: NDArray[np.uint8] = np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]
    return pixels
