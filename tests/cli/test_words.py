from __future__ import annotations

import math

import pytest

from napari_semiseg.cli.words import clock, progress_of, sentence_of
from napari_semiseg.events import (
    BlockDone,
    Finished,
    Heartbeat,
    Progressed,
    Started,
    StepDone,
    Suggested,
    Validated,
    Warned,
    Written,
)


@pytest.mark.parametrize(("seconds", "words"), [(0, "0:00"), (59.6, "1:00"), (92, "1:32"), (3725, "1:02:05")])
def test_a_duration_reads_as_a_clock(seconds, words):
    assert clock(seconds) == words


def test_a_step_shows_how_far_the_training_is_at_which_rate_and_when_it_ends():
    progress = progress_of(StepDone(41, {"sup": 0.5, "con": 0.0123}, rate=2.5, eta_s=92), total_steps=300)

    assert (progress.done, progress.total) == (42, 300)
    assert progress.pace == "2.5 steps/s · 1:32 left"
    assert progress.detail == "sup 0.5  con 0.0123"


def test_an_unknown_rate_and_arrival_are_left_out():
    progress = progress_of(Progressed("writing", 1, 4), total_steps=0)

    assert math.isnan(progress.rate)
    assert progress.pace == ""


def test_blocks_are_counted_by_image():
    progress = progress_of(BlockDone(1, (0, 0, 8, 8), 3, 9, 1.0, 6.0), total_steps=0)

    assert (progress.label, progress.done, progress.total) == ("predicting image 2", 3, 9)


def test_a_validation_names_the_threshold_that_it_has_to_beat():
    sentence = sentence_of(Validated(120, {"dice": 0.8126, "threshold_dice": 0.7404}, best=True))

    assert sentence == "Step 120: Dice 0.813 on the validation tiles (threshold alone 0.740), kept."


@pytest.mark.parametrize(
    ("event", "end"),
    [
        (Finished("train", "runs/a"), "Training is done: runs/a."),
        (Finished("train", "runs/a", stopped=True), "Training was stopped: runs/a."),
        (
            Finished("predict", "out", stopped=True, canceled=True),
            "Prediction was canceled; its result is discarded.",
        ),
    ],
)
def test_an_end_says_how_it_came(event, end):
    assert sentence_of(event) == end


def test_facts_stand_in_brackets_and_empty_ones_are_left_out():
    sentence = sentence_of(Started("train", "runs/a", 100, {"method": "CDCL", "dice": 0.81234, "notes": []}))

    assert sentence == "Training begins in runs/a (method CDCL · dice 0.812)."


def test_a_table_among_the_facts_is_left_to_machines():
    assert sentence_of(Written("report", "a.html", {"nuclei": 3, "summary": {"area_mean": 2.0}})) == (
        "Wrote report: a.html (nuclei 3)."
    )


def test_suggestions_are_ranked_and_give_their_reason():
    tiles = [
        {"image": 0, "box": [0, 0, 250, 250], "reason": "much doubt"},
        {"image": 2, "box": [250, 0, 500, 250], "reason": "unlike the others"},
    ]

    assert sentence_of(Suggested(tiles)).splitlines() == [
        "1. image 0, rectangle (0, 0, 250, 250): much doubt",
        "2. image 2, rectangle (250, 0, 500, 250): unlike the others",
    ]


def test_a_warning_is_repeated_word_for_word_and_a_heartbeat_is_not_worth_a_word():
    assert sentence_of(Warned("The disk is nearly full.")) == "The disk is nearly full."
    assert sentence_of(Written("csv", "a.csv", {"nuclei": 12})) == "Wrote csv: a.csv (nuclei 12)."
    assert sentence_of(Heartbeat(1)) is None
    assert progress_of(Heartbeat(1), 0) is None
