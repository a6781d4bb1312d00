"""Several processes that train one model together, started by torchrun, on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from napari_semiseg.engine.checkpoint import RunFolder
from napari_semiseg.engine.recipe import prepare
from napari_semiseg.engine.requests import TrainRequest
from napari_semiseg.engine.team import Team
from napari_semiseg.engine.teamwork import lead
from napari_semiseg.engine.train import train
from napari_semiseg.errors import InputError
from napari_semiseg.events import StepDone

Ask = Callable[..., TrainRequest]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def command_line(request: TrainRequest) -> list[str]:
    """Return the verb and the options that ask for the same."""
    names = ("out", "method", "network", "labeled", "subimage", "steps", "device", "seed")
    options = [text for name in names for text in (f"--{name}", str(getattr(request, name)))]
    settings = [text for name, value in request.set.items() for text in ("--set", f"{name}={value}")]
    return ["-m", "napari_semiseg", "train", str(request.dataset), *options, *settings]


def train_together(request: TrainRequest, *more: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*TORCHRUN, *command_line(request), *more], capture_output=True, text=True, timeout=240, env=environment
    )


def weights(run: str) -> dict[str, torch.Tensor]:
    tensors, _ = RunFolder(Path(run)).read_model()
    return tensors


@pytest.mark.parametrize(
    ("method", "network"),
    [("cdcl", "small_unet"), ("stain_guided", "stain_unet")],
)
def test_two_processes_learn_what_one_learns_from_the_same_batches(
    quick_request: Ask, tmp_path: Path, method: str, network: str
) -> None:
    # By plain gradients: Adam divides by their size, which makes much of how a sum was rounded.
    chosen = {"method": method, "network": network, "steps": 4, "set": {"optimizer": "sgd", "lr": 0.01}}
    alone = quick_request(**chosen, out=str(tmp_path / "alone"))
    for _ in train(alone):
        pass
    together = quick_request(**chosen, out=str(tmp_path / "together"))
    told = train_together(together)
    assert told.returncode == 0, told.stderr
    expected, found = weights(alone.out), weights(together.out)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.allclose(tensor.float(), found[name].float(), rtol=1e-4, atol=1e-5), name


def test_a_run_of_one_process_goes_on_in_two_of_which_the_first_speaks(quick_request: Ask) -> None:
    request = quick_request(steps=6)
    job = train(request)
    for event in job:
        if isinstance(event, StepDone):
            break
    job.close()
    told = train_together(request, "--resume", "--events", "jsonl")
    assert told.returncode == 0, told.stderr
    events = [json.loads(line) for line in told.stdout.splitlines()]
    (end,) = [event for event in events if event["event"] == "Finished"]
    assert end["facts"]["steps"] == 6


def test_what_is_wrong_is_said_once(quick_request: Ask) -> None:
    told = train_together(quick_request(labeled="0.5.1"))
    assert told.returncode != 0
    assert told.stderr.count("napari-semiseg:") == 1


def test_a_method_without_steps_says_that_it_needs_one_process(quick_request: Ask) -> None:
    request = quick_request(method="hematoxylin_threshold", network="none", set={})
    with pytest.raises(InputError, match="run it without torchrun"):
        lead(Team.__new__(Team), prepare(request), request)
