"""How long a slider of the review takes: from its movement to the nuclei of what is in view, drawn as it says.

A real napari window with the dock and its engine, on a synthetic field with a result. Each slider is moved by hand of
the program, with pauses in which the whole result follows; each movement is timed until the canvas has been drawn with
the nuclei that it makes.

    .ci/with-display python benchmarks/sliders.py --out benchmarks/results/sliders.md
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import napari
import numpy as np
from qtpy.QtWidgets import QApplication, QWidget
from scipy import ndimage
from ui_latency import wait

from napari_semiseg.blocks import Box
from napari_semiseg.io.result_writer import ResultWriter
from napari_semiseg.plugin.widgets.dock import NucleiDock
from napari_semiseg.project.folder import ProjectFolder
from napari_semiseg.synthetic import synthetic_field

GOAL_MS = 200
"""For 1000 x 1000 pixels in view."""
MOVES = {
    "threshold": (0.4, 0.6, 0.45, 0.55, 0.35, 0.65, 0.48, 0.52, 0.42, 0.5),
    "strength": (0.2, 0.8, 0.3, 0.7, 0.1, 0.9, 0.4, 0.6, 0.25, 0.5),
    "min_area": (6, 1, 12, 2.5, 19, 0.5, 9.5, 4, 5.5, 3),
}


def prepare(target: Path, side: int) -> None:
    """Make a project whose image has a result: the truth, blurred, in the place of a network's confidence."""
    field = synthetic_field(side, seed=3)
    confidence = np.rint(255 * ndimage.gaussian_filter((field.instances > 0).astype(np.float32), 2)).astype(np.uint8)
    with ProjectFolder.create(target) as folder:
        folder.add_array(field.image, "field", 0.25)
        path = folder.prediction_path(0)
        path.parent.mkdir(parents=True, exist_ok=True)
        split = {"threshold": 0.5, "strength": 0.5, "min_area": 50}
        facts = {"nuclei": int(field.instances.max()), "split": split}
        with ResultWriter.create(path, field.instances.shape, ["nucleus"], mpp=0.25, facts=facts) as writer:
            whole = Box.whole(field.instances.shape)
            writer.write_confidence(whole, confidence[None])
            writer.write_nuclei(whole, field.instances)
            writer.finish()


def moves(dock: NucleiDock, canvas: QWidget) -> dict[str, list[float]]:
    """Move each slider, and return the milliseconds of each movement."""
    review, panel = dock.session.review, dock.review_panel
    times: dict[str, list[float]] = {}
    for name, values in MOVES.items():
        for value in values:
            wait(lambda: not review.pending and review.live is None, 120, "the splitting of the whole")
            wait(lambda: dock.session.engine.job is None, 60, "the end of the job")
            rest(0.3)
            layer = dock.review_panel.layers.nuclei
            before = layer.data.copy()
            begun = time.perf_counter()
            getattr(panel.sliders, name).setValue(value)
            while np.array_equal(layer.data, before) and time.perf_counter() - begun < 10:
                QApplication.processEvents()
                time.sleep(0.001)  # the engine and the threads of the viewer have work to do meanwhile
            canvas.repaint()  # at once: what is in view is drawn when it returns
            times.setdefault(name, []).append((time.perf_counter() - begun) * 1000)
    return times


def rest(seconds: float) -> None:
    """Let Qt work for a while."""
    end = time.monotonic() + seconds
    wait(lambda: time.monotonic() > end, seconds + 5, "nothing")


def main() -> None:
    """Measure, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--side", type=int, default=1000, help="of the image, all of which is in view")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        project = Path(home) / "field.semiseg"
        prepare(project, options.side)
        viewer = napari.Viewer()
        viewer.window.resize(1400, 900)
        dock = NucleiDock(viewer)
        viewer.window.add_dock_widget(dock, name="Nuclei", area="right")
        dock.view.open_project(project)
        wait(lambda: dock.review_panel.layers.nuclei is not None, 120, "the result")
        wait(lambda: dock.session.engine.description.get("complete"), 300, "the engine's description")
        viewer.reset_view()
        dock.steps[3].set_open(True)
        rest(2)
        canvas = next(w for w in dock.window().findChildren(QWidget) if type(w).__name__ == "CanvasBackendDesktop")
        times = moves(dock, canvas)
        viewer.close()
        rest(3)
    options.out.write_text(page(times, options.side), encoding="utf-8")
    print(options.out.read_text(encoding="utf-8"))


def page(times: dict[str, list[float]], side: int) -> str:
    """Say it."""
    names = {"threshold": "Threshold", "strength": "Split", "min_area": "Smallest"}
    rows = [
        f"| {names[name]} | {np.median(found):.0f} ms | {max(found):.0f} ms | {len(found)} |"
        for name, found in times.items()
    ]
    every = np.concatenate(list(times.values()))
    met = round(100 * float(np.mean(every <= GOAL_MS)))
    machine = f"{os.cpu_count()} hardware threads, software OpenGL, load of the machine {os.getloadavg()[0]:.1f}"
    lines = [
        "# Sliders of the review",
        "",
        "`.ci/with-display python benchmarks/sliders.py --out benchmarks/results/sliders.md`",
        "",
        f"From the movement of a slider to the canvas drawn with the new nuclei, {side} x {side} pixels in view;",
        f"napari {napari.__version__}, {machine}.",
        "",
        "| slider | median | longest | movements |",
        "|---|---:|---:|---:|",
        *rows,
        "",
        f"Goal: at most {GOAL_MS} ms; met by {met} % of the movements.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
