"""Strokes that were painted a moment before something else came into view."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from napari_semiseg.project.autosave import Autosave
from napari_semiseg.project.folder import ProjectFolder


@pytest.fixture
def two_images(open_images):
    """A project of two images with a tile in each; the first is in view, and ready to be painted in."""
    hands = open_images("first", "second")
    show(hands, 1)
    show(hands, 0)
    return hands


def show(hands, image: int) -> None:
    """Show an image, as a click in the layer list does, and wait for its tile."""
    tile_id = hands.project.tiles[image].id
    hands.dock.view.show_image(image)
    hands.wait(lambda: hands.dock.session.image_index == image, "the image")
    hands.wait(lambda: hands.dock.tiles.layer(tile_id) is not None, "its tile")


def on_disk(path, tile_id: str = "t0001") -> np.ndarray:
    return ProjectFolder.open(path, read_only=True).annotation(tile_id).instance


def test_a_stroke_is_saved_when_another_image_is_shown_at_once(two_images):
    two_images.stroke([(50, 50), (50, 60)])
    show(two_images, 1)
    two_images.wait(lambda: on_disk(two_images.project.path).any(), "the stroke on the disk", 10)


def test_a_stroke_is_there_when_its_image_is_shown_again_before_it_is_on_the_disk(two_images, monkeypatch):
    record, go_on = Autosave._record, threading.Event()
    monkeypatch.setattr(Autosave, "_record", lambda *args: go_on.wait(30) and record(*args))
    two_images.stroke([(20, 50), (20, 60)])
    show(two_images, 1)
    show(two_images, 0)
    assert two_images.dock.tiles.layer("t0001").data[20, 55]

    two_images.project.select("t0001")
    two_images.stroke([(60, 50), (60, 60)])
    go_on.set()
    two_images.saved()
    assert on_disk(two_images.project.path)[20, 55]
    assert on_disk(two_images.project.path)[60, 55]


@pytest.mark.parametrize("how", ["another project is opened", "it is closed"])
def test_a_stroke_is_saved_when_the_project_goes_at_once(two_images, tmp_path, how):
    path = two_images.project.path
    ProjectFolder.create(tmp_path / "other.semiseg").close()
    two_images.stroke([(50, 50), (50, 60)])
    if how == "it is closed":
        two_images.project.close()
    else:
        two_images.dock.view.open_project(tmp_path / "other.semiseg")
        two_images.wait(lambda: two_images.project.path != path, "the other project")

    assert on_disk(path).any()


def test_an_image_chosen_while_another_is_opened_in_vain_is_the_one_that_is_worked_on(two_images, tmp_path):
    (tmp_path / "broken.tif").write_bytes(b"no image")
    two_images.dock.view.open_image(tmp_path / "broken.tif")
    two_images.viewer.layers.selection.active = two_images.viewer.layers["second"]
    two_images.wait(lambda: not two_images.dock.view.busy, "the end of opening")

    assert two_images.dock.session.image_index == 1
    two_images.wait(lambda: two_images.dock.tiles.layer("t0002") is not None, "its tile")
    assert two_images.dock.tiles.layer("t0001") is None


def test_that_one_image_has_come_is_not_taken_for_the_end_of_opening_another(two_images, tmp_path):
    view, go_on = two_images.dock.view, threading.Event()
    view.open_image(tmp_path / "first.tif")
    two_images.dock.session.background.submit(lambda: go_on.wait(30))
    view.open_image(tmp_path / "second.tif")
    before = len(two_images.viewer.layers)
    two_images.wait(lambda: len(two_images.viewer.layers) > before or view.busy == "", "the first")
    assert view.busy == "Opening second.tif…"
    go_on.set()
    two_images.wait(lambda: not view.busy, "the second")
