"""A run that is killed at any moment goes on from its last checkpoint, and ends as if nothing had been."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from napari_semiseg.engine.checkpoint import RunFolder
from napari_semiseg.engine.requests import TrainRequest

KILLS = 20 if "NAPARI_SEMISEG_SOAK" in os.environ else 3
SCRIPT = Path(__file__).with_name("killed_run.py")


def start(request: TrainRequest) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPT), json.dumps(request.model_dump(mode="json"))]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(request: TrainRequest) -> dict[str, torch.Tensor]:
    process = start(request)
    out, err = process.communicate(timeout=150)
    assert process.returncode == 0, err[-500:]
    assert out.endswith("Finished\n")
    path = RunFolder(Path(request.out)).latest()
    assert path is not None
    return load_file(path)


@pytest.mark.fault
@pytest.mark.timeout(300 + 30 * KILLS)
def test_a_run_killed_at_random_ends_with_the_weights_of_one_that_was_not(
    quick_request: Callable[..., TrainRequest], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    record_property("kills", KILLS)
    options = {"method": "cdcl", "steps": 6 * KILLS, "set": {"warmup_fraction": 0.2, "ema_decay": 0.9}}
    whole = finish(quick_request(out=str(tmp_path / "whole"), **options))
    request = quick_request(out=str(tmp_path / "killed"), **options)
    rng = random.Random()

    for kill in range(KILLS):
        process = start(request if kill == 0 else request.model_copy(update={"resume": True}))
        assert process.stdout is not None
        for _ in range(rng.randint(1, 12)):  # somewhere among its steps and savings
            if not process.stdout.readline():
                break
        time.sleep(rng.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert (Path(request.out) / "run.json").exists()
        leftover = RunFolder(Path(request.out)).latest()
        assert leftover is None or leftover.exists()
    resumed = finish(request.model_copy(update={"resume": True}))

    assert resumed.keys() == whole.keys()
    assert all(torch.equal(tensor, whole[name]) for name, tensor in resumed.items())
