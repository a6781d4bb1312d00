"""The devices that can train, each proven by one step."""

from __future__ import annotations

import math
import platform
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_semiseg.errors import InputError

_TOLERANCE = 0.05
"""Largest relative difference of the loss to that on the CPU: reduced precision passes, a broken kernel does not."""
_CLEARLY = 0.9
"""Share of the time in float32 that a step in bfloat16 may take, to be worth its coarser sums."""


@dataclass(frozen=True)
class Device:
    """Something that computes.

    Attributes
    ----------
    name : str
        What ``--device`` takes: ``cpu``, ``mps``, ``cuda:0`` ….
    title : str
        What a person calls it.
    ok : bool
        Whether it made one training step with the right result.
    note : str
        One sentence: why it cannot be used, or what to expect of it. Empty where there is nothing to say.
    step_s : float
        Seconds that a small training step took; NaN where none was made.
    """

    name: str
    title: str
    ok: bool
    note: str = ""
    step_s: float = math.nan


def available_devices() -> list[Device]:
    """Test every device of this machine, graphics processors first.

    Returns
    -------
    list of Device
        Those that fail are among them and say why. The CPU is always the last.
    """
    return [*_cuda_devices(), *_mps_device(), _cpu_device()]


def choose_device(name: str = "auto") -> torch.device:
    """Return the device of that name once it has made a step.

    Parameters
    ----------
    name : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``. ``auto`` is the one whose step was fastest, ``cuda`` the
        first that passes.

    Raises
    ------
    InputError
        If there is no such device or it fails its test.
    """
    if name == "cpu":
        return torch.device("cpu")
    if name == "auto":
        passed = [device for device in available_devices() if device.ok]
        return torch.device(min(passed, key=lambda device: device.step_s).name if passed else "cpu")
    kind = name.partition(":")[0]
    found = list(_cuda_devices()) if kind == "cuda" else list(_mps_device()) if kind == "mps" else []
    # Where no driver answers there is one entry, "cuda", that stands for every "cuda:N".
    meant = [device for device in found if device.name in (name, kind) or name == kind]
    if not meant:
        raise InputError(f"There is no device '{name}' here: choose {', '.join(['auto', *_names_that_pass()])}.")
    for device in meant:
        if device.ok:
            return torch.device(device.name)
    raise InputError(f"The device '{name}' cannot be used ({meant[0].note.rstrip('.')}): choose --device cpu.")


def training_step(device: torch.device) -> float:
    """Make one small training step (convolution, normalization, loss, gradient, update) and return its loss.

    Neither the global random state nor any setting of torch is touched.
    """
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(4, 3, 128, 128, generator=generator)
    first = torch.randn(32, 3, 3, 3, generator=generator) / 5
    second = torch.randn(2, 32, 3, 3, generator=generator) / 17
    weights = [weight.to(device).requires_grad_() for weight in (first, second)]
    image = image.to(device)
    target = (image.mean(1) > 0.5).long()
    optimizer = torch.optim.SGD(weights, lr=0.1)
    _loss(image, target, weights).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return float(_loss(image, target, weights).detach())


@lru_cache(maxsize=16)
def bfloat16_is_faster(device: torch.device) -> bool:
    """Whether a training step of convolutions takes clearly less time in bfloat16 than in float32.

    Measured, and on CUDA only: that a card knows the type does not say that it is fast with it, and elsewhere it is
    not known to be right. Sums and losses stay in float32 (`torch.autocast`).
    """
    if device.type != "cuda" or not torch.cuda.is_bf16_supported(including_emulation=False):
        return False
    try:
        seconds = {half: _seconds_of_convolutions(device, half) for half in (False, True)}
    except RuntimeError:  # no memory, or no kernel
        return False
    return seconds[True] < _CLEARLY * seconds[False]


def _seconds_of_convolutions(device: torch.device, half: bool, side: int = 256, times: int = 5) -> float:
    """Return the least time of a few steps of three convolutions, forward and backward, on a batch of 8."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(8, 64, side, side, generator=generator).to(device, memory_format=torch.channels_last)
    weights = [(torch.randn(64, 64, 3, 3, generator=generator) / 24).to(device).requires_grad_() for _ in range(3)]
    found = []
    for _ in range(times + 1):
        begun = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            hidden = image
            for weight in weights:
                hidden = F.relu(F.conv2d(hidden, weight, padding=1))
        hidden.float().mean().backward()  # type: ignore[no-untyped-call]
        image.sum().item()  # waits for the device
        found.append(time.perf_counter() - begun)
    return min(found[1:])  # the first loads kernels


def _loss(image: Tensor, target: Tensor, weights: list[Tensor]) -> Tensor:
    hidden = F.relu(F.instance_norm(F.conv2d(image, weights[0], padding=1)))
    return F.cross_entropy(F.conv2d(hidden, weights[1], padding=1), target)


def _tested(name: str, title: str, note: str = "") -> Device:
    device = torch.device(name)
    try:
        loss = training_step(device)  # the first step also loads kernels
        begun = time.perf_counter()
        loss = training_step(device)
        step_s = time.perf_counter() - begun
        expected = training_step(torch.device("cpu"))
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # drivers, memory, missing kernels
        return Device(name, title, ok=False, note=f"A test step failed: {_reason(error)}.")
    if not abs(loss - expected) <= _TOLERANCE * expected:
        return Device(name, title, ok=False, note="A test step gave a wrong result.")
    return Device(name, title, ok=True, note=note, step_s=step_s)


def _cuda_devices() -> Iterator[Device]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # said in the note instead
        try:
            torch.cuda.init()  # type: ignore[no-untyped-call]
            count = torch.cuda.device_count()
            titles = [torch.cuda.get_device_name(index) for index in range(count)]
        except (RuntimeError, AssertionError) as error:  # no driver, an old one, a build without CUDA
            yield Device("cuda", "NVIDIA GPU", ok=False, note=f"{_reason(error)}.")
            return
    for index, title in enumerate(titles):
        yield _tested(f"cuda:{index}", title)


def _mps_device() -> Iterator[Device]:
    if torch.backends.mps.is_built():
        if torch.backends.mps.is_available():
            yield _tested("mps", "Apple GPU")
        else:
            yield Device(
                "mps", "Apple GPU", ok=False, note="This version of macOS or this Mac has no Metal for PyTorch."
            )


def _cpu_device() -> Device:
    threads = torch.get_num_threads()
    return _tested("cpu", f"CPU, {threads} thread{'s' if threads > 1 else ''}", cpu_note())


def cpu_note() -> str:
    """Say what to expect of this CPU, or nothing.

    Without the vector instructions that PyTorch's kernels are written for, it computes correctly and slowly.
    """
    known = platform.machine().lower() in ("x86_64", "amd64", "i686", "x86")
    if known and not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        return "This processor has no AVX2 instructions: training on it takes several times as long."
    return ""


def _names_that_pass() -> list[str]:
    return [device.name for device in available_devices() if device.ok]


def _reason(error: BaseException) -> str:
    """Return the first sentence of an error, without its stop."""
    first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return first_line.partition(". ")[0].rstrip(".")
