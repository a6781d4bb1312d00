"""Computing with what nobody else wants, unless that is nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from napari_semiseg.engine.courtesy import PATIENCE_LOOKS, Courtesy

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a class of Linux")
SECOND = 10**9


@pytest.fixture
def polite(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Courtesy:
    """Make one that is in the idle class, and notes when it leaves; this process stays where it is."""
    made = Courtesy(tmp_path)
    made.idle = True
    monkeypatch.setattr(Courtesy, "end", lambda self: setattr(self, "idle", False))
    return made


def seconds_pass(polite: Courtesy, folder: Path, computed: float, waited: float, looks: int) -> None:
    """Let so many seconds pass, in each of which the main thread computes and waits for so long."""
    for look in range(looks):
        (folder / "schedstat").write_text(f"{int(look * computed * SECOND)} {int(look * waited * SECOND)} 1\n")
        polite.look()


@pytest.mark.parametrize(
    ("computed", "waited", "stays"),
    [(0.9, 0.1, True), (0.2, 0.8, True), (0.0, 0.0, True), (0.001, 0.1, True), (0.01, 0.99, False), (0.0, 1.0, False)],
    ids=["free machine", "somebody paints", "paused", "little to do", "busy machine", "starved"],
)
def test_it_leaves_where_it_gets_next_to_nothing(
    polite: Courtesy, tmp_path: Path, computed: float, waited: float, stays: bool
) -> None:
    seconds_pass(polite, tmp_path, computed, waited, 2 * PATIENCE_LOOKS)

    assert polite.idle == stays


def test_a_short_crowd_is_waited_out(polite: Courtesy, tmp_path: Path) -> None:
    seconds_pass(polite, tmp_path, 0.0, 1.0, PATIENCE_LOOKS)

    assert polite.idle


def test_where_the_system_does_not_tell_nothing_changes(polite: Courtesy, tmp_path: Path) -> None:
    for _ in range(2 * PATIENCE_LOOKS):
        polite.look()

    assert polite.idle
    assert not (tmp_path / "schedstat").exists()


@linux
def test_every_thread_leaves_the_class() -> None:
    program = """
import os, threading
from napari_semiseg.engine.courtesy import Courtesy
polite = Courtesy()
polite.begin()
stop = threading.Event()
threading.Thread(target=stop.wait, daemon=True).start()
classes = lambda: {os.sched_getscheduler(int(thread)) for thread in os.listdir("/proc/self/task")}
assert classes() == {os.SCHED_IDLE}, classes()
assert polite.idle
polite.end()
assert classes() == {os.SCHED_OTHER}, classes()
assert os.getpriority(os.PRIO_PROCESS, 0) == 10
stop.set()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
