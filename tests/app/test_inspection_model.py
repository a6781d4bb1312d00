"""Looks inside a method: asked of the training that goes on, or of the run that was last."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from tests.app.conftest import DESCRIPTION

from napari_semiseg.app.run_record import RunRecord
from napari_semiseg.blocks import Box
from napari_semiseg.events import (
    Described,
    Failed,
    Finished,
    Inspect,
    PatchesCounted,
    Ready,
    Run,
    Started,
    StepDone,
    Unanswered,
    Warned,
    Written,
)
from napari_semiseg.io.diagnostics import Colors, Look, Place, write_look

LOOKS = [
    {"name": "method", "title": "What the method makes of it", "needs_truth": False},
    {"name": "features", "title": "Features", "needs_truth": False},
    {"name": "agreement", "title": "Agreement", "needs_truth": True},
]


@pytest.fixture
def training(bench):  # type: ignore[no-untyped-def]
    description = deepcopy(DESCRIPTION) | {"looks": LOOKS}
    description["methods"][0]["shows"] = "Foreground, background and mixed patches"
    bench.session.engine.apply([(Ready(1, {}), ""), (Described(description), "")])
    bench.complete_tile(10, 10)
    bench.session.show_box(Box(0, 0, 200, 200))
    bench.session.training.setup.choose(method="cdcl")
    bench.session.training.request_train()
    return bench


def begin(bench):  # type: ignore[no-untyped-def]
    bench.say(Started("train", str(bench.session.training.record.path), 100, {"method": "cdcl"}))
    return bench.session.inspection


def written(folder: Path, show: str = "method") -> Written:
    path = folder / f"{show}.npz"
    write_look(path, Look(show, 7, Place(0, 0, 200, 200), {"a": Colors(np.zeros((2, 2, 3), np.uint8), "words")}))
    return Written("look", str(path), {"show": show, "step": 7, "image": 0})


def test_a_training_offers_what_its_method_shows_under_the_methods_own_words(training) -> None:  # type: ignore[no-untyped-def]
    assert training.session.inspection.why_not == "The training has not begun yet."
    inspection = begin(training)

    assert inspection.offered == [
        ("method", "Foreground, background and mixed patches"),
        ("features", "Features"),
        ("agreement", "Agreement"),
    ]
    assert inspection.why_not == ""


def test_what_is_in_view_is_asked_of_the_training_and_its_answer_is_shown(training, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    inspection = begin(training)
    inspection.ask("method")
    assert training.sent[-1] == Inspect("method", 0, (0, 0, 200, 200))
    assert inspection.waiting == "Foreground, background and mixed patches"
    asked = len(training.sent)
    inspection.ask("features")  # waits for the first
    assert len(training.sent) == asked

    training.say(StepDone(7, {"sup": 1.0}), written(tmp_path))
    training.settle()

    assert inspection.waiting == ""
    assert (inspection.look.step, inspection.image) == (7, 0)


def test_what_cannot_be_seen_is_said_and_something_else_can_be_asked_for(training) -> None:  # type: ignore[no-untyped-def]
    inspection = begin(training)
    inspection.ask("agreement")
    training.say(Warned("Two classes were merged."))
    assert inspection.waiting, "a warning answers nothing"
    training.say(Unanswered("Inspect", "No label lies in this rectangle."))

    assert training.session.notice.sentence == "No label lies in this rectangle."
    assert inspection.waiting == ""
    assert inspection.look is None


def test_a_finished_run_is_looked_into_by_a_job_of_its_own(training, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    inspection = begin(training)
    path = training.session.training.record.path
    (path / "checkpoints").mkdir(parents=True)
    (path / "checkpoints" / "best-0000001.safetensors").touch()
    training.say(Finished("train", str(path)))
    inspection.ask("features")

    run = training.sent[-1]
    assert isinstance(run, Run)
    assert (run.verb, run.args["show"], run.args["run"]) == ("inspect", ("features",), str(path))
    assert run.args["box"] == (0, 0, 200, 200)
    training.say(written(tmp_path, "features"))
    training.settle()
    assert inspection.look.show == "features"

    inspection.ask("agreement")
    training.say(Finished("inspect"))
    training.session.tick()
    training.say(Failed("No label lies in this rectangle.", wrong_input=True))
    assert inspection.waiting == ""
    assert training.session.notice.sentence == "No label lies in this rectangle."


def test_another_run_and_another_image_take_the_look_away(training, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    inspection = begin(training)
    inspection.ask("method")
    training.session.show_image(None)
    training.say(written(tmp_path))  # comes too late
    training.settle()

    assert inspection.look is None
    assert inspection.waiting == ""


def test_a_file_that_is_gone_is_said(training, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    inspection = begin(training)
    inspection.ask("method")
    training.say(Written("look", str(tmp_path / "gone.npz"), {"image": 0}))
    training.settle()

    assert "ask for it again" in training.session.notice.sentence
    assert inspection.waiting == ""


def test_counters_become_curves_sorted_into_shares_and_numbers() -> None:
    record = RunRecord()
    for step in range(3):
        counted = {"confident": step / 2, "negatives per anchor": 100.0 * step, "skipped batches": float(step)}
        record.note(StepDone(step, {"sup": 1.0}, counted))

    assert record.counters["negatives per anchor"].values == [0, 100, 200]
    assert record.counters["confident"].steps == [1, 2, 3]
    assert record.shares == {"confident"}


def test_histograms_are_kept_by_image_in_bounded_number_and_a_resumed_run_goes_over_its_own() -> None:
    record = RunRecord()
    for step in range(1_000):
        record.note(PatchesCounted(step, 0, [step], [1]))
    record.note(PatchesCounted(990, 0, [7], [1]))

    steps = [each.step for each in record.patches[0]]
    assert len(steps) <= 200
    assert steps == sorted(steps)
    assert steps[0] == 0
    assert record.patches[0][-1].confidence == (7,)
