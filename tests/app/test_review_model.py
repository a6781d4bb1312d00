"""Segmenting, sliders, and exports: what is asked of the engine and what a user is told."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_semiseg.app.engine_model import ChildEnded
from napari_semiseg.blocks import Box
from napari_semiseg.events import (
    BlockDone,
    Failed,
    Finished,
    Focus,
    Paused,
    Ready,
    Run,
    Started,
    StepDone,
    Stop,
    Written,
)
from napari_semiseg.io.images import open_image
from napari_semiseg.io.result_writer import ResultWriter


def asked(bench, verb: str) -> list[Run]:
    return [command for command in bench.sent if isinstance(command, Run) and command.verb == verb]


def write_result(path: Path, nuclei: int = 3, threshold: float = 0.5, mpp: float | None = None) -> None:
    whole = Box(0, 0, 200, 200)
    facts = {"nuclei": nuclei, "split": {"threshold": threshold, "strength": 0.5, "min_area": 40}}
    path.parent.mkdir(exist_ok=True)
    shutil.rmtree(path, ignore_errors=True)
    with ResultWriter.create(path, (200, 200), ["nucleus"], mpp=mpp, facts=facts) as writer:
        writer.write_confidence(whole, np.zeros((1, 200, 200), np.uint8))
        writer.write_nuclei(whole, np.zeros((200, 200), np.uint32))
        writer.finish()


def damage(path: Path) -> None:
    """Leave a result its card, and spoil what that speaks of."""
    for part in path.rglob("zarr.json"):
        if part.parent != path:
            part.write_text("{")


@pytest.fixture
def trained(bench):
    """A session whose training has left a predictor."""
    training = bench.session.training
    training.request_train()
    bench.say(Started("train", str(training.record.path), 10, {"method": "csl"}))
    (training.record.path / "checkpoints").mkdir()
    (training.record.path / "checkpoints" / "best-10.safetensors").touch()
    bench.say(Finished("train", str(training.record.path)))
    return bench


@pytest.fixture
def segmented(trained):
    """… and whose image was segmented."""
    review = trained.session.review
    review.request_predict()
    out = Path(asked(trained, "predict")[0].args["out"])
    write_result(out)
    trained.say(Written("ome-zarr", str(out), {"nuclei": 3}), Finished("predict", str(out)))
    trained.settle()
    trained.session.show_box(Box(10, 20, 110, 140))
    return trained


def show_another(bench, tmp_path: Path) -> None:
    """Bring another image of the project into view, which has a result as well."""
    project = bench.session.project
    tifffile.imwrite(tmp_path / "other.tif", np.full((200, 200, 3), 200, np.uint8), photometric="rgb")
    other = project.add_image(open_image(tmp_path / "other.tif"))
    write_result(project.folder.prediction_path(other), nuclei=7)
    bench.session.show_image(other)
    bench.settle()


def test_nothing_is_segmented_before_something_was_trained(bench):
    assert "Train first" in bench.session.review.why_not
    bench.session.review.request_predict()
    assert not asked(bench, "predict")


def test_segment_asks_for_the_image_in_view_with_the_newest_run(trained):
    trained.session.review.request_predict()

    (run,) = asked(trained, "predict")
    project = trained.session.project
    assert run.args["run"] == str(trained.session.training.record.path)
    assert run.args["images"] == [project.folder.source_path(0)]
    assert run.args["out"] == str(project.folder.prediction_path(0))


def test_progress_is_said_and_stop_is_passed_on(trained):
    review = trained.session.review
    review.request_predict()
    trained.say(Started("predict", "", 40), BlockDone(0, (0, 0, 9, 9), 10, 40, 2.0, 15.0))

    assert review.share_done == pytest.approx(0.25)
    assert review.time_words == "0:15 left · 2.0 blocks/s"
    review.stop()
    assert isinstance(trained.sent[-1], Stop)


def test_where_one_looks_is_predicted_first_and_told_again_when_the_view_has_moved(trained):
    review = trained.session.review
    trained.session.show_box(Box(10, 20, 110, 140))
    review.request_predict()
    trained.say(Started("predict", "", 40))
    review.tick()
    trained.session.show_box(Box(50, 50, 90, 90))
    review.tick()  # the view has not rested yet
    trained.clock.now += 1
    review.tick()
    review.tick()

    assert [command.box for command in trained.sent if isinstance(command, Focus)] == [
        (10, 20, 110, 140),
        (50, 50, 90, 90),
    ]
    assert {command.image for command in trained.sent if isinstance(command, Focus)} == {0}


def test_a_result_grows_from_its_first_block_to_its_end(trained):
    review, seen = trained.session.review, []
    review.grown.connect(lambda: seen.append(review.growing))
    review.request_predict()
    out = Path(asked(trained, "predict")[0].args["out"])
    trained.say(Started("predict", "", 40))
    assert review.growing is None
    trained.say(BlockDone(0, (0, 0, 9, 9), 1, 40), BlockDone(0, (0, 9, 9, 18), 2, 40), Finished("predict", str(out)))

    assert seen == [out, out, None]


def test_a_finished_result_is_found_with_its_nuclei_and_sliders(segmented):
    review = segmented.session.review

    assert review.count_words == "3 nuclei"
    assert review.split.min_area == 40
    assert not review.active


def test_the_smallest_nucleus_is_in_um2_where_the_pixel_size_is_known_and_holds_on_other_images(segmented):
    review, folder = segmented.session.review, segmented.session.project.folder
    write_result(folder.prediction_path(0), mpp=0.5)
    review.look()
    segmented.settle()
    assert (review.mpp, review.smallest, review.split.min_area) == (0.5, 10.0, None)

    review.set_smallest(6.5)
    view = asked(segmented, "split")[-1]
    assert view.args["min_area_um2"] == 6.5
    assert "min_area" not in view.args
    assert review.split.args(0.25) == {"threshold": 0.5, "strength": 0.5, "min_area_um2": 6.5}
    assert review.split.args(None) == {"threshold": 0.5, "strength": 0.5}  # of pixels nobody said anything


def test_the_smallest_nucleus_is_in_pixels_where_their_size_is_not_known(segmented):
    review = segmented.session.review
    assert (review.mpp, review.smallest) == (None, 40)
    review.set_smallest(31.0)
    assert asked(segmented, "split")[-1].args["min_area"] == 31
    assert review.split.args(0.25) == {"threshold": 0.5, "strength": 0.5}


def test_a_moved_slider_splits_what_is_in_view_at_once_and_the_rest_when_it_rests(segmented):
    review = segmented.session.review
    review.set_split(threshold=0.7)
    (view,) = asked(segmented, "split")
    assert view.args["box"] == [10, 20, 110, 140]
    assert view.args["threshold"] == 0.7
    assert "apply" not in view.args
    segmented.say(Written("nuclei", view.args["out"], {"box": [10, 20, 110, 140], "nuclei": 2}), Finished("split"))
    assert review.count_words == "2 nuclei in view"

    segmented.clock.now += 2
    review.tick()
    whole = asked(segmented, "split")[-1]
    assert whole.args["apply"] is True
    assert review.pending
    segmented.say(Written("ome-zarr", str(review.result), {"nuclei": 5}), Finished("split"))
    assert review.count_words == "5 nuclei"
    assert not review.pending


def test_of_a_view_that_is_too_large_to_split_at_once_only_the_middle_follows_a_slider(segmented):
    """A whole slide in view: its 40,000 x 30,000 pixels would take the engine's memory, and minutes."""
    segmented.session.show_box(Box(0, 0, 40_000, 30_000))
    segmented.session.review.set_split(threshold=0.7)
    (view,) = asked(segmented, "split")
    assert view.args["box"] == [18_976, 13_976, 21_024, 16_024]
    segmented.say(Written("nuclei", view.args["out"], {"box": view.args["box"], "nuclei": 2}), Finished("split"))
    assert segmented.session.review.count_words == "2 nuclei in the middle of the view"


def test_only_the_newest_position_of_a_slider_waits(segmented):
    review = segmented.session.review
    for threshold in (0.6, 0.65, 0.7, 0.75):
        review.set_split(threshold=threshold)
    first = asked(segmented, "split")
    segmented.say(Finished("split"))

    assert [run.args["threshold"] for run in first] == [0.6]
    assert [run.args["threshold"] for run in asked(segmented, "split")] == [0.6, 0.75]


def test_a_slider_that_moves_keeps_no_training_from_its_place(segmented):
    session = segmented.session
    session.ask("suggest", {}, lambda event: None)
    session.training.request_train()
    session.review.set_split(threshold=0.7)
    segmented.say(Finished("suggest"))
    assert session.training.job == session.engine.job.id
    assert not asked(segmented, "split")
    session.run_errands()

    assert [(run.args["threshold"], run.aside) for run in asked(segmented, "split")] == [(0.7, True)]
    assert session.training.job == session.engine.job.id


def test_a_slider_that_moves_during_a_training_is_answered_in_view_and_the_saved_result_waits(segmented):
    session, review = segmented.session, segmented.session.review
    session.training.request_train()
    assert review.wait_words == ""
    review.set_split(threshold=0.7)
    (split,) = asked(segmented, "split")
    assert split.aside
    segmented.aside(Written("nuclei", split.args["out"], {"box": split.args["box"], "nuclei": 2}), Finished("split"))
    assert review.live.nuclei == 2
    assert review.wait_words == "The saved result waits for the training"
    segmented.say(Started("train", "", 10), StepDone(0, {"sup": 1.0}, {}, 1.0, 170.0))
    assert review.wait_words == "The saved result waits for the training, about 3 min left"
    segmented.say(Paused(1))
    assert review.wait_words == "The saved result waits for the training, which is paused"
    segmented.clock.now += 60
    session.tick()
    assert not any(run.args.get("apply") for run in asked(segmented, "split"))
    session.training.stop()
    assert review.wait_words == "The saved result waits for the training, which is ending"
    assert "still running" in session.exporting.why_not
    segmented.say(Finished("train", "", stopped=True, canceled=True))

    assert review.wait_words == ""
    assert review.pending


def test_a_slider_that_moved_during_a_training_is_not_forgotten_when_another_image_is_shown(segmented, tmp_path):
    session, review = segmented.session, segmented.session.review
    result = str(review.result)
    session.training.request_train()
    review.set_split(threshold=0.7)
    show_another(segmented, tmp_path)
    assert review.split.threshold == 0.5
    segmented.say(Finished("train", "", stopped=True, canceled=True))

    applied = [run for run in asked(segmented, "split") if run.args.get("apply")]
    assert [(run.args["source"], run.args["threshold"]) for run in applied] == [(result, 0.7)]


def test_a_slider_that_moved_during_a_training_stands_where_it_stood_when_its_image_is_back(segmented, tmp_path):
    session, review = segmented.session, segmented.session.review
    session.training.request_train()
    review.set_split(threshold=0.7)
    show_another(segmented, tmp_path)
    session.show_image(0)
    segmented.settle()

    assert review.split.threshold == 0.7
    assert review.wait_words == "The saved result waits for the training"
    segmented.say(Finished("train", "", stopped=True, canceled=True))
    segmented.clock.now += 1
    session.tick()
    (applied,) = [run for run in asked(segmented, "split") if run.args.get("apply")]
    assert applied.args["threshold"] == 0.7


def test_a_training_is_not_begun_while_a_segmentation_waits(trained):
    session = trained.session
    session.ask("suggest", {}, lambda event: None)
    session.review.request_predict()
    assert session.review.time_words == "waits for the suggestion of tiles"
    assert session.training.why_not == "A segmentation is still running: wait for its end or stop it."
    session.review.stop()

    assert session.review.state == "idle"
    assert session.training.why_not == ""
    trained.say(Finished("suggest"))
    assert not asked(trained, "predict")


def test_an_export_that_waits_is_stopped_with_all_its_formats(segmented):
    session = segmented.session
    session.ask("suggest", {}, lambda event: None)
    session.exporting.request_export()
    session.exporting.stop()
    segmented.say(Finished("suggest"))

    assert not session.exporting.active
    assert not asked(segmented, "export")


def test_an_export_that_waits_for_an_engine_that_dies_is_over(segmented):
    session = segmented.session
    session.ask("suggest", {}, lambda event: None)
    session.exporting.request_export()
    session.engine.apply([ChildEnded("crash", -9, again=True), (Ready(2, {}), "")])

    assert not session.exporting.active
    assert not asked(segmented, "export")


def test_nothing_is_exported_while_the_nuclei_are_not_what_the_sliders_say(segmented):
    exporting = segmented.session.exporting
    assert exporting.why_not == ""
    segmented.session.review.set_split(threshold=0.7)

    assert "being split" in exporting.why_not


def test_a_model_is_exported_from_its_run(segmented):
    exporting = segmented.session.exporting
    exporting.formats = {"onnx", "csv"}
    exporting.request_export()
    segmented.say(Written("csv", "a.csv"), Finished("export"))
    segmented.say(Written("onnx", "a.onnx"), Finished("export"))

    sources = {run.args["to"]: run.args["source"] for run in asked(segmented, "export")}
    assert sources == {"csv": str(segmented.session.review.result), "onnx": str(segmented.session.training.run)}


def test_each_ticked_format_is_written_one_after_the_other(segmented):
    exporting = segmented.session.exporting
    exporting.formats = set()
    assert "Tick" in exporting.why_not
    for name in ("csv", "tiff"):
        exporting.tick_format(name, True)
    exporting.request_export()
    assert exporting.target.is_dir()

    segmented.say(Written("tiff", "a.tif"), Finished("export"))
    segmented.say(Failed("'a.csv' is there already: choose another name.", wrong_input=True))

    assert [run.args["to"] for run in asked(segmented, "export")] == ["tiff", "csv"]
    assert [(one.format, one.path, one.problem) for one in exporting.outcomes] == [
        ("tiff", "a.tif", ""),
        ("csv", "", "'a.csv' is there already: choose another name."),
    ]
    assert not exporting.active


def test_an_export_writes_the_image_that_it_was_asked_for_whatever_is_looked_at_meanwhile(segmented, tmp_path):
    exporting, asked_for = segmented.session.exporting, segmented.session.review.result
    exporting.formats = {"tiff", "csv"}
    exporting.request_export()
    show_another(segmented, tmp_path)
    for path in ("a.tif", "a.csv"):
        segmented.say(Written(exporting.doing, path), Finished("export", path))

    assert [run.args["source"] for run in asked(segmented, "export")] == [str(asked_for)] * 2


def test_a_table_that_comes_when_another_image_is_in_view_is_not_taken_for_that_of_its_nuclei(segmented, tmp_path):
    review = segmented.session.review
    review.measure()
    table = asked(segmented, "export")[0].args["out"]
    show_another(segmented, tmp_path)
    assert review.result is not None
    segmented.say(Written("parquet", table, {"nuclei": 3}), Finished("export", table))

    assert review.table is None
    assert not review.measuring


def test_what_is_being_found_in_another_image_is_not_shown_over_the_one_in_view(segmented, tmp_path):
    review, seen = segmented.session.review, []
    review.request_predict()
    out = Path(asked(segmented, "predict")[-1].args["out"])
    segmented.say(Started("predict", "", 40), BlockDone(0, (0, 0, 9, 9), 1, 40))
    assert review.growing == out
    review.grown.connect(lambda: seen.append(review.growing))
    show_another(segmented, tmp_path)
    segmented.say(BlockDone(0, (0, 9, 9, 18), 2, 40))
    assert review.growing is None
    assert set(seen) == {None}

    segmented.session.show_image(0)
    segmented.settle()
    segmented.say(BlockDone(0, (9, 0, 18, 9), 3, 40))
    assert review.growing == out


def test_nuclei_are_measured_into_a_table_that_holds_until_they_change(segmented):
    review, seen = segmented.session.review, []
    review.table_changed.connect(lambda: seen.append(review.table))
    assert not review.why_not_measure
    review.measure()
    (run,) = asked(segmented, "export")
    table = Path(run.args["out"])
    assert (run.args["to"], table.name) == ("parquet", review.result.name.replace(".ome.zarr", ".nuclei.parquet"))
    assert review.measuring
    assert "still" in review.why_not_measure
    segmented.say(Written("parquet", str(table), {"nuclei": 3}), Finished("export", str(table)))
    assert not review.measuring
    review.look()
    segmented.settle()

    assert seen == [table, None]


def applied_splits(bench) -> list[tuple[str, float]]:
    """Results that were to be split as a whole, each with the threshold."""
    return [(run.args["source"], run.args["threshold"]) for run in asked(bench, "split") if run.args.get("apply")]


def test_a_slider_that_waits_when_its_image_is_back_outlives_the_segmentation_of_another_image(segmented, tmp_path):
    session, review = segmented.session, segmented.session.review
    result = str(review.result)
    session.ask("suggest", {}, lambda event: None)
    review.set_split(threshold=0.7)
    show_another(segmented, tmp_path)
    review.request_predict()
    session.show_image(0)
    segmented.settle()
    segmented.say(Finished("suggest"))
    segmented.say(Started("predict", "", 40), Finished("predict", "", stopped=True))
    segmented.settle()

    assert review.split.threshold == 0.7
    segmented.clock.now += 1
    session.tick()
    assert applied_splits(segmented) == [(result, 0.7)]


def test_sliders_stand_where_they_were_left_when_their_image_is_back_while_its_nuclei_are_made(segmented, tmp_path):
    session, review = segmented.session, segmented.session.review
    result = review.result
    review.set_split(threshold=0.7)
    segmented.say(Finished("split"))
    segmented.clock.now += 1
    session.tick()
    assert review.applying
    show_another(segmented, tmp_path)
    session.show_image(0)
    segmented.settle()
    assert review.split.threshold == 0.7

    session.show_image(1)
    segmented.settle()
    session.show_image(0)
    write_result(result, nuclei=9, threshold=0.7)
    segmented.say(Written("ome-zarr", str(result), {"nuclei": 9}), Finished("split"))
    segmented.settle()
    segmented.settle()
    assert (review.split.threshold, review.nuclei) == (0.7, 9)


def test_sliders_go_back_to_what_the_saved_result_holds_when_it_could_not_be_split(segmented):
    review = segmented.session.review
    review.set_split(threshold=0.7)
    segmented.say(Finished("split"))
    segmented.clock.now += 1
    segmented.session.tick()
    segmented.say(Failed("The disk is full: free some space.", wrong_input=False))
    segmented.settle()

    assert (review.split.threshold, review.pending) == (0.5, False)


@pytest.mark.parametrize(("images", "whose"), [(1, "“field”"), (2, "2 images")])
def test_it_is_said_when_a_project_is_closed_before_saved_results_follow_the_sliders(
    segmented, tmp_path, images, whose
):
    session = segmented.session
    session.training.request_train()
    session.review.set_split(threshold=0.7)
    show_another(segmented, tmp_path)
    if images == 2:
        session.review.set_split(threshold=0.6)
    session.project.close()

    assert session.notice.level == "warning"
    assert f"the saved result of {whose} followed the sliders" in session.notice.sentence


def test_nothing_is_said_of_a_damaged_result_of_an_image_that_is_no_longer_in_view(segmented, tmp_path):
    session, review = segmented.session, segmented.session.review
    show_another(segmented, tmp_path)
    other = review.result
    session.show_image(0)
    segmented.settle()
    damage(other)
    session.show_image(1)
    session.show_image(0)
    segmented.settle()
    assert session.notice is None
    assert review.nuclei == 3

    session.show_image(1)
    segmented.settle()
    assert session.notice is not None


def test_nothing_is_left_of_a_result_that_a_lost_engine_was_writing_anew(segmented):
    review = segmented.session.review
    review.request_predict()
    segmented.say(Started("predict", "", 40))
    shutil.rmtree(review.result)
    segmented.session.engine.apply([ChildEnded("crash", -9, again=True), (Ready(2, {}), "")])
    segmented.settle()

    assert review.result is None
