"""The command line offers what the requests take, and says the same of it."""

from __future__ import annotations

import pytest
import typer.main

from napari_semiseg.cli.app import app
from napari_semiseg.engine.benchmark import BenchmarkRequest
from napari_semiseg.engine.demo import DemoRequest
from napari_semiseg.engine.export import ExportRequest
from napari_semiseg.engine.inspect import InspectRequest
from napari_semiseg.engine.predict import PredictRequest
from napari_semiseg.engine.requests import TrainRequest
from napari_semiseg.engine.run import RunRequest
from napari_semiseg.engine.suggest import SuggestRequest

VERBS = typer.main.get_command(app).commands
REQUESTS = {
    "benchmark": BenchmarkRequest,
    "demo": DemoRequest,
    "export": ExportRequest,
    "inspect": InspectRequest,
    "predict": PredictRequest,
    "run": RunRequest,
    "suggest": SuggestRequest,
    "train": TrainRequest,
}
ELSEWHERE = {"result": "source", "set_": "set", "paths": "images", "to": "to"}
SOURCES = {"images", "dataset", "project"}
"""What one positional argument of `train` and `run` stands for."""
LEFT_OUT = {"run": {"classes", "subimage", "splits", "split", "validation", "variant"}, "inspect": {"image"}}
"""`run` is the short way; whoever needs these trains first. `inspect` names its images; the dock counts them."""


def options(verb: str) -> dict[str, str]:
    return {ELSEWHERE.get(parameter.name, parameter.name): parameter.help for parameter in VERBS[verb].params}


@pytest.mark.parametrize("verb", REQUESTS)
def test_everything_that_can_be_asked_for_can_be_typed(verb):
    fields = set(REQUESTS[verb].model_fields) - LEFT_OUT.get(verb, set())
    if verb in ("train", "run"):
        fields = fields - SOURCES | {"images"}

    assert set(options(verb)) - {"events", "help"} == fields


@pytest.mark.parametrize("verb", ["export", "predict", "suggest"])
def test_help_and_form_say_the_same(verb):
    said = options(verb)
    for name, field in REQUESTS[verb].model_fields.items():
        assert said[name].startswith(field.description), name
        if field.default and not field.is_required():
            assert f"Default: {field.default}." in said[name], name
