"""A process that tries whether a compiled network learns faster; it prints what it measured.

    python -m napari_semiseg.engine.compile_trial TRIAL

TRIAL is a `Trial` as JSON, and so is the `Timing` that is printed. A compiler may be missing, crash or take minutes:
then this process fails or is killed, and the training that asked for it has lost nothing. What was compiled stays in
torch's cache on the disk, where the training finds it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from pydantic import Field
from torch import Tensor

from napari_semiseg.config import Config
from napari_semiseg.engine.courtesy import Courtesy
from napari_semiseg.nn._registry import build_network
from napari_semiseg.nn.stain import Stain

TIMES = 10


class Trial(Config):
    """What is tried: a network, and a batch of random numbers."""

    network: str
    classes: int = Field(ge=2)
    stain: Stain
    shape: tuple[int, int, int, int]
    device: str
    half: bool


class Timing(Config):
    """Seconds of a step as it is, of one that is compiled, and of compiling."""

    eager_s: float = Field(gt=0)
    compiled_s: float = Field(gt=0)
    compile_s: float = Field(gt=0)


def tried(trial: Trial) -> Timing:
    """Measure steps forward and backward, before and after compiling."""
    device = torch.device(trial.device)
    network = build_network(trial.network, trial.classes, stain=trial.stain, weights="none")
    network.to(device=device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    image = torch.rand(trial.shape).to(device, memory_format=torch.channels_last)
    half = torch.autocast(device.type, torch.bfloat16, enabled=trial.half)
    compiled = torch.compile(network.features, dynamic=False)
    _seconds(network.features, image, half)
    eager_s = min(_seconds(network.features, image, half) for _ in range(TIMES))
    first_s = _seconds(compiled, image, half)
    compiled_s = min(_seconds(compiled, image, half) for _ in range(TIMES))
    return Timing(eager_s=eager_s, compiled_s=compiled_s, compile_s=first_s)


def _seconds(features: Callable[[Tensor], Tensor], image: Tensor, half: AbstractContextManager[None]) -> float:
    begun = time.perf_counter()
    with half:
        found = features(image)
    loss = found.float().square().mean()
    loss.backward()  # type: ignore[no-untyped-call]
    loss.item()  # waits for the device
    return time.perf_counter() - begun


def main(text: str) -> int:
    """Try, and print the result; the training comes first."""
    Courtesy().begin()
    sys.stdout.write(tried(Trial.checked(json.loads(text), "the trial")).model_dump_json())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
