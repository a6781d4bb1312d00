"""A script that paints in napari for hours, in the dock's own layers, while the real engine trains, until it is killed.

    python soaking_napari.py IMAGE PROJECT

Five strokes a second, each third of them taken back, in a tile that is marked complete: so labels come to the training
all the time, and maps of confidence and points of curves come from it.
"""

import random
import sys
import time
from pathlib import Path

import napari
import tifffile
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication

STROKE_MS = 200
OPTIONS = {"steps": 10_000_000, "crop": 64, "batch_labeled": 2, "batch_unlabeled": 2}


def until(so) -> None:
    end = time.monotonic() + 300
    while not so():
        assert time.monotonic() < end, dock.session.notice
        QApplication.processEvents()
        time.sleep(0.01)


image, project = sys.argv[1:3]
viewer = napari.Viewer(show=True)
viewer.add_image(tifffile.imread(image), name="field")
_, dock = viewer.window.add_plugin_dock_widget("napari-semiseg", "Nuclei")
dock.view.choose_target(Path(project))
dock.view.start()
until(lambda: dock.view.started and dock.session.engine.description.get("complete"))
tile = dock.session.project.add_tile(0, center=(130, 130), side=200)
until(lambda: dock.tiles.layer(tile.id) is not None)
layer = dock.tiles.layer(tile.id)
layer.brush_size = 8
for number in range(1, 9):
    layer.paint((20 * number, 20 * number), number)
until(lambda: dock.session.project.saved_words.startswith("saved"))
dock.session.project.set_status(tile.id, "complete")
training = dock.session.training
for name, value in OPTIONS.items():
    training.setup.set_option(name, value)
until(lambda: dock.session.engine.job is None and not training.setup.why_not)
dock.train_panel.train.click()
strokes = 0


def paint() -> None:
    """Paint a stroke, or take the last one back."""
    global strokes
    strokes += 1
    if strokes % 3:
        layer.paint((random.randrange(200), random.randrange(200)), random.randrange(9))
    else:
        layer.undo()


timer = QTimer()
timer.timeout.connect(paint)
timer.start(STROKE_MS)
until(lambda: dock.train_panel.confidence.shown is not None)
sys.stdout.write("soaking\n")
sys.stdout.flush()
napari.run()
