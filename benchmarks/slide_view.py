"""A slide in a real napari window: how long it takes to open, and whether it can be moved about while it is predicted.

    python benchmarks/slide_view.py --slide SLIDE --run RUN [--screens FOLDER] [--seconds 20]

The slide is opened as the dock's *Open an image…* does, and it is open when it has been drawn; the child is
beginning meanwhile. Then the view wanders
over it, at a level of detail where pixels have to be read, while a precise timer of 5 ms notes how far apart its ticks
are: first with nothing else going on, then while the slide is segmented in the child and, by turns with it, while that
is paused. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from itertools import chain
from pathlib import Path
from typing import Any

import napari
import numpy as np
from qtpy.QtCore import QEventLoop, Qt, QTimer
from qtpy.QtWidgets import QApplication
from ui_latency import TICK_MS, middle_and_spread, wait

from napari_semiseg.plugin.layers import visible_box
from napari_semiseg.plugin.widgets.dock import NucleiDock

STEP_MS = 33
ZOOM = 0.5  # screen pixels per pixel of the slide


def wander(viewer: Any, size: float, seconds: float) -> list[float]:
    """Move the view about, and return the gaps between two ticks in ms."""
    camera, gaps, last = viewer.scene.camera, [], [0.0]
    begun = time.monotonic()

    def move() -> None:
        turn = (time.monotonic() - begun) / 12
        camera.center = (0, size * (0.5 + 0.2 * np.sin(turn)), size * (0.5 + 0.2 * np.cos(1.3 * turn)))

    def tick() -> None:
        now = time.perf_counter()
        if last[0]:
            gaps.append((now - last[0]) * 1000)
        last[0] = now

    mover, ticker = QTimer(), QTimer()
    ticker.setTimerType(Qt.TimerType.PreciseTimer)
    mover.timeout.connect(move)
    ticker.timeout.connect(tick)
    mover.start(STEP_MS)
    ticker.start(TICK_MS)
    loop = QEventLoop()
    QTimer.singleShot(round(seconds * 1000), loop.quit)
    loop.exec()
    mover.stop()
    ticker.stop()
    return gaps


def nuclei_in_view(viewer: Any, dock: NucleiDock) -> bool:
    """Whether some of what was found lies where one looks; the view rests, so that the prediction comes there."""
    growing, view = dock.review_panel.layers.growing, dock.view
    box = visible_box(viewer, view.placement, view.slide.shape)
    return growing is not None and box is not None and bool(np.asarray(growing.data[0][box.slices]).any())


def figures(gaps: list[float]) -> dict[str, float]:
    p50, p95, p99 = np.percentile(gaps, (50, 95, 99))
    return {
        "ticks": len(gaps), "p50_ms": round(p50, 1), "p95_ms": round(p95, 1), "p99_ms": round(p99, 1),
        "longest_ms": round(max(gaps), 1), "over_100_ms": sum(gap > 100 for gap in gaps),
    }  # fmt: skip


def by_turns(review: Any, viewer: Any, size: float, seconds: float) -> tuple[list[float], list[float]]:
    """Wander while the segmentation is paused, and while it goes on; the same layers are there both times."""
    gaps = []
    for wanted in ("paused", "running"):
        if review.state != wanted:
            review.pause()
            wait(lambda state=wanted: review.state == state, 120, f"the segmentation to be {wanted}")
        gaps.append(wander(viewer, size, seconds))
    return gaps[0], gaps[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slide", type=Path, required=True)
    parser.add_argument("--run", type=Path, help="a run to segment with; without it, only opening is measured")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=4, help="turns of pausing and segmenting")
    parser.add_argument("--screens", type=Path, help="folder for pictures")
    args = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="slide-view-"))
    slide = home / args.slide.name
    slide.symlink_to(args.slide.resolve())  # its project lies beside it
    viewer = napari.Viewer()
    viewer.window.resize(1400, 900)
    dock = NucleiDock(viewer)
    viewer.window.add_dock_widget(dock, name="Nuclei", area="right")
    found: dict[str, Any] = {"slide": args.slide.name, "load": round(os.getloadavg()[0], 1)}
    wall, cpu = time.perf_counter(), time.process_time()
    dock.view.open_image(slide)
    wait(lambda: dock.view.layer is not None and dock.view.layer.loaded, 300, "the slide")
    viewer.screenshot(canvas_only=True, flash=False)  # draws what is there
    found["opened_wall_s"] = round(time.perf_counter() - wall, 2)
    found["opened_cpu_s"] = round(time.process_time() - cpu, 2)
    found["shape"] = list(dock.view.slide.shape)
    if args.screens:
        viewer.screenshot(args.screens / "opened.png", canvas_only=False, flash=False)
    if args.run:
        found |= moved(viewer, dock, args)
    found["torch_in_the_window"] = "torch" in sys.modules
    print(json.dumps(found))
    viewer.close()
    dock.supervisor.wait(5)
    QApplication.processEvents()
    shutil.rmtree(home, ignore_errors=True)


def moved(viewer: Any, dock: NucleiDock, args: argparse.Namespace) -> dict[str, Any]:
    """Wander with nothing going on, then while the slide is segmented."""
    wait(lambda: dock.session.engine.description.get("complete"), 1200, "the engine's description")
    wait(lambda: dock.session.engine.job is None, 600, "the proposal")
    dock.slide_panel.start.click()
    wait(lambda: dock.view.started, 60, "the start")
    path = dock.session.project.path
    dock.view.close_project()
    shutil.copytree(args.run, path / "runs" / args.run.name)
    dock.view.open_project(path)
    wait(lambda: dock.view.started and not dock.session.review.why_not, 120, "what is needed to segment")
    size = dock.view.slide.shape[0] * (dock.view.slide.mpp or 1.0)
    viewer.scene.camera.zoom = ZOOM / (dock.view.slide.mpp or 1.0)
    wander(viewer, size, 3)  # the first pictures load and compile things
    found: dict[str, Any] = {"still": figures(wander(viewer, size, args.seconds))}
    review = dock.session.review
    dock.review_panel.segment.click()
    wait(lambda: dock.review_panel.layers.growing is not None, 300, "the growing nuclei")
    before = review.share_done
    pairs = [by_turns(review, viewer, size, args.seconds) for _ in range(args.rounds)]
    for name, gaps in zip(("paused", "segmenting"), zip(*pairs, strict=True), strict=True):
        found[name] = figures(list(chain.from_iterable(gaps)))
    for percent in (95, 99):
        more = [float(np.percentile(busy, percent) - np.percentile(rest, percent)) for rest, busy in pairs]
        found[f"p{percent}_added_ms"] = [round(value, 1) for value in middle_and_spread(more)]
    found["segmented_meanwhile"] = round(review.share_done - before, 5)
    if args.screens:
        wait(lambda: nuclei_in_view(viewer, dock), 1200, "nuclei where one looks")
        viewer.screenshot(args.screens / "growing.png", canvas_only=False, flash=False)
    review.stop()
    wait(lambda: not review.active, 120, "the end of the segmentation")
    return found


if __name__ == "__main__":
    main()
