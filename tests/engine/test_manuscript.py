"""What the methods paragraph says of runs of different kinds."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from napari_semiseg.engine.manuscript import methods_paragraph
from napari_semiseg.engine.requests import TrainRequest
from napari_semiseg.engine.train import train
from napari_semiseg.methods._base import NO_NETWORK
from napari_semiseg.methods._registry import METHODS

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
    judging = json.loads((Path(request.out) / "run.json").read_text(encoding="utf-8"))["judging"]
    assert 0 < judging < 1  # a cell with few nuclei
    assert f"more than {0.1 / judging**0.5:.2g} below the highest until then." in text


def test_the_more_fields_judge_the_less_is_left_to_chance(quick_request: Ask) -> None:
    request = quick_request(labeled="10", validation=0.4, steps=1)
    list(train(request))
    path = Path(request.out) / "run.json"
    whole = methods_paragraph(Path(request.out))
    config = json.loads(path.read_text(encoding="utf-8"))
    config["choices"]["judges"] = 3  # as where judging by all would take too long
    path.write_text(json.dumps(config), encoding="utf-8")

    assert "on the validation fields at intervals" in whole
    full = config["judging"]
    assert f"its mean Dice coefficient there was more than {0.1 / full**0.5:.2g} below" in whole
    assert "on 3 of the validation fields" in (fewer := methods_paragraph(Path(request.out)))
    assert f"more than {0.1 / (full * 3 / 4) ** 0.5:.2g} below" in fewer


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


@pytest.fixture
def told_as(quick_request: Ask) -> Callable[..., str]:
    """Write the paragraph of a run of one step as if another method had made it."""
    request = quick_request(steps=1)
    list(train(request))
    path = Path(request.out) / "run.json"
    config = json.loads(path.read_text(encoding="utf-8"))

    def told(method: str, **asked: str) -> str:
        network = METHODS[method].network or "small_unet"
        config["choices"] |= {"method": method, "network": network}
        config["request"] |= asked
        path.write_text(json.dumps(config), encoding="utf-8")
        return methods_paragraph(Path(request.out))

    return told


def cited_for(title: str, text: str) -> list[str]:
    """Return the numbers that stand behind the name of a method."""
    return re.findall(r"\[(\d+)\]", re.search(rf"the method {re.escape(title)}((?: \[\d+\])*)", text)[1])  # type: ignore[index]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_named_with_what_it_does_and_with_all_of_its_works(
    told_as: Callable[..., str], method: str
) -> None:
    kind = METHODS[method]
    text, _, listed = told_as(method).partition("\n\n")
    works = dict(re.findall(r"^\[(\d+)\] (.*)$", listed, re.MULTILINE))

    assert kind.does in text
    assert [works[number] for number in cited_for(kind.title, text)] == list(kind.references)
    assert bool(kind.references) == (method != "supervised"), "labels alone come from no paper"
    numbers = [line.partition("]")[0] for line in listed.splitlines()]
    assert len(set(numbers)) == len(numbers) == len(set(works.values())), "no number and no work comes twice"
    assert set(re.findall(r"\[(\d+)\]", text)) == set(works), "what is listed is cited, and the other way round"
    assert ("The network (" in text) == (kind.network != NO_NETWORK)


def test_what_one_click_trains_cites_threshold_and_dyes_and_says_that_two_networks_learn(
    told_as: Callable[..., str],
) -> None:
    text, _, listed = told_as("stain_guided").partition("\n\n")

    assert "Otsu" in listed
    assert "Ruifrok" in listed
    for words in ("one learned from the labels", "the stain as weak labels", "from its neighborhood and once for the"):
        assert words in text


def test_labels_alone_cite_the_network_and_nobody_for_the_method(told_as: Callable[..., str]) -> None:
    text = told_as("supervised")

    assert cited_for("Labels only", text) == []
    assert "(Small U-Net [2])" in text
    assert "[2] O. Ronneberger" in text


def test_a_variant_is_named_since_it_may_leave_terms_out(told_as: Callable[..., str]) -> None:
    assert ", with the options of its variant “table 2, scheme 3”." in told_as("cdcl", variant="table 2, scheme 3")
    assert "variant" not in told_as("cdcl", variant="")
