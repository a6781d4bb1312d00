from __future__ import annotations

import math
import platform

import pytest
import torch

from napari_semiseg.engine import devices
from napari_semiseg.engine.devices import Device, available_devices, choose_device, cpu_note, training_step
from napari_semiseg.errors import InputError

CPU = Device("cpu", "CPU", ok=True, step_s=0.1)
FAST, SLOW = Device("cuda:0", "Fast", ok=True, step_s=0.01), Device("cuda:1", "Slow", ok=True, step_s=0.5)
BROKEN = Device("cuda:0", "Broken", ok=False, note="A test step failed: no kernel image is available.")


@pytest.fixture
def machine(monkeypatch):
    """Pretend that these graphics processors are there beside the CPU."""

    def pretend(*found: Device) -> None:
        monkeypatch.setattr(devices, "_cuda_devices", lambda: iter(found))
        monkeypatch.setattr(devices, "_mps_device", lambda: iter(()))
        monkeypatch.setattr(devices, "_cpu_device", lambda: CPU)

    return pretend


def test_the_cpu_of_this_machine_makes_a_step():
    cpu = available_devices()[-1]

    assert (cpu.name, cpu.ok) == ("cpu", True)
    assert 0 < cpu.step_s < 60


def test_a_test_step_learns_and_leaves_the_random_state_alone():
    before = torch.get_rng_state()
    loss = training_step(torch.device("cpu"))

    assert torch.equal(torch.get_rng_state(), before)
    assert 0 < loss < math.log(2) + 0.1
    assert training_step(torch.device("cpu")) == loss


def test_a_device_that_computes_wrong_results_is_not_used(monkeypatch):
    monkeypatch.setattr(devices, "training_step", lambda device: 0.5 if device.type == "cpu" else 0.9)
    monkeypatch.setattr(torch, "device", _Named)

    assert devices._tested("cuda:0", "GPU") == Device(
        "cuda:0", "GPU", ok=False, note="A test step gave a wrong result."
    )
    assert not devices._tested("cuda:0", "GPU").ok


class _Named:
    def __init__(self, name: str) -> None:
        self.type = name.partition(":")[0]


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_device_whose_loss_is_not_finite_is_not_used(monkeypatch, loss):
    monkeypatch.setattr(devices, "training_step", lambda device: 0.5 if device.type == "cpu" else loss)
    monkeypatch.setattr(torch, "device", _Named)

    assert not devices._tested("cuda:0", "GPU").ok


def test_a_device_that_fails_says_why_in_a_sentence(monkeypatch):
    def fail(device: object) -> float:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nCompile with …")

    monkeypatch.setattr(devices, "training_step", fail)

    tested = devices._tested("cpu", "CPU")
    assert not tested.ok
    assert tested.note == ("A test step failed: CUDA error: no kernel image is available for execution on the device.")


@pytest.mark.parametrize(
    ("says", "note"),
    [
        (
            "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver …",
            "The NVIDIA driver on your system is too old (found version 11040).",
        ),
        ("Torch not compiled with CUDA enabled", "Torch not compiled with CUDA enabled."),
    ],
)
def test_an_old_driver_is_said_and_the_cpu_is_used(monkeypatch, says, note):
    def fail() -> None:
        raise AssertionError(says)

    monkeypatch.setattr(torch.cuda, "init", fail)
    first = available_devices()[0]

    assert (first.name, first.ok, first.note) == ("cuda", False, note)
    assert choose_device("auto") == torch.device("cpu")


@pytest.mark.parametrize(
    ("capability", "machine", "slow"),
    [
        ("AVX2", "x86_64", False),
        ("AVX512", "AMD64", False),
        ("DEFAULT", "x86_64", True),
        ("NO AVX", "x86_64", True),
        ("DEFAULT", "aarch64", False),
        ("SVE256", "arm64", False),
    ],
)
def test_a_cpu_without_avx2_is_said_to_be_slow(monkeypatch, capability, machine, slow):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(platform, "machine", lambda: machine)

    assert ("no AVX2" in cpu_note()) == slow


def test_auto_takes_what_is_fastest_of_what_passed(machine):
    machine(SLOW, FAST)
    assert choose_device("auto") == torch.device("cuda:0")
    machine(SLOW)
    assert choose_device("auto") == torch.device("cpu")
    machine(BROKEN)
    assert choose_device() == torch.device("cpu")


def test_a_device_is_chosen_by_name(machine):
    machine(FAST, SLOW)

    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    assert choose_device("cuda") == torch.device("cuda:0")


def test_any_working_gpu_will_do_where_no_number_is_given(machine):
    machine(BROKEN, SLOW)

    assert choose_device("cuda") == torch.device("cuda:1")


@pytest.mark.parametrize(
    ("found", "name", "sentence"),
    [
        ((BROKEN,), "cuda", "cannot be used .A test step failed: no kernel image is available.: choose --device cpu"),
        ((FAST,), "cuda:3", "There is no device 'cuda:3' here: choose auto, cuda:0, cpu"),
        ((), "mps", "There is no device 'mps' here: choose auto, cpu"),
        ((FAST,), "tpu", "There is no device 'tpu' here: choose auto, cuda:0, cpu"),
        ((Device("cuda", "GPU", False, "Found no driver."),), "cuda:1", "cannot be used .Found no driver."),
    ],
)
def test_what_cannot_be_had_is_refused_in_a_sentence(machine, found, name, sentence):
    machine(*found)

    with pytest.raises(InputError, match=sentence):
        choose_device(name)


def test_half_the_bits_are_for_cards_alone_and_only_where_they_are_clearly_faster(monkeypatch):
    seconds = {False: 0.010, True: 0.005}
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: not including_emulation)
    monkeypatch.setattr(devices, "_seconds_of_convolutions", lambda device, half: seconds[half])

    assert devices.bfloat16_is_faster(torch.device("cuda:0"))
    assert not devices.bfloat16_is_faster(torch.device("cpu"))
    seconds[True] = 0.0095
    assert not devices.bfloat16_is_faster(torch.device("cuda:1"))
    devices.bfloat16_is_faster.cache_clear()


def test_the_convolutions_of_that_test_take_some_time_either_way():
    both = [devices._seconds_of_convolutions(torch.device("cpu"), half, side=16, times=1) for half in (False, True)]
    assert min(both) > 0
