"""Compiled networks: tried beside a training, used where that pays, and never in its way."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from napari_semiseg.engine import compiling
from napari_semiseg.engine.compile_trial import Timing, Trial, tried
from napari_semiseg.engine.compiling import Compiling, worth_trying
from napari_semiseg.engine.recipe import prepare, take_step
from napari_semiseg.engine.requests import TrainRequest
from napari_semiseg.engine.train import train
from napari_semiseg.nn._registry import build_network

Ask = Callable[..., TrainRequest]
TRIAL = Trial(network="small_unet", classes=2, stain="hematoxylin", shape=(2, 3, 64, 64), device="cpu", half=False)
PAYS = Timing(eager_s=1.0, compiled_s=0.5, compile_s=10.0)


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put a program in the place of the trial's own."""

    def replaced(program: str) -> None:
        def begun(trial: Trial) -> subprocess.Popen[str]:
            return subprocess.Popen(
                [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )

        monkeypatch.setattr(compiling, "_begun", begun)

    return replaced


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Count what torch is asked to compile; it stays as it is."""
    asked: list[object] = []

    def compile_(function: object, **options: object) -> object:
        asked.append(function)
        return function

    monkeypatch.setattr(torch, "compile", compile_)
    return asked


def ended(found: Compiling) -> Compiling:
    """Wait for a trial."""
    deadline = time.monotonic() + 120
    while found._child is not None and time.monotonic() < deadline:
        found.look()
        time.sleep(0.02)
    assert found._child is None
    return found


def steps_with(found: Compiling, steps: int = 2) -> None:
    network = build_network("small_unet", 2)
    with found.used(network):
        for _ in range(steps):
            network(torch.rand(TRIAL.shape)).mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert "features" not in vars(network)  # what copies or saves it sees nothing of this


def test_a_network_is_compiled_once_where_the_rest_of_the_run_saves_more_than_it_costs(child, counted):
    child(f"print({PAYS.model_dump_json()!r})")
    steps_with(ended(Compiling(TRIAL, remaining_s=100.0)))
    assert len(counted) == 1


def test_a_network_is_left_as_it_is_where_too_little_of_the_run_is_left(child, counted):
    child(f"print({PAYS.model_dump_json()!r})")
    steps_with(ended(Compiling(TRIAL, remaining_s=15.0)))
    assert counted == []


def test_only_batches_of_the_shape_that_was_tried_are_compiled_and_only_where_they_teach(child, counted):
    child(f"print({PAYS.model_dump_json()!r})")
    found = ended(Compiling(TRIAL, remaining_s=100.0))
    network = build_network("small_unet", 2)
    with found.used(network):
        network(torch.rand(3, 3, 64, 64))
        with torch.no_grad():
            network(torch.rand(TRIAL.shape))
        network.eval()
        network(torch.rand(TRIAL.shape))
    assert counted == []


@pytest.mark.parametrize(
    "program", ["raise SystemExit('InvalidCxxCompiler')", "import os; os.abort()", "print('no JSON')", "print('{}')"]
)
def test_a_trial_that_fails_leaves_networks_as_they_are_and_only_a_log_says_so(child, counted, caplog, program):
    caplog.set_level(logging.DEBUG, compiling.__name__)
    child(program)
    steps_with(ended(Compiling(TRIAL, remaining_s=1e6)))
    assert counted == []
    assert [record.levelname for record in caplog.records] == ["DEBUG"]


def test_a_trial_that_takes_too_long_is_killed(child, counted, monkeypatch):
    monkeypatch.setattr(compiling, "LIMIT_S", 0.2)
    child("import time; time.sleep(600)")
    found = Compiling(TRIAL, remaining_s=1e6)
    process = found._child
    steps_with(ended(found))
    assert process is not None
    assert process.poll() is not None
    assert counted == []


def test_a_compiler_that_crashes_within_a_step_costs_neither_the_step_nor_the_run(child, monkeypatch):
    def crashing(*_: object) -> torch.Tensor:
        raise RuntimeError("LLVM ERROR")

    monkeypatch.setattr(torch, "compile", lambda function, **_: crashing)
    child(f"print({PAYS.model_dump_json()!r})")
    steps_with(ended(Compiling(TRIAL, remaining_s=1e6)))


def test_without_a_compiler_the_real_trial_fails_and_says_why(tmp_path: Path) -> None:
    missing = {"CXX": str(tmp_path / "no-compiler"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    told = subprocess.run(
        [sys.executable, "-m", "napari_semiseg.engine.compile_trial", TRIAL.model_dump_json()],
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | missing,
    )
    assert told.returncode != 0
    assert "InvalidCxxCompiler" in told.stderr


def test_the_trial_measures_steps_before_and_after(counted):
    timing = tried(TRIAL)
    assert len(counted) == 1
    assert 0.2 < timing.compiled_s / timing.eager_s < 5  # what was counted was not compiled


def test_on_a_cpu_and_in_short_runs_nothing_is_tried():
    assert worth_trying(torch.device("cuda", 0), 3_600.0)
    assert not worth_trying(torch.device("cuda", 0), 60.0)
    assert not worth_trying(torch.device("cpu"), 3_600.0)


def test_a_long_training_tries_and_goes_on_whatever_comes_of_it(quick_request: Ask, child, monkeypatch):
    monkeypatch.setattr(compiling, "KINDS", ("cpu",))
    monkeypatch.setattr(compiling, "LEAST_S", 0.0)
    began: list[Trial] = []
    child("import time; time.sleep(600)")
    replaced = compiling._begun
    monkeypatch.setattr(compiling, "_begun", lambda trial: began.append(trial) or replaced(trial))
    events = list(train(quick_request(steps=21)))
    assert events[-1].facts["steps"] == 21
    assert [trial.shape for trial in began] == [(2, 3, 64, 64)]


def test_a_step_learns_the_same_with_compiled_features(quick_request: Ask, child, counted):
    child(f"print({PAYS.model_dump_json()!r})")
    plain, compiled = (prepare(quick_request()) for _ in range(2))
    compiled.compiling = ended(Compiling(TRIAL, remaining_s=1e6))
    for recipe in (plain, compiled):
        take_step(recipe, 0)
    assert counted
    for name, tensor in plain.method.state_dict().items():
        assert torch.equal(tensor, compiled.method.state_dict()[name]), name


def test_what_a_trial_is_asked_survives_its_way_to_the_child():
    assert Trial.checked(json.loads(TRIAL.model_dump_json()), "the trial") == TRIAL
