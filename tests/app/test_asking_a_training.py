"""Places and proposed nuclei that are asked for just when a training begins, goes on, or ends."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from napari_semiseg.app.engine_model import ChildEnded
from napari_semiseg.app.suggestions import Suggestions
from napari_semiseg.app.tile_proposals import TileProposals
from napari_semiseg.events import (
    Failed,
    Finished,
    ProposeNuclei,
    Run,
    Started,
    StepDone,
    Suggested,
    SuggestTiles,
    Unanswered,
    Warned,
    Written,
)

PLACES = Suggested([{"image": 0, "box": [0, 0, 50, 50], "reason": "because"}])
FACTS = {"method": "stain_guided", "network": "small_unet", "device": "cpu"}


@pytest.fixture
def asking(bench):
    """Both who ask, and a tile to ask for; what was proposed is in `taken`."""
    tile = bench.session.project.add_tile(0, center=(100, 100), side=40)
    taken: list[tuple[np.ndarray, dict[int, str]]] = []
    proposals, suggestions = TileProposals(bench.session), Suggestions(bench.session)

    def ask() -> None:
        suggestions.ask(50)
        proposals.ask(tile.id, lambda labels, origin, classes: taken.append((labels, classes)))

    yield SimpleNamespace(
        ask=ask, proposals=proposals, suggestions=suggestions, taken=taken, training=bench.session.training
    )
    proposals.end()
    suggestions.end()


def asked(bench, kind):
    return [command for command in bench.sent if isinstance(command, kind)]


def begin(bench, training):
    bench.say(Started("train", str(training.record.path), 100, FACTS))


def answer(bench, labels=None, **facts):
    """Let the training answer what it was asked last."""
    path = asked(bench, ProposeNuclei)[-1].path
    np.save(path, np.ones((40, 40), np.uint32) if labels is None else labels)
    bench.say(PLACES, Written("nuclei", path, {"box": [80, 80, 120, 120], **facts}))
    bench.settle()


def test_the_classes_that_a_training_tells_are_handed_over_by_the_numbers_of_the_nuclei(bench, asking):
    asking.training.request_train()
    begin(bench, asking.training)
    bench.say(StepDone(0, {"sup": 1.0}))
    asking.ask()
    labels = np.zeros((40, 40), np.uint32)
    labels[:9, :9], labels[20:29, 20:29] = 30, 7
    answer(bench, labels, classes=["tumor", "stroma"], kinds=[2, 1])

    ((_, classes),) = asking.taken
    assert classes == {7: "stroma", 30: "tumor"}


@pytest.mark.parametrize("when", ["before it has begun", "before its first step", "later"])
def test_a_training_is_asked_itself_however_early_so_that_nobody_waits_for_its_end(bench, asking, when):
    asking.training.request_train()
    if when == "before it has begun":
        asking.ask()
    begin(bench, asking.training)
    if when == "before its first step":
        asking.ask()
    bench.say(StepDone(0, {"sup": 1.0}))
    if when == "later":
        asking.ask()

    assert (len(asked(bench, SuggestTiles)), len(asked(bench, ProposeNuclei))) == (1, 1)
    answer(bench)
    assert not asking.suggestions.waiting
    assert asking.suggestions.current is not None
    assert not asking.proposals.waiting
    assert len(asking.taken) == 1


def test_what_waits_for_another_job_is_asked_of_the_training_that_begins_after_it(bench, asking):
    bench.session.engine.run("split", {})
    asking.ask()
    asking.training.request_train()
    bench.say(Finished("split"))
    begin(bench, asking.training)

    assert (len(asked(bench, SuggestTiles)), len(asked(bench, ProposeNuclei))) == (1, 1)
    answer(bench)
    assert asking.suggestions.current is not None
    assert len(asking.taken) == 1
    bench.say(Finished("train"))
    bench.session.run_errands()
    assert [run.verb for run in asked(bench, Run)] == ["split", "train"]


@pytest.mark.parametrize("end", [Finished("train", stopped=True), Failed("The disk is full.", wrong_input=True)])
def test_where_the_training_ends_first_the_engine_is_asked_again(bench, asking, end):
    asking.training.request_train()
    begin(bench, asking.training)
    asking.ask()
    bench.say(end)
    bench.session.run_errands()
    assert asked(bench, Run)[-1].verb in ("suggest", "propose")
    first = asked(bench, Run)[-1].verb
    bench.say(Finished(first))
    bench.session.run_errands()

    assert {run.verb for run in asked(bench, Run)[-2:]} == {"suggest", "propose"}


def test_a_place_that_cannot_be_found_or_an_engine_that_dies_ends_the_waiting(bench, asking):
    asking.training.request_train()
    begin(bench, asking.training)
    asking.ask()
    bench.say(Unanswered("SuggestTiles", "No place can be suggested: the image is gone."))
    assert not asking.suggestions.waiting
    assert bench.session.notice.sentence == "No place can be suggested: the image is gone."

    asking.ask()
    bench.session.engine.apply([ChildEnded("crash", -9, again=True)])
    assert not asking.suggestions.waiting


def test_a_warning_of_the_training_answers_nothing_and_what_cannot_be_proposed_ends_that_wish_alone(bench, asking):
    asking.training.request_train()
    begin(bench, asking.training)
    asking.ask()
    other = bench.session.project.add_tile(0, center=(30, 30), side=40)
    asking.proposals.ask(other.id, lambda *_: None)
    bench.say(Warned("Two classes were merged."))
    assert asking.suggestions.waiting
    assert len(asking.proposals.waiting) == 2
    bench.say(Unanswered("ProposeNuclei", "The training knows no image 7.", asked(bench, ProposeNuclei)[-1].path))

    assert asking.suggestions.waiting
    assert len(asking.proposals.waiting) == 1
    assert other.id not in asking.proposals.waiting


def test_a_training_answers_for_each_tile_that_it_was_asked_for(bench, asking):
    asking.training.request_train()
    begin(bench, asking.training)
    asking.ask()
    taken = []
    other = bench.session.project.add_tile(0, center=(30, 30), side=40)
    asking.proposals.ask(other.id, lambda labels, origin, classes: taken.append(origin))
    first, second = (command.path for command in asked(bench, ProposeNuclei))
    assert first != second
    np.save(second, np.ones((40, 40), np.uint32))
    bench.say(Written("nuclei", second, {"box": [10, 10, 50, 50]}))
    bench.settle()
    assert (taken, asking.taken) == ([(10, 10)], [])
    assert len(asking.proposals.waiting) == 1
    bench.session.project.close()
    assert not asking.proposals.waiting
