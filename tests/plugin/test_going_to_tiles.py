"""Going to a tile: from its thumbnail, the table, keys and suggestions, on the image in view or another one."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_semiseg.app.nuclei_review import DoubtfulNucleus
from napari_semiseg.app.suggestions import Suggestion
from napari_semiseg.blocks import Box
from napari_semiseg.plugin.layers import of_role
from napari_semiseg.plugin.nucleus_mark import LEAST_SHARE
from napari_semiseg.project.folder import ProjectFolder


@pytest.fixture
def two(open_dock, tissue, tmp_path):
    """Two tiles of 100 x 100 on an image whose pixels are half a µm wide; the second one is selected."""
    hands = open_dock(tissue, scale=(0.5, 0.5), units=("um", "um"))
    hands.dock.view.choose_target(tmp_path / "case.semiseg")
    hands.press(hands.dock.slide_panel.start)
    hands.wait(lambda: hands.dock.view.started, "the start")
    for y, x in ((130, 130), (380, 380)):
        hands.project.add_tile(0, center=(y, x), side=100)
    hands.rest()
    return hands


@pytest.fixture
def two_images(open_dock, tissue, tmp_path):
    """A project of two images with a tile each, opened with the first of them."""
    with ProjectFolder.create(tmp_path / "case.semiseg") as folder:
        for number, name in enumerate(("first", "second")):
            tifffile.imwrite(tmp_path / f"{name}.tif", np.roll(tissue, number), photometric="rgb")
            folder.add_image(tmp_path / f"{name}.tif", shape=(512, 512))
            folder.add_tile(number, (100 * number, 0, 100 * number + 100, 100))
    hands = open_dock()
    hands.dock.view.open_project(tmp_path / "case.semiseg")
    hands.wait(lambda: hands.project.selected == "t0001", "the first image")
    hands.wait(lambda: hands.dock.tiles.layer("t0001") is not None, "its tile")
    return hands


def click(panel, tile_id: str) -> None:
    """Click on a tile where the panel lists them."""
    table = panel.as_table.isChecked()
    listed = panel.table if table else panel.strip
    rows = listed.rowCount() if table else listed.count()
    items = [listed.item(row, 0) if table else listed.item(row) for row in range(rows)]
    item = next(item for item in items if item.data(Qt.ItemDataRole.UserRole) == tile_id)
    QTest.mouseClick(listed.viewport(), Qt.MouseButton.LeftButton, pos=listed.visualItemRect(item).center())


def press(layer, key: str) -> None:
    """Press a key while a layer is active."""
    next(call for bound, call in layer.keymap.items() if str(bound).replace("+", "-") == key)(layer)


def active(hands) -> str:
    layer = hands.viewer.layers.selection.active
    return "" if layer is None else layer.name


def seen_side(hands, side: int = 100) -> float:
    """Return how many pixels of the canvas so many pixels of the image take."""
    return side * 0.5 * hands.viewer.scene.camera.zoom


# ---- the tile that is selected already ----


@pytest.mark.parametrize("listed", ["thumbnails", "table"])
def test_a_click_on_the_tile_that_is_selected_makes_it_ready_after_another_layer_was_active(two, listed):
    panel, layer = two.dock.tiles_panel, two.dock.tiles.layer("t0002")
    panel.as_table.setChecked(listed == "table")
    two.viewer.layers.selection.active = two.dock.view.layer
    layer.mode = "pan_zoom"
    layer.visible = False
    click(panel, "t0002")

    assert two.viewer.layers.selection.active == layer
    assert (layer.mode, layer.visible) == ("paint", True)
    two.stroke([(380, 380), (380, 390)])
    assert layer.data.any()


def test_a_click_on_the_tile_that_is_selected_and_ready_leaves_the_eraser_in_the_hand(two):
    layer = two.dock.tiles.layer("t0002")
    layer.mode = "erase"
    click(two.dock.tiles_panel, "t0002")
    assert layer.mode == "erase"


def test_a_deleted_layer_of_the_selected_tile_comes_back_ready_and_that_of_another_one_takes_nothing_over(two):
    two.dock.tiles_panel.go_to("t0001")
    two.dock.tiles_panel.go_to("t0002")
    for tile_id in ("t0002", "t0001"):
        layer = two.dock.tiles.layer(tile_id)
        two.viewer.layers.remove(layer)
        two.wait(lambda layer=layer: layer in two.viewer.layers, "the layer's return")
        if tile_id == "t0001":
            two.dock.tiles_panel.go_to("t0002")
        assert active(two) == "Tile t0002"
        assert two.dock.tiles.layer("t0002").mode == "paint"


# ---- how close ----


def test_every_way_to_a_tile_or_suggested_place_comes_close_enough_to_paint(two):
    panel, camera = two.dock.tiles_panel, two.viewer.scene.camera
    half = min(two.viewer.canvas.size) / 2

    def suggest() -> None:
        two.dock.suggestions.current = Suggestion(0, Box(0, 300, 100, 400), "for a test")
        two.dock.suggestions.changed.emit()

    ways = [
        (lambda: click(panel, "t0001"), (130, 130)),
        (lambda: press(two.dock.tiles.layer("t0001"), "N"), (380, 380)),
        (lambda: press(two.dock.tiles.layer("t0002"), "P"), (130, 130)),
        (lambda: panel.as_table.setChecked(True) or click(panel, "t0002"), (380, 380)),
        (suggest, (50, 350)),
    ]
    for go, place in ways:
        camera.zoom = 0.02
        go()
        assert seen_side(two) == pytest.approx(half)
        y, x = place
        np.testing.assert_allclose(camera.center[-2:], two.dock.view.placement.to_world(y - 0.5, x - 0.5))


def test_who_is_closer_already_stays_as_close(two):
    two.viewer.scene.camera.zoom = 40.0
    click(two.dock.tiles_panel, "t0001")
    assert two.viewer.scene.camera.zoom == 40.0


def test_a_small_nucleus_in_doubt_is_enlarged_as_before(two):
    two.viewer.scene.camera.zoom = 0.02
    two.dock.review_panel.by_doubt.mark.show(DoubtfulNucleus(1, 0.5, (110.0, 210.0), Box(100, 200, 120, 220)))
    assert seen_side(two, 20) == pytest.approx(min(two.viewer.canvas.size) * LEAST_SHARE)
    np.testing.assert_allclose(two.viewer.scene.camera.center[-2:], two.dock.view.placement.to_world(109.5, 209.5))


# ---- tiles of another image ----


def test_going_to_a_tile_of_another_image_shows_that_image_and_then_the_tile(two_images):
    view = two_images.dock.view
    for _ in range(2):  # one who is impatient
        two_images.dock.tiles_panel.go_to("t0002")
    assert two_images.project.selected == "t0001"  # until the image is there
    two_images.wait(lambda: active(two_images) == "Tile t0002", "the tile")

    assert two_images.dock.session.image_index == 1
    assert two_images.project.selected == "t0002"
    assert len(of_role(two_images.viewer, "image")) == 2
    np.testing.assert_allclose(two_images.viewer.scene.camera.center[-2:], view.placement.to_world(149.5, 49.5))
    two_images.dock.tiles_panel.go_to("t0001")  # whose image is there
    two_images.wait(lambda: active(two_images) == "Tile t0001", "the tile")
    assert two_images.dock.session.image_index == 0


def test_the_menu_of_images_shows_one_and_selects_a_tile_of_it(two_images):
    two_images.dock._prepare_menu()
    for number, tile_id in ((1, "t0002"), (0, "t0001")):
        two_images.dock._images.actions()[number].trigger()
        two_images.wait(lambda tile_id=tile_id: two_images.project.selected == tile_id, "the tile")
        assert two_images.dock.session.image_index == number


def test_no_key_changes_a_tile_of_an_image_that_is_not_in_view(two_images):
    layer = two_images.dock.tiles.layer("t0001")
    two_images.project.select("t0002")  # as a script may
    assert not two_images.dock.tiles_panel.tile_box.isVisible()
    press(layer, "Shift-C")
    press(layer, "G")

    assert [tile.status for tile in two_images.project.tiles] == ["empty", "empty"]
    assert not two_images.dock.proposals.waiting
    assert "Tile t0002 is not in view" in two_images.dock.session.notice.sentence


def test_after_a_tile_was_removed_one_of_the_same_image_is_selected_and_bringing_it_back_shows_its_image(two_images):
    dock = two_images.dock
    dock.tiles_panel.removal.remove()
    assert two_images.project.selected == ""
    dock.view.show_image(1)
    two_images.wait(lambda: two_images.project.selected == "t0002", "the second image")
    dock.tiles_panel.removal.bring_back_last()
    two_images.wait(lambda: active(two_images) == "Tile t0001", "the tile")
    assert (dock.session.image_index, two_images.project.selected) == (0, "t0001")


# ---- a place in another image ----

ELSEWHERE = Suggestion(1, Box(300, 300, 400, 400), "for a test")


def offer(hands, *places) -> None:
    suggestions = hands.dock.suggestions
    suggestions.current, *suggestions._rest = places
    suggestions.changed.emit()


def frames(hands) -> list[str]:
    return [layer.name for layer in of_role(hands.viewer, "suggestion")]


def test_a_place_suggested_in_another_image_brings_that_image_and_the_tile_is_made_there(two_images):
    hands, card = two_images, two_images.dock.tiles_panel.suggestion
    offer(hands, ELSEWHERE)
    hands.wait(lambda: hands.dock.session.image_index == 1, "the second image")
    hands.wait(lambda: bool(frames(hands)), "the frame")
    np.testing.assert_allclose(hands.viewer.scene.camera.center[-2:], (349.5, 349.5))
    assert card.why.text() == "Suggested in “second”: for a test"
    hands.wait(lambda: not card.look.pixmap().isNull(), "the picture of the place")
    hands.press(card.take)
    assert hands.project.tile(hands.project.selected).image == 1
    hands.wait(lambda: active(hands) == f"Tile {hands.project.selected}", "a tile that is ready")
    assert not frames(hands)


def test_who_has_gone_back_to_the_first_image_sees_no_frame_there_and_is_taken_to_the_tile_once_it_is_made(two_images):
    hands = two_images
    offer(hands, ELSEWHERE)
    hands.wait(lambda: bool(frames(hands)), "the frame")
    hands.dock.tiles_panel.go_to("t0001")
    hands.wait(lambda: hands.dock.session.image_index == 0, "the first image")
    assert not frames(hands)
    hands.rest(0.3)
    assert hands.dock.session.image_index == 0, "the view goes to a place once"
    hands.press(hands.dock.tiles_panel.suggestion.take)
    hands.wait(lambda: hands.dock.session.image_index == 1, "the second image")
    hands.wait(lambda: active(hands) == f"Tile {hands.project.selected}", "the new tile")


def test_another_place_in_the_first_image_is_gone_to_though_the_second_is_still_being_opened(two_images):
    hands = two_images
    offer(hands, ELSEWHERE, Suggestion(0, Box(300, 100, 400, 200), "another"))
    hands.press(hands.dock.tiles_panel.suggestion.skip)
    hands.rest(1)
    assert hands.dock.session.image_index == 0
    np.testing.assert_allclose(hands.viewer.scene.camera.center[-2:], (349.5, 149.5))
    assert frames(hands) == ["Suggested tile"]


def test_all_images_are_looked_at_unless_the_menu_says_otherwise(two_images):
    panel = two_images.dock.tiles_panel
    panel.more.menu().aboutToShow.emit()
    assert panel.one_image.isVisible()
    assert two_images.dock.suggestions.everywhere
    panel.one_image.trigger()
    assert not two_images.dock.suggestions.everywhere


def test_a_project_of_one_image_offers_no_choice_of_images(two):
    panel = two.dock.tiles_panel
    panel.more.menu().aboutToShow.emit()
    assert not panel.one_image.isVisible()


def test_how_many_images_were_looked_at_for_a_place_is_said_below_the_button(two_images):
    panel, suggestions = two_images.dock.tiles_panel, two_images.dock.suggestions
    suggestions.waiting, suggestions.looking = True, "Looking at images: 1 of 2"
    suggestions.changed.emit()
    assert panel.suggest_waits.text() == "Looking at images: 1 of 2"
    suggestions.cancel()
    assert not panel.suggest_waits.text()
