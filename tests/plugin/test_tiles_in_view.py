"""Many tiles on an image: napari holds and draws those that are in view."""

from __future__ import annotations

import pytest

from napari_semiseg.blocks import Box
from napari_semiseg.plugin.layers import of_role
from napari_semiseg.project.folder import ProjectFolder

SIDE = 48
CORNERS = [(y, x) for y in (0, 150, 300, 450) for x in (0, 150, 300, 450)]


@pytest.fixture
def many(open_dock, tissue, tmp_path):
    """Sixteen tiles, and the first of them fills the view."""
    hands = open_dock(tissue)
    hands.dock.view.choose_target(tmp_path / "case.semiseg")
    hands.press(hands.dock.slide_panel.start)
    hands.wait(lambda: hands.dock.view.started, "the start")
    look_at(hands, 24, 24)
    for y, x in CORNERS:
        hands.project.add_tile(0, box=Box(y, x, y + SIDE, x + SIDE), select=False)
    hands.dock.tiles_panel.go_to(hands.project.tiles[0].id)
    settled(hands)
    return hands


def look_at(hands, y: float, x: float, zoom: float = 8.0) -> None:
    hands.viewer.scene.camera.center = (0, *hands.dock.view.placement.to_world(y, x))
    hands.viewer.scene.camera.zoom = zoom


def settled(hands) -> None:
    hands.rest(0.1)
    hands.wait(lambda: not hands.dock.tiles.in_view.due, "rest", 5)


def drawn(hands) -> set[str]:
    return {layer.metadata["napari_semiseg"]["tile"] for layer in of_role(hands.viewer, "annotation") if layer.visible}


def ids(hands, *numbers: int) -> set[str]:
    return {hands.project.tiles[number].id for number in numbers}


def test_only_the_tiles_in_view_are_drawn_and_only_they_and_the_next_ones_are_layers(many):
    assert drawn(many) == ids(many, 0)
    assert len(of_role(many.viewer, "annotation")) == 3  # with the one that N leads to, and the one that P leads to
    look_at(many, 324, 324)
    settled(many)
    assert drawn(many) == ids(many, 0, 10)  # the selected one can be painted in, wherever it is
    look_at(many, 256, 256, zoom=1.0)
    settled(many)
    assert drawn(many) == ids(many, *range(16))
    look_at(many, 256, 256, zoom=0.2)  # each of ten pixels of the screen: frames say where they are
    settled(many)
    assert drawn(many) == ids(many, 0)


def test_whoever_goes_on_while_layers_still_come_finds_all_as_it_should_be(many):
    for number in range(40):
        look_at(many, 60 * (number % 8), 45 * (number % 11), zoom=(8.0, 1.0, 3.0)[number % 3])
        if number % 5 == 0:
            many.dock.tiles_panel.go_to(many.dock.tiles.step_to(1))
        many.rest(0.03)
    tile = many.project.tile(many.project.selected)
    many.dock.tiles_panel.go_to(tile.id)
    look_at(many, tile.box.y0 + 24, tile.box.x0 + 24)
    settled(many)

    assert drawn(many) == {tile.id}
    assert many.viewer.layers.selection.active == many.dock.tiles.layer(tile.id)
    assert many.dock.tiles.layer(tile.id).mode == "paint"


def test_what_was_painted_in_a_tile_is_kept_and_undone_after_it_was_out_of_view(many):
    first, last = many.project.tiles[0].id, many.project.tiles[15].id
    many.stroke([(20, 20), (24, 24)])
    painted = many.dock.tiles.layer(first).data.copy()
    many.dock.tiles_panel.go_to(last)
    settled(many)
    assert drawn(many) == {last}
    many.stroke([(470, 470), (474, 474)])
    many.saved()
    with ProjectFolder.open(many.project.path, read_only=True) as folder:
        assert (folder.annotation(first).instance == painted).all()
        assert folder.annotation(last).nuclei == 1
    many.dock.tiles_panel.go_to(first)
    settled(many)

    layer = many.dock.tiles.layer(first)
    assert painted.any()
    assert layer.visible
    assert layer.mode == "paint"
    layer.undo()
    assert not layer.data.any()
    layer.redo()
    assert (layer.data == painted).all()


def test_an_eye_that_somebody_closed_stays_closed_until_somebody_goes_to_that_tile(many):
    look_at(many, 100, 100, zoom=2.0)
    settled(many)
    second = many.project.tiles[1].id
    many.dock.tiles.layer(second).visible = False
    for y, x in ((450, 450), (100, 100)):
        look_at(many, y, x, zoom=2.0)
        settled(many)
    assert second not in drawn(many)
    assert drawn(many) >= ids(many, 0, 4, 5)
    many.dock.tiles_panel.go_to(second)
    assert second in drawn(many)
    many.dock.tiles_panel.go_to(many.project.tiles[15].id)
    settled(many)
    assert second not in drawn(many)  # out of view by now
    look_at(many, 100, 100, zoom=2.0)
    settled(many)
    assert second in drawn(many)


def test_a_tile_deleted_in_the_layer_list_while_out_of_view_is_back_and_is_drawn_when_it_is_in_view(many):
    look_at(many, 100, 100, zoom=2.0)
    settled(many)
    look_at(many, 450, 450)
    settled(many)
    layer = many.dock.tiles.layer(many.project.tiles[1].id)
    many.viewer.layers.remove(layer)
    many.wait(lambda: layer in many.viewer.layers, "the layer's return")
    assert "not lost" in many.dock.session.notice.sentence
    look_at(many, 100, 100, zoom=2.0)
    settled(many)
    assert layer.visible


def test_no_tile_comes_up_while_the_image_alone_is_looked_at(many):
    peek = many.dock.review_panel.peek
    peek.begin()
    look_at(many, 256, 256, zoom=1.0)
    many.rest(0.3)
    assert not drawn(many)
    peek.finish()
    settled(many)
    assert drawn(many) == ids(many, *range(16))


def test_a_removed_tile_goes_whether_it_is_a_layer_or_not_and_comes_back(many):
    far = many.project.tiles[10].id
    many.project.remove_tile(far)
    many.project.select(many.project.tiles[0].id)
    look_at(many, 324, 324)
    settled(many)
    assert far not in drawn(many)
    many.project.restore_tile(far)
    many.wait(lambda: far in drawn(many), "the tile's return")
    assert many.viewer.layers.selection.active == many.dock.tiles.layer(far)


def test_who_may_only_look_sees_the_tile_that_was_gone_to(many, open_dock, tissue):
    other = open_dock(tissue)
    look_at(other, 24, 24)
    other.dock.view.open_project(many.project.path)
    other.wait(lambda: of_role(other.viewer, "annotation"), "the tiles")
    assert other.project.read_only
    for number in (15, 0, 15):
        tile = other.project.tiles[number]
        other.wait(lambda tile=tile: other.dock.tiles.layer(tile.id) is not None, "the tile")
        other.dock.tiles_panel.go_to(tile.id)
        settled(other)
        assert drawn(other) == {tile.id}


def test_a_tile_in_which_nothing_is_painted_yet_is_one_layer_after_opening_the_project_again(many, open_dock, tissue):
    path = many.project.path
    many.dock.leave()
    other = open_dock(tissue)
    look_at(other, 256, 256, zoom=1.0)
    other.dock.view.open_project(path)
    other.wait(lambda: len(drawn(other)) == 16, "the tiles")
    other.rest(0.3)

    assert len(of_role(other.viewer, "annotation")) == 16
