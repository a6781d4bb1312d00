"""Proposed nuclei in a tile, and the gestures that correct them."""

from __future__ import annotations

import math
from colorsys import rgb_to_hsv
from importlib.resources import files
from types import SimpleNamespace

import numpy as np
import pytest
from napari.layers import Labels
from napari.settings import get_plugin_settings
from napari.utils.events import EventedModel
from npe2 import PluginManifest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_semiseg.app.painting import PROPOSED_FROM
from napari_semiseg.plugin import keys as keys_module
from napari_semiseg.plugin.keys import ACTIONS, Keys
from napari_semiseg.plugin.layers import of_role
from napari_semiseg.project.folder import ProjectFolder
from napari_semiseg.project.schema import with_class
from napari_semiseg.project.tile_annotation import ACCEPTED_FROM, BACKGROUND, PROPOSED, PROPOSED_AS, Tally


def start(hands, place) -> None:
    """Begin a project of the image in view, with a tile in it."""
    hands.dock.view.choose_target(place / "case.semiseg")
    hands.press(hands.dock.slide_panel.start)
    hands.wait(lambda: hands.dock.view.started, "the start")
    hands.project.add_tile(0, center=(200, 200), side=100)


@pytest.fixture
def proposed(open_dock, tissue, tmp_path):
    """A tile of 100 x 100 with three proposed nuclei: two side by side at the top, one at the bottom."""
    hands = open_dock(tissue)
    start(hands, tmp_path)
    labels = np.zeros((512, 512), np.uint32)
    labels[160:180, 160:180] = 5
    labels[160:180, 184:204] = 9
    labels[210:230, 170:190] = 12
    hands.dock.tiles_panel.tile_box.proposed.take_over(labels, (0, 0))
    return hands


def layer_of(hands):
    return hands.dock.tiles.layer(hands.project.selected)


def rgb(color: str) -> tuple[float, float, float]:
    red, green, blue = (int(color[start : start + 2], 16) / 255 for start in (1, 3, 5))
    return red, green, blue


def colors_of(layer: Labels, *places: tuple[int, int]) -> list[str]:
    """Return how the nuclei at some pixels of a layer are drawn."""
    colors = [layer.get_color(int(layer.data[place])) for place in places]
    return [f"#{''.join(f'{round(255 * float(part)):02x}' for part in color[:3])}" for color in colors]


def tally_on_disk(hands) -> Tally:
    hands.saved()
    return ProjectFolder.open(hands.project.path, read_only=True).annotation(hands.project.selected).tally


def test_what_is_proposed_waits_for_a_word_and_survives(proposed):
    assert proposed.dock.tiles.correcting
    assert tally_on_disk(proposed) == Tally(proposed=3)
    assert proposed.project.counts[proposed.project.selected] == 0
    assert "0 nuclei · 3 proposed" in proposed.dock.tiles_panel.tile_box.name.text()


def test_each_gesture_of_the_mouse_is_one_entry_of_the_undo_history(proposed):
    layer = layer_of(proposed)
    proposed.click(170, 170)  # accept
    proposed.stroke([(206, 180), (220, 181), (234, 180)])  # cut
    proposed.stroke([(170, 170), (170, 182), (170, 194)])  # join
    assert tally_on_disk(proposed) == Tally(drawn=3)
    proposed.stroke([(215, 174)], button=2)  # delete
    assert tally_on_disk(proposed) == Tally(drawn=2)

    layer.undo()
    assert tally_on_disk(proposed) == Tally(drawn=3)
    layer.undo()
    layer.undo()
    assert tally_on_disk(proposed) == Tally(accepted=1, proposed=2)
    assert layer.data[170 - 150, 170 - 150] == ACCEPTED_FROM
    layer.undo()
    layer.undo()
    assert not layer.data.any()


def test_going_around_a_nucleus_draws_it_anew_and_the_trail_is_gone_afterwards(proposed):
    turns = np.linspace(0, 2 * np.pi, 25)
    proposed.stroke([(220 + 14 * np.sin(turn), 180 + 14 * np.cos(turn)) for turn in turns])

    layer = layer_of(proposed)
    assert (layer.data == 1).sum() > 500
    assert layer.data[210 - 150, 170 - 150] == 0
    assert not of_role(proposed.viewer, "gesture")
    assert proposed.viewer.layers.selection.active == layer


def test_a_mouse_that_has_not_moved_since_the_view_came_there_draws_and_leaves_the_view(open_window, tissue, tmp_path):
    hands = open_window(tissue)
    dock, camera = hands.dock, hands.viewer.scene.camera
    start(hands, tmp_path)
    labels = np.zeros((512, 512), np.uint32)
    labels[190:230, 170:190] = 12
    dock.tiles_panel.tile_box.proposed.take_over(labels, (0, 0))
    outside, inside, below = (400, 400), (185, 180), (240, 180)
    camera.center, camera.zoom = (0, *outside), 3.0
    hands.rest(0.1)
    QTest.mouseMove(hands.canvas, hands.point(*outside))
    hands.rest(0.1)

    camera.center = (0, *inside)  # the pointer is over the tile now
    hands.rest(0.1)
    left, none = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    QTest.mousePress(hands.canvas, left, none, hands.point(*inside))
    for y in range(inside[0], below[0] + 1, 5):
        QTest.mouseMove(hands.canvas, hands.point(y, 180))
        hands.rest(0.02)
    QTest.mouseRelease(hands.canvas, left, none, hands.point(*below))
    hands.rest(0.1)

    assert tuple(camera.center)[-2:] == inside
    assert tally_on_disk(hands) == Tally(drawn=2)


def test_marking_complete_accepts_the_rest_and_what_is_drawn_is_told_apart(proposed):
    proposed.stroke([(206, 180), (234, 180)])
    proposed.press(proposed.dock.tiles_panel.tile_box.complete)

    assert proposed.project.tile(proposed.project.selected).status == "complete"
    assert tally_on_disk(proposed) == Tally(drawn=2, accepted=2)


def test_an_accepted_nucleus_is_of_the_class_that_is_chosen_when_it_is_accepted(proposed):
    tiles = proposed.dock.tiles
    proposed.project.set_classes(with_class(proposed.project.classes, "tumor"))
    proposed.click(170, 190)
    tiles.choose_pen(BACKGROUND + 2)
    tiles.correct(True)
    proposed.click(170, 170)
    assert "what is white becomes “tumor”" in proposed.dock.tiles_panel.tile_box.help.hint.text()
    proposed.stroke([(206, 180), (234, 180)])  # a cut makes two of one that nobody has named yet
    tally_on_disk(proposed)
    classes = ProjectFolder.open(proposed.project.path, read_only=True).annotation(proposed.project.selected).classes

    assert [classes[20, 40], classes[20, 20], classes[70, 22], classes[70, 37]] == [2, 3, 3, 3]


def classes_on_disk(hands) -> np.ndarray:
    hands.saved()
    return ProjectFolder.open(hands.project.path, read_only=True).annotation(hands.project.selected).classes


@pytest.fixture
def proposed_with_classes(proposed):
    """The three nuclei proposed again: two of a class each, and one of a class that the project does not have."""
    labels = np.zeros((512, 512), np.uint32)
    for number in np.unique(layer_of(proposed).data)[1:].tolist():
        labels[150:250, 150:250][layer_of(proposed).data == number] = number
    layer_of(proposed).undo()
    proposed.project.set_classes(with_class(with_class(proposed.project.classes, "tumor"), "stroma"))
    first, second, third = np.unique(labels)[1:].tolist()
    proposed.dock.tiles_panel.tile_box.proposed.take_over(
        labels, (0, 0), {first: "stroma", second: "tumor", third: "mitosis"}
    )
    return proposed


def test_a_nucleus_that_is_proposed_with_its_class_is_of_that_when_it_is_accepted(proposed_with_classes):
    hands = proposed_with_classes
    before = classes_on_disk(hands)
    assert [before[20, 20], before[20, 40], before[70, 30]] == [PROPOSED_AS + 4, PROPOSED_AS + 3, PROPOSED]
    assert ProjectFolder.open(hands.project.path, read_only=True).annotation(hands.project.selected).tally.proposed == 3

    hands.dock.tiles.choose_pen(BACKGROUND + 2)
    hands.dock.tiles.correct(True)
    hands.click(170, 170)
    hands.press(hands.dock.tiles_panel.tile_box.complete)
    after = classes_on_disk(hands)
    assert [after[20, 20], after[20, 40], after[70, 30]] == [4, 3, 3]


def test_the_class_of_what_is_proposed_is_seen_and_survives_opening_the_project_again(proposed_with_classes, open_dock):
    hands, colors = proposed_with_classes, [spec.color for spec in proposed_with_classes.project.classes]
    seen = colors_of(layer_of(hands), (20, 20), (20, 40), (70, 30))
    hands.saved()
    path = hands.project.path
    hands.dock.leave()
    again = open_dock()
    again.dock.view.open_project(path)
    again.wait(lambda: of_role(again.viewer, "annotation"), "the tile")
    (layer,) = of_role(again.viewer, "annotation")

    assert colors_of(layer, (20, 20), (20, 40), (70, 30)) == seen
    assert seen[2] == "#ffffff"
    for color, pale in zip((colors[2], colors[1]), seen[:2], strict=True):
        strong, weak = rgb_to_hsv(*rgb(color)), rgb_to_hsv(*rgb(pale))
        assert weak[0] == pytest.approx(strong[0], abs=0.03)
        assert 0 < weak[1] < 0.5 * strong[1]


def test_a_key_gives_the_nucleus_below_the_mouse_the_next_class_and_undo_gives_it_back(proposed_with_classes):
    hands, layer = proposed_with_classes, layer_of(proposed_with_classes)
    hands.viewer.cursor.position = (170, 170)
    press(layer, "K")  # stroma, the last class, so the first comes next
    assert classes_on_disk(hands)[20, 20] == 2
    press(layer, "K")
    press(layer, "K")
    assert classes_on_disk(hands)[20, 20] == 4
    hands.viewer.cursor.position = (220, 180)
    press(layer, "K")  # of no class yet: the one that is painted with
    hands.viewer.cursor.position = (240, 240)
    press(layer, "K")  # no nucleus
    assert tally_on_disk(hands) == Tally(accepted=2, proposed=1)
    assert classes_on_disk(hands)[70, 30] == 2

    layer.undo()
    layer.undo()
    assert [classes_on_disk(hands)[20, 20], classes_on_disk(hands)[70, 30]] == [3, PROPOSED]


def test_undo_brings_a_nucleus_back_with_the_class_that_it_had(proposed):
    tiles, layer = proposed.dock.tiles, layer_of(proposed)
    proposed.project.set_classes(with_class(proposed.project.classes, "tumor"))
    ring = [(230 + 12 * math.sin(turn), 230 + 12 * math.cos(turn)) for turn in np.linspace(0, 2 * math.pi, 25)]
    proposed.stroke(ring)
    tiles.choose_pen(BACKGROUND + 2)
    tiles.correct(True)
    proposed.stroke([(230, 230)], button=2)  # deleted, so that its number is free
    proposed.stroke([(y - 50, x) for y, x in ring])  # which another one must not get
    assert classes_on_disk(proposed)[30, 80] == 3
    layer.undo()
    layer.undo()

    assert classes_on_disk(proposed)[80, 80] == 2


def test_taking_back_a_mark_spares_what_was_corrected_since(proposed):
    layer = layer_of(proposed)
    proposed.press(proposed.dock.tiles_panel.tile_box.complete)
    (_, undo) = proposed.dock.session.notice.actions[0]
    proposed.stroke([(170, 170)], button=2)  # delete one of the three
    proposed.stroke([(170, 194), (170, 194)])
    undo()

    assert proposed.project.tile(proposed.project.selected).status in ("empty", "sparse")
    assert not layer.data[10:30, 10:30].any()
    assert tally_on_disk(proposed) == Tally(proposed=2)
    assert proposed.project.tile(proposed.project.selected).status == "sparse"


def test_keys_correct_the_nucleus_below_the_mouse(proposed):
    layer, viewer = layer_of(proposed), proposed.viewer.__wrapped__
    viewer.cursor.position = (170, 170)
    press(layer, "A")
    viewer.cursor.position = (220, 180)
    press(layer, "D")
    assert tally_on_disk(proposed) == Tally(accepted=1, proposed=1)

    press(layer, "C")
    assert layer.mode == "paint"
    assert layer.contour == 0
    press(layer, "Shift-C")
    assert proposed.project.tile(proposed.project.selected).status == "complete"


def test_keys_go_from_tile_to_tile(proposed):
    first = proposed.project.selected
    second = proposed.project.add_tile(0, center=(400, 400), side=100).id
    layer = layer_of(proposed)
    press(layer, "N")
    assert proposed.project.selected == first
    assert proposed.viewer.layers.selection.active == layer_of(proposed)
    np.testing.assert_allclose(proposed.viewer.scene.camera.center[-2:], (199.5, 199.5))
    press(layer_of(proposed), "P")
    assert proposed.project.selected == second


def test_a_brush_on_a_proposed_nucleus_makes_it_a_drawn_one(proposed):
    proposed.dock.tiles.correct(False)
    proposed.stroke([(170, 170), (176, 170)])

    data = layer_of(proposed).data
    assert not (data == PROPOSED_FROM).any()
    assert tally_on_disk(proposed) == Tally(drawn=1, proposed=2)


def test_the_opacity_that_somebody_chose_is_given_back(proposed):
    layer = layer_of(proposed)
    assert layer.opacity == 1
    proposed.dock.tiles.correct(False)
    layer.opacity = 0.3
    proposed.dock.tiles.correct(True)
    proposed.project.add_tile(0, center=(400, 400), side=100)
    assert layer.opacity == 0.3


def test_a_tool_of_napari_ends_correcting_and_the_dock_shows_it(proposed):
    layer = layer_of(proposed)
    layer.mode = "erase"

    assert not proposed.dock.tiles.correcting
    assert not proposed.dock.tiles_panel.tile_box.pens.correct.isChecked()
    assert layer.contour == 0


def test_proposed_nuclei_are_there_after_opening_the_project_again(proposed, open_dock):
    tally_on_disk(proposed)
    before, path = layer_of(proposed).data.copy(), proposed.project.path
    proposed.click(170, 170)
    proposed.dock.leave()
    again = open_dock()
    again.dock.view.open_project(path)
    again.wait(lambda: of_role(again.viewer, "annotation"), "the tile")

    data = of_role(again.viewer, "annotation")[0].data
    assert (data >= PROPOSED_FROM).sum() == 2 * (before == PROPOSED_FROM).sum()
    assert (data == ACCEPTED_FROM).sum() == 400


def test_closing_the_dock_releases_all_keys(proposed):
    layer = layer_of(proposed)
    assert any(layer.keymap.values())
    proposed.dock.leave()
    assert not any(layer.keymap.values())


def test_the_manifest_offers_every_key():
    pages = PluginManifest.from_file(files("napari_semiseg") / "napari.yaml").contributions.configurations
    offered = {name: (entry.default, entry.description.lower()) for name, entry in pages["keys"].properties.items()}
    assert offered == {action.name: (action.key, action.does.lower()) for action in ACTIONS}


def test_keys_are_those_of_the_preferences(monkeypatch):
    class Page(EventedModel):
        next_tile: str = "N"
        previous_tile: str = "nonsense-key"
        delete: str = "D"

    page = Page()
    monkeypatch.setattr(keys_module, "get_plugin_settings", lambda name: SimpleNamespace(keys=page))
    keys = Keys()
    pressed = []
    layer = Labels(np.zeros((4, 4), np.uint8))
    keys.bind(layer, {name: lambda _, name=name: pressed.append(name) for name in ("next_tile", "delete")})
    page.next_tile = "P"  # the usual key of another action
    press(layer, "N")
    page.next_tile = "U"
    press(layer, "U")
    page.delete = "U"  # taken already
    press(layer, "D")
    assert pressed == ["next_tile", "next_tile", "delete"]
    assert (keys.of("next_tile"), keys.of("previous_tile"), keys.of("delete")) == ("U", "P", "D")
    assert "U: go to the next tile" in keys.words
    keys.end()
    assert not any(layer.keymap.values())


def test_a_key_that_is_chosen_on_our_page_of_naparis_preferences_counts_at_once():
    page = get_plugin_settings("napari-semiseg").keys
    keys, pressed = Keys(), []
    layer = Labels(np.zeros((4, 4), np.uint8))
    keys.bind(layer, {"next_tile": lambda _: pressed.append("next_tile")})
    try:
        page.next_tile = "U"
        press(layer, "U")
    finally:
        page.next_tile = "N"
    press(layer, "N")
    keys.end()

    assert pressed == ["next_tile", "next_tile"]


def test_a_key_that_is_not_taken_is_said_and_what_stays(proposed, open_dock, tissue):
    page = get_plugin_settings("napari-semiseg").keys
    try:
        page.next_tile = "A"
        said = proposed.dock.session.notice.sentence
        assert said == (
            "The key “A” is not taken to go to the next tile, since it is the key to accept the proposed nucleus below "
            "the mouse: that stays with N."
        )
        page.next_tile = "Ctrl-Z"
        assert "since it undoes or redoes strokes" in proposed.dock.session.notice.sentence
        page.next_tile = "nonsense"
        assert "since napari knows no such single key" in proposed.dock.session.notice.sentence
        assert open_dock(tissue).dock.session.notice.sentence == proposed.dock.session.notice.sentence
    finally:
        page.next_tile = "N"


def test_the_list_of_keys_tells_both_meanings_of_one_that_has_two(proposed):
    lines = proposed.dock.tiles_panel.tile_box.help.key_list.text().splitlines()
    assert (
        "N: go to the next tile; with a layer of the result selected: to the next nucleus in doubt, while you go "
        "through them"
    ) in lines


def test_the_hint_names_the_key_that_is_chosen_now(proposed_with_classes):
    hint = proposed_with_classes.dock.tiles_panel.tile_box.help.hint
    assert "K gives the nucleus below the mouse the next class" in hint.text()
    page = get_plugin_settings("napari-semiseg").keys
    try:
        page.reclass = "U"
        assert "U gives the nucleus below the mouse the next class" in hint.text()
    finally:
        page.reclass = "K"


def test_the_image_alone_is_seen_for_as_long_as_the_key_is_held(open_window, tissue, tmp_path):
    hands = open_window(tissue)
    start(hands, tmp_path)
    layer = layer_of(hands)
    QTest.mouseMove(hands.canvas, hands.point(200, 200))
    QTest.keyPress(hands.canvas, Qt.Key.Key_J)
    hands.rest(0.5)
    assert not layer.visible

    QTest.keyRelease(hands.canvas, Qt.Key.Key_J)
    hands.wait(lambda: layer.visible, "the layer")


@pytest.mark.parametrize("key", ["Shift", "Ctrl++", " ", "Ctrl-X Ctrl-C", "Control-Z", "Ctrl-Shift-Z"])
def test_no_action_takes_a_key_that_is_none_or_that_undoes_strokes(monkeypatch, key):
    page = SimpleNamespace(next_tile=key, events=EventedModel().events)
    monkeypatch.setattr(keys_module, "get_plugin_settings", lambda name: SimpleNamespace(keys=page))
    keys = Keys()

    assert keys.of("next_tile") == "N"
    assert keys.of("take_back") == "Ctrl+Z"
    keys.end()


def test_two_actions_may_exchange_their_keys(monkeypatch):
    page = SimpleNamespace(next_tile="P", previous_tile="N", peek="-", events=EventedModel().events)
    monkeypatch.setattr(keys_module, "get_plugin_settings", lambda name: SimpleNamespace(keys=page))
    keys = Keys()

    assert (keys.of("next_tile"), keys.of("previous_tile"), keys.of("peek")) == ("P", "N", "-")
    keys.end()


def press(layer, key: str) -> None:
    """Press a key in a layer."""
    found = [call for bound, call in layer.keymap.items() if str(bound).replace("+", "-") == key]
    assert len(found) == 1
    found[0](layer)


def test_a_stroke_after_a_circle_that_was_given_up_is_a_nucleus_of_its_own(open_window, tissue, tmp_path):
    hands = open_window(tissue)
    start(hands, tmp_path)
    layer = layer_of(hands)
    hands.viewer.scene.camera.center, hands.viewer.scene.camera.zoom = (0, 200, 200), 3.0
    hands.rest(0.1)
    hands.stroke([(180, 180), (180, 200)])
    first = int(layer.data[180 - 150, 190 - 150])
    QTest.mouseClick(hands.canvas, Qt.MouseButton.RightButton, pos=hands.point(180, 190))
    QTest.mouseMove(hands.canvas, hands.point(190, 205))
    hands.rest(0.05)
    QTest.keyClick(hands.canvas, Qt.Key.Key_Escape)
    hands.rest(0.05)

    hands.stroke([(230, 180), (230, 200)])
    second = int(layer.data[230 - 150, 190 - 150])
    assert first
    assert second
    assert first != second
