"""A slide with many tiles while a network trains: from the key for a tile to painting in it, and event-loop gaps.

A real napari window on a slide (`benchmarks/slide.py make` makes one) with the dock. Most tiles are complete, so that
the engine has something to learn from. Each press of N or P is timed until the tile's layer is active with its brush
and the canvas has been drawn with it in the middle. Then strokes are painted, in phases in which the training is paused
and in which it runs, as `ui_latency.py` does.

    python benchmarks/many_tiles.py --slide SLIDE --tiles 50 --out benchmarks/results/many_tiles.md

With `--cost` nothing is trained, and what is said is the processor time of the viewer's own thread for a jump and
a movement of the brush: that hardly depends on what else the machine does.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import napari
import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QWidget
from skimage.draw import disk
from ui_latency import GOALS_MS, LONG_MS, TICK_MS, Painter, Phase, added, begin_training, measure, pooled, wait

from napari_semiseg.blocks import Box
from napari_semiseg.io.images import open_image
from napari_semiseg.plugin.widgets.dock import NucleiDock
from napari_semiseg.project.folder import ProjectFolder

GOAL_MS = 300
SIDE = 250
ZOOM = 2.0
SPARSE_EVERY = 5
"""One tile in so many is sparse, the others complete."""
NUCLEI = 40
BETWEEN_JUMPS_S = 0.3
STROKES = 5


def fill(folder: ProjectFolder, tiles: int) -> None:
    """Scatter tiles over the slide, with discs in the place of nuclei: what is learned is not looked at here."""
    random = np.random.default_rng(0)
    height, width = open_image(folder.source_path(0)).shape
    for number in range(tiles):
        y0, x0 = (int(random.integers(0, length - SIDE)) for length in (height, width))
        tile = folder.add_tile(0, Box(y0, x0, y0 + SIDE, x0 + SIDE))
        ids = np.zeros((SIDE, SIDE), np.uint32)
        for nucleus, center in enumerate(random.uniform(10, SIDE - 10, (NUCLEI, 2)), start=1):
            ids[disk(center, 8, shape=ids.shape)] = nucleus
        folder.write_annotation(tile.id, ids, np.where(ids, 2, 0).astype(np.uint8))
        folder.set_status(tile.id, "complete" if number % SPARSE_EVERY else "sparse")


def prepare(slide: Path, target: Path, tiles: int) -> tuple[Any, NucleiDock]:
    """Open a project of the slide, and wait until every tile has its layer."""
    with ProjectFolder.create(target) as folder:
        folder.add_image(open_image(slide))
        fill(folder, tiles)
    viewer = napari.Viewer()
    viewer.window.resize(1400, 900)
    dock = NucleiDock(viewer)
    viewer.window.add_dock_widget(dock, name="Nuclei", area="right")
    dock.view.open_project(target)
    wait(lambda: dock.session.image_index is not None, 300, "the slide")
    project = dock.session.project
    wait(lambda: all(dock.tiles.layer(tile.id) is not None for tile in project.tiles), 300, "the tiles' layers")
    project.select(project.tiles[0].id)
    viewer.scene.camera.zoom = ZOOM / (dock.view.slide.mpp or 1.0)
    for step in dock.steps:
        step.set_open(step.panel in (dock.tiles_panel, dock.train_panel))
    wait(lambda: dock.session.engine.description.get("complete"), 300, "the engine's description")
    wait(lambda: dock.session.engine.job is None, 300, "the proposal")
    return viewer, dock


def jump(viewer: Any, dock: NucleiDock, canvas: QWidget, key: Qt.Key) -> float:
    """Press a key, and return the milliseconds until the tile that it leads to can be painted in and is drawn."""
    before = dock.session.project.selected
    begun = time.perf_counter()
    QTest.keyClick(canvas, key)
    layer = dock.tiles.layer(dock.session.project.selected)
    assert dock.session.project.selected != before, "the key led nowhere"
    while viewer.layers.selection.active != layer or layer.mode != "paint":
        QApplication.processEvents()
    canvas.repaint()  # at once: what is in the middle is drawn when it returns
    return (time.perf_counter() - begun) * 1000


def jumps(viewer: Any, dock: NucleiDock, count: int) -> list[float]:
    """Go from tile to tile, two forward and one back, and return the milliseconds of each."""
    canvas = next(w for w in dock.window().findChildren(QWidget) if type(w).__name__ == "CanvasBackendDesktop")
    canvas.setFocus()
    times = []
    for number in range(count):
        times.append(jump(viewer, dock, canvas, Qt.Key.Key_N if number % 3 else Qt.Key.Key_P))
        rest(BETWEEN_JUMPS_S)
    return times


def cost(viewer: Any, dock: NucleiDock, count: int) -> dict[str, tuple[float, float]]:
    """Return the median and the longest processor time, in ms, of a jump and of a movement of the brush."""
    canvas = next(w for w in dock.window().findChildren(QWidget) if type(w).__name__ == "CanvasBackendDesktop")
    canvas.setFocus()
    found: dict[str, list[float]] = {"jump": [], "movement of the brush": []}

    def timed(kind: str, call: Any) -> None:
        begun = time.thread_time()
        call()
        found[kind].append((time.thread_time() - begun) * 1000)

    for _ in range(count):
        timed("jump", lambda: jump(viewer, dock, canvas, Qt.Key.Key_N))
        rest(2 * BETWEEN_JUMPS_S)
    painter = Painter(dock, viewer)

    def move() -> None:
        painter.paint()
        QApplication.processEvents()

    while painter.strokes < STROKES:
        timed("movement of the brush", move)
    return {kind: (float(np.median(times)), max(times)) for kind, times in found.items()}


def rest(seconds: float) -> None:
    """Let Qt work for a while."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        QApplication.processEvents()


def report(times: list[float], phases: list[Phase], shape: tuple[int, int], options: argparse.Namespace) -> str:
    """Say what came of it."""
    p50, p95 = np.percentile(times, (50, 95))
    verdict = "met" if max(times) <= GOAL_MS else f"met by {np.mean(np.array(times) <= GOAL_MS):.0%} of the jumps"
    idle, training = pooled(phases, "paused"), pooled(phases, "training")
    asked = f"--tiles {options.tiles} --jumps {options.jumps} --rounds {options.rounds} --seconds {options.seconds:g}"
    lines = [
        "# A slide with many tiles while a network trains",
        "",
        f"`python benchmarks/many_tiles.py --slide SLIDE {asked}`",
        "",
        (
            f"{options.tiles} tiles on a slide of {shape[0]} x {shape[1]} pixels; napari {napari.__version__}, "
            f"{os.cpu_count()} hardware threads, software OpenGL, load of the machine {os.getloadavg()[0]:.1f}."
        ),
        "",
        "## From the key for a tile to painting in it",
        "",
        (
            f"{len(times)} jumps while the network trains: median {p50:.0f} ms, 95 % within {p95:.0f} ms, the longest "
            f"{max(times):.0f} ms. Goal: at most {GOAL_MS} ms; {verdict}."
        ),
        "",
        "## Event-loop gaps while painting",
        "",
        f"Milliseconds between ticks of a timer of {TICK_MS} ms; {options.rounds} phases of each kind in turns.",
        "",
        "| | ticks | strokes | maps shown | steps | p50 | p95 | p99 | longest | gaps > 100 ms |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
        *(
            f"| {p.name} | {len(p.gaps)} | {p.strokes} | {p.maps} | {p.steps} | {p.at(50):.1f} | {p.at(95):.1f} | "
            f"{p.at(99):.1f} | {p.longest:.0f} | {p.long} |"
            for p in (idle, training)
        ),
        "",
    ]
    for name, percent in (("p95", 95), ("p99", 99)):
        more, spread = added(phases, percent)
        goal = GOALS_MS[name]
        verdict = "not decided on this machine" if abs(more - goal) < spread else "met" if more <= goal else "not met"
        lines.append(f"- {name}: {more:+.1f} ± {spread:.1f} ms by training (goal: at most {goal:.0f} more; {verdict})")
    share = [1000 * phase.long / len(phase.gaps) for phase in (training, idle)]
    lines.append(
        f"- gaps over {LONG_MS:.0f} ms: {share[0]:.2f} of 1,000 ticks in training, {share[1]:.2f} without; longest "
        f"{training.longest:.0f} ms in training, {idle.longest:.0f} ms without"
    )
    lines.append(f"- torch in the viewer's process: {'yes' if 'torch' in sys.modules else 'no'}")
    return "\n".join([*lines, ""])


def main() -> None:
    """Measure, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slide", type=Path, required=True)
    parser.add_argument("--tiles", type=int, default=50)
    parser.add_argument("--jumps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=6, help="pairs of phases of painting")
    parser.add_argument("--seconds", type=float, default=12.0, help="length of each phase")
    parser.add_argument("--cost", action="store_true", help="say what a jump and a movement cost, and no more")
    parser.add_argument("--screens", type=Path, help="folder for a picture")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        viewer, dock = prepare(options.slide, Path(folder) / "case.semiseg", options.tiles)
        if options.cost:
            for kind, (median, longest) in cost(viewer, dock, 12).items():
                print(f"{options.tiles} tiles, {kind}: median {median:.0f} ms, longest {longest:.0f} ms")
            viewer.close()
            dock.supervisor.wait(5)
            return
        begin_training(dock)
        times = jumps(viewer, dock, options.jumps)
        if options.screens:
            viewer.screenshot(options.screens / "many-tiles.png", canvas_only=False, flash=False)
        phases = []
        for _ in range(options.rounds):
            phases.append(measure("paused", dock, viewer, options.seconds, "paused"))
            phases.append(measure("training", dock, viewer, options.seconds, "running"))
        text = report(times, phases, dock.view.slide.shape, options)
        dock.session.training.cancel()
        wait(lambda: not dock.session.training.active, 60, "the end of the training")
        with contextlib.suppress(RuntimeError):
            viewer.close()
            dock.supervisor.wait(5)
    if options.out:
        options.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
