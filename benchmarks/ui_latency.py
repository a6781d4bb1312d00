"""How long the viewer keeps a painter waiting: gaps of its event loop, with and without a training in the child.

A real napari window with the dock and all its layers (image, proposal, tiles, annotations, confidence). A timer paints
strokes with mouse events on the canvas, 60 moves a second, while a precise timer of 5 ms notes how far apart its
ticks are. Phases in which the training is paused, so that the child computes nothing, and in which it runs, so that
maps arrive and are shown, take turns in one run: what else the machine does then falls on both.

    python benchmarks/ui_latency.py --out benchmarks/results/ui_latency.md
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import napari
import numpy as np
import tifffile
from qtpy.QtCore import QEventLoop, QPoint, Qt, QTimer
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QWidget

from napari_semiseg.plugin.widgets.dock import NucleiDock
from napari_semiseg.samples import immunohistochemistry, immunohistochemistry_tiles

TICK_MS = 5
STROKE_MOVES = 40
GOALS_MS = {"p95": 8.0, "p99": 15.0}
LONG_MS = 100.0


@dataclass
class Phase:
    """The gaps of a phase, in ms, and what happened in it."""

    name: str
    gaps: list[float] = field(default_factory=list)
    strokes: int = 0
    maps: int = 0
    steps: int = 0
    load: float = 0.0

    def at(self, percent: float) -> float:
        return float(np.percentile(self.gaps, percent))

    @property
    def longest(self) -> float:
        return max(self.gaps)

    @property
    def long(self) -> int:
        return sum(gap > LONG_MS for gap in self.gaps)


class Painter:
    """Paints strokes in the selected tile with mouse events on the canvas, one event a tick."""

    def __init__(self, dock: NucleiDock, viewer: Any) -> None:
        self.dock, self.viewer = dock, viewer
        self.strokes = 0
        self._move = 0
        self._random = np.random.default_rng(0)
        self._canvas = next(
            w for w in dock.window().findChildren(QWidget) if type(w).__name__ == "CanvasBackendDesktop"
        )
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self.paint)

    def start(self) -> None:
        self._timer.start(16)

    def stop(self) -> None:
        self._timer.stop()
        if self._move:
            self._end()

    def paint(self) -> None:
        """Give the next event of the mouse."""
        if self._move == 0:
            box = self.dock.session.project.tile(self.dock.session.project.selected).box
            self._at = self._random.uniform((box.y0 + 20, box.x0 + 20), (box.y1 - 20, box.x1 - 20))
            QTest.mouseMove(self._canvas, self._point())
            QTest.mousePress(self._canvas, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, self._point())
        elif self._move < STROKE_MOVES:
            self._at = self._at + self._random.uniform(-2, 2, 2)
            QTest.mouseMove(self._canvas, self._point())
        elif self._move == STROKE_MOVES:
            self._end()
            return
        elif self._move > STROKE_MOVES + 20:  # a third of a second between two strokes: maps may come then
            self._move = 0
            return
        self._move += 1

    def _end(self) -> None:
        QTest.mouseRelease(self._canvas, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, self._point())
        self._move = STROKE_MOVES + 1
        self.strokes += 1

    def _point(self) -> QPoint:
        world = np.array(self.dock.view.placement.to_world(*self._at))
        camera = self.viewer.scene.camera
        offset = (world - np.array(camera.center)[-2:]) * camera.zoom
        return QPoint(round(self._canvas.width() / 2 + offset[1]), round(self._canvas.height() / 2 + offset[0]))


def wait(until: Callable[[], object], seconds: float, what: str) -> None:
    """Let Qt work until something is so: in a loop as napari's own, since some deletions wait for one."""
    end = time.monotonic() + seconds
    loop, timer = QEventLoop(), QTimer()

    def look() -> None:
        if until() or time.monotonic() > end:
            loop.quit()

    timer.timeout.connect(look)
    timer.start(10)
    loop.exec()
    timer.stop()
    if not until():
        raise SystemExit(f"{what} did not happen within {seconds:g} s")


def measure(name: str, dock: NucleiDock, viewer: Any, seconds: float, state: str) -> Phase:
    """Bring the training into a state, paint for a while, and note the gaps between ticks."""
    training = dock.session.training
    if training.state != state:
        training.pause() if state == "paused" else training.resume()
        wait(lambda: training.state == state, 60, f"'{state}'")
    phase, painter = Phase(name), Painter(dock, viewer)
    shown: set[int] = set()
    first_step = dock.session.training.record.step
    ticker = QTimer()
    ticker.setTimerType(Qt.TimerType.PreciseTimer)
    last = [0.0]

    def tick() -> None:
        now = time.perf_counter()
        if last[0]:
            phase.gaps.append((now - last[0]) * 1000)
        last[0] = now
        if dock.train_panel.confidence.shown is not None:
            shown.add(dock.train_panel.confidence.shown.step)

    ticker.timeout.connect(tick)
    painter.start()
    QTimer.singleShot(2000, lambda: ticker.start(TICK_MS))  # the first strokes load and compile things
    loop = QEventLoop()
    QTimer.singleShot(round(seconds * 1000) + 2000, loop.quit)
    loop.exec()
    ticker.stop()
    painter.stop()
    phase.strokes, phase.maps, phase.load = painter.strokes, len(shown), os.getloadavg()[0]
    phase.steps = dock.session.training.record.step - first_step
    return phase


def prepare(folder: Path, side: int) -> tuple[Any, NucleiDock]:
    """Open napari with the dock on a project with complete tiles and one to paint in."""
    image = immunohistochemistry()
    repeats = -(-side // min(image.shape[:2]))
    image = np.tile(image, (repeats, repeats, 1))[:side, :side]
    tifffile.imwrite(folder / "field.tif", image, photometric="rgb")
    viewer = napari.Viewer()
    viewer.window.resize(1400, 900)
    viewer.open(str(folder / "field.tif"))
    dock = NucleiDock(viewer)
    viewer.window.add_dock_widget(dock, name="Nuclei", area="right")
    dock.slide_panel.start.click()
    wait(lambda: dock.session.image_index is not None, 60, "the start")
    project = dock.session.project
    for sample in immunohistochemistry_tiles("label")[:4]:
        tile = project.add_tile(0, box=sample.box)
        wait(lambda tile=tile: dock.tiles.layer(tile.id) is not None, 30, "the tile's layer")
        dock.tiles.layer(tile.id).data = sample.instances.astype(dock.tiles.layer(tile.id).data.dtype)
        wait(lambda tile=tile: project.counts.get(tile.id), 30, "saving")
        project.set_status(tile.id, "complete")
    project.add_tile(0, center=(130, 130), side=200)
    wait(lambda: dock.tiles.layer(project.selected) is not None, 30, "the tile to paint in")
    for step in dock.steps:
        step.set_open(step.panel is dock.train_panel)
    wait(lambda: dock.session.engine.description.get("complete"), 180, "the engine's description")
    wait(lambda: dock.session.engine.job is None, 60, "the proposal")
    return viewer, dock


def begin_training(dock: NucleiDock) -> None:
    """Start a training with small steps, so that events and maps come often, and wait for its first map."""
    setup = dock.session.training.setup
    for name, value in (("steps", 1_000_000), ("crop", 64), ("batch_labeled", 2), ("batch_unlabeled", 2)):
        setup.set_option(name, value)
    dock.train_panel.train.click()
    wait(lambda: dock.train_panel.confidence.shown is not None, 300, "the first confidence map")


def added(phases: list[Phase], percent: float) -> tuple[float, float]:
    """Return what training adds to a percentile: median over pairs of neighbors, and half their interquartile range."""
    return middle_and_spread([b.at(percent) - a.at(percent) for a, b in zip(phases[::2], phases[1::2], strict=True)])


def middle_and_spread(values: list[float]) -> tuple[float, float]:
    """Return the median, and half the interquartile range."""
    low, middle, high = np.percentile(values, (25, 50, 75))
    return float(middle), float(high - low) / 2


def pooled(phases: list[Phase], name: str) -> Phase:
    """Return all phases of a name as one."""
    chosen = [phase for phase in phases if phase.name == name]
    whole = Phase(f"{name}, all", [gap for phase in chosen for gap in phase.gaps])
    whole.strokes, whole.maps, whole.steps = (sum(getattr(p, n) for p in chosen) for n in ("strokes", "maps", "steps"))
    whole.load = float(np.mean([phase.load for phase in chosen]))
    return whole


def report(phases: list[Phase], side: int, command: str) -> str:
    """Return the figures as Markdown."""
    idle, training = pooled(phases, "paused"), pooled(phases, "training")
    where = (
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"napari {version('napari')}, Qt on {QApplication.platformName()}, software OpenGL; image of {side} x "
        f"{side} px. Milliseconds between two ticks of a precise timer of {TICK_MS} ms."
    )
    shared = "The last column is the machine's load (one-minute average as the phase ended, this benchmark included)."
    lines = [
        "# Event-loop gaps while painting",
        "",
        f"`{command}`",
        "",
        where,
        shared,
        "",
        "| phase | ticks | strokes | maps shown | steps | p50 | p95 | p99 | longest | gaps > 100 ms | load |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {p.name} | {len(p.gaps)} | {p.strokes} | {p.maps} | {p.steps} | {p.at(50):.1f} | {p.at(95):.1f} | "
        f"{p.at(99):.1f} | {p.longest:.1f} | {p.long} | {p.load:.1f} |"
        for p in [*phases, idle, training]
    ]
    lines += ["", "Training adds (median over neighboring pairs, ± half the range of the middle half of them):", ""]
    for name, percent in (("p95", 95), ("p99", 99)):
        more, spread = added(phases, percent)
        goal = GOALS_MS[name]
        verdict = "not decided on this machine" if abs(more - goal) < spread else "met" if more <= goal else "not met"
        lines.append(f"- {name}: {more:+.1f} ± {spread:.1f} ms (goal: at most {goal:.0f} ms more; {verdict})")
    for percent in (95, 99):
        lines.append(f"- p{percent} of all phases together: {training.at(percent) - idle.at(percent):+.1f} ms")
    share = [1000 * phase.long / len(phase.gaps) for phase in (training, idle)]
    lines.append(
        f"- gaps over 100 ms: {share[0]:.2f} of 1,000 ticks in training, {share[1]:.2f} without; "
        f"longest {training.longest:.0f} ms in training, {idle.longest:.0f} ms without"
    )
    lines.append(f"- torch in the viewer's process: {'yes' if 'torch' in sys.modules else 'no'}")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15.0, help="length of each phase")
    parser.add_argument("--rounds", type=int, default=6, help="pairs of phases")
    parser.add_argument("--side", type=int, default=512, help="side of the image, in pixels")
    parser.add_argument("--out", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        viewer, dock = prepare(Path(folder), arguments.side)
        begin_training(dock)
        phases = []
        for _ in range(arguments.rounds):
            phases.append(measure("paused", dock, viewer, arguments.seconds, "paused"))
            phases.append(measure("training", dock, viewer, arguments.seconds, "running"))
        dock.session.training.cancel()
        wait(lambda: not dock.session.training.active, 60, "the end of the training")
        asked = f"--rounds {arguments.rounds} --seconds {arguments.seconds:g} --side {arguments.side}"
        command = f"python benchmarks/ui_latency.py {asked}"
        text = report(phases, arguments.side, command)
        with contextlib.suppress(RuntimeError):
            viewer.close()
            dock.supervisor.wait(5)
    if arguments.out:
        arguments.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
