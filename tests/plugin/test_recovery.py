"""A project whose program was killed, opened again: what was found is shown, and nothing is lost, either way."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
import tifffile
from qtpy.QtCore import Qt

from napari_semiseg.errors import InputError
from napari_semiseg.plugin.layers import of_role
from napari_semiseg.project.folder import ProjectFolder
from napari_semiseg.project.lock import Holder


@pytest.fixture
def killed(open_dock, tissue, tmp_path):
    """A project of two tiles as a killed program leaves it, opened again."""
    hands = open_dock(tissue)
    hands.dock.view.choose_target(tmp_path / "case.semiseg")
    hands.press(hands.dock.slide_panel.start)
    hands.wait(lambda: hands.dock.view.started, "the start")
    for y, x in ((130, 130), (130, 380)):
        hands.project.add_tile(0, center=(y, x))
        hands.stroke([(y, x), (y, x + 5)])
    hands.saved()
    copy = tmp_path / "killed.semiseg"
    shutil.copytree(hands.project.path, copy)
    holder = dataclasses.replace(Holder.here(), process="another boot:1", pid=4321)
    (copy / "project.lock").write_text(json.dumps(dataclasses.asdict(holder)))
    again = open_dock(tissue)
    again.dock.view.open_project(copy)
    again.wait(lambda: len(of_role(again.viewer, "annotation")) == 2, "the tiles")
    return again


def test_the_dialog_shows_tiles_strokes_and_times_and_keeps_everything_unless_told_otherwise(killed):
    dialog = killed.dock.recovery
    assert dialog.isVisible()
    rows = [[dialog.table.item(row, column).text() for column in range(5)] for row in range(2)]
    assert [(row[0], row[1], row[3], row[4]) for row in rows] == [("t0001", "1", "0", "1"), ("t0002", "1", "0", "1")]
    assert "2 strokes in 2 tiles (t0001, t0002) were brought back" in dialog.words.text()
    dialog.table.setCurrentCell(0, 0)
    assert killed.project.selected == "t0001"
    assert dialog.keep.text() == "Keep everything"

    killed.press(dialog.keep)
    killed.saved()
    assert [killed.project.annotation(tile.id).nuclei for tile in killed.project.tiles] == [1, 1]


def test_a_tile_is_put_back_and_what_was_in_it_can_be_brought_back_later(killed):
    dock, dialog = killed.dock, killed.dock.recovery
    painted = dock.tiles.layer("t0002").data.copy()
    dialog.table.item(1, 0).setCheckState(Qt.CheckState.Unchecked)
    assert dialog.keep.text() == "Keep 1, put 1 back"
    killed.press(dialog.keep)
    killed.wait(lambda: not dock.tiles.layer("t0002").data.any(), "the tile as it was before")
    assert dock.tiles.layer("t0001").data.any()
    assert "“Bring back what was put aside”" in dock.session.notice.sentence
    killed.saved()
    with ProjectFolder.open(killed.project.path, read_only=True) as folder:
        assert not folder.annotation("t0002").nuclei

    dock.tiles_panel.go_to("t0002")
    dock.tiles_panel.tile_box.more.menu().aboutToShow.emit()
    assert dock.tiles_panel.tile_box.aside.isVisible()
    dock.tiles_panel.tile_box.aside.trigger()
    killed.wait(lambda: (dock.tiles.layer("t0002").data == painted).all(), "what was put aside")
    dock.tiles.layer("t0002").undo()
    assert not dock.tiles.layer("t0002").data.any()


@pytest.fixture
def killed_with_two_images(open_dock, tissue, tmp_path):
    """A project of two images with a tile each, as a killed program leaves it, opened again with the first image."""
    path = tmp_path / "case.semiseg"
    with ProjectFolder.create(path) as folder:
        for number, name in enumerate(("first", "second")):
            tifffile.imwrite(tmp_path / f"{name}.tif", tissue, photometric="rgb")
            folder.add_image(tmp_path / f"{name}.tif", shape=(512, 512))
            tile = folder.add_tile(number, (0, 0, 100, 100))
            folder.set_status(tile.id, "sparse")
            folder.write_annotation(tile.id, np.eye(100, dtype=np.uint8), np.eye(100, dtype=np.uint8) * 2)
        copy = tmp_path / "killed.semiseg"
        shutil.copytree(path, copy)
    holder = dataclasses.replace(Holder.here(), process="another boot:1", pid=4321)
    (copy / "project.lock").write_text(json.dumps(dataclasses.asdict(holder)))
    hands = open_dock()
    hands.dock.view.open_project(copy)
    hands.wait(lambda: hands.dock.tiles.layer("t0001") is not None, "the tile")
    return hands


def test_a_click_on_a_row_shows_the_image_of_that_tile_too(killed_with_two_images):
    hands, dialog = killed_with_two_images, killed_with_two_images.dock.recovery
    dialog.table.setCurrentCell(1, 0)
    hands.wait(lambda: hands.project.selected == "t0002", "the tile")
    assert hands.dock.session.image_index == 1
    hands.dock.view.show_image(0)
    dialog.table.itemClicked.emit(dialog.table.item(1, 0))  # also where that row is selected
    assert hands.dock.session.image_index == 1
    assert hands.project.selected == "t0002"


def test_a_tile_of_an_image_that_is_not_in_view_is_put_back_and_what_was_in_it_is_kept(killed_with_two_images):
    hands = killed_with_two_images
    dialog = hands.dock.recovery
    for row in range(2):
        dialog.table.item(row, 0).setCheckState(Qt.CheckState.Unchecked)
    told = []
    hands.dock.session.told.connect(lambda notice: told.append(notice.sentence))
    hands.press(dialog.keep)
    hands.wait(lambda: told, "the sentence")
    assert told[0].startswith("As they were before: t0001, t0002.")
    with ProjectFolder.open(hands.project.path, read_only=True) as folder:  # told once it is so
        assert not folder.annotation("t0002").nuclei
        assert folder.kept_aside("t0002").nuclei == 1
    assert hands.project.tile("t0002").status == "empty"
    assert hands.project.counts["t0002"] == 0

    hands.dock.tiles_panel.go_to("t0002")
    hands.wait(lambda: hands.dock.tiles.layer("t0002") is not None, "the tile")
    assert not hands.dock.tiles.layer("t0002").data.any()
    hands.dock.tiles_panel.tile_box.aside.trigger()
    hands.wait(lambda: hands.dock.tiles.layer("t0002").data.any(), "what was put aside")


def test_a_tile_that_comes_into_view_while_it_is_put_back_shows_what_it_was_before(killed_with_two_images):
    hands = killed_with_two_images
    hands.dock.recovery.table.item(1, 0).setCheckState(Qt.CheckState.Unchecked)
    hands.dock.tiles_panel.go_to("t0002")
    hands.press(hands.dock.recovery.keep)
    hands.wait(lambda: hands.dock.tiles.layer("t0002") is not None, "the tile")
    hands.wait(lambda: not hands.dock.tiles.layer("t0002").data.any(), "the tile as it was before")
    hands.rest(0.3)
    hands.saved()
    assert not hands.project.annotation("t0002").nuclei


def test_what_could_not_be_put_back_is_said_and_tried_again(killed_with_two_images, monkeypatch):
    hands = killed_with_two_images
    folder = hands.project.folder

    def full(*_: object) -> None:
        raise InputError("The disk is full.")

    monkeypatch.setattr(folder, "write_annotation", full)
    hands.dock.recovery.table.item(1, 0).setCheckState(Qt.CheckState.Unchecked)
    hands.press(hands.dock.recovery.keep)
    hands.wait(lambda: "full" in hands.dock.session.notice.sentence, "the sentence")
    assert "As they were" not in hands.dock.session.notice.sentence
    monkeypatch.undo()
    [(words, again)] = hands.dock.session.notice.actions
    assert words == "Try again"
    again()
    hands.wait(lambda: "As they were before: t0002" in hands.dock.session.notice.sentence, "the tile as it was")
    assert not folder.annotation("t0002").nuclei


def test_a_dialog_that_outlives_its_project_changes_no_other_one(killed_with_two_images):
    hands, dialog = killed_with_two_images, killed_with_two_images.dock.recovery
    dialog.table.item(0, 0).setCheckState(Qt.CheckState.Unchecked)
    other = hands.project.path.with_name("case.semiseg")
    hands.dock.view.open_project(other)
    hands.wait(lambda: hands.dock.tiles.layer("t0001") is not None, "the tile")
    hands.press(dialog.keep)
    hands.rest(0.3)
    assert hands.dock.tiles.layer("t0001").data.any()
