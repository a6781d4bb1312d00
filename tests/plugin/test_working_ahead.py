"""What was asked for comes while one paints, or has gone on: it takes nothing out of a hand, and nothing is lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from napari.layers import Labels

from napari_semiseg.app.engine_model import ChildStarted
from napari_semiseg.app.painting import PROPOSED_FROM
from napari_semiseg.app.suggestions import Suggestion
from napari_semiseg.blocks import Box
from napari_semiseg.errors import InputError
from napari_semiseg.events import Finished, Paused, Ready, Started, Suggested, Written
from napari_semiseg.plugin.layers import KEY

PLACE = {"image": 0, "box": [300, 300, 400, 400], "reason": "because"}


class Asked:
    """A dock over two images with two tiles on the first, and an engine that is played by hand."""

    def __init__(self, hands) -> None:
        self.hands, self.dock, self.panel = hands, hands.dock, hands.dock.tiles_panel
        self.engine = hands.dock.session.engine
        self.engine.apply([ChildStarted(1, "log"), (Ready(1, {}), "")])
        hands.project.add_tile(0, box=Box(200, 200, 300, 300), select=False)
        hands.wait(lambda: self.layer("t0001") is not None and self.layer("t0003") is not None, "the tiles")
        self.panel.go_to("t0001")
        self.be_free()
        hands.rest(0.1)
        self.be_free()

    @property
    def said(self) -> str:
        return self.dock.session.notice.sentence if self.dock.session.notice else ""

    def layer(self, tile_id: str):
        return self.dock.tiles.layer(tile_id)

    def be_free(self) -> None:
        """Let the engine end what it does by itself: the proposal for the image in view."""
        while self.engine.job is not None:
            self.engine.apply([(Finished(self.engine.job.verb), self.engine.job.id)])

    def asks(self, tile_id: str) -> None:
        self.panel.go_to(tile_id)
        press(self.layer(tile_id), "G")

    def answer(self, *nuclei: tuple[int, int]) -> None:
        """Say that there are nuclei of 20 x 20 at these places of the tile that the engine is at."""
        args, job = self.engine.job.args, self.engine.job.id
        y0, x0, y1, x1 = args["box"]
        labels = np.zeros((y1 - y0, x1 - x0), np.uint32)
        for number, (y, x) in enumerate(nuclei or [(60, 60)], start=1):
            labels[y : y + 20, x : x + 20] = number
        path = Path(args["out"]) / "nuclei.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, labels)
        written = Written("nuclei", str(path), {"box": [y0, x0, y1, x1]})
        self.engine.apply([(written, job), (Finished("propose"), job)])
        self.hands.rest(0.3)

    def keep_busy(self) -> str:
        """Have a segmentation run, and pause it."""
        job = self.engine.run("predict", {})
        self.dock.session.review._job, self.dock.session.review.state = job, "running"
        self.engine.apply([(Started("predict", "", 10), job), (Paused(1), job)])
        return job


@pytest.fixture
def asked(open_images):
    return Asked(open_images("first", "second"))


def press(layer, key: str) -> None:
    next(call for bound, call in layer.keymap.items() if str(bound).replace("+", "-") == key)(layer)


def proposed(layer) -> int:
    return len(np.unique(layer.data[layer.data >= PROPOSED_FROM]))


# ---- a stroke goes on ----


def test_nuclei_that_come_during_a_stroke_wait_for_its_end_and_leave_the_brush_in_the_hand(asked):
    asked.asks("t0001")
    layer = asked.layer("t0001")
    with asked.hands.drawing([(20, 20), (20, 30)]):
        asked.answer()
        assert proposed(layer) == 0
        assert layer.mode == "paint"
    asked.hands.wait(lambda: proposed(layer) == 1, "the nuclei", 5)

    assert layer.mode == "paint"
    assert not asked.dock.tiles.correcting
    assert "1 nucleus is proposed in tile t0001 now" in asked.said
    layer.undo()  # the nuclei alone
    assert proposed(layer) == 0
    assert (layer.data == 1).any()


def test_who_painted_nothing_meanwhile_corrects_at_once(asked):
    asked.asks("t0001")
    asked.answer()
    assert proposed(asked.layer("t0001")) == 1
    assert asked.dock.tiles.correcting


def test_who_has_painted_since_goes_on_to_paint(asked):
    asked.asks("t0001")
    asked.hands.stroke([(20, 20), (20, 30)])
    asked.answer()
    assert proposed(asked.layer("t0001")) == 1
    assert asked.layer("t0001").mode == "paint"


def test_the_key_during_a_stroke_takes_what_is_shown_after_it_and_leaves_the_brush_in_the_hand(asked):
    labels = np.zeros((512, 512), np.uint32)
    labels[60:80, 60:80] = 1
    shown = {"role": "proposal", "image": 0, "origin": (0, 0), "downsample": 1}
    asked.hands.viewer.add_layer(Labels(labels, metadata={KEY: shown}))
    asked.panel.go_to("t0001")
    layer = asked.layer("t0001")
    with asked.hands.drawing([(20, 20), (20, 30)]):
        press(layer, "G")
        assert proposed(layer) == 0
    asked.hands.wait(lambda: proposed(layer) == 1, "the nuclei", 5)
    assert layer.mode == "paint"
    layer.undo()
    assert (layer.data == 1).any()


def test_nuclei_that_come_before_a_polygon_has_its_last_corner_wait_for_it(asked):
    asked.asks("t0001")
    layer = asked.layer("t0001")
    layer.mode = "polygon"
    polygon = layer._overlays["polygon"]
    polygon.points = [(10.0, 10.0), (10.0, 30.0)]
    asked.answer()
    assert proposed(layer) == 0
    assert asked.panel.tile_box.waits.text() == "Waits for the end of your stroke"
    polygon.points = []
    asked.hands.wait(lambda: proposed(layer) == 1, "the nuclei", 5)


def test_nuclei_that_come_while_a_nucleus_is_encircled_wait_for_the_end_of_the_circle(open_window, tissue, tmp_path):
    hands = open_window(tissue)
    hands.dock.view.choose_target(tmp_path / "case.semiseg")
    hands.press(hands.dock.slide_panel.start)
    hands.wait(lambda: hands.dock.view.started, "the start")
    hands.project.add_tile(0, center=(200, 200), side=200)
    hands.viewer.scene.camera.center, hands.viewer.scene.camera.zoom = (0, 200, 200), 2.0
    hands.rest(0.2)
    layer, labels = hands.dock.tiles.layer("t0001"), np.zeros((512, 512), np.uint32)
    labels[250:270, 250:270] = 1
    kept = hands.dock.tiles_panel.tile_box.proposed
    turns = np.linspace(0, 2 * np.pi, 13)
    ring = [(180 + 20 * np.sin(turn), 180 + 20 * np.cos(turn)) for turn in turns[:-1]]
    rest = hands.point

    def point(y: float, x: float):
        if (y, x) == ring[6]:  # half of the way around
            kept._keep("t0001", hands.dock.strokes.drawn, labels, (0, 0), {})
        if (y, x) == ring[9]:
            assert proposed(layer) == 0
            assert layer.mode == "paint"
        return rest(y, x)

    hands.point = point
    hands.encircle(ring)
    hands.wait(lambda: proposed(layer) == 1, "the nuclei", 5)
    assert (layer.data == 1).sum() > 900  # the circle was closed and filled
    layer.undo()
    assert proposed(layer) == 0
    assert (layer.data == 1).sum() > 900


def test_a_suggested_place_is_shown_at_once_and_gone_to_when_the_stroke_has_ended(asked):
    hands, camera = asked.hands, asked.hands.viewer.scene.camera
    hands.press(asked.panel.suggest)
    before = tuple(camera.center)
    with hands.drawing([(20, 20), (20, 30)]):
        asked.engine.apply([(Suggested([PLACE]), asked.engine.job.id)])
        hands.rest(0.2)
        assert asked.panel.suggestion.isVisible()
        assert tuple(camera.center) == before
    hands.rest(0.2)
    np.testing.assert_allclose(camera.center[-2:], (349.5, 349.5))


def test_a_place_that_was_left_is_not_gone_back_to_when_another_is_asked_for_or_the_engine_is_lost(asked):
    suggestions, camera = asked.dock.suggestions, asked.hands.viewer.scene.camera
    suggestions.current = Suggestion(0, Box(300, 300, 400, 400), "for a test")
    suggestions.changed.emit()
    np.testing.assert_allclose(camera.center[-2:], (349.5, 349.5))
    camera.center = (0, 50, 50)
    asked.hands.press(asked.panel.suggest)
    suggestions._give_up()
    asked.hands.rest(0.2)
    np.testing.assert_allclose(camera.center[-2:], (50, 50))


# ---- another tile is looked at ----


def test_nuclei_go_into_the_tile_that_they_were_asked_for_and_leave_the_chosen_one_alone(asked):
    asked.asks("t0001")
    asked.asks("t0003")
    asked.answer()
    asked.answer((10, 10), (60, 60))

    assert [proposed(asked.layer(tile_id)) for tile_id in ("t0001", "t0003")] == [1, 2]
    assert asked.hands.project.selected == "t0003"
    assert asked.dock.tiles.correcting


def test_who_has_gone_on_to_paint_elsewhere_hears_where_nuclei_are(asked):
    asked.asks("t0001")
    asked.panel.go_to("t0003")
    asked.answer()
    assert proposed(asked.layer("t0001")) == 1
    assert asked.layer("t0003").mode == "paint"
    assert "1 nucleus is proposed in tile t0001 now" in asked.said


def test_nuclei_for_a_tile_of_another_image_are_there_when_one_comes_back(asked):
    asked.asks("t0001")
    args, job = dict(asked.engine.job.args), asked.engine.job
    asked.panel.go_to("t0002")
    asked.hands.wait(lambda: asked.hands.project.selected == "t0002", "the second image")
    assert asked.engine.job == job
    assert args["box"] == [0, 0, 100, 100]
    asked.answer()
    asked.be_free()
    assert not asked.layer("t0002").data.any()
    asked.panel.go_to("t0001")
    asked.hands.wait(lambda: asked.layer("t0001") is not None, "the first image")
    asked.hands.wait(lambda: proposed(asked.layer("t0001")) == 1, "the nuclei", 5)


def test_nuclei_for_a_tile_that_was_removed_are_asked_for_no_longer(asked):
    asked.keep_busy()
    asked.asks("t0001")
    asked.panel.removal.remove()
    assert not asked.dock.proposals.waiting
    assert not [errand for errand in asked.dock.session._errands if errand.verb == "propose"]


# ---- what it waits for ----


def test_what_is_waited_for_is_said_and_a_second_press_wants_it_no_longer(asked):
    job = asked.keep_busy()
    panel = asked.panel
    for button, words in ((panel.tile_box.from_proposal, panel.tile_box.waits), (panel.suggest, panel.suggest_waits)):
        before = button.text()
        asked.hands.press(button)
        assert button.text() == "Stop looking"
        assert words.text() == "Waits for the segmentation, which is paused"
        assert words.isVisible()
        asked.hands.press(button)
        assert button.text() == before
        assert not words.isVisible()
    asked.engine.apply([(Finished("predict"), job)])
    asked.be_free()
    assert not asked.dock.tiles.correcting


def test_the_keys_want_it_no_longer_just_as_well(asked):
    asked.keep_busy()
    layer = asked.layer("t0001")
    for key, waits in (("G", lambda: asked.dock.proposals.waiting), ("S", lambda: asked.dock.suggestions.waiting)):
        press(layer, key)
        assert waits()
        press(layer, key)
        assert not waits()


# ---- what cannot be done is said ----


def test_a_place_that_cannot_be_added_stays_on_offer(asked, monkeypatch):
    suggestions = asked.dock.suggestions
    asked.hands.press(asked.panel.suggest)
    asked.engine.apply([(Suggested([PLACE, PLACE]), asked.engine.job.id)])

    def full(*_, **__):
        raise InputError("The disk is full: make room, then try again.")

    monkeypatch.setattr(asked.hands.project, "add_tile", full)
    asked.hands.press(asked.panel.suggestion.take)
    assert asked.said == "The disk is full: make room, then try again."
    assert (suggestions.current is not None, suggestions.left) == (True, 1)
    monkeypatch.undo()
    asked.hands.press(asked.panel.suggestion.take)
    assert (suggestions.current, suggestions.left) == (None, 0)
    assert asked.hands.project.selected == "t0004"


def test_in_a_layer_that_cannot_be_edited_nothing_is_proposed_and_that_is_said(asked):
    layer = asked.layer("t0001")
    layer.editable = False
    asked.hands.press(asked.panel.tile_box.from_proposal)
    assert "cannot be edited" in asked.said
    assert not asked.dock.proposals.waiting
    layer.editable = True
    asked.asks("t0001")
    layer.editable = False
    asked.answer()
    assert "cannot be edited" in asked.said
    assert not asked.dock.tiles.correcting
    assert not layer.data.any()
