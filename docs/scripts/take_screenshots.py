"""Take the pictures of the guides: the dock on a real image, step by step, as a user would see it.

Usage: .ci/with-display python docs/scripts/take_screenshots.py OUT [--theme dark|light] [--project DIR] [--steps N]

The network that is shown is trained for the picture, by the dock, from the annotated tiles of the sample: some minutes.
With `--project` the project is kept there, and a second call only takes the pictures that come after training again.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import napari
import numpy as np
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QWidget

from napari_semiseg.app.painting import PROPOSED_FROM
from napari_semiseg.plugin.widgets.dock import NucleiDock
from napari_semiseg.samples import immunohistochemistry, immunohistochemistry_tiles

SIZE = (1400, 900)
STEPS = 250
SLOW = 600
"""Seconds that anything but a training may take on a busy machine."""
TRAINING_AT = 0.72
"""Share of the run after which the picture of the training is taken."""
HALF_PAINTED = 13
"""Nuclei painted in the last tile when its picture is taken."""
FORMATS = ("ome-zarr", "ome-tiff", "geojson", "csv", "imagej-roi", "png", "report")


def wait(seconds: float, until: Callable[[], object] = lambda: False) -> None:
    """Let Qt work until something is so, or some seconds have passed."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not until():
        QApplication.processEvents()
        time.sleep(0.01)


def need(seconds: float, until: Callable[[], object], what: str) -> None:
    """Let Qt work until something is so; complain if it does not become so."""
    wait(seconds, until)
    if not until():
        raise SystemExit(f"{what} did not happen within {seconds:g} s")


class Photographer:
    """Uses the dock, and takes pictures of its window."""

    def __init__(self, out: Path, theme: str) -> None:
        self.out = out
        self.viewer = napari.Viewer()
        self.viewer.theme = theme
        self.dock: NucleiDock = self.viewer.window.add_plugin_dock_widget("napari-semiseg", "Nuclei")[1]
        self.dock.window().resize(*SIZE)
        wait(0.5)

    def shoot(self, name: str) -> None:
        """Take a picture once everything has come to rest."""
        wait(1.2)
        self.viewer.window.screenshot(str(self.out / f"{name}.png"), canvas_only=False, flash=False)

    def unfold(self, *titles: str) -> None:
        """Unfold some steps of the dock and fold the others."""
        for step, title in zip(self.dock.steps, ("Slide", "Tiles", "Train", "Review", "Export"), strict=True):
            step.set_open(title in titles)

    def look_at(self, y: float, x: float, pixels: float) -> None:
        """Show so many pixels of the image from top to bottom, around a point."""
        camera = self.viewer.scene.camera
        camera.center = (0.0, *self.dock.view.placement.to_world(y, x))
        camera.zoom = self.viewer.canvas.size[0] / pixels / float(np.mean(self.dock.view.placement.scale))

    @property
    def canvas(self) -> QWidget:
        """The canvas of napari."""
        return next(w for w in self.dock.window().findChildren(QWidget) if type(w).__name__ == "CanvasBackendDesktop")

    def point(self, y: float, x: float) -> QPoint:
        """Return where a pixel of the image lies on the canvas."""
        camera = self.viewer.scene.camera
        offset = (np.array(self.dock.view.placement.to_world(y, x)) - np.array(camera.center)[-2:]) * camera.zoom
        return QPoint(round(self.canvas.width() / 2 + offset[1]), round(self.canvas.height() / 2 + offset[0]))

    def roles(self, *roles: str) -> list[Any]:
        """List our layers of some roles."""
        return [layer for layer in self.viewer.layers if layer.metadata.get("napari_semiseg", {}).get("role") in roles]


def paint(dock: NucleiDock, tile_id: str, labels: np.ndarray, most: int = 10_000) -> None:
    """Paint what was annotated by hand, nucleus by nucleus, as a person's strokes would."""
    layer = dock.tiles.layer(tile_id)
    for number in np.unique(labels[labels > 0])[:most]:
        dock.tiles.next_nucleus()
        layer.data_setitem(np.nonzero(labels == number), layer.selected_label)


def show_slide_and_tiles(eye: Photographer, project: Path) -> None:
    """Steps 1 and 2: the proposal, and tiles that are being painted."""
    dock, viewer = eye.dock, eye.viewer
    viewer.add_image(immunohistochemistry(), name="immunohistochemistry")
    dock.view.choose_target(project)
    need(SLOW, lambda: eye.roles("proposal"), "the proposal")
    eye.look_at(256, 256, 500)
    eye.unfold("Slide", "Tiles")
    eye.shoot("1-slide")
    dock.slide_panel.start.click()
    need(SLOW, lambda: dock.view.started, "the start")
    need(SLOW, lambda: dock.session.training.setup.methods, "what the engine can do")
    tiles = list(immunohistochemistry_tiles("label"))
    for tile in tiles:
        added = dock.session.project.add_tile(0, box=tile.box)
        paint(dock, added.id, tile.instances, HALF_PAINTED if tile is tiles[-1] else 10_000)
        if tile is not tiles[-1]:
            dock.session.project.set_status(added.id, "complete")
        wait(2)
    eye.unfold("Tiles", "Train")
    eye.look_at(400, 300, 220)
    eye.shoot("2-tiles")
    show_correcting(eye)
    layer = dock.tiles.layer(added.id)
    layer.data_setitem(np.nonzero(layer.data), 0)
    paint(dock, added.id, tiles[-1].instances)
    dock.session.project.set_status(added.id, "complete")
    wait(2)
    dock.tiles_panel.suggest.click()
    need(SLOW, lambda: dock.suggestions.current is not None, "the suggestion")
    eye.look_at(256, 256, 500)
    eye.shoot("2-suggested")
    dock.suggestions.drop()


def show_correcting(eye: Photographer) -> None:
    """Proposed nuclei in a tile, while a line is drawn across the largest of them."""
    dock = eye.dock
    tile = dock.session.project.tile(dock.session.project.selected)
    dock.tiles_panel.tile_box.from_proposal.click()
    need(SLOW, lambda: dock.tiles.correcting, "the proposed nuclei")
    labels = dock.tiles.layer(tile.id).data
    numbers, areas = np.unique(labels[labels >= PROPOSED_FROM], return_counts=True)
    rows, columns = np.nonzero(labels == numbers[np.argmax(areas)])
    x = columns.mean() + tile.box.x0
    # From inside the tile, since a drag from elsewhere moves the view.
    first = max(rows.min() + tile.box.y0 - 6, tile.box.y0 + 2)
    last = min(rows.max() + tile.box.y0 + 6, tile.box.y1 - 2)
    eye.unfold("Tiles")
    eye.look_at((first + last) / 2, x, 120)
    wait(1.5)
    QTest.mousePress(eye.canvas, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, eye.point(first, x))
    for y in np.linspace(first, last, 10):
        QTest.mouseMove(eye.canvas, eye.point(y, x))
        wait(0.03)
    eye.shoot("2-correct")
    QTest.mouseRelease(eye.canvas, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, eye.point(last, x))
    dock.tiles.correct(False)
    wait(0.5)


def show_training(eye: Photographer, steps: int) -> None:
    """Step 3: curves, confidence and time left."""
    dock, training = eye.dock, eye.dock.session.training
    training.setup.set_option("steps", steps)
    eye.unfold("Train")
    eye.look_at(256, 256, 500)
    need(SLOW, lambda: dock.train_panel.train.isEnabled(), "Train")
    dock.train_panel.train.click()
    need(3600, lambda: training.share_done >= TRAINING_AT or not training.active, "the middle of the training")
    need(SLOW, lambda: eye.roles("confidence"), "the map")
    eye.shoot("3-training")
    need(3600, lambda: not training.active, "the end of the training")


def show_inside(eye: Photographer) -> None:
    """Step 3, unfolded: what the method counts, and a look inside it."""
    dock, inspection = eye.dock, eye.dock.session.inspection
    inside = dock.train_panel.inside
    eye.unfold("Train")
    eye.look_at(256, 256, 500)
    inside.unfold.setChecked(True)
    need(SLOW, lambda: inside.show_button.isEnabled(), "what is needed to look inside")
    inside.choice.setCurrentIndex(inside.choice.findData("agreement"))
    inside.show_button.click()
    need(SLOW, lambda: inspection.look is not None, "the look")
    for layer in eye.roles("confidence", "proposal", "nuclei", "annotation"):
        layer.visible = False
    eye.shoot("3-inside")
    inspection.clear()
    inside.unfold.setChecked(False)
    for layer in eye.roles("confidence", "annotation"):
        layer.visible = True


def show_result(eye: Photographer) -> None:
    """Steps 4 and 5: nuclei over the tissue, and what is written of them."""
    dock, review, exporting = eye.dock, eye.dock.session.review, eye.dock.session.exporting
    need(SLOW, lambda: not review.why_not, "what is needed to segment")
    eye.unfold("Review")
    if review.result is None:
        dock.review_panel.segment.click()
        need(SLOW, lambda: review.result is not None and not review.active, "the result")
    need(SLOW, lambda: eye.roles("nuclei"), "the nuclei")
    eye.look_at(150, 150, 300)
    eye.shoot("4-review")
    for name, tick in dock.export_panel.boxes.items():
        tick.setChecked(name in FORMATS)
    dock.export_panel.replace.setChecked(True)
    eye.unfold("Export")
    dock.export_panel.export.click()
    need(SLOW, lambda: len(exporting.outcomes) == len(FORMATS) and not exporting.active, "the export")
    eye.look_at(256, 256, 500)
    eye.shoot("5-export")


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--theme", default="dark", choices=["dark", "light"])
    parser.add_argument("--project", type=Path, help="keep the project in this folder")
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp())
    project = (options.project or home) / "colon-01.semiseg"
    project.parent.mkdir(parents=True, exist_ok=True)
    eye = Photographer(options.out, options.theme)
    if project.is_dir():
        eye.dock.view.open_project(project)
        need(SLOW, lambda: eye.dock.view.started and len(eye.roles("annotation")) > 1, "the project")
        wait(3)
    else:
        show_slide_and_tiles(eye, project)
        show_training(eye, options.steps)
    show_inside(eye)
    show_result(eye)
    eye.viewer.close()
    wait(3)
    shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
