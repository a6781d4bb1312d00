"""A script without a main guard that paints in napari, in the dock's own layers, until it is killed.

    python painting_napari.py IMAGE PROJECT NOTES REQUEST_JSON

Opens or starts the project, paints a stroke through the layer's public API every 40 ms, and appends each with its time
to NOTES: what the user saw on the screen. With a request, the real engine trains meanwhile.
"""

import json
import os
import struct
import sys
import time
from pathlib import Path

import napari
import tifffile
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication

from napari_semiseg.events import Failed, StepDone

image, project, notes, request = sys.argv[1:5]
out = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def note(number: int) -> None:
    os.write(out, struct.pack("<Id", number, time.monotonic()))


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def until(so) -> None:
    end = time.monotonic() + 60
    while not so():
        assert time.monotonic() < end, dock.session.notice
        QApplication.processEvents()
        time.sleep(0.01)


say("script")
viewer = napari.Viewer(show=True)
if not Path(project).exists():
    viewer.add_image(tifffile.imread(image), name="field")
_, dock = viewer.window.add_plugin_dock_widget("napari-semiseg", "Nuclei")
model = dock.session.project
if Path(project).exists():
    dock.view.open_project(Path(project))
    until(lambda: dock.view.started)
else:
    dock.view.choose_target(Path(project))
    dock.view.start()
    until(lambda: dock.view.started)
    model.add_tile(0, center=(60, 60))
until(lambda: model.tiles and dock.tiles.layer(model.tiles[0].id) is not None)
layer = dock.tiles.layer(model.tiles[0].id)
layer.brush_size = 3
number = int(layer.data.max())


def paint() -> None:
    """Paint the next nucleus, where its number says: each has a place of its own, since none is painted over."""
    global number
    number += 1
    columns = (min(layer.data.shape) - 8) // 4
    assert number < columns**2, "the tile is full"
    layer.paint((4 + 4 * (number // columns), 4 + 4 * (number % columns)), number)
    note(number)


engine = dock.session.engine
engine.received.connect(lambda job, event: isinstance(event, StepDone | Failed) and say(type(event).__name__))
if json.loads(request):
    until(lambda: engine.status == "ready")
    engine.run("train", json.loads(request))
timer = QTimer()
timer.timeout.connect(paint)
timer.start(40)
say(f"painting {len(QApplication.topLevelWidgets())}")
napari.run()
