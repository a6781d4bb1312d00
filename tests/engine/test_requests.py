"""What a request for a training refuses by itself, before torch is loaded."""

from __future__ import annotations

import pytest

from napari_semiseg.engine.requests import TrainRequest
from napari_semiseg.errors import InputError

IMAGES = {"images": ["a.tif"]}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (IMAGES | {"labeled": "15"}, "--labeled says something about labels, and there are none"),
        (IMAGES | {"classes": "classes"}, "--classes says something about labels"),
        (IMAGES | {"labels": "labels", "split": "test"}, "--split chooses a part of a data set"),
        (IMAGES | {"labels": "labels", "splits": "splits.json"}, "--splits chooses a part of a data set"),
        ({"project": "a.semiseg", "labels": "labels"}, "leave --labels out"),
        ({"project": "a.semiseg", "labeled": "15"}, "leave --labeled out"),
        (
            IMAGES | {"variant": "table 2, ours", "preset": "best"},
            "would: leave --preset out",
        ),
    ],
)
def test_an_option_that_would_be_passed_over_is_refused_in_one_sentence(values: dict, words: str) -> None:
    with pytest.raises(InputError) as refusal:
        TrainRequest.checked(values, "the request")

    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert "value error" not in str(refusal.value).lower()


@pytest.mark.parametrize(
    "values",
    [
        IMAGES | {"labels": "labels", "labeled": "15", "classes": "classes"},
        IMAGES | {"labeled": "0"},
        {"dataset": "monuseg", "labeled": "1/32", "split": "test", "splits": "other.json"},
        {"project": "a.semiseg"},
        IMAGES | {"labeled": "15", "resume": True},
    ],
)
def test_options_that_mean_something_are_taken(values: dict) -> None:
    assert TrainRequest.checked(values, "the request").model_dump(exclude_unset=True).keys() == values.keys()


@pytest.mark.parametrize("given", [{}, {"preset": "paper"}])
def test_a_variant_is_trained_as_its_paper_does_and_comes_back_from_a_file_the_same(given: dict) -> None:
    request = TrainRequest.checked(IMAGES | {"variant": "table 2, ours"} | given, "the request")

    assert request.preset == "paper"
    assert TrainRequest.checked(request.model_dump(mode="json"), "run.json") == request
