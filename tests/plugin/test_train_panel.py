"""The panels of training, review and export: change the model, look at the widget; click, look at the request."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtWidgets import QLabel

from napari_semiseg.app.engine_model import ChildEnded
from napari_semiseg.app.painting import BACKGROUND_ID
from napari_semiseg.blocks import Box
from napari_semiseg.engine.compare import CompareRequest, compare
from napari_semiseg.engine.export import export
from napari_semiseg.engine.export_job import ExportRequest
from napari_semiseg.errors import InputError
from napari_semiseg.events import (
    Described,
    Failed,
    Finished,
    Focus,
    ImagesChanged,
    Pause,
    PreviewWritten,
    Ready,
    Run,
    Started,
    StepDone,
    Stop,
    Validated,
    Warned,
    Written,
    encode,
)
from napari_semiseg.io.result import Result
from napari_semiseg.io.result_writer import ResultWriter
from napari_semiseg.plugin.layers import of_role
from napari_semiseg.project.folder import ProjectFolder
from napari_semiseg.project.tile_annotation import ACCEPTED_FROM

_CROP = {"type": "object", "properties": {"crop": {"type": "integer", "default": 160, "minimum": 32, "maximum": 512}}}
DESCRIPTION = {
    "complete": True,
    "methods": [
        {"name": "csl", "title": "No labels", "labels": "unused", "classes": "two", "network": "csl", "options": {}}
    ],
    "networks": [],
    "presets": [{"name": "quick", "minutes": 3.0}],
    "devices": [{"name": "cpu", "title": "CPU, 1 thread", "ok": True, "note": "", "step_s": 0.1}],
    "requests": {},
    "sampler": _CROP,
    "optimizer": {},
}


@pytest.fixture
def started(open_dock, tissue, tmp_path):
    """A dock with a project, and an engine that says what the test says."""
    hands = open_dock(tissue)
    hands.dock.view.choose_target(tmp_path / "case.semiseg")
    hands.press(hands.dock.slide_panel.start)
    hands.wait(lambda: hands.dock.view.started, "the start")
    hands.sent = []
    hands.dock.session.engine.commanded.connect(hands.sent.append)
    hands.dock.session.engine.apply([(Ready(1, {}), ""), (Described(DESCRIPTION), "")])
    for step in hands.dock.steps:
        step.set_open(True)
    finish_job(hands)
    return hands


def finish_job(hands) -> None:
    """Let the engine finish what it was asked for by itself."""
    engine = hands.dock.session.engine
    while engine.job is not None:
        engine.apply([(Finished(engine.job.verb), engine.job.id)])


def say(hands, *events) -> None:
    engine = hands.dock.session.engine
    for event in events:
        engine.apply([(event, engine.job.id)])


def begin(hands):
    panel = hands.dock.train_panel
    hands.press(panel.train)
    say(
        hands, Started("train", str(panel.model.record.path), 100, {"method": "csl", "network": "csl", "device": "cpu"})
    )
    return panel


def preview(hands, step: int, value: int, side: int = 512) -> PreviewWritten:
    folder = hands.dock.session.training.record.path / "preview"
    folder.mkdir(exist_ok=True)
    path = folder / f"image-0-step-{step:07d}.npy"
    np.save(path, np.full((side, side), value, np.uint8))
    return PreviewWritten(step, str(path), 0, (0, 0, 512, 512), 512 // side)


def test_before_a_project_the_big_button_says_why_it_is_disabled(open_dock):
    panel = open_dock().dock.train_panel

    assert not panel.train.isEnabled()
    assert "step 1" in panel.reason.text()


def test_one_click_on_train_asks_for_a_run_and_nothing_had_to_be_chosen(started):
    panel = started.dock.train_panel
    assert panel.choice.text() == "auto · no labels · CPU"
    assert panel.train.text() == "▶  Train · about 3 min"
    begin(started)

    (run,) = [command for command in started.sent if isinstance(command, Run) and command.verb == "train"]
    assert run.args["project"] == str(started.project.path)
    assert not panel.train.isVisible()
    assert panel.bar.isVisible()


def test_scores_time_and_curves_are_shown(started):
    panel = begin(started)
    say(started, StepDone(0, {"sup": 1.0}), StepDone(9, {"sup": 0.4}, {}, 14.0, 92.0))
    say(started, Validated(10, {"dice": 0.81, "threshold_dice": 0.74}))
    started.wait(lambda: panel.curves.verdict.text(), "the curves", 3)

    assert panel.time.text() == "1:32 left · 14 steps/s"
    assert panel.curves.verdict.text() == "yours 0.81 · threshold 0.74"
    (curve,) = panel.curves.losses.listDataItems()
    assert curve.getData()[0].tolist() == [1, 10]
    assert panel.bar.value() == 100


def test_pause_and_stop_are_asked_for_and_say_what_they_do(started):
    panel = begin(started)
    assert "keep the best" in panel.stop.toolTip()
    assert "discard" in panel.cancel.toolTip()
    started.press(panel.pause)
    started.press(panel.stop)

    asked = [type(command) for command in started.sent if not isinstance(command, Focus)]
    assert asked[-2:] == [Pause, Stop]
    assert not panel.stop.isEnabled()


def test_where_an_image_has_changed_the_button_says_that_it_would_be_gone_on_with(started):
    panel = begin(started)
    (panel.model.record.path / "run.json").write_text("{}")
    say(started, StepDone(4, {"sup": 1.0}))
    started.dock.session.engine.apply([ChildEnded("crash", -9, again=True), (Ready(2, {}), "")])
    started.wait(panel.go_on.isVisible, "the offer", 3)
    assert panel.go_on.text() == "Resume"
    started.press(panel.go_on)
    say(started, ImagesChanged(["field.tif"]), Failed("field.tif has changed since this run began.", wrong_input=True))
    started.wait(lambda: panel.go_on.text() == "Resume with changed images", "the question", 3)

    assert panel.leave.isVisible()
    words = started.dock.message.findChildren(QLabel)
    started.wait(lambda: any("field.tif has changed" in label.text() for label in words), "the reason", 3)
    started.press(panel.go_on)
    (*_, run) = [command for command in started.sent if isinstance(command, Run) and command.verb == "train"]
    assert run.args["changed_images"] is True


def test_a_warning_is_shown_as_plain_text(started):
    panel = begin(started)
    say(started, Warned("<b>Too few</b> tiles."))

    started.wait(lambda: panel.warnings.text() == "<b>Too few</b> tiles.", "the warning", 3)
    assert panel.warnings.textFormat().name == "PlainText"
    assert any("<b>Too few</b> tiles." in label.text() for label in started.dock.message.findChildren(QLabel))


def test_the_confidence_is_one_layer_with_fixed_limits_that_is_renewed_in_place(started):
    begin(started)
    say(started, preview(started, 20, 100))
    started.wait(lambda: of_role(started.viewer, "confidence"), "the map")
    (layer,) = of_role(started.viewer, "confidence")
    data = layer.data
    say(started, preview(started, 40, 200))
    started.wait(lambda: int(data[0, 0]) == 200, "the next map")

    assert of_role(started.viewer, "confidence") == [layer]
    assert layer.data is data
    assert tuple(layer.contrast_limits) == (0, 255)
    np.testing.assert_allclose(layer.extent.world, started.dock.view.layer.extent.world)


def test_a_smaller_map_lies_where_the_image_lies(started):
    begin(started)
    say(started, preview(started, 20, 100, side=256))
    started.wait(lambda: of_role(started.viewer, "confidence"), "the map")
    (layer,) = of_role(started.viewer, "confidence")

    assert layer.data.shape == (256, 256)
    np.testing.assert_allclose(layer.extent.world, started.dock.view.layer.extent.world, atol=1)


def test_the_confidence_holds_still_while_a_stroke_is_drawn(started):
    begin(started)
    confidence = started.dock.train_panel.confidence
    say(started, preview(started, 20, 100))
    started.wait(lambda: confidence.layer is not None, "the map")
    started.project.add_tile(0, center=(200, 200), side=100)
    with started.drawing([(200, 200), (200, 210)]):
        say(started, preview(started, 40, 200))
        started.rest(0.6)
        assert int(confidence.layer.data[0, 0]) == 100
    started.wait(lambda: int(confidence.layer.data[0, 0]) == 200, "the map after the stroke")


def test_deleting_the_image_while_a_training_runs_ends_nothing(started):
    begin(started)
    started.viewer.layers.remove("field")
    started.rest(0.1)
    say(started, StepDone(5, {"sup": 1.0}), preview(started, 6, 100))
    started.rest(0.3)

    assert started.dock.session.training.state == "running"
    assert started.dock.session.training.record.step == 6
    assert started.project.folder is not None


@pytest.mark.parametrize("change", ["rename", "swap", "shape", "dtype", "remove"])
def test_whatever_is_done_to_a_layer_of_labels_the_run_is_told_of_sound_ones(started, change):
    tile = started.project.add_tile(0, center=(200, 200), side=100)
    layer = started.dock.tiles.layer(tile.id)
    layer.data_setitem((np.arange(10, 20), np.arange(10, 20)), 1)
    started.saved()
    begin(started)
    match change:
        case "rename":
            layer.name = "mine"
            layer.data_setitem((np.arange(30, 40), np.arange(30, 40)), 2)
        case "swap":
            layer.data = np.where(np.eye(100), 3, 0).astype(np.uint16)
        case "shape":
            layer.data = np.zeros((7, 9), np.uint16)
        case "dtype":
            layer.data = layer.data.astype(bool)
        case "remove":
            started.viewer.layers.remove(layer)
    started.rest(0.3)
    started.saved()

    found = ProjectFolder.open(started.project.path, read_only=True).annotation(tile.id).instance
    expected = {"rename": 20, "swap": 100}.get(change, 10)
    assert np.count_nonzero(found) == expected
    assert started.dock.session.training.active


def test_a_stroke_is_known_while_the_mouse_is_pressed_in_a_labels_layer(started):
    strokes = started.dock.train_panel.confidence.strokes
    seen = []
    started.press(started.dock.tiles_panel.add)
    started.click(200, 200)
    started.wait(lambda: started.project.selected, "a tile")
    layer = started.dock.tiles.layer(started.project.selected)
    layer.mouse_drag_callbacks.append(lambda layer, event: seen.append(strokes.drawing))
    started.stroke([(200, 200), (205, 205)])

    assert seen
    assert all(seen)
    assert not strokes.drawing


def test_a_confidence_layer_that_the_user_removes_stays_away(started):
    begin(started)
    confidence = started.dock.train_panel.confidence
    say(started, preview(started, 20, 100))
    started.wait(lambda: confidence.layer is not None, "the map")
    started.viewer.layers.remove(confidence.layer)
    say(started, preview(started, 40, 200))
    started.rest(0.4)

    assert not of_role(started.viewer, "confidence")


def test_options_are_drawn_from_the_schema_and_only_the_ticked_ones_are_asked_for(started):
    panel = started.dock.train_panel
    panel.more.setChecked(True)
    started.rest(0.05)
    form = panel.form
    assert form.editors["crop"].value == 160
    assert not form.editors["crop"].enabled
    form.ticks["crop"].setChecked(True)
    form.editors["crop"].value = 96
    started.press(panel.train)

    run = [command for command in started.sent if isinstance(command, Run)][-1]
    assert run.args["set"] == {"crop": 96}


def test_what_is_set_for_a_training_is_still_shown_when_the_form_is_drawn_anew(started):
    panel = started.dock.train_panel
    panel.more.setChecked(True)
    panel.form.ticks["crop"].setChecked(True)
    panel.form.editors["crop"].value = 96
    other = {**DESCRIPTION, "optimizer": {"properties": {"lr": {"type": "number", "default": 0.001}}}}
    started.dock.session.engine.apply([(Described(other), "")])
    started.rest(0.05)

    assert "lr" in panel.form.ticks
    assert started.dock.session.training.setup.options == {"crop": 96}
    assert panel.form.editors["crop"].value == 96


@pytest.fixture
def segmented(started):
    """… whose image was segmented: two nuclei."""
    begin(started)
    training = started.dock.session.training
    (training.record.path / "checkpoints").mkdir()
    (training.record.path / "checkpoints" / "best-10.safetensors").touch()
    say(started, StepDone(9, {"sup": 1.0}), Finished("train", str(training.record.path)))
    started.press(started.dock.review_panel.segment)
    path = started.project.folder.prediction_path(0)
    path.parent.mkdir(exist_ok=True)
    labels = np.zeros((512, 512), np.uint32)
    labels[100:120, 100:120], labels[200:220, 100:120] = 1, 2
    whole = Box(0, 0, 512, 512)
    facts = {"nuclei": 2, "split": {"threshold": 0.5, "strength": 0.5, "min_area": 50}}
    with ResultWriter.create(path, (512, 512), ["nucleus"], facts=facts) as writer:
        writer.write_confidence(whole, (labels > 0).astype(np.uint8)[None] * 255)
        writer.write_nuclei(whole, labels)
        writer.finish()
    say(started, Written("ome-zarr", str(path), {"nuclei": 2}), Finished("predict", str(path)))
    started.wait(lambda: of_role(started.viewer, "nuclei"), "the nuclei")
    started.labels = labels
    return started


def test_nuclei_are_contours_on_the_image_and_counted(segmented):
    (layer,) = of_role(segmented.viewer, "nuclei")

    np.testing.assert_array_equal(layer.data, segmented.labels)
    assert layer.contour == 1
    np.testing.assert_allclose(layer.extent.world, segmented.dock.view.layer.extent.world)
    assert segmented.dock.review_panel.count.text() == "2 nuclei"
    assert segmented.dock.review_panel.summary == "2 nuclei"


def test_a_slider_shows_the_new_nuclei_of_what_is_in_view(segmented, tmp_path):
    segmented.dock.session.show_box(Box(90, 90, 130, 130))
    segmented.dock.review_panel.sliders.threshold.setValue(0.8)
    run = [command for command in segmented.sent if isinstance(command, Run)][-1]
    assert (run.verb, run.args["threshold"]) == ("split", 0.8)
    np.save(tmp_path / "split.npy", np.eye(40, dtype=np.uint32))
    facts = {"box": [90, 90, 130, 130], "nuclei": 1}
    say(segmented, Written("nuclei", str(tmp_path / "split.npy"), facts), Finished("split"))
    (layer,) = of_role(segmented.viewer, "nuclei")
    segmented.wait(lambda: layer.data[90, 90] > 0, "the new nuclei")

    np.testing.assert_array_equal(layer.data[90:130, 90:130] > 0, np.eye(40, dtype=bool))
    assert layer.data[210, 110] == 2
    assert segmented.dock.review_panel.count.text().startswith("1 nucleus in view")


def test_nuclei_are_judged_one_by_one_and_each_word_is_a_label(segmented, tmp_path):
    panel = segmented.dock.review_panel
    segmented.press(panel.by_doubt.begin)
    run = [command for command in segmented.sent if isinstance(command, Run)][-1]
    assert run.verb == "doubtful"
    table = [[2, 0.9, 209.5, 109.5, 200, 100, 220, 120], [1, 0.4, 109.5, 109.5, 100, 100, 120, 120]]
    np.save(tmp_path / "table.npy", np.array(table))
    say(segmented, Written("doubtful", str(tmp_path / "table.npy")), Finished("doubtful"))
    segmented.wait(lambda: panel.by_doubt.nuclei.current, "the nuclei")
    np.testing.assert_allclose(segmented.viewer.scene.camera.center[-2:], (209.5, 109.5))
    assert panel.by_doubt.words.text().startswith("1 of 2 · 90 % doubt")

    segmented.press(panel.by_doubt.accept)
    segmented.wait(lambda: segmented.project.tiles, "a tile around it")
    (tile,) = segmented.project.tiles
    layer = segmented.dock.tiles.layer(tile.id)
    assert (layer.data == ACCEPTED_FROM).sum() == 400
    assert segmented.project.selected == ""  # the view stays with the nuclei
    press = {str(key): call for key, call in of_role(segmented.viewer, "nuclei")[0].keymap.items()}
    press["D"](None)
    segmented.wait(lambda: (layer.data == BACKGROUND_ID).sum() == 400, "the rejected nucleus as background")
    assert panel.by_doubt.words.text().endswith("1 accepted, 1 rejected · this one accepted")  # round to the first
    assert len(segmented.project.tiles) == 1
    segmented.saved()
    assert segmented.project.counts[tile.id] == 1


def test_a_region_is_drawn_measured_and_copied(segmented, qapp):
    panel = segmented.dock.review_panel
    segmented.press(panel.region.draw)
    (layer,) = of_role(segmented.viewer, "region")
    assert layer.mode == "add_polygon_lasso"
    layer.add_polygons([np.array([[90, 90], [90, 130], [130, 130], [130, 90]])])
    segmented.rest(0.1)
    run = [command for command in segmented.sent if isinstance(command, Run)][-1]
    assert run.verb == "region"
    assert run.args["polygon"][2] == [130.0, 130.0]
    facts = {"nuclei": 1, "area_px": 1600, "area_mm2": 0.0004, "per_mm2": 2500.0, "positive": 1, "positive_fraction": 1}
    say(segmented, Written("region", run.args["source"], facts), Finished("region"))

    assert not panel.region.draw.isChecked()
    assert panel.region.figures.text() == "1 nucleus · 0.0004 mm² · 2,500 per mm² · 100 % positive (1)"
    segmented.press(panel.region.copy)
    assert qapp.clipboard().text() == panel.region.figures.text()


def test_another_run_is_compared_in_colors_and_by_turns(segmented, tmp_path):
    panel, project = segmented.dock.review_panel, segmented.project.folder
    path = segmented.dock.session.training.record.path
    (path / "run.json").write_text("{}")
    assert not panel.comparing.scores.isVisible()
    said = [Started("train", str(path), 100, {"method": "csl"}), StepDone(9, {"sup": 1.0})]
    (path / "events.jsonl").write_text("".join(f"{encode(event)}\n" for event in said))
    panel.comparing.comparison.look()
    segmented.wait(lambda: panel.comparing.comparison.runs, "the runs")
    assert "10 steps" in panel.comparing.runs.actions()[0].text()
    (run,) = panel.comparing.comparison.runs
    assert run.path == segmented.dock.session.training.record.path
    panel.comparing.runs.actions()[0].trigger()
    asked = [command for command in segmented.sent if isinstance(command, Run)][-1]
    assert (asked.verb, asked.args["run"]) == ("predict", str(run.path))
    assert Path(asked.args["out"]).parent.name == run.path.name  # another run's does not take its place
    other = np.zeros((512, 512), np.uint32)
    other[110:130, 100:120] = 1
    whole = Box(0, 0, 512, 512)
    with ResultWriter.create(asked.args["out"], (512, 512), ["nucleus"]) as writer:
        writer.write_confidence(whole, (other > 0).astype(np.uint8)[None] * 255)
        writer.write_nuclei(whole, other)
        writer.finish()
    say(segmented, Finished("predict", asked.args["out"]))
    asked = [command for command in segmented.sent if isinstance(command, Run)][-1]
    assert (asked.verb, asked.args["b"]) == ("compare", str(panel.comparing.comparison.other))
    asked_of = CompareRequest.checked(dict(asked.args), "the request")
    assert asked_of.project == str(project.path)
    say(segmented, *compare(asked_of))
    segmented.wait(lambda: of_role(segmented.viewer, "difference"), "the difference")

    (difference,) = of_role(segmented.viewer, "difference")
    assert difference.data[[105, 115, 125], 110].tolist() == [1, 2, 3]
    assert panel.comparing.difference.text() == "On this image: 20 % both, 60 % this run only, 20 % the other only"
    assert panel.comparing.scores.isVisible()
    assert panel.comparing.scores.texts()[0].startswith("No tile of this image is complete")
    segmented.press(panel.comparing.flip)
    (nuclei,), (others,) = of_role(segmented.viewer, "nuclei"), of_role(segmented.viewer, "other")
    assert (nuclei.visible, others.visible) == (False, True)
    segmented.press(panel.comparing.flip)
    assert (nuclei.visible, others.visible) == (True, False)
    segmented.dock.session.review.run = run.path.name  # had the result in view been made with it
    assert panel.comparing.comparison.runs == []
    scores = [{"dice": 0.8, "aji": 0.5, "pq": 0.45, "nuclei": 9, "best_on": 2}]
    scores += [{"dice": 0.7, "aji": 0.6, "pq": 0.45, "nuclei": 12, "best_on": 0}]
    panel.comparing.comparison.difference.facts["scores"] = [
        {"judges": True, "tiles": 2, "nuclei": 10, "results": scores}
    ]
    panel.comparing.comparison.changed.emit()
    assert panel.comparing.scores.texts()[:3] == ["2 tiles set aside · 10 nuclei", "this run", "other"]
    assert panel.comparing.scores.texts()[3:6] == ["Pixels (Dice)", "0.80", "0.70"]
    (judged,) = panel.comparing.comparison.scores
    assert [row.better for row in judged.rows] == ["this", "other", "", "this", "this"]
    assert Result.open(project.prediction_path(0)).complete  # the result in view is left alone


def test_the_accuracy_is_said_with_what_it_is_worth(segmented):
    panel, record = segmented.dock.review_panel, segmented.dock.session.training.record
    assert panel.comparing.accuracy.text().startswith("Nobody can say how good this is")
    record.note(Validated(10, {"dice": 0.81, "threshold_dice": 0.7, "dice of t0004": 0.8, "dice of t0008": 0.82}, True))
    panel.comparing.comparison.changed.emit()
    assert panel.comparing.accuracy.text().startswith("Dice 0.81, and 0.68 to 0.94 would fit too (2 tiles set aside)")


def test_the_model_is_used_on_the_next_image(segmented, tmp_path):
    panel = segmented.dock.review_panel
    segmented.press(panel.onward)
    assert "no further image" in segmented.dock.session.notice.sentence
    segmented.project.folder.add_array(np.full((64, 64, 3), 200, np.uint8), "next", None)
    segmented.press(panel.onward)
    segmented.wait(lambda: segmented.dock.session.image_index == 1, "the next image")
    engine, path = segmented.dock.session.engine, segmented.project.folder.source_path(1)

    def asked() -> bool:
        if engine.job is not None and engine.job.verb == "propose":  # what an image gets as soon as it is in view
            say(segmented, Finished("propose"))
        return any(isinstance(command, Run) and command.args.get("images") == [path] for command in segmented.sent)

    segmented.wait(asked, "the segmentation")
    assert segmented.dock.session.review.active


def test_peek_hides_our_layers_for_as_long_as_it_is_held(segmented):
    button = segmented.dock.review_panel.look
    button.pressed.emit()
    assert [layer.name for layer in segmented.viewer.layers if layer.visible] == ["field"]
    button.released.emit()

    (nuclei,) = of_role(segmented.viewer, "nuclei")
    assert nuclei.visible


def test_export_asks_for_each_ticked_format_and_shows_what_was_written(segmented):
    panel = segmented.dock.export_panel
    for name, tick in panel.boxes.items():
        tick.setChecked(name == "csv")
    segmented.press(panel.export)
    run = [command for command in segmented.sent if isinstance(command, Run)][-1]
    assert (run.verb, run.args["to"]) == ("export", "csv")
    assert run.args["out"] == str(segmented.project.path / "exports")
    say(segmented, Written("csv", run.args["out"] + "/field.csv"), Finished("export"))

    assert panel.summary == "1 written"
    assert any("field.csv" in label.text() for label in panel.findChildren(QLabel))


def test_an_export_that_is_there_already_is_said_in_the_words_of_the_panel(segmented, tmp_path):
    panel, existing = segmented.dock.export_panel, tmp_path / "field.csv"
    existing.touch()
    with pytest.raises(InputError, match="is there already") as refused:
        list(export(ExportRequest(source=str(segmented.dock.session.review.result), to="csv", out=str(existing))))
    for name, tick in panel.boxes.items():
        tick.setChecked(name == "csv")
    segmented.press(panel.export)
    say(segmented, Failed(str(refused.value), wrong_input=True))
    (said,) = [label.text() for label in panel.findChildren(QLabel) if label.text().startswith("✗")]

    assert said.startswith("✗ CSV: ")
    assert f"“{panel.replace.text()}”" in said


def test_a_dock_that_was_closed_leaves_neither_key_nor_callback(started):
    dock = started.dock
    begin(started)
    dock.leave()

    assert [call.__name__ for call in started.viewer.mouse_drag_callbacks] == ["drag_to_zoom"]  # napari's own
    say(started, StepDone(0, {"sup": 1.0}))
    started.rest(0.3)


def test_no_panel_imports_torch():
    code = "import sys; import napari_semiseg.plugin.widgets.dock; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
