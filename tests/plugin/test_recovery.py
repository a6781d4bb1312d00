"""A project whose program was killed, opened again: what was found is shown, and nothing is lost, either way."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest
from qtpy.QtCore import Qt

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
    dock.tiles_panel._prepare_tile_menu()
    assert dock.tiles_panel.aside.isVisible()
    dock.tiles_panel.aside.trigger()
    killed.wait(lambda: (dock.tiles.layer("t0002").data == painted).all(), "what was put aside")
    dock.tiles.layer("t0002").undo()
    assert not dock.tiles.layer("t0002").data.any()
