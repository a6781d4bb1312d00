"""Starting on an image, adding tiles and painting in them, with a real project."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from napari.layers import Labels
from qtpy.QtCore import Qt

from napari_semiseg.app.painting import BACKGROUND_ID, PROPOSED_FROM, is_proposed
from napari_semiseg.errors import InputError
from napari_semiseg.plugin.layers import KEY, of_role, role
from napari_semiseg.project.folder import ProjectFolder
from napari_semiseg.project.schema import ClassSpec, with_class
from napari_semiseg.project.tile_annotation import BACKGROUND, PROPOSED, Tally


@pytest.fixture
def started(open_dock, tissue, tmp_path):
    hands = open_dock(tissue)
    hands.dock.view.choose_target(tmp_path / "case.semiseg")
    hands.press(hands.dock.slide_panel.start)
    hands.wait(lambda: hands.dock.view.started, "the start")
    return hands


def add_tile(hands, y: float, x: float) -> str:
    hands.press(hands.dock.tiles_panel.add)
    hands.click(y, x)
    hands.wait(lambda: hands.project.selected, "a tile")
    return hands.project.selected


def on_disk(hands, tile_id: str):
    return ProjectFolder.open(hands.project.path, read_only=True).annotation(tile_id)


def test_a_click_makes_a_tile_around_it_that_lies_inside_the_image(started):
    tile = started.project.tile(add_tile(started, 30, 300))

    assert tile.box == (0, 175, 250, 425)
    layer = started.dock.tiles.layer(tile.id)
    assert layer.data.shape == (250, 250)
    np.testing.assert_allclose(layer.data_to_world((0, 0)), (0, 175))
    assert started.viewer.layers.selection.active == layer
    assert layer.mode == "paint"


def test_what_is_painted_is_on_the_disk_within_two_seconds(started):
    tile_id = add_tile(started, 200, 200)
    started.stroke([(120, 120), (125, 125)])
    started.rest(2.0)

    np.testing.assert_array_equal(on_disk(started, tile_id).instance, started.dock.tiles.layer(tile_id).data)


def test_every_stroke_on_free_ground_is_a_new_nucleus(started):
    tile_id = add_tile(started, 200, 200)
    started.stroke([(120, 120), (125, 125)])
    started.stroke([(200, 200), (200, 210)])
    started.stroke([(200, 205), (210, 205)])  # begins on the second one and goes on with it

    layer = started.dock.tiles.layer(tile_id)
    assert set(np.unique(layer.data)) == {0, 1, 2}
    started.saved()
    np.testing.assert_array_equal(on_disk(started, tile_id).instance, layer.data)
    assert started.project.tile(tile_id).status == "sparse"
    assert started.project.counts[tile_id] == 2


def test_each_polygon_of_napari_is_a_nucleus_of_its_own_also_with_a_corner_on_another(started):
    layer = started.dock.tiles.layer(add_tile(started, 200, 200))
    started.stroke([(120, 120), (125, 125)])
    layer.mode = "polygon"
    for corners in ([(150, 150), (150, 180), (180, 180)], [(170, 179), (170, 220), (220, 220)]):
        numbers = []
        for corner in corners:
            started.click(*corner)
            numbers.append(layer.selected_label)
        assert len(set(numbers)) == 1  # a corner on a neighbor does not make it that neighbor
        layer.paint_polygon([np.subtract(corner, 75) for corner in corners], layer.selected_label)

    assert set(np.unique(layer.data)) == {0, 1, 2, 3}
    assert layer.data[(170 - 75, 175 - 75)] == 2  # nothing was painted over
    layer.undo()
    assert set(np.unique(layer.data)) == {0, 1, 2}


def test_the_fill_tool_joins_no_nuclei_gives_a_class_and_fills_free_ground_as_a_new_nucleus(started):
    started.project.set_classes([*started.project.classes, ClassSpec(name="lymphocyte", color="#e69f00")])
    tile_id = add_tile(started, 200, 200)
    layer = started.dock.tiles.layer(tile_id)
    started.stroke([(120, 120), (125, 125)])
    started.stroke([(200, 200), (200, 210)])
    before = layer.data.copy()
    started.dock.tiles.choose_pen(BACKGROUND + 2)
    layer.mode = "fill"
    started.click(120, 120)

    np.testing.assert_array_equal(layer.data > 0, before > 0)
    started.saved()
    classes = on_disk(started, tile_id).classes
    assert (set(classes[before == 1]), set(classes[before == 2])) == ({BACKGROUND + 2}, {BACKGROUND + 1})
    started.click(90, 90)
    assert len(np.unique(layer.data)) == 3
    assert (layer.data > 0).all()
    layer.undo()
    layer.undo()
    np.testing.assert_array_equal(layer.data, before)
    started.saved()
    assert set(on_disk(started, tile_id).classes[before > 0]) == {BACKGROUND + 1}


def test_undo_takes_a_stroke_back_on_the_disk_too(started):
    tile_id = add_tile(started, 200, 200)
    started.stroke([(120, 120), (125, 125)])
    layer = started.dock.tiles.layer(tile_id)
    started.saved()
    layer.undo()
    started.saved()

    assert not on_disk(started, tile_id).instance.any()
    assert started.project.tile(tile_id).status == "empty"


def test_background_paint_is_a_class_and_no_nucleus(started):
    tile_id = add_tile(started, 200, 200)
    started.dock.tiles.choose_pen(BACKGROUND)
    started.stroke([(120, 120), (140, 140)])
    started.saved()

    found = on_disk(started, tile_id)
    assert not found.instance.any()
    assert set(np.unique(found.classes)) == {0, BACKGROUND}
    assert (started.dock.tiles.layer(tile_id).data == BACKGROUND_ID).any()
    assert started.project.counts[tile_id] == 0


def test_classes_are_kept_per_nucleus_and_a_picked_one_can_be_given_another(started):
    project = started.project
    from napari_semiseg.project.schema import ClassSpec

    project.set_classes([*project.classes, ClassSpec(name="lymphocyte", color="#56b4e9")])
    tile_id = add_tile(started, 200, 200)
    started.stroke([(120, 120), (125, 125)])
    started.dock.tiles.choose_pen(BACKGROUND + 2)
    started.stroke([(220, 220), (225, 225)])
    started.saved()
    classes = on_disk(started, tile_id).classes
    assert set(np.unique(classes)) == {0, 2, 3}

    layer = started.dock.tiles.layer(tile_id)
    layer.mode = "pick"
    started.click(122, 122)
    assert layer.selected_label == 1
    started.dock.tiles.choose_pen(BACKGROUND + 2)
    started.saved()
    assert set(np.unique(on_disk(started, tile_id).classes)) == {0, 3}
    layer.undo()
    started.saved()
    assert set(np.unique(on_disk(started, tile_id).classes)) == {0, 2, 3}


def test_after_background_the_class_that_was_painted_before_is_painted_again(started):
    started.project.set_classes(with_class(started.project.classes, "tumor"))
    tile_id = add_tile(started, 200, 200)
    tiles = started.dock.tiles
    tiles.choose_pen(BACKGROUND + 2)
    tiles.swap_background()
    started.stroke([(220, 220), (225, 225)])
    tiles.swap_background()
    started.stroke([(120, 120), (125, 125)])
    started.saved()

    assert set(np.unique(on_disk(started, tile_id).classes)) == {0, BACKGROUND, BACKGROUND + 2}


def test_undoing_an_exchange_gives_every_nucleus_the_class_that_it_had(started):
    started.project.set_classes(with_class(started.project.classes, "tumor"))
    tile_id = add_tile(started, 200, 200)
    started.stroke([(120, 120), (125, 125)])
    started.stroke([(180, 180), (185, 185)])
    started.saved()
    before = on_disk(started, tile_id)
    changed = before.copy()
    changed.classes[before.instance == 1] = BACKGROUND + 2
    changed.classes[before.instance == 2] = PROPOSED
    started.dock.tiles.painted(tile_id).exchange(changed)
    started.saved()
    assert on_disk(started, tile_id).tally == Tally(drawn=1, proposed=1)
    np.testing.assert_array_equal(on_disk(started, tile_id).classes, changed.classes)

    started.dock.tiles.layer(tile_id).undo()
    started.saved()
    np.testing.assert_array_equal(on_disk(started, tile_id).classes, before.classes)


def test_the_brush_spares_neighbors_and_the_eraser_does_not(started):
    layer = started.dock.tiles.layer(add_tile(started, 200, 200))
    started.stroke([(150, 150), (150, 170)])
    started.stroke([(158, 160), (150, 160)])  # across the first nucleus
    assert layer.data[150 - 75, 160 - 75] == 1

    layer.mode = "erase"
    started.stroke([(150, 150), (150, 170)])
    assert layer.data[150 - 75, 160 - 75] == 0


def test_a_deleted_annotation_layer_comes_back_with_what_was_painted(started):
    tile_id = add_tile(started, 200, 200)
    started.stroke([(120, 120), (125, 125)])
    layer = started.dock.tiles.layer(tile_id)
    started.viewer.layers.remove(layer)
    started.wait(lambda: layer in started.viewer.layers, "the layer's return")

    assert (started.dock.tiles.layer(tile_id).data == 1).any()
    assert "not lost" in started.dock.session.notice.sentence
    layer.undo()
    assert not layer.data.any()


def test_data_that_cannot_be_an_annotation_are_replaced_by_what_was_painted(started):
    tile_id = add_tile(started, 200, 200)
    started.stroke([(120, 120), (125, 125)])
    layer = started.dock.tiles.layer(tile_id)
    started.saved()
    before = layer.data.copy()
    layer.data = np.zeros((10, 10), np.uint8)
    started.saved()

    np.testing.assert_array_equal(layer.data, before)
    assert started.dock.session.notice.level == "warning"
    np.testing.assert_array_equal(on_disk(started, tile_id).instance, before)


def test_a_tile_can_be_completed_removed_and_brought_back(started):
    tile_id = add_tile(started, 200, 200)
    started.stroke([(120, 120), (125, 125)])
    started.press(started.dock.tiles_panel.tile_box.complete)
    assert started.project.tile(tile_id).status == "complete"

    started.dock.tiles_panel.removal.remove()
    assert started.project.tile(tile_id) is None
    assert not of_role(started.viewer, "annotation")
    (_, bring_back) = started.dock.session.notice.actions[0]
    bring_back()
    started.wait(lambda: started.dock.tiles.layer(tile_id), "the tile's return")
    assert (started.dock.tiles.layer(tile_id).data == 1).any()
    assert started.project.tile(tile_id).status == "complete"


def test_an_excluded_tile_cannot_be_completed_and_says_so(started):
    tile_id = add_tile(started, 200, 200)
    started.project.set_status(tile_id, "excluded")
    layer = started.dock.tiles.layer(tile_id)
    press = {str(key): call for key, call in layer.keymap.items()}
    press["Shift+C"](layer)

    assert not started.dock.tiles_panel.tile_box.complete.isEnabled()
    assert started.project.tile(tile_id).status == "excluded"
    assert "left out of training" in started.dock.session.notice.sentence


def test_a_mark_is_taken_back_with_one_click(started):
    tile_id = add_tile(started, 200, 200)
    started.stroke([(120, 120), (125, 125)])
    labels = np.zeros((512, 512), np.int32)
    labels[200:220, 200:220] = 1
    started.dock.tiles_panel.tile_box.proposed.take_over(labels, (0, 0))
    before = started.dock.tiles.layer(tile_id).data.copy()
    started.saved()
    started.press(started.dock.tiles_panel.tile_box.complete)
    (_, undo) = started.dock.session.notice.actions[0]
    undo()

    assert started.project.tile(tile_id).status == "sparse"
    np.testing.assert_array_equal(started.dock.tiles.layer(tile_id).data, before)


def test_what_could_be_taken_back_in_one_project_is_no_longer_offered_in_another(started, tmp_path):
    add_tile(started, 200, 200)
    started.press(started.dock.tiles_panel.tile_box.complete)
    assert started.dock.session.notice.actions
    started.dock.view.close_project()

    assert started.dock.session.notice is None


def test_a_tile_that_cannot_be_left_out_stays_what_it_is_and_the_reason_is_said(started, monkeypatch):
    tile_id = add_tile(started, 200, 200)

    def full(*_, **__):
        raise InputError("The disk is full: make room, then try again.")

    monkeypatch.setattr(started.project, "set_status", full)
    started.dock.tiles_panel.tile_box.excluding.trigger()

    assert started.project.tile(tile_id).status == "empty"
    assert started.dock.session.notice.sentence == "The disk is full: make room, then try again."


def test_a_tile_that_was_left_out_is_taken_in_again_as_it_was(started):
    panel = started.dock.tiles_panel
    tile_id = add_tile(started, 200, 200)
    panel.tile_box.excluding.trigger()
    started.stroke([(120, 120), (125, 125)])
    panel.tile_box.excluding.trigger()
    assert started.project.tile(tile_id).status == "sparse"

    started.press(panel.tile_box.complete)
    panel.tile_box.excluding.trigger()
    assert started.project.tile(tile_id).status == "excluded"
    assert "left out of training" in started.dock.session.notice.sentence
    panel.tile_box.excluding.trigger()
    assert started.project.tile(tile_id).status == "complete"


def test_the_tile_that_is_chosen_lies_on_the_image_in_view(open_images):
    hands = open_images("first", "second", "third")
    hands.dock.view.show_image(1)
    hands.wait(lambda: hands.dock.session.image_index == 1, "the second image")
    assert hands.project.selected == "t0002"
    hands.wait(lambda: hands.dock.tiles.layer("t0002") is not None, "its tile")
    hands.press(hands.dock.tiles_panel.tile_box.complete)
    assert [tile.status for tile in hands.project.tiles] == ["empty", "complete"]

    hands.dock.view.show_image(2)
    hands.wait(lambda: hands.dock.session.image_index == 2, "the third image")
    assert hands.project.selected == ""
    assert not hands.dock.tiles_panel.tile_box.isVisible()


def test_the_pen_is_a_class_of_the_project_that_is_open(started, tmp_path):
    started.project.set_classes(with_class(started.project.classes, "tumor"))
    started.dock.tiles.choose_pen(BACKGROUND + 2)
    with ProjectFolder.create(tmp_path / "other.semiseg") as folder:
        path = folder.path
    started.project.open(path)

    assert started.dock.tiles.pen.kind == BACKGROUND + 1


def test_the_table_says_all_of_a_tile_is_sorted_by_a_click_and_led_through_by_keys(started):
    panel = started.dock.tiles_panel
    for y, strokes in ((100, 1), (260, 3), (420, 2)):
        add_tile(started, y, 200)
        for stroke in range(strokes):
            started.stroke([(y - 10, 100 + 60 * stroke), (y, 110 + 60 * stroke)])
        started.saved()
    started.press(panel.tile_box.complete)
    started.dock.session.training.record.regions = {"t0003": 0.812}
    started.dock.session.training.record.fits = {"t0002": 0.9}
    panel.as_table.setChecked(True)
    texts = [[panel.table.item(row, column).text() for column in range(5)] for row in range(3)]
    assert [row[:4] for row in texts] == [
        ["t0001", "sparse", "1", "–"],
        ["t0002", "sparse", "3", "0.90 learned"],
        ["t0003", "complete", "2", "0.81"],
    ]
    assert "2 drawn, 0 accepted" in panel.table.item(2, 2).toolTip()
    assert "not how good it is" in panel.table.item(1, 3).toolTip()
    assert not panel.strip.isVisible()
    panel.table.sortByColumn(3, Qt.SortOrder.DescendingOrder)
    assert panel.table.order() == ["t0003", "t0002", "t0001"]

    panel.table.sortByColumn(2, Qt.SortOrder.DescendingOrder)
    assert panel.table.order() == ["t0002", "t0003", "t0001"]
    panel.table.setCurrentCell(0, 0)
    assert started.project.selected == "t0002"
    started.dock.tiles.step_to(1)
    assert started.project.selected == "t0003"
    assert panel.table.currentRow() == 1


def test_selecting_another_tile_keeps_both_undo_histories(started):
    first = add_tile(started, 120, 120)
    started.stroke([(100, 100), (105, 105)])
    second = add_tile(started, 400, 400)
    assert started.dock.tiles.layer(first).mode == "pan_zoom"
    started.viewer.layers.selection.active = started.dock.tiles.layer(first)
    assert started.project.selected == first
    assert started.dock.tiles.layer(first).mode == "paint"
    assert started.dock.tiles.layer(second).mode == "pan_zoom"
    started.dock.tiles.layer(first).undo()
    assert not started.dock.tiles.layer(first).data.any()


def test_tiles_lie_on_a_scaled_moved_and_turned_image(open_dock, tissue, tmp_path):
    hands = open_dock(tissue, scale=(0.25, 0.25), translate=(50, -30), rotate=20, units=("um", "um"))
    assert hands.dock.view.slide.mpp == pytest.approx(0.25)
    hands.dock.view.choose_target(tmp_path / "case.semiseg")
    hands.press(hands.dock.slide_panel.start)
    hands.wait(lambda: hands.dock.view.started, "the start")
    tile = hands.project.tile(add_tile(hands, 300, 280))
    layer, image = hands.dock.tiles.layer(tile.id), hands.dock.view.layer

    assert tile.box == (175, 155, 425, 405)
    np.testing.assert_allclose(layer.data_to_world((7, 9)), image.data_to_world((182, 164)), atol=1e-9)
    assert tuple(layer.units) == tuple(image.units)
    image.translate = (0, 0)
    np.testing.assert_allclose(layer.data_to_world((7, 9)), image.data_to_world((182, 164)), atol=1e-9)


def test_closing_the_dock_saves_and_takes_our_layers_away(started):
    tile_id = add_tile(started, 200, 200)
    started.stroke([(120, 120), (125, 125)])
    path = started.project.path
    started.dock.leave()

    assert not [layer for layer in started.viewer.layers if role(layer) in ("annotation", "tiles", "proposal")]
    with ProjectFolder.open(path) as folder:
        assert folder.recovery.clean
        assert folder.annotation(tile_id).nuclei == 1


def test_a_tile_without_a_nucleus_is_empty_again_when_it_is_no_longer_complete(started):
    tile_id = add_tile(started, 200, 200)
    for wanted in ("complete", "empty", "complete"):
        started.press(started.dock.tiles_panel.tile_box.complete)
        assert started.project.tile(tile_id).status == wanted


def test_a_second_viewer_on_the_same_project_is_read_only_and_says_so(started, open_dock, tissue):
    add_tile(started, 200, 200)
    other = open_dock(tissue)
    other.dock.view.open_project(started.project.path)
    other.wait(lambda: of_role(other.viewer, "annotation"), "the tiles in the second viewer")

    assert other.project.read_only
    said = other.dock.session.notice.sentence
    assert said.startswith("Read-only: this project is open in this program since ")
    assert said.endswith(". To change it, close it there and open it again.")
    assert "+00:00" not in said
    assert other.dock.saved.text() == "read-only"
    assert not other.dock.tiles_panel.add.isEnabled()
    (layer,) = of_role(other.viewer, "annotation")
    assert not layer.editable
    other.viewer.layers.selection.active = layer
    assert {"N", "P"} <= {str(key) for key in layer.keymap}
    before = started.project.tiles, on_disk(started, "t0001")
    other.stroke([(200, 200), (200, 230)])
    for key in layer.keymap.values():
        result = key(layer)
        if result is not None:  # of a key that is held
            assert len([*result]) == 1
    other.rest(2.5)
    assert not layer.data.any()
    assert started.project.tiles == before[0]
    assert on_disk(started, "t0001").equals(before[1])


def test_keys_lead_from_tile_to_tile_in_a_second_viewer_as_well(started, open_dock, tissue):
    for y, x in ((130, 130), (380, 380)):
        started.project.add_tile(0, center=(y, x))
    other = open_dock(tissue)
    other.dock.view.open_project(started.project.path)
    other.wait(lambda: other.dock.tiles.layer("t0001") and other.dock.tiles.layer("t0002"), "the tiles")
    other.dock.tiles_panel.go_to("t0001")
    other.rest(0.3)
    for layer, wanted in ((of_role(other.viewer, "tiles")[0], "t0002"), (other.dock.tiles.layer("t0002"), "t0001")):
        press = {str(key): call for key, call in layer.keymap.items()}
        press["N"](layer)
        assert other.project.selected == wanted


@pytest.mark.parametrize("how", ["the project is closed", "the dock is closed"])
def test_no_rectangle_for_a_new_tile_stays_behind(started, how):
    started.press(started.dock.tiles_panel.add)
    started.hover(200, 200)
    assert of_role(started.viewer, "suggestion")
    started.dock.view.close_project() if how == "the project is closed" else started.dock.leave()
    assert not of_role(started.viewer, "suggestion")
    assert not started.dock.tiles_panel.tool.on


def test_before_the_first_tile_the_key_for_a_place_is_promised_only_where_a_layer_has_it(started):
    suggest = started.dock.tiles_panel.suggest
    started.rest(0.9)
    assert suggest.toolTip() == "Show the place that would teach the most, with the reason"
    proposal = {KEY: {"role": "proposal", "origin": (0, 0), "downsample": 1, "image": 0}}
    layer = started.viewer.add_layer(Labels(np.zeros((512, 512), np.uint8), metadata=proposal))
    started.rest(0.9)
    assert suggest.toolTip().endswith("with a layer of ours selected: S")
    press = {str(key): call for key, call in layer.keymap.items()}
    press["S"](layer)
    assert started.dock.suggestions.waiting


def test_a_drag_in_add_mode_moves_the_view_and_adds_nothing(started):
    started.press(started.dock.tiles_panel.add)
    started.stroke([(200, 200), (240, 240), (260, 260)])

    assert not started.project.tiles
    assert started.dock.tiles_panel.tool.on
    started.press(started.dock.tiles_panel.add)
    assert not started.dock.tiles_panel.tool.on


def test_on_a_tile_kept_for_validation_the_rectangle_turns_red_and_no_tile_is_added(started):
    kept = add_tile(started, 130, 130)
    started.project.set_status(kept, "complete")
    started.project.set_role(kept, "validation")
    started.press(started.dock.tiles_panel.add)
    colors = []
    for x in (400, 300):
        started.hover(300, x)
        (rectangle,) = of_role(started.viewer, "suggestion")
        colors.append([round(255 * float(part)) for part in rectangle.edge_color[0][:3]])
    started.click(300, 300)

    assert colors == [[255, 255, 255], [213, 94, 0]]
    assert len(started.project.tiles) == 1
    assert f"would lie on tile {kept}, which is kept for validation" in started.dock.session.notice.sentence
    assert started.dock.tiles_panel.tool.on
    started.click(300, 400)
    assert len(started.project.tiles) == 2


def choose(menu, beginning: str) -> None:
    """Choose an entry of a menu as a person does: it is prepared when it is shown."""
    menu.aboutToShow.emit()
    (action,) = [action for action in menu.actions() if action.text().startswith(beginning)]
    assert action.isVisible()
    assert action.isEnabled()
    action.trigger()


def test_the_class_added_last_is_removed_while_nothing_is_painted_in_it(started):
    panel, project = started.dock.tiles_panel, started.project
    nucleus, tumor = project.classes[0], ClassSpec(name="tumor & stroma", color="#56b4e9")
    project.set_classes([nucleus, tumor])
    tile_id = add_tile(started, 200, 200)
    started.dock.tiles.choose_pen(BACKGROUND + 2)
    started.stroke([(120, 120), (125, 125)])
    choose(panel.more.menu(), "Remove the class “tumor && stroma”")
    assert project.classes == (nucleus, tumor)
    assert f"is painted or proposed in tile {tile_id}: paint it over" in started.dock.session.notice.sentence

    layer = started.dock.tiles.layer(tile_id)
    layer.data_setitem(np.nonzero(layer.data), 0)
    choose(panel.more.menu(), "Remove the class “tumor && stroma”")
    assert project.classes == (nucleus,)
    assert started.dock.tiles.pen.kind == BACKGROUND + 1
    panel.more.menu().aboutToShow.emit()
    assert not panel.classes.removing.isVisible()  # one class there always is
    ((_, bring_back),) = started.dock.session.notice.actions
    bring_back()
    assert project.classes == (nucleus, tumor)


def test_the_table_is_as_high_as_its_tiles_need_and_scrolls_with_many(started):
    panel, heights = started.dock.tiles_panel, []
    panel.as_table.setChecked(True)
    for number in range(6):
        started.project.add_tile(0, center=(100 + 50 * number, 200), side=40)
        heights.append(panel.table.height())
    started.rest(0.05)
    assert heights[0] < heights[1] < heights[-1]
    assert heights[-2] == heights[-1]
    row = panel.table.verticalHeader().defaultSectionSize()
    assert panel.table.viewport().height() >= 4 * row


def test_background_is_no_class_to_be_renamed(started):
    add_tile(started, 200, 200)
    started.dock.tiles.choose_pen(BACKGROUND)
    started.dock.tiles_panel.more.menu().aboutToShow.emit()
    assert not started.dock.tiles_panel.classes.renaming.isEnabled()


def test_it_is_said_which_tiles_are_kept_for_validation(started):
    panel = started.dock.tiles_panel
    tile_id = add_tile(started, 130, 130)
    panel.tile_box.more.menu().aboutToShow.emit()
    assert panel.tile_box.judging.text() == "Keep for validation, once it is complete"
    started.project.set_status(tile_id, "complete")
    choose(panel.tile_box.more.menu(), "Keep for validation")
    assert started.dock.session.notice.sentence == f"For validation now: {tile_id}."
    choose(panel.tile_box.more.menu(), "Remove this tile")
    assert started.dock.session.notice.sentence.endswith("It was one to judge by.")
    started.project.restore_tile(tile_id)
    choose(panel.tile_box.more.menu(), "Keep for validation")
    assert started.dock.session.notice.sentence.startswith("No tile is kept for validation now")


def test_what_has_to_be_done_first_is_said_as_the_buttons_call_it(open_dock, tissue, tmp_path):
    hands = open_dock()
    reason = hands.dock.tiles_panel.reason
    assert reason.text() == "Open an image first, in step 1."
    hands.viewer.add_image(tissue, name="field")
    hands.wait(lambda: hands.dock.view.slide is not None, "the image")
    hands.dock.view.choose_target(tmp_path / "case.semiseg")
    assert reason.text() == "Press Start above first: tiles are kept in the project."
    hands.press(hands.dock.slide_panel.start)
    hands.wait(lambda: hands.dock.view.started, "the start")
    hands.viewer.add_image(tissue[::-1].copy(), name="another")
    hands.wait(lambda: not hands.dock.view.started, "the other image")
    assert reason.text() == "Press Add to the project above first: tiles are kept in the project."
    assert hands.dock.slide_panel.start.text() == "Add to the project"


def test_the_panel_is_no_wider_while_a_place_for_a_tile_is_chosen(started):
    panel = started.dock.tiles_panel
    before = panel.minimumSizeHint().width()
    started.press(panel.add)
    assert panel.tool.on
    assert panel.minimumSizeHint().width() <= before


def test_choosing_a_tile_touches_no_layer_but_the_two_and_strokes_need_no_new_colors(started):
    """With many tiles napari would draw each of them anew, and with many nuclei every stroke would wait."""
    ids = [add_tile(started, y, x) for y, x in ((130, 130), (130, 380), (380, 130), (380, 380))]
    touched = []
    for tile_id in ids:
        layer = started.dock.tiles.layer(tile_id)
        for name in ("contour", "mode", "visible", "colormap"):
            getattr(layer.events, name).connect(lambda event, tile_id=tile_id: touched.append((tile_id, event.type)))
    started.project.select(ids[0])

    assert {tile_id for tile_id, _ in touched} == {ids[0], ids[3]}
    touched.clear()
    for column in range(20, 220, 10):
        started.stroke([(20, column), (24, column)])
    layer = started.dock.tiles.layer(ids[0])
    assert len(np.unique(layer.data)) == 21
    assert (ids[0], "colormap") not in touched
    assert len(np.unique([layer.get_color(number) for number in range(1, 21)], axis=0)) == 3  # shades of one class


def test_a_class_that_is_brought_back_takes_the_place_of_no_other_one(started):
    panel, project = started.dock.tiles_panel, started.project
    nucleus, *others = with_class(with_class(project.classes, "tumor"), "immune")
    tumor, immune = others
    project.set_classes([nucleus, tumor])
    choose(panel.more.menu(), "Remove the class “tumor”")
    ((_, bring_back),) = started.dock.session.notice.actions
    project.set_classes([nucleus, immune])
    bring_back()

    assert project.classes == (nucleus, immune, tumor)


def test_a_tile_is_not_marked_before_what_is_painted_in_it_is_there(open_images, monkeypatch):
    hands = open_images("first", "second")
    read = hands.project.newest_annotation
    late = threading.Event()
    monkeypatch.setattr(hands.project, "newest_annotation", lambda tile_id: late.wait(10) and read(tile_id))
    labels = np.full((100, 100), PROPOSED_FROM, np.int64)
    hands.project.submit("t0002", labels, {PROPOSED_FROM: BACKGROUND + 1})
    hands.project._saver.drain(5)
    hands.project.tick()
    hands.dock.view.show_image(1)
    hands.wait(lambda: hands.dock.session.image_index == 1, "the second image")
    assert hands.dock.tiles.layer("t0002") is None
    hands.press(hands.dock.tiles_panel.tile_box.complete)
    assert hands.project.tile("t0002").status == "sparse"
    assert "t0002" in hands.dock.session.notice.sentence

    late.set()
    hands.wait(lambda: hands.dock.tiles.layer("t0002") is not None, "the tile")
    hands.press(hands.dock.tiles_panel.tile_box.complete)
    assert hands.project.tile("t0002").status == "complete"
    assert not is_proposed(int(hands.dock.tiles.layer("t0002").data[50, 50]))


def test_a_damaged_tile_is_told_once_and_again_when_the_project_is_opened_anew(started):
    add_tile(started, 100, 100)
    damaged = add_tile(started, 400, 400)
    started.stroke([(400, 400), (405, 405)])
    started.saved()
    path = started.project.path
    started.dock.view.close_project()
    for file in (path / "annotations" / damaged).iterdir():
        file.write_bytes(b"\0" * 100)
    told = []
    started.dock.session.told.connect(lambda notice: notice and told.append(notice.sentence))
    started.dock.view.open_project(path)
    started.wait(lambda: started.dock.tiles.layer("t0001") is not None and told, "the tiles")
    for status in ("sparse", "complete", "sparse"):
        started.project.set_status("t0001", status)
        started.rest(0.15)
    assert sum(damaged in sentence for sentence in told) == 1

    started.dock.view.close_project()
    started.dock.view.open_project(path)
    started.wait(lambda: sum(damaged in sentence for sentence in told) == 2, "the sentence")
