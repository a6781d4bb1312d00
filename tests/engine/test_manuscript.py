"""What the methods paragraph says of runs of different kinds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from napari_semiseg.engine.manuscript import methods_paragraph
from napari_semiseg.engine.requests import TrainRequest
from napari_semiseg.engine.train import train

Ask = Callable[..., TrainRequest]


def test_cells_that_a_threshold_did_not_learn_from_chose_no_step(quick_request: Ask) -> None:
    request = quick_request(method="intensity_threshold", network="auto", labeled="4")
    list(train(request))
    text, _, works = methods_paragraph(Path(request.out)).partition("\n\n")

    assert "taught it; 1 more was kept for validation." in text
    assert "Training was planned" not in text
    assert "retained" not in text
    assert "Boserup" in works


def test_how_cells_that_judge_a_network_chose_among_its_steps_is_said_as_the_run_does_it(quick_request: Ask) -> None:
    request = quick_request(labeled="4", steps=1)
    list(train(request))
    text = methods_paragraph(Path(request.out))

    assert "taught it; 1 more was kept for validation." in text
    assert "on the validation field at intervals, and the most recent one was retained unless its Dice" in text
    assert "more than 0.1 below the highest until then." in text


def test_the_more_fields_judge_the_less_is_left_to_chance(quick_request: Ask) -> None:
    request = quick_request(labeled="10", validation=0.4, steps=1)
    list(train(request))
    path = Path(request.out) / "run.json"
    whole = methods_paragraph(Path(request.out))
    config = json.loads(path.read_text(encoding="utf-8"))
    config["choices"]["judges"] = 3  # as where judging by all would take too long
    path.write_text(json.dumps(config), encoding="utf-8")

    assert "on the validation fields at intervals" in whole
    assert "its mean Dice coefficient there was more than 0.05 below" in whole
    assert "on 3 of the validation fields" in (fewer := methods_paragraph(Path(request.out)))
    assert "more than 0.058 below" in fewer


def test_a_network_that_nothing_judged_was_not_chosen(quick_request: Ask) -> None:
    request = quick_request(labeled="3", validation=0, steps=1)
    list(train(request))

    assert "validation" not in methods_paragraph(Path(request.out))


def test_a_run_without_labels_drew_no_labeled_crop(quick_request: Ask) -> None:
    request = quick_request(method="stain_guided", labeled="0", steps=1)
    list(train(request))
    crops = json.loads((Path(request.out) / "run.json").read_text(encoding="utf-8"))["choices"]["sampler"]
    both = crops["batch_labeled"] + crops["batch_unlabeled"]

    assert f"steps of {both} unlabeled crops" in methods_paragraph(Path(request.out))
