"""Labels of others come into tiles through the dock's menu: from a file, and from a layer, at its place."""

from __future__ import annotations

import numpy as np
from napari.layers import Labels

from napari_semiseg.blocks import Box
from napari_semiseg.io.nucleus import Nucleus, Place
from napari_semiseg.io.outline_files import GEOJSON, write_outlines
from napari_semiseg.io.outlines import trace

SHAPE = (150, 200)


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


def a_layer(hands, labels, name="Jane's"):
    """Add labels of the whole image as a layer, and select it."""
    layer = hands.viewer.add_layer(Labels(labels, name=name, scale=(0.5, 0.5), units=("um", "um")))
    hands.viewer.layers.selection.active = layer
    return hands.dock.import_menu.layer


def three_nuclei() -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint32)
    for number, (y, x) in enumerate([(10, 10), (30, 20), (70, 120)], start=1):
        labels[y : y + 8, x : x + 8] = number
    return labels


def take_back(hands) -> None:
    menu = hands.dock.import_menu
    hands.dock._prepare_menu()
    assert menu.undo.isEnabled(), menu.undo.toolTip()
    menu.undo.trigger()
    hands.wait(lambda: not menu.model.last.busy, "the undo")


def test_empty_tiles_that_are_there_are_filled_and_undo_empties_them_again(open_dock, tmp_path):
    hands = started(open_dock, tmp_path)
    there = hands.project.add_tile(0, box=Box(5, 5, 55, 55))
    hands.rest(0.1)
    labels = three_nuclei()
    bring_in(hands, a_layer(hands, labels))

    assert "3 nuclei in 2 complete tiles" in hands.dock.session.notice.sentence
    assert "left out" not in hands.dock.session.notice.sentence
    assert {tile.status for tile in hands.project.tiles} == {"complete"}
    np.testing.assert_array_equal(hands.dock.tiles.layer(there.id).data > 0, labels[5:55, 5:55] > 0)
    hands.saved()
    np.testing.assert_array_equal(hands.project.annotation(there.id).instance > 0, labels[5:55, 5:55] > 0)

    take_back(hands)
    hands.saved()
    assert [(tile.id, tile.status) for tile in hands.project.tiles] == [(there.id, "empty")]
    assert not hands.project.annotation(there.id).instance.any()
    assert not hands.dock.tiles.layer(there.id).data.any()


def test_what_is_painted_while_labels_come_stays_and_that_is_said(open_dock, tmp_path):
    hands = started(open_dock, tmp_path)
    there = hands.project.add_tile(0, box=Box(5, 5, 55, 55))
    hands.rest(0.1)
    action = a_layer(hands, three_nuclei())
    hands.dock._prepare_menu()
    action.trigger()
    hands.project.select(there.id)
    hands.dock.tiles.layer(there.id).paint((40, 40), 1)
    painted = hands.dock.tiles.layer(there.id).data.copy()
    hands.wait(lambda: not hands.dock.import_menu.model.busy, "the import")
    hands.saved()

    np.testing.assert_array_equal(hands.dock.tiles.layer(there.id).data, painted)
    np.testing.assert_array_equal(hands.project.annotation(there.id).instance > 0, painted > 0)
    assert f"Something was painted in tile {there.id} meanwhile" in hands.dock.session.notice.sentence


def test_what_lies_in_painted_tiles_is_left_out_and_said(open_dock, tmp_path):
    hands = started(open_dock, tmp_path)
    there = hands.project.add_tile(0, box=Box(5, 5, 55, 55))
    hands.dock.tiles.layer(there.id).paint((40, 40), 1)
    hands.saved()
    bring_in(hands, a_layer(hands, three_nuclei()))

    said = hands.dock.session.notice.sentence
    assert "1 nucleus in 1 complete tile." in said
    assert "2 nuclei lie in tiles that are labeled already and were left out" in said


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


def test_the_classes_that_an_import_added_go_with_it_unless_something_uses_them(open_dock, tmp_path, discs):
    hands = started(open_dock, tmp_path)
    nuclei = [Nucleus(n, found, ("Tumor", "Stroma")[n % 2]) for n, found in trace(discs(4, shape=SHAPE)).items()]
    write_outlines(tmp_path / "x.geojson", GEOJSON, nuclei, Place())
    model = hands.dock.import_menu.model
    model.from_file(tmp_path / "x.geojson")
    hands.wait(lambda: not model.busy, "the import")
    (made,) = [tile.id for tile in hands.project.tiles]
    assert len(hands.project.classes) == 3
    take_back(hands)
    hands.wait(lambda: not model.last.name, "the classes")

    assert [spec.name for spec in hands.project.classes] == ["nucleus"]
    hands.project.restore_tile(made)
    assert hands.project.annotation(made).nuclei == 4
    assert hands.project.annotation(made).largest_class <= 2
    hands.project.remove_tile(made)

    model.from_file(tmp_path / "x.geojson")
    hands.wait(lambda: not model.busy, "the import")
    classes = [spec.name for spec in hands.project.classes]
    used = hands.project.add_tile(0, box=Box(0, 0, 10, 10))
    hands.dock.tiles.choose_pen(3)
    hands.dock.tiles.layer(used.id).paint((5, 5), hands.dock.tiles.layer(used.id).selected_label)
    take_back(hands)
    hands.wait(lambda: not model.last.name, "the classes")
    assert [spec.name for spec in hands.project.classes] == classes[:2]
    assert [tile.id for tile in hands.project.tiles] == [used.id]


def test_an_import_in_whose_tiles_somebody_painted_is_not_taken_back_as_a_whole(open_dock, tmp_path):
    hands = started(open_dock, tmp_path)
    there = hands.project.add_tile(0, box=Box(5, 5, 55, 55))
    hands.rest(0.1)
    bring_in(hands, a_layer(hands, three_nuclei()))
    undo = dict(hands.dock.session.notice.actions)["Undo"]
    before = [tile.id for tile in hands.project.tiles]
    hands.dock.tiles.layer(there.id).paint((45, 45), 9)
    undo()  # before anything of the stroke was saved
    hands.wait(lambda: not hands.dock.import_menu.model.last.busy, "the refusal")

    assert [tile.id for tile in hands.project.tiles] == before
    assert "Something was painted in its tiles since" in hands.dock.session.notice.sentence
    hands.dock._prepare_menu()
    assert not hands.dock.import_menu.undo.isEnabled()


def test_a_project_that_was_closed_has_no_import_to_undo(open_dock, tmp_path):
    hands = started(open_dock, tmp_path)
    bring_in(hands, a_layer(hands, three_nuclei()))
    path = hands.project.path
    hands.dock._close()
    hands.dock.view.open_project(path)
    hands.wait(lambda: hands.project.tiles, "the project")
    hands.dock._prepare_menu()

    assert not hands.dock.import_menu.undo.isEnabled()
    assert hands.dock.import_menu.undo.text() == "Undo the last import"


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
