"""How many threads the engine may use, so that the viewer and the rest of the machine stay quick."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

import psutil

_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def thread_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment variables that limit the numerical libraries of a child process.

    A number that the user has set is kept if it is smaller.
    """
    wanted = environment.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    threads = engine_threads()
    if wanted.isdigit() and int(wanted) > 0:
        threads = min(threads, int(wanted))
    return {name: str(threads) for name in _VARIABLES}


def engine_threads() -> int:
    """Return one less than the physical cores that this process may use, and at least 1; on Linux 2 of 2.

    One is left to the viewer: threads that wait for one that shares its core are slower than fewer threads. Of two
    cores half would be a lot, and on Linux the child takes only what nobody else wants (`engine.courtesy`). Both the
    processors that the process is bound to (`os.sched_getaffinity`) and the share of them that its control group
    grants count.
    """
    cores = math.floor(min(_cores(), _bound(), _granted()))
    return 2 if cores == 2 and hasattr(os, "SCHED_IDLE") else max(1, cores - 1)


def _cores() -> int:
    return psutil.cpu_count(logical=False) or psutil.cpu_count() or 1


def _bound() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else _cores()


def _granted(root: Path = Path("/")) -> float:
    """Return the processors that the control groups of this process grant (Linux); infinity where there is no limit."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return math.inf
    mount = root / "sys/fs/cgroup"
    limits = [math.inf]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        for group in _upwards(path):
            if controllers == "":
                limits.append(_share(mount / group / "cpu.max"))
            elif "cpu" in controllers.split(","):
                limits.append(_share(mount / "cpu" / group / "cpu.cfs_quota_us", "cpu.cfs_period_us"))
    return min(limits)


def _upwards(path: str) -> Iterator[str]:
    group = PurePosixPath(path.lstrip("/"))
    yield str(group)
    yield from map(str, group.parents)


def _share(quota: Path, period: str = "") -> float:
    """Return quota / period: from one file that holds both (version 2), or from two (version 1)."""
    try:
        words = quota.read_text().split() + (quota.with_name(period).read_text().split() if period else [])
        granted, each = float(words[0]), float(words[1])
    except (OSError, ValueError, IndexError):  # no such group, or "max"
        return math.inf
    return granted / each if granted > 0 and each > 0 else math.inf
