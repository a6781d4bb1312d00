"""How many processors the engine takes, and what it does where there is no graphics card."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil
import pytest

from napari_semiseg.engine import devices

_CHILD = """
import os, subprocess, sys
import psutil
bound = sorted(os.sched_getaffinity(0))[:1]
os.sched_setaffinity(0, bound)
psutil.cpu_count = lambda logical=True: 16
from napari_semiseg.app.cpu_budget import thread_environment
inner = "import os, torch; print(torch.get_num_threads(), len(os.sched_getaffinity(0)))"
environment = {**os.environ, **thread_environment({})}
print(environment["OMP_NUM_THREADS"], flush=True)
subprocess.run([sys.executable, "-c", inner], env=environment, check=True)
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to processors")
def test_a_viewer_that_is_bound_to_one_processor_gives_the_engine_one_thread():
    """A real binding, and a real torch: 16 cores are there and one may be used."""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    done = subprocess.run([sys.executable, "-c", _CHILD], env=environment, capture_output=True, text=True, timeout=100)

    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1", "1", "1"]


def test_asking_for_the_number_of_threads_changes_nothing_here():
    """Whoever asks is left as it was: the limits go to the child only."""
    from napari_semiseg.app.cpu_budget import thread_environment

    before = dict(os.environ), psutil.Process().cpu_affinity() if hasattr(psutil.Process, "cpu_affinity") else None
    thread_environment()

    after = dict(os.environ), psutil.Process().cpu_affinity() if hasattr(psutil.Process, "cpu_affinity") else None
    assert after == before


def test_without_a_graphics_card_the_cpu_is_taken_and_said(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)

    assert devices.choose_device("auto").type == "cpu"
    [cpu] = [device for device in devices.available_devices() if device.name == "cpu"]
    assert cpu.ok
    assert cpu.title.startswith("CPU")
    with pytest.raises(devices.InputError, match="cuda"):
        devices.choose_device("cuda")
