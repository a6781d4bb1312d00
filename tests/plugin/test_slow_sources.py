"""A disk that takes seconds for a part of an image, and has a part that cannot be read: the window goes on."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from qtpy.QtCore import Qt, QTimer

from napari_semiseg.blocks import Box
from napari_semiseg.engine.requests import TrainRequest
from napari_semiseg.engine.train import train
from napari_semiseg.io.images import open_image
from napari_semiseg.project.folder import ProjectFolder

SLOW_ENGINE = Path(__file__).with_name("slow_engine.py")
SLOW_S = 5.0 if "NAPARI_SEMISEG_SOAK" in os.environ else 3.0
STALL_S = 0.8 * SLOW_S
"""A gap of the event loop from which it waits for the disk, and is not only slow: napari takes half a second and more
to add a layer, or to remove one, on a machine that is busy."""

pytestmark = [pytest.mark.fault, pytest.mark.timeout(400)]


class Pulse:
    """The longest time in which Qt did nothing, in seconds."""

    def __init__(self) -> None:
        self.longest, self._last = 0.0, time.perf_counter()
        self.timer = QTimer()
        self.timer.setTimerType(Qt.TimerType.PreciseTimer)
        self.timer.timeout.connect(self._tick)
        self.timer.start(5)

    def _tick(self) -> None:
        now = time.perf_counter()
        self.longest, self._last = max(self.longest, now - self._last), now


@pytest.fixture
def field(tmp_path):
    """An image of five blocks, with a small level beside the large one."""
    pixels = np.random.default_rng(0).integers(120, 230, (300, 4400, 3), np.uint8)
    pixels[20:280:40, 20:4380:40] = (70, 40, 120)
    with tifffile.TiffWriter(tmp_path / "field.ome.tif") as file:
        options = {"photometric": "rgb", "tile": (256, 256)}
        file.write(pixels, subifds=1, **options)
        file.write(pixels[::2, ::2], subfiletype=1, **options)
    return tmp_path / "field.ome.tif"


@pytest.fixture
def project(tmp_path, field):
    """A project with that image, two tiles, and a run."""
    with ProjectFolder.create(tmp_path / "case") as folder:
        folder.add_image(open_image(field))
        run = folder.new_run_dir()
        for x0 in (1200, 2400):
            folder.add_tile(0, Box(20, x0, 120, x0 + 100))
    list(train(TrainRequest(images=[str(field)], out=str(run), method="hematoxylin_threshold", steps=1)))
    return tmp_path / "case.semiseg"


def paint_until(hands, so, what):
    """Paint strokes until something is so; return how many there were."""
    end, strokes = time.monotonic() + 150, 0
    layer = hands.dock.tiles.layer(hands.project.selected)
    while not so():
        assert time.monotonic() < end, f"{what}; {hands.state}"
        strokes += 1
        layer.paint((strokes % 90, 7 * strokes % 90), layer.selected_label)
        hands.rest(0.05)
    return strokes


@pytest.mark.flaky(reruns=2)
def test_the_window_answers_while_a_slow_disk_is_read_and_the_rest_of_an_image_completes(
    open_window, project, tmp_path, monkeypatch
):
    monkeypatch.setenv("SLOW_S", str(SLOW_S))
    monkeypatch.setenv("MENDED", str(tmp_path / "mended"))
    hands = open_window(engine=SLOW_ENGINE)
    hands.dock.view.open_project(project)
    hands.wait(lambda: hands.dock.view.started, "the project")
    review = hands.dock.session.review
    hands.wait(lambda: not review.why_not and hands.dock.session.engine.status == "ready", "what is needed to segment")
    hands.project.select("t0002")
    hands.wait(lambda: hands.dock.tiles.layer("t0002") is not None, "the tile")
    pulse = Pulse()
    hands.dock.review_panel.segment.click()
    strokes = paint_until(hands, lambda: not review.active, "the end of the segmentation")

    assert pulse.longest < STALL_S
    assert strokes > 10
    hands.wait(lambda: review.result is not None and review.nuclei > 0, "the result without the part")
    before = review.nuclei
    assert "The disk is gone" in hands.dock.session.notice.sentence
    assert "blocks of 'field' could not be read: nuclei are missing there" in hands.dock.session.notice.sentence
    assert "with gaps" in hands.dock.review_panel.count.text()
    assert "could not be read" in hands.dock.review_panel.count.toolTip()

    (tmp_path / "mended").touch()
    hands.dock.review_panel.segment.click()
    hands.wait(lambda: not review.active and not review.gaps, "the whole result", 150)
    assert review.nuclei > before
    assert "gaps" not in hands.dock.review_panel.count.text()
    assert "could not be read" not in hands.dock.review_panel.count.toolTip()
    hands.saved()


def test_a_slow_disk_holds_up_pictures_and_no_tile(open_dock, project, monkeypatch):
    from napari_semiseg.plugin.widgets import tile_pictures

    answers = threading.Event()

    def slowly(layer, box):
        answers.wait(100)
        raise OSError("The disk is gone.")

    def layers_are_there(count):
        return len(hands.project.tiles) == count and all(hands.dock.tiles.layer(t.id) for t in hands.project.tiles)

    monkeypatch.setattr(tile_pictures, "pixels", slowly)
    hands = open_dock()
    try:
        hands.dock.view.open_project(project)
        hands.wait(lambda: hands.dock.view.started and layers_are_there(2), "the project and its tiles")
        hands.wait(lambda: hands.dock.session.pictures.pending, "a picture that waits for the disk")
        tile = hands.project.add_tile(0, center=(200, 3700), side=100)
        hands.dock.tiles.layer(tile.id).paint((50, 50), 1)
        hands.saved()
        hands.dock.view.close_project()
        hands.dock.view.open_project(project)
        hands.wait(lambda: layers_are_there(3), "the tiles once more")
        assert hands.dock.tiles.layer(tile.id).data[50, 50] == 1
        assert hands.dock.session.pictures.pending
    finally:
        answers.set()
    hands.wait(lambda: hands.dock.session.notice is not None, "the message")
    assert hands.dock.session.notice.sentence.startswith("The thumbnail of tile t000")
    assert "The disk is gone" in hands.dock.session.notice.sentence
