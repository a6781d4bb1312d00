"""What a user is told about a training, and what is asked of the engine."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from napari_semiseg.app.engine_model import ChildEnded
from napari_semiseg.blocks import Box
from napari_semiseg.engine.requests import TrainRequest
from napari_semiseg.engine.train import train
from napari_semiseg.events import (
    Cancel,
    Failed,
    Finished,
    Focus,
    ImagesChanged,
    LabelsChanged,
    LabelsRead,
    Pause,
    Paused,
    PreviewWritten,
    Ready,
    Resume,
    Resumed,
    Run,
    Started,
    StepDone,
    Stop,
    Validated,
    Warned,
    encode,
)
from napari_semiseg.project.schema import with_class

FACTS = {"method": "cdcl", "network": "small_unet", "device": "cpu", "labeled": ["t0001"], "nuclei": 2}


def begin(bench, total: int = 100, facts=FACTS):
    """Press Train, and let the engine begin."""
    training = bench.session.training
    training.request_train()
    bench.say(Started("train", str(training.record.path), total, facts))
    return training


def runs_asked(bench) -> list[Run]:
    return [command for command in bench.sent if isinstance(command, Run)]


def test_without_a_project_the_reason_is_said_in_words(bench):
    bench.session.project.close()

    assert "step 1" in bench.session.training.why_not
    bench.session.training.request_train()
    assert not runs_asked(bench)


def test_without_any_label_the_method_that_needs_none_is_chosen(bench):
    assert bench.session.training.setup.method_name == "stain_guided"
    assert bench.session.training.setup.words == "auto · no labels · CPU"
    assert bench.session.training.why_not == ""


def test_with_a_complete_tile_few_labels_are_learned_from(bench):
    bench.complete_tile(0, 0)

    assert bench.session.training.setup.words == "auto · few labels · CPU"


def test_a_device_that_failed_its_test_is_not_offered(bench):
    assert [name for name, _ in bench.session.training.setup.devices] == ["cpu"]


def test_a_method_that_needs_labels_says_so_where_there_are_none(bench):
    bench.session.training.setup.choose(method="supervised")

    assert "Labels only" in bench.session.training.why_not
    assert "paint nuclei" in bench.session.training.why_not


def test_train_asks_for_a_run_of_the_project_with_what_was_set_and_nothing_else(bench):
    bench.complete_tile(0, 0)
    setup = bench.session.training.setup
    setup.choose(preset="standard")
    for name, value in (("minutes", 1.5), ("crop", 96), ("ema_decay", 0.9)):
        setup.set_option(name, value)
    bench.session.training.request_train()

    (run,) = runs_asked(bench)
    out = run.args.pop("out")
    assert run.verb == "train"
    assert run.args == {
        "project": str(bench.session.project.path),
        "preset": "standard",
        "minutes": 1.5,
        "set": {"crop": 96, "ema_decay": 0.9},
    }
    assert str(bench.session.project.folder.runs_dir) in out


def test_another_method_drops_the_options_that_only_the_old_one_has(bench):
    bench.complete_tile(0, 0)
    setup = bench.session.training.setup
    setup.choose(method="cdcl")
    setup.set_option("weight_sup", 2.0)
    setup.set_option("lr", 0.01)
    setup.choose(method="supervised")

    assert setup.options == {"lr": 0.01}


def test_pressing_train_twenty_times_starts_one_run(bench):
    for _ in range(20):
        bench.session.training.request_train()

    assert len(runs_asked(bench)) == 1
    assert len(list(bench.session.project.folder.runs_dir.iterdir())) == 1


def test_losses_scores_time_and_speed_are_kept_and_said(bench):
    training = begin(bench)
    bench.say(
        StepDone(0, {"sup": 1.0, "con": 0.2}, {}, math.nan, math.nan),
        StepDone(7, {"sup": 0.5, "con": 0.3}, {}, 14.2, 92.0),
        Validated(8, {"dice": 0.81, "threshold_dice": 0.744}, best=True),
    )

    assert training.record.losses["sup"].steps == [1, 8]
    assert training.record.losses["sup"].values == [1.0, 0.5]
    assert training.score_words == "yours 0.81 · threshold 0.74"
    assert training.time_words == "1:32 left · 14 steps/s"
    assert training.share_done == pytest.approx(0.08)
    assert training.choice_words == "Contrast · Small U-Net · CPU"
    assert training.seen_words == "learns from 1 tile · 2 nuclei"


def test_it_is_said_which_tiles_a_run_has_not_seen_also_after_its_end(bench):
    seen, changed = bench.complete_tile(0, 0), bench.complete_tile(0, 100)
    training = begin(bench)
    bench.session.project.set_status(changed, "sparse")
    bench.say(StepDone(0, {"sup": 1.0}), Finished("train", str(training.record.path)))
    assert training.unseen == {changed}
    added = bench.complete_tile(100, 0)

    assert training.unseen == {changed, added}
    assert seen not in training.unseen
    assert training.seen_words.endswith("2 tiles changed since")
    training.request_train()
    assert not training.unseen


def test_pause_resume_and_stop_are_passed_on_and_shown(bench):
    training = begin(bench)
    training.pause()
    assert isinstance(bench.sent[-1], Pause)
    bench.say(Paused(3))
    assert training.state == "paused"
    training.resume()
    assert isinstance(bench.sent[-1], Resume)
    bench.say(Resumed(3))
    assert training.state == "running"
    training.stop()
    assert isinstance(bench.sent[-1], Stop)
    assert training.state == "stopping"
    bench.say(Finished("train", str(training.record.path), stopped=True))
    assert training.state == "stopped"


def test_cancel_leaves_nothing_to_look_at(bench):
    training = begin(bench)
    bench.say(StepDone(0, {"sup": 1.0}))
    training.cancel()
    assert isinstance(bench.sent[-1], Cancel)
    bench.say(Finished("train", "", stopped=True, canceled=True))

    assert training.state == "canceled"
    assert not training.record.losses
    assert training.run is None


def train_behind_a_suggestion(bench):
    """Press Train while places are being suggested."""
    bench.session.ask("suggest", {}, lambda event: None)
    bench.say(Started("suggest"))
    training = bench.session.training
    training.request_train()
    assert training.state == "waiting"
    assert training.time_words == "waits for the suggestion of tiles"
    return training


def test_train_waits_for_a_suggestion_and_then_begins(bench):
    training = train_behind_a_suggestion(bench)
    bench.say(Finished("suggest"))

    assert [run.verb for run in runs_asked(bench)] == ["suggest", "train"]
    bench.say(Started("train", str(training.record.path)))
    assert training.state == "running"


@pytest.mark.parametrize("how", ["stop", "cancel"])
def test_a_training_that_waits_is_ended_at_once_and_what_it_waits_for_goes_on(bench, how):
    training = train_behind_a_suggestion(bench)
    getattr(training, how)()
    assert training.state == "canceled"
    assert training.why_not == ""
    assert not list(bench.session.project.folder.runs_dir.iterdir())
    bench.say(Finished("suggest"))

    assert [type(command) for command in bench.sent] == [Run]
    training.request_train()
    assert [run.verb for run in runs_asked(bench)] == ["suggest", "train"]


def test_a_training_that_waits_for_an_engine_that_dies_is_over_and_can_be_begun_again(bench):
    training = train_behind_a_suggestion(bench)
    bench.session.engine.apply([ChildEnded("crash", -9, again=True), (Ready(2, {}), "")])
    assert training.state == "canceled"
    assert "the training that waited did not begin" in bench.session.engine.message

    training.request_train()
    assert training.state == "waiting"
    assert bench.session.engine.job.id == training.job


def test_a_run_that_waits_to_be_gone_on_with_stays_as_it_was_when_it_is_canceled(bench):
    training = begin(bench)
    (training.record.path / "run.json").write_text("{}")
    bench.say(StepDone(4, {"sup": 1.0}))
    bench.session.engine.apply([ChildEnded("crash", -9, again=True), (Ready(2, {}), "")])
    bench.session.ask("suggest", {}, lambda event: None)
    training.resume_run()
    assert training.state == "waiting"
    training.cancel()

    assert training.state == "lost"
    assert training.time_words == "broken off at step 5"
    training.resume_run()
    bench.say(Finished("suggest"))
    assert runs_asked(bench)[-1].args["resume"] is True


def test_closing_the_project_drops_a_training_that_waits(bench):
    train_behind_a_suggestion(bench)
    bench.session.project.close()
    bench.say(Finished("suggest"))

    assert [run.verb for run in runs_asked(bench)] == ["suggest"]
    assert bench.session.training.state == "idle"


def test_a_lost_engine_offers_to_go_on_with_the_same_run(bench):
    training = begin(bench)
    path = training.record.path
    (path / "run.json").write_text("{}")
    bench.say(StepDone(4, {"sup": 1.0}))
    bench.session.engine.apply([ChildEnded("crash", -9, again=True)])
    assert training.state == "lost"

    bench.session.engine.apply([(Ready(2, {}), "")])
    training.resume_run()

    run = runs_asked(bench)[-1]
    assert run.args["out"] == str(path)
    assert run.args["resume"] is True
    assert training.state == "waiting"


def test_a_run_whose_image_has_changed_goes_on_only_where_that_is_asked_for_once_more(bench):
    training = begin(bench)
    (training.record.path / "run.json").write_text("{}")
    bench.say(StepDone(4, {"sup": 1.0}))
    bench.session.engine.apply([ChildEnded("crash", -9, again=True), (Ready(2, {}), "")])
    training.resume_run()
    assert runs_asked(bench)[-1].args["changed_images"] is False
    bench.say(ImagesChanged(["field.tif"]), Failed("field.tif has changed since this run began.", wrong_input=True))

    assert training.state == "lost"
    assert "field.tif has changed" in bench.session.engine.message
    training.resume_run()
    assert runs_asked(bench)[-1].args["changed_images"] is True
    bench.say(Started("train", str(training.record.path), 200), StepDone(5, {"sup": 1.0}))
    assert training.state == "running"

    bench.session.engine.apply([ChildEnded("crash", -9, again=True), (Ready(3, {}), "")])
    training.resume_run()  # what was said of that change is not said of another
    assert runs_asked(bench)[-1].args["changed_images"] is False


def test_after_the_graphics_driver_gave_up_twice_it_went_on_and_the_third_time_offers_the_cpu(bench):
    training = begin(bench)
    path = training.record.path
    (path / "run.json").write_text("{}")
    gave_up = Failed("'train' ended with an error (RuntimeError: CUDA error: unspecified launch failure).", False)
    for loss in (1, 2, 3):
        bench.say(StepDone(10 * loss, {"sup": 1.0}), gave_up)
        bench.session.engine.apply([ChildEnded("renewed", 75, again=True)])
        if loss < 3:
            assert runs_asked(bench)[-1].args["resume"] is True
            assert "device" not in runs_asked(bench)[-1].args
            assert f"gave up at step {10 * loss + 1}" in bench.session.notice.sentence
            assert training.state == "waiting"
            bench.session.engine.apply([(Ready(2, {}), "")])

    assert training.state == "lost"
    assert "on the CPU" in bench.session.notice.sentence
    asked = len(runs_asked(bench))
    training.resume_run()

    assert len(runs_asked(bench)) == asked + 1 == 4
    run = runs_asked(bench)[-1]
    assert (run.args["out"], run.args["resume"], run.args["device"]) == (str(path), True, "cpu")


def test_another_error_is_no_reason_to_go_on(bench):
    training = begin(bench)
    bench.say(Failed("There is no image.", wrong_input=True))
    bench.session.engine.apply([ChildEnded("idle", 0)])

    assert training.state == "failed"
    assert len(runs_asked(bench)) == 1


def test_a_warning_of_the_run_is_told_as_it_is_and_kept(bench):
    training = begin(bench)
    bench.say(Warned("Too few tiles."), Warned("Too few tiles."))

    assert training.record.warnings == ["Too few tiles."]
    assert bench.session.notice.sentence == "Too few tiles."
    assert bench.session.notice.level == "warning"


def test_an_error_ends_the_run(bench):
    training = begin(bench)
    bench.say(Failed("There is no image.", wrong_input=True))

    assert training.state == "failed"
    assert not training.active


def test_labels_that_change_during_a_run_are_told_once_they_are_saved_and_rest(bench):
    tile = bench.complete_tile(0, 0)
    training = begin(bench)
    labels = np.zeros((40, 40), np.int64)
    labels[20:30, 20:30] = 9
    bench.session.project.submit(tile, labels, {9: 2})
    bench.settle()
    assert training.seen_words.endswith("1 tile changed since")
    training.tick()
    assert not [command for command in bench.sent if isinstance(command, LabelsChanged)]

    bench.clock.now += 2
    training.tick()
    training.tick()
    assert len([command for command in bench.sent if isinstance(command, LabelsChanged)]) == 1

    bench.say(LabelsRead(1, 1, "abc"))
    assert training.seen_words == "learns from 1 tile · 1 nucleus"


def test_which_tiles_a_run_has_not_seen_is_known_after_the_project_was_opened_again(bench, reopen):
    seen, changed, removed = (bench.complete_tile(0, x) for x in (0, 50, 100))
    folder = bench.session.project.folder
    list(train(TrainRequest(project=str(folder.path), out=str(folder.new_run_dir()), method="intensity_threshold")))
    bench.session.project.set_status(changed, "sparse")
    bench.session.project.remove_tile(removed)
    added, left_out = bench.complete_tile(50, 0), bench.complete_tile(50, 100)
    bench.session.project.set_status(left_out, "excluded")
    bench.session.project.close()
    again = reopen()
    again.settle()

    assert again.session.training.seen_words == "learned from 3 tiles · 6 nuclei · 4 tiles changed since"
    assert again.session.training.unseen == {changed, removed, added, left_out}
    assert seen not in again.session.training.unseen


def test_labels_are_told_while_somebody_paints_without_a_pause_and_the_last_stroke_is_not_forgotten(bench):
    tile = bench.complete_tile(0, 0)
    training = begin(bench)
    labels = np.zeros((40, 40), np.int64)

    def told() -> int:
        return len([command for command in bench.sent if isinstance(command, LabelsChanged)])

    for number in range(1, 13):
        labels = labels.copy()
        labels[number, :20] = number
        bench.session.project.submit(tile, labels, {number: 2})  # as the dock does, just before it looks what is due
        bench.clock.now += 0.7
        training.tick()
        bench.settle()
    assert told() == 2
    bench.say(LabelsRead(1, 9, "abc"))
    assert training.unseen == {tile}

    bench.clock.now += 2
    training.tick()
    assert told() == 3
    bench.say(LabelsRead(1, 12, "def"))
    assert not training.unseen


def test_a_stroke_made_while_the_run_reads_is_not_taken_for_seen(bench):
    tile, other = bench.complete_tile(0, 0), bench.complete_tile(0, 100)
    training = begin(bench)
    labels = np.zeros((40, 40), np.int64)

    def stroke(number: int, tile: str = tile) -> None:
        labels[number, :20] = number
        bench.session.project.submit(tile, labels.copy(), {number: 2})
        bench.settle()

    stroke(1)
    stroke(2, other)
    bench.clock.now += 2
    training.tick()  # tells the run
    stroke(3)
    bench.say(LabelsRead(2, 4, "abc"))
    assert training.unseen == {tile}

    bench.clock.now += 2
    training.tick()
    bench.say(LabelsRead(2, 5, "def"))
    assert not training.unseen
    stroke(4)
    bench.clock.now += 2
    training.tick()
    bench.session.project.set_status(tile, "sparse")
    bench.say(LabelsRead(2, 6, "ghi"), Finished("train", str(training.record.path)))
    assert training.unseen == {tile}


def test_a_run_is_told_of_a_class_that_was_renamed(bench):
    training = begin(bench)
    nucleus, *_ = bench.session.project.classes
    bench.session.project.set_classes([nucleus.model_copy(update={"name": "tumor"})])
    bench.clock.now += 2
    training.tick()

    assert len([command for command in bench.sent if isinstance(command, LabelsChanged)]) == 1
    assert not training.unseen


def test_a_run_goes_on_though_its_method_could_not_begin_with_the_classes_there_are_now(bench):
    bench.complete_tile(0, 0)
    bench.session.training.setup.choose(method="cdcl")
    training = begin(bench)
    bench.session.project.set_classes(with_class(bench.session.project.classes, "lymphocyte"))
    bench.session.engine.apply([ChildEnded("crash", -9, again=True), (Ready(2, {}), "")])
    assert training.state == "lost"
    assert "one class" in training.why_not
    training.resume_run()

    assert runs_asked(bench)[-1].args["out"] == str(training.record.path)
    assert len(runs_asked(bench)) == 2


def test_a_run_without_labels_is_not_told_of_any(bench):
    training = begin(bench, facts={**FACTS, "method": "csl"})
    bench.complete_tile(0, 0)
    bench.clock.now += 5
    training.tick()

    assert not [command for command in bench.sent if isinstance(command, LabelsChanged)]
    assert training.seen_words == "learns without labels"


def test_what_is_looked_at_is_told_once_the_view_rests(bench):
    training = begin(bench)
    bench.session.show_box(Box(0, 0, 50, 60))
    bench.session.show_box(Box(10, 0, 60, 60))
    training.tick()
    assert not [command for command in bench.sent if isinstance(command, Focus)]
    bench.clock.now += 1
    training.tick()
    training.tick()

    assert [command for command in bench.sent if isinstance(command, Focus)] == [Focus(0, (10, 0, 60, 60))]


def test_a_run_that_is_worse_than_the_threshold_says_what_to_do(bench):
    training = begin(bench)
    bench.say(Validated(8, {"dice": 0.4, "threshold_dice": 0.74}, best=True))
    bench.say(Finished("train", str(training.record.path)))

    assert "train longer" in training.advice


def preview(bench, step: int) -> PreviewWritten:
    folder = bench.session.training.record.path / "preview"
    folder.mkdir(exist_ok=True)
    path = folder / f"image-0-step-{step:07d}.npy"
    np.save(path, np.full((200, 200), step, np.uint8))
    return PreviewWritten(step, str(path), 0, (0, 0, 200, 200), 1)


def test_kept_maps_can_be_gone_through_and_played(bench):
    training = begin(bench)
    bench.say(*(preview(bench, step) for step in (20, 40, 60)))
    history = training.history
    assert history.words == "step 60"

    history.choose(0)
    assert history.words == "step 20"
    bench.say(preview(bench, 80))
    assert history.words == "step 20"
    history.choose(3)
    bench.say(preview(bench, 100))
    assert history.words == "step 100"

    history.toggle_play()
    shown = [history.words]
    while history.playing:
        history.advance()
        shown.append(history.words)
    assert shown == ["step 20", "step 40", "step 60", "step 80", "step 100"]


def write_log(training, *events):
    lines = [json.dumps(json.loads(encode(event)) | {"time": 1.5}) for event in events]
    (training.record.path / "run.json").write_text("{}")
    (training.record.path / "events.jsonl").write_text("\n".join([*lines, '{"event": "StepDo']))


@pytest.mark.parametrize(("ended", "state"), [(True, "done"), (False, "lost")])
def test_a_finished_run_comes_back_with_curves_and_maps_and_a_broken_off_one_can_be_gone_on_with(
    bench, reopen, ended, state
):
    training = begin(bench)
    events = [
        Started("train", str(training.record.path), 100, FACTS),
        StepDone(0, {"sup": 1.0}),
        StepDone(49, {"sup": 0.5}),
        Validated(50, {"dice": 0.8, "threshold_dice": 0.7}, best=True),
        preview(bench, 50),
    ]
    write_log(training, *events, *([Finished("train", str(training.record.path))] if ended else []))
    bench.session.end()

    again = reopen().session.training
    assert again.state == state
    assert again.record.losses["sup"].values == [1.0, 0.5]
    assert again.score_words == "yours 0.80 · threshold 0.70"
    assert again.history.words == "step 50"
