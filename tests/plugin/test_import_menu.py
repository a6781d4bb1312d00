"""Labels of others come into tiles through the dock's menu: from a file, and from a layer, at its place."""

from __future__ import annotations

import numpy as np
from napari.layers import Labels

from napari_semiseg.blocks import Box
from napari_semiseg.io.nucleus import Nucleus, Place
from napari_semiseg.io.outline_files import GEOJSON, write_outlines
from napari_semiseg.io.outlines import trace

SHAPE = (90, 140)


def started(open_dock, tmp_path):
    hands = open_dock(np.full((*SHAPE, 3), 200, np.uint8), scale=(0.5, 0.5), units=("um", "um"))
    hands.dock.view.choose_target(tmp_path / "p.semiseg")
    hands.press(hands.dock.slide_panel.start)
    hands.wait(lambda: hands.dock.view.started, "the start")
    return hands


def bring_in(hands, action) -> None:
    hands.dock._prepare_menu()
    assert action.isEnabled()
    action.trigger()
    hands.wait(lambda: not hands.dock.import_menu.model.busy, "the import")


def test_a_layer_that_lies_on_a_part_of_the_image_is_brought_in_at_its_place(open_dock, tmp_path, discs):
    hands = started(open_dock, tmp_path)
    labels = discs(3, shape=(60, 60))
    layer = hands.viewer.add_layer(
        Labels(labels, name="Jane's", scale=(0.5, 0.5), translate=(10, 20), units=("um", "um"))
    )
    hands.viewer.layers.selection.active = layer
    menu = hands.dock.import_menu
    hands.dock._prepare_menu()
    assert menu.layer.text() == "From the layer “Jane's”"
    bring_in(hands, menu.layer)

    (tile,) = hands.project.tiles
    assert (tile.status, hands.project.counts[tile.id], hands.project.selected) == ("complete", 3, tile.id)
    found = hands.project.annotation(tile.id).instance > 0
    np.testing.assert_array_equal(found[20:80, 40:100], labels > 0)
    assert found.sum() == (labels > 0).sum()
    assert "3 nuclei in 1 complete tile" in hands.dock.session.notice.sentence


def test_corrections_from_qupath_are_brought_in_and_a_second_time_refused(open_dock, tmp_path, discs):
    hands = started(open_dock, tmp_path)
    nuclei = [Nucleus(number, found, "Tumor") for number, found in trace(discs(4)).items()]
    write_outlines(tmp_path / "x.geojson", GEOJSON, nuclei, Place())
    model = hands.dock.import_menu.model
    for _ in range(2):
        model.from_file(tmp_path / "x.geojson")
        hands.wait(lambda: not model.busy, "the import")

    assert [hands.project.counts[tile.id] for tile in hands.project.tiles] == [4]
    assert [spec.name for spec in hands.project.classes] == ["nucleus", "Tumor"]
    assert "no tile was made" in hands.dock.session.notice.sentence


def test_what_was_brought_in_is_made_sparse_or_taken_back_with_a_click(open_dock, tmp_path, discs):
    hands = started(open_dock, tmp_path)
    kept = hands.project.add_tile(0, box=Box(0, 0, 10, 10))
    layer = hands.viewer.add_layer(Labels(discs(3, shape=(60, 60)), scale=(0.5, 0.5), translate=(20, 20)))
    hands.viewer.layers.selection.active = layer
    bring_in(hands, hands.dock.import_menu.layer)
    actions = dict(hands.dock.session.notice.actions)
    made = [tile.id for tile in hands.project.tiles if tile.id != kept.id]
    actions["Mark them sparse"]()
    assert {hands.project.tile(tile_id).status for tile_id in made} == {"sparse"}

    hands.project.select(made[0])
    actions["Undo"]()
    hands.wait(lambda: hands.project.selected == kept.id, "the removal")
    assert [tile.id for tile in hands.project.tiles] == [kept.id]
    assert set(hands.project.counts) == {kept.id}
    hands.project.restore_tile(made[0])
    assert hands.project.annotation(made[0]).nuclei


def test_a_layer_with_other_pixels_is_refused_in_a_sentence(open_dock, tmp_path, discs):
    hands = started(open_dock, tmp_path)
    layer = hands.viewer.add_layer(Labels(discs(3, shape=(60, 60)), name="small"))
    hands.viewer.layers.selection.active = layer
    hands.dock.import_menu.import_layer()

    assert "other pixels than the image" in hands.dock.session.notice.sentence
    assert hands.project.tiles == ()


def test_without_a_project_nothing_is_brought_in(open_dock, tmp_path):
    hands = open_dock(np.full((*SHAPE, 3), 200, np.uint8))
    hands.dock._prepare_menu()

    assert not any(action.isEnabled() for action in hands.dock.import_menu.actions())
    hands.dock.import_menu.model.from_file(tmp_path / "x.geojson")
    assert "step 1" in hands.dock.session.notice.sentence


def test_why_nothing_can_be_brought_in_is_the_first_thing_in_the_menu(open_dock, tmp_path):
    hands = open_dock(np.full((*SHAPE, 3), 200, np.uint8))
    menu = hands.dock.import_menu
    hands.dock._prepare_menu()
    first, *others = menu.actions()
    assert menu.isEnabled()
    assert (first.text(), first.isVisible()) == ("Begin with step 1: there is no project of this image yet.", True)
    assert not any(action.isEnabled() for action in (first, *others))
    hands.dock.leave()

    hands = started(open_dock, tmp_path)
    hands.dock._prepare_menu()
    first, file, *_ = hands.dock.import_menu.actions()
    assert not first.isVisible()
    assert file.isEnabled()
