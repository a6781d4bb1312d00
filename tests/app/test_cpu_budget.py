from __future__ import annotations

import math
import os
from pathlib import Path

import psutil
import pytest

from napari_semiseg.app import cpu_budget
from napari_semiseg.app.cpu_budget import engine_threads, thread_environment


@pytest.fixture
def machine(monkeypatch):
    """Pretend a machine: physical cores, processors that the process is bound to, and its group's share."""

    def pretend(cores: int, bound: int, granted: float = math.inf, *, idle_class: bool = False) -> None:
        if idle_class:
            monkeypatch.setattr(os, "SCHED_IDLE", 5, raising=False)
        else:
            monkeypatch.delattr(os, "SCHED_IDLE", raising=False)
        monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 2 * cores if logical else cores)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(bound)), raising=False)
        monkeypatch.setattr(cpu_budget, "_granted", lambda: granted)

    return pretend


@pytest.mark.parametrize(
    ("cores", "bound", "granted", "threads"),
    [
        (8, 16, math.inf, 7),
        (1, 2, math.inf, 1),
        (1, 1, math.inf, 1),
        (8, 3, math.inf, 2),
        (8, 1, math.inf, 1),
        (64, 128, 4.0, 3),
        (64, 128, 2.5, 1),
        (64, 128, 0.5, 1),
    ],
)
def test_one_core_is_left_to_the_viewer_of_those_that_may_be_used(machine, cores, bound, granted, threads):
    machine(cores, bound, granted)

    assert engine_threads() == threads


@pytest.mark.parametrize(
    ("cores", "bound", "granted", "threads"),
    [(8, 16, math.inf, 7), (2, 2, math.inf, 2), (8, 3, math.inf, 2), (64, 128, 2.5, 2), (1, 2, math.inf, 1)],
)
def test_where_the_child_yields_to_everybody_it_may_use_both_of_two_cores(machine, cores, bound, granted, threads):
    machine(cores, bound, granted, idle_class=True)

    assert engine_threads() == threads


def test_this_machine_grants_at_least_one_thread():
    assert 1 <= engine_threads() <= (psutil.cpu_count() or 1)


@pytest.mark.parametrize(
    ("wanted", "threads"), [("", "7"), ("2", "2"), ("2,1", "2"), ("99", "7"), ("many", "7"), ("0", "7")]
)
def test_a_smaller_number_of_the_users_own_is_kept(machine, wanted, threads):
    machine(8, 16)
    limits = thread_environment({"OMP_NUM_THREADS": wanted})

    assert set(limits.values()) == {threads}
    assert {"OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"} <= limits.keys()


def _write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.parametrize(
    ("files", "granted"),
    [
        ({}, math.inf),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, math.inf),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "250000 100000\n"}, 2.5),
        ({"proc/self/cgroup": "0::/user/one\n", "sys/fs/cgroup/user/cpu.max": "150000 100000\n"}, 1.5),
        (
            {
                "proc/self/cgroup": "0::/user/one\n",
                "sys/fs/cgroup/user/cpu.max": "400000 100000\n",
                "sys/fs/cgroup/user/one/cpu.max": "100000 100000\n",
            },
            1.0,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/job\n1:cpu,cpuacct:/job\n0::/\n",
                "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000\n",
            },
            3.0,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            math.inf,
        ),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "nonsense\n"}, math.inf),
    ],
)
def test_the_share_that_control_groups_grant_is_read_from_either_version(tmp_path, files, granted):
    _write(tmp_path, files)

    assert cpu_budget._granted(tmp_path) == granted
