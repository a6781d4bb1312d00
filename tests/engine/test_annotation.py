"""The study of simulated annotation in `benchmarks/`: its rows, how it goes on, and what it says meanwhile."""

from __future__ import annotations

import importlib.util
import json
from argparse import Namespace
from pathlib import Path

import pytest

from napari_semiseg.engine.control import Control
from napari_semiseg.engine.train import train
from napari_semiseg.events import StepDone, Stop

FILE = Path(__file__).parents[2] / "benchmarks" / "annotation.py"


@pytest.fixture(scope="module")
def annotation():
    spec = importlib.util.spec_from_file_location("benchmarks_annotation", FILE)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FILE.parent)  # it imports its neighbors, as it may when it is started as a script
        spec.loader.exec_module(module)
    return module


@pytest.fixture
def study(annotation, small_dataset, tmp_path, monkeypatch):
    """Make a study of seconds: tiles of 64 x 64, four steps."""
    monkeypatch.setattr(annotation, "SIDE", 64)
    (out := tmp_path / "study").mkdir()
    values = {"cells": "1,2", "seeds": 1, "strategies": "random", "minutes": 3.0, "steps": 4, "images": None}
    options = Namespace(dataset=small_dataset, out=out, method="supervised", test="test", device="cpu", **values)
    return lambda: annotation.Study(options)


def row(strategy, seed, cells, dice, minutes=1.0):
    return {"strategy": strategy, "seed": seed, "cells": cells, "dice": dice, "minutes": minutes}


def test_after_each_row_table_and_curve_are_there_and_it_says_how_long_is_left(study, capsys):
    (first := study()).run()
    said = [line for line in capsys.readouterr().out.splitlines() if " of 2 rows" in line]

    assert said[0] == "0 of 2 rows"
    assert said[1].startswith("1 of 2 rows, about ")
    assert said[1].endswith(" left")
    assert said[2] == "2 of 2 rows"
    found = json.loads((first.out / "results.json").read_text())
    assert [(point["cells"], point["seeds"]) for point in found["curves"]["random"]] == [(1, 1), (2, 1)]
    assert "| random | 0." in (first.out / "table.md").read_text()
    assert (first.out / "curve.png").read_bytes()[:4] == b"\x89PNG"
    (again := study()).run()
    assert again.rows == found["rows"], "nothing was done again"


def test_a_training_that_was_broken_off_is_finished_before_it_is_scored(study, annotation, monkeypatch):
    def broken(request):
        control = Control()
        for event in train(request, control):
            yield event
            if isinstance(event, StepDone):
                control.send(Stop())
        raise KeyboardInterrupt

    monkeypatch.setattr(annotation, "train", broken)
    with pytest.raises(KeyboardInterrupt):
        study().run()
    monkeypatch.setattr(annotation, "train", train)
    (second := study()).run()

    for run in sorted((second.out / "random-0.semiseg" / "runs").iterdir()):
        log = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
        assert log[-1]["event"] == "Finished"
        assert log[-1]["facts"]["steps"] == 4


def test_a_row_takes_as_long_as_those_with_as_many_cells_did(annotation):
    rows = [row("random", 0, 2, 0.5, 1.0), row("suggest", 0, 2, 0.5, 2.0)]
    rows += [row("random", 0, 15, 0.5, 3.0) | {"minutes_in_all": 6.0}]

    assert annotation.seconds_left(rows, [2, 15]) == pytest.approx(90 + 360)
    assert annotation.seconds_left(rows, [5]) == pytest.approx(180), "as long as all, where none had as many"
    assert annotation.seconds_left([], [2]) is None


def test_a_curve_is_the_mean_over_seeds_with_its_spread(annotation):
    rows = [row("random", 0, 5, 0.6), row("random", 1, 5, 0.8), row("random", 0, 2, 0.5)]

    assert annotation.curves(rows) == {
        "random": [
            {"cells": 2, "dice": 0.5, "sd": None, "seeds": 1},
            {"cells": 5, "dice": pytest.approx(0.7), "sd": pytest.approx(0.1414, abs=1e-4), "seeds": 2},
        ]
    }
