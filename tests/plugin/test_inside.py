"""Inside the training: curves of counters, histograms, and looks as layers over the image."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Image, Labels, Shapes

from napari_semiseg.events import Described, Finished, Inspect, PatchesCounted, Ready, Started, StepDone, Written
from napari_semiseg.io.diagnostics import Amount, Boxes, Categories, Colors, Look, Meaning, Place, Plot, write_look
from napari_semiseg.plugin.layers import of_role

DESCRIPTION = {
    "complete": True,
    "methods": [
        {"name": "csl", "title": "No labels", "labels": "unused", "classes": "two", "network": "csl", "options": {},
         "shows": "Drawn patches"}
    ],
    "networks": [],
    "presets": [{"name": "quick", "minutes": 3.0}],
    "devices": [{"name": "cpu", "title": "CPU, 1 thread", "ok": True, "note": "", "step_s": 0.1}],
    "requests": {},
    "sampler": {},
    "optimizer": {},
    "looks": [{"name": "method", "title": "", "needs_truth": False}],
}  # fmt: skip
SIGNS = {1: Meaning("positive patch", (255, 255, 255)), 2: Meaning("negative patch", (222, 20, 35))}


@pytest.fixture
def hands(open_dock, tissue, tmp_path):
    """A dock with a training that goes on, unfolded."""
    hands = open_dock(tissue)
    hands.dock.view.choose_target(tmp_path / "case.semiseg")
    hands.press(hands.dock.slide_panel.start)
    hands.wait(lambda: hands.dock.view.started, "the start")
    engine = hands.dock.session.engine
    hands.sent = []
    engine.commanded.connect(hands.sent.append)
    engine.apply([(Ready(1, {}), ""), (Described(DESCRIPTION), "")])
    while engine.job is not None:
        engine.apply([(Finished(engine.job.verb), engine.job.id)])
    for step in hands.dock.steps:
        step.set_open(True)
    panel = hands.dock.train_panel
    hands.press(panel.train)
    say(hands, Started("train", str(panel.model.record.path), 100, {"method": "csl", "network": "csl"}))
    panel.inside.unfold.setChecked(True)
    return hands


def say(hands, *events) -> None:
    engine = hands.dock.session.engine
    for event in events:
        engine.apply([(event, engine.job.id)])


def shown(hands, folder, maps, numbers=None) -> None:
    hands.press(hands.dock.train_panel.inside.show_button)
    path = folder / "look.npz"
    write_look(path, Look("method", 40, Place(16, 32, 256, 256, 1.0), maps, numbers or {}))
    say(hands, Written("look", str(path), {"show": "method", "step": 40, "image": 0}))
    hands.wait(lambda: hands.dock.session.inspection.look is not None, "the look")


def test_counters_and_histograms_are_drawn(hands):
    inside = hands.dock.train_panel.inside
    counted = {"positive patches": 0.5, "drawn patches": 40.0, "skipped batches": 2.0}
    say(hands, StepDone(0, {"intra": 1.0}, counted), StepDone(9, {"intra": 1.0}, counted))
    say(hands, PatchesCounted(5, 0, [4, *[0] * 19], [9, *[0] * 19]), PatchesCounted(9, 0, [0] * 19 + [4], [0] * 20))
    inside.show_curves()

    assert len(inside.counters.shares.listDataItems()) == 1
    assert len(inside.counters.counts.listDataItems()) == 2
    assert "skipped batches 2" in inside.counters.legend.text()
    assert inside.patches.isVisible()
    drawn = inside.patches.confidence.getPlotItem().items[0].image
    assert drawn.shape == (2, 20)
    assert (drawn[0, 0], drawn[1, 19], drawn[0, 19]) == (1, 1, 0)


def test_show_asks_for_what_is_in_view_and_draws_patches_in_white_and_red_where_they_lie(hands, tmp_path):
    inside = hands.dock.train_panel.inside
    assert [inside.choice.itemText(number) for number in range(inside.choice.count())] == ["Drawn patches"]
    corners, kinds = np.array([[0, 0, 50, 50], [100, 20, 150, 70]]), np.array([1, 2], np.uint8)
    shown(hands, tmp_path, {"drawn patches": Boxes(corners, kinds, SIGNS)})

    assert Inspect("method", 0, (0, 0, 512, 512)) in hands.sent
    (layer,) = of_role(hands.viewer, "look")
    assert isinstance(getattr(layer, "__wrapped__", layer), Shapes)
    assert np.asarray(layer.edge_color)[:, :3] == pytest.approx(
        np.array([[1, 1, 1], [222 / 255, 20 / 255, 35 / 255]]), abs=1e-3
    )
    first = np.asarray(layer.data[0])
    assert first.min(0).tolist() == [15.5, 31.5]
    assert first.max(0).tolist() == [65.5, 81.5]
    assert "positive patch" in inside.legend.text()


def test_every_kind_of_map_has_its_layer_and_a_plot_its_place_in_the_dock(hands, tmp_path):
    inside = hands.dock.train_panel.inside
    maps = {
        "patches": Categories(np.ones((8, 8), np.uint8), SIGNS),
        "score": Amount(np.zeros((128, 128)), 0.0, 1.0, "share"),
        "features": Colors(np.zeros((64, 64, 3), np.uint8), "components"),
        "landscape": Plot(np.full((320, 320, 3), 255, np.uint8), "points"),
    }
    shown(hands, tmp_path, maps, {"Dice": 0.5})

    layers = {layer.name: layer for layer in of_role(hands.viewer, "look")}
    assert set(layers) == {"patches", "score", "features"}
    kinds = {name: type(getattr(layer, "__wrapped__", layer)) for name, layer in layers.items()}
    assert kinds == {"patches": Labels, "score": Image, "features": Image}
    assert [layers[name].visible for name in ("patches", "score", "features")] == [True, False, False]
    scale = hands.dock.view.placement.scale
    for layer, cell in ((layers["patches"], 32), (layers["score"], 2), (layers["features"], 4)):
        assert layer.scale == pytest.approx(scale * cell)
        # the outer edge of the first cell is that of the pixel (16, 32), whose center has whole numbers
        assert layer.translate == pytest.approx(scale * (np.array([16, 32]) + (cell - 1) / 2))
    assert not layers["patches"].editable
    assert inside.plot.isVisible()
    assert "Dice 0.500" in inside.legend.text()

    hands.press(inside.hide_button)
    assert of_role(hands.viewer, "look") == []
    assert not inside.plot.isVisible()


def test_a_new_look_takes_the_place_of_the_one_before(hands, tmp_path):
    shown(hands, tmp_path, {"patches": Categories(np.ones((8, 8), np.uint8), SIGNS)})
    hands.dock.session.inspection.look = None
    shown(hands, tmp_path, {"score": Amount(np.zeros((8, 8)), 0.0, 1.0, "share")})

    assert [layer.name for layer in of_role(hands.viewer, "look")] == ["score"]


def test_names_of_counters_are_shown_as_plain_text(hands):
    say(hands, StepDone(0, {"intra": 1.0}, {"<b>evil</b>": 0.5}))
    hands.dock.train_panel.inside.show_curves()

    assert "&lt;b&gt;" in hands.dock.train_panel.inside.counters.legend.text()
