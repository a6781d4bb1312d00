from __future__ import annotations

import gc
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tifffile

from napari_semiseg.app.cpu_budget import thread_environment
from napari_semiseg.app.engine_log import EngineLog
from napari_semiseg.app.engine_model import ChildEnded, ChildStarted, EngineModel
from napari_semiseg.app.engine_watch import EngineWatch
from napari_semiseg.events import (
    Described,
    Event,
    Failed,
    Finished,
    Heartbeat,
    Paused,
    Ready,
    Resumed,
    Run,
    Saved,
    Started,
    StepDone,
    Stop,
    Warned,
    encode,
)

FAKE_JOBS = (sys.executable, str(Path(__file__).parents[1] / "engine" / "fake_jobs.py"))
posix = pytest.mark.skipif(os.name != "posix", reason="POSIX signals")

GREETING = f"""
import os, signal, sys, time
def say(line):
    os.write(1, line.encode() + bytes([10]))
say({encode(Ready(1, {}))!r})
say({encode(Described({"complete": True}))!r})
"""


class Watching:
    """Runs through a watch's batches, as the worker's thread does, and keeps a model up to date."""

    def __init__(self, watch: EngineWatch) -> None:
        self.watch = watch
        self.model = EngineModel()
        self.model.commanded.connect(watch.send)
        self.batches = watch.batches()
        self.seen: list[Any] = []
        self.pids: list[int] = []

    def turn(self) -> None:
        batch = next(self.batches)
        for item in batch:
            if isinstance(item, ChildStarted):
                self.pids.append(item.pid)
        self.seen += [item if not isinstance(item, tuple) else item[0] for item in batch]
        if batch:
            self.model.apply(batch)
            self.watch.acknowledge()

    def until(self, wanted: type | Callable[[], bool], within_s: float = 10) -> Any:
        """Go on until something of that kind comes, or that is so; return what came."""
        start, deadline = len(self.seen), time.monotonic() + within_s
        while True:
            if isinstance(wanted, type):
                for item in self.seen[start:]:
                    if isinstance(item, wanted):
                        return item
            elif wanted():
                return None
            assert time.monotonic() < deadline, f"not within {within_s} s; seen: {self.seen[-20:]}"
            self.turn()

    def settle(self) -> psutil.Process:
        """Go on until the engine is up and has described itself; return its process."""
        self.until(lambda: bool(self.model.description.get("complete")))
        return psutil.Process(self.pids[-1])

    def end(self) -> float:
        """Close, and return how long that took."""
        begun = time.monotonic()
        self.watch.close()
        for _ in self.batches:
            self.watch.acknowledge()
        assert self.watch.closed
        return time.monotonic() - begun


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Callable[..., Watching]]:
    started: list[Watching] = []

    def watch(*options: str, script: str = "", **limits: Any) -> Watching:
        command = (sys.executable, "-c", script) if script else (*FAKE_JOBS, *options)
        if script:  # these do not end by themselves
            limits = {"close_s": 0.2, **limits}
        started.append(Watching(EngineWatch(command, log=EngineLog(tmp_path / "logs"), **limits)))
        return started[-1]

    yield watch
    for each in started:
        each.end()
        assert not [pid for pid in each.pids if _runs(pid)]


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_an_engine_is_started_before_anyone_asks_and_describes_itself(watching):
    gui = watching()
    gui.settle()

    assert gui.model.status == "ready"
    assert gui.model.versions["python"]
    assert Path(gui.model.log).exists()


def test_a_job_runs_to_its_end(watching):
    gui = watching()
    gui.settle()
    gui.model.run("count", {"steps": 20})
    gui.until(Finished)

    assert gui.model.status == "ready"
    assert [type(item) for item in gui.seen if isinstance(item, Started | Finished)] == [Started, Finished]


def test_a_job_that_is_asked_for_before_the_engine_is_up_is_done(watching):
    gui = watching()
    gui.model.run("quick", {})
    gui.until(Finished)

    assert gui.model.status == "ready"


@pytest.mark.flaky(reruns=2)
def test_a_batch_comes_at_most_ten_times_a_second_and_at_least_every_200_ms(watching):
    gui = watching()
    gui.settle()
    gui.model.run("count", {"steps": 10_000, "seconds": 0.001})
    gui.until(StepDone)
    times = []
    while len(times) < 15:
        before = len(gui.seen)
        gui.turn()
        if len(gui.seen) > before:
            times.append(time.monotonic())
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]

    assert min(gaps) >= 0.095
    assert sorted(gaps)[len(gaps) // 2] < 0.15
    gui.model.stop()
    gui.until(Finished)
    begun = time.monotonic()
    for _ in range(5):
        gui.turn()
    assert time.monotonic() - begun < 5 * 0.2 + 0.3


@pytest.mark.flaky(reruns=2)
def test_an_answer_after_a_while_without_any_comes_at_once(watching):
    gui = watching()
    gui.settle()
    for _ in range(3):
        gui.turn()
    times = []
    for _ in range(5):
        begun = time.monotonic()
        gui.model.run("quick", {})
        gui.until(Finished)
        times.append(time.monotonic() - begun)
        time.sleep(0.11)

    assert min(times) < 0.06


@pytest.mark.fault
def test_start_pressed_twenty_times_fast_is_one_job(watching):
    gui = watching()
    for _ in range(20):
        gui.model.run("count", {"steps": 10_000})
    gui.until(StepDone)
    gui.model.stop()
    gui.until(Finished)
    gui.turn()

    assert len([item for item in gui.seen if isinstance(item, Started)]) == 1
    assert len(gui.pids) == 1


@pytest.mark.fault
def test_pausing_and_resuming_a_hundred_times_leaks_nothing(watching):
    gui = watching()
    gui.settle()
    gui.model.run("count", {"steps": 1_000_000, "seconds": 0.0005})
    gui.until(StepDone)
    here = psutil.Process()
    before = here.num_fds(), here.num_threads()
    for _ in range(100):
        gui.model.pause()
        gui.model.resume()
    gui.until(lambda: len([item for item in gui.seen if isinstance(item, Resumed)]) == 100)

    assert len([item for item in gui.seen if isinstance(item, Paused)]) == 100
    assert gui.model.status == "busy"
    assert (here.num_fds(), here.num_threads()) == before


@pytest.mark.fault
@posix
@pytest.mark.flaky(reruns=2)
def test_a_child_killed_in_the_middle_of_a_job_is_noticed_within_a_second_and_resuming_is_offered(watching):
    gui = watching()
    child = gui.settle()
    gui.model.run("count", {"steps": 10_000, "run": "/runs/1"})
    gui.until(StepDone)
    child.kill()
    begun = time.monotonic()
    ended = gui.until(ChildEnded)

    assert time.monotonic() - begun < 1
    assert (ended.how, ended.status) == ("crash", -signal.SIGKILL)
    assert gui.model.lost_job.run == "/runs/1"
    assert "signal SIGKILL" in gui.model.message
    assert str(gui.watch.log.path) in gui.model.message
    gui.until(lambda: gui.model.status == "ready")
    assert len(gui.pids) == 2
    gui.model.resume_lost()
    gui.until(StepDone)


@pytest.mark.fault
@posix
def test_a_child_that_crashes_leaves_its_trace_in_the_log(watching):
    gui = watching()
    gui.settle()
    gui.model.run("die", {"signal": "SIGSEGV"})
    ended = gui.until(ChildEnded)

    assert ended.status == -signal.SIGSEGV
    assert "Segmentation fault" in ended.detail
    assert "fake_jobs.py" in ended.detail


@pytest.mark.fault
@posix
@pytest.mark.flaky(reruns=2)
def test_a_child_that_hangs_is_ended_after_the_timeout_and_resuming_is_offered(watching):
    gui = watching(heartbeat_s=1.3)
    child = gui.settle()
    gui.model.run("count", {"steps": 10_000, "run": "/runs/1"})
    gui.until(StepDone)
    child.suspend()
    begun = time.monotonic()
    ended = gui.until(ChildEnded)

    assert ended.how == "hung"
    assert 1.2 < time.monotonic() - begun < 3.3
    assert gui.model.lost_job.run == "/runs/1"
    assert not _runs(child.pid)
    gui.until(lambda: gui.model.status == "ready")


@pytest.mark.fault
@posix
def test_a_machine_that_slept_does_not_take_its_engine_for_hung(watching):
    gui = watching(heartbeat_s=1.5)
    child = gui.settle()
    child.suspend()  # both processes stand still
    time.sleep(2)
    child.resume()
    gui.until(Heartbeat)

    assert not [item for item in gui.seen if isinstance(item, ChildEnded)]


def test_a_clock_that_is_set_back_by_an_hour_changes_nothing(watching, monkeypatch):
    gui = watching(heartbeat_s=1.5)
    gui.settle()
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() - 3_600)
    gui.model.run("count", {"steps": 20})
    gui.until(Heartbeat)
    gui.until(Heartbeat)

    assert [item for item in gui.seen if isinstance(item, Finished)]
    assert not [item for item in gui.seen if isinstance(item, ChildEnded)]


@pytest.mark.fault
@pytest.mark.parametrize(
    ("script", "status", "said"),
    [
        ("import sys; sys.exit('No module named torch_of_yesterday')", 1, "torch_of_yesterday"),
        ("import faulthandler, os, signal; faulthandler.enable(); os.kill(os.getpid(), signal.SIGSEGV)", -11, "fault"),
        ("pass", 0, "engine: "),
    ],
)
def test_a_child_that_cannot_start_is_said_with_its_log_and_not_tried_again_until_wanted(
    watching, script, status, said
):
    gui = watching(script=script)
    ended = gui.until(ChildEnded)

    assert (ended.how, ended.status, ended.again) == ("start", status, False)
    assert said in ended.detail
    assert gui.model.status == "failed"
    assert ended.log in gui.model.message
    for _ in range(5):
        gui.turn()
    assert len(gui.pids) == 1
    gui.model.run("quick", {})
    gui.until(ChildEnded)
    assert len(gui.pids) == 2
    assert gui.model.lost_job.verb == "quick"


@pytest.mark.fault
@posix
def test_a_crash_while_torch_is_loaded_is_not_tried_again_until_wanted(watching):
    gui = watching("torch=segfault", "prepare=0.2")
    ended = gui.until(ChildEnded)

    assert (ended.how, ended.status, ended.again) == ("crash", -signal.SIGSEGV, False)
    assert gui.model.status == "failed"


def test_a_torch_that_cannot_be_loaded_is_said_and_the_engine_stays(watching):
    gui = watching("torch=broken")
    gui.until(Failed)

    assert gui.model.message.startswith("PyTorch could not be loaded (ImportError: libcudart.so.99")
    assert gui.model.status == "ready"


def test_a_program_that_is_not_there_is_said(tmp_path):
    gui = Watching(EngineWatch(("/nowhere/python",), log=EngineLog(tmp_path)))
    ended = gui.until(ChildEnded)

    assert ended.how == "start"
    assert "/nowhere/python" in ended.detail
    assert gui.model.status == "failed"
    gui.end()


@pytest.mark.fault
def test_an_engine_that_crashes_again_and_again_is_left_alone_in_the_end(watching):
    gui = watching(script=GREETING + "time.sleep(0.3); os._exit(9)")
    gui.until(lambda: bool(gui.seen) and isinstance(gui.seen[-1], ChildEnded) and not gui.seen[-1].again, within_s=20)

    assert len(gui.pids) == 3
    assert gui.model.status == "failed"


@pytest.mark.fault
@pytest.mark.parametrize(
    "garbage",
    [
        "for _ in range(10**5): say('not an event')",
        "say('[' * 3_000_000)",
        "[os.write(1, os.urandom(50_000)) for _ in range(100)]",
        'for _ in range(10**5): say(\'{"event": "StepDone", "step": 1}\')',
    ],
)
def test_a_child_that_talks_nonsense_is_replaced(watching, garbage):
    gui = watching(script=f"{GREETING}\n{garbage}\ntime.sleep(30)")
    ended = gui.until(ChildEnded)

    assert (ended.how, ended.again) == ("garbled", True)
    assert "talked nonsense" in gui.model.message
    assert len([item for item in gui.seen if isinstance(item, Warned)]) <= 1


@pytest.mark.fault
def test_a_line_without_end_takes_no_memory_and_the_child_is_ended(watching):
    gui = watching(script=f"{GREETING}\nwhile True: os.write(1, b'x' * 60_000)", heartbeat_s=1.5)
    before = psutil.Process().memory_info().rss
    ended = gui.until(ChildEnded)

    assert ended.how == "hung"
    assert psutil.Process().memory_info().rss - before < 50_000_000


def test_a_single_line_of_nonsense_is_said_once_and_passed_over(watching):
    said = encode(StepDone(7, {}))
    gui = watching(script=f"{GREETING}\nsay('Downloading: 100%'); say('more'); say({said!r}); time.sleep(30)")

    assert "passed over" in gui.until(Warned).message
    assert gui.until(lambda: StepDone(7, {}) in gui.seen) is None
    assert len([item for item in gui.seen if isinstance(item, Warned)]) == 1


def test_half_a_line_before_the_end_is_no_event(watching):
    gui = watching(script=f'{GREETING}\nos.write(1, b\'{{"event": "Heartbeat", "rss_by\'); os._exit(3)')
    gui.until(ChildEnded)

    assert not [item for item in gui.seen if isinstance(item, Heartbeat | Warned)]


@pytest.mark.fault
@pytest.mark.flaky(reruns=2)
def test_a_flood_of_events_is_read_at_leisure_and_only_the_newest_is_handed_over(watching):
    line = encode(StepDone(1, {"sup": 0.5, "con": 0.25}), "train-1")
    gui = watching(script=f"{GREETING}\nlines = ({line!r} + chr(10)).encode() * 600\nwhile True: os.write(1, lines)")
    gui.settle()
    here = psutil.Process()
    cpu, begun, turns = sum(here.cpu_times()[:2]), time.monotonic(), 0
    while time.monotonic() - begun < 1.5:
        gui.turn()
        turns += 1
    spent = sum(here.cpu_times()[:2]) - cpu

    assert turns <= 16
    assert len([item for item in gui.seen if isinstance(item, StepDone)]) <= turns + 2
    assert spent < 0.45, "the viewer would feel this"


@pytest.mark.fault
def test_a_viewer_that_stalls_gets_the_newest_state_and_every_result_afterwards(watching):
    gui = watching()
    gui.settle()
    gui.model.run("flood", {"count": 30_000})
    gui.until(StepDone)
    batch = ()
    while not batch:
        batch = next(gui.batches)  # taken, and not acknowledged: the viewer is busy with something else
    begun = time.monotonic()
    while time.monotonic() - begun < 1.5:
        assert next(gui.batches) == ()
    gui.seen += [event for event, _ in batch]
    gui.model.apply(batch)
    gui.watch.acknowledge()
    gui.until(Finished, within_s=60)

    assert [item.step for item in gui.seen if isinstance(item, Saved)] == [3_000 * n for n in range(10)]
    assert [item.step for item in gui.seen if isinstance(item, StepDone)][-1] == 29_999
    assert gui.model.status == "ready"


@pytest.mark.fault
def test_an_idle_engine_ends_without_a_fuss_and_is_started_again_when_wanted(watching):
    gui = watching("idle=0.4")
    ended = gui.until(ChildEnded)

    assert (ended.how, ended.again) == ("idle", False)
    assert (gui.model.status, gui.model.message) == ("idle-ended", "")
    for _ in range(4):
        gui.turn()
    assert len(gui.pids) == 1
    gui.model.run("quick", {})
    gui.until(Finished)
    assert len(gui.pids) == 2


def test_a_job_asked_for_just_as_the_engine_ends_idle_is_done_by_the_next(watching, tmp_path):
    script = f"""{GREETING}
for line in sys.stdin:
    if "Run" in line:
        if not os.path.exists({str(tmp_path / "once")!r}):
            open({str(tmp_path / "once")!r}, "w").close()
            os._exit(0)
        say({encode(Finished("quick"), "quick-1")!r})
"""
    gui = watching(script=script)
    gui.settle()
    gui.model.run("quick", {})
    gui.until(Finished)

    assert len(gui.pids) == 2
    assert (gui.model.status, gui.model.message, gui.model.lost_job) == ("ready", "", None)


@pytest.mark.fault
def test_an_engine_that_lost_its_graphics_driver_is_renewed_after_its_job_has_failed(watching):
    gui = watching()
    gui.settle()
    gui.model.run("fail", {"how": "cuda"})
    ended = gui.until(ChildEnded)
    gui.until(lambda: gui.model.status == "ready")

    assert (ended.how, ended.again) == ("renewed", True)
    assert "unspecified launch failure" in gui.model.message
    assert gui.model.lost_job is None


@pytest.mark.fault
def test_closing_lets_a_job_keep_its_best_and_leaves_no_process(watching, tmp_path):
    gui = watching()
    child = gui.settle()
    gui.model.run("count", {"steps": 100_000, "run": str(tmp_path)})
    gui.until(StepDone)

    assert gui.end() < 3
    assert (tmp_path / "checkpoint").exists()
    assert not _runs(child.pid)


@pytest.mark.fault
@posix
@pytest.mark.parametrize("stopped", [False, True])
def test_closing_never_waits_for_a_child_that_does_not_listen(watching, stopped):
    gui = watching(close_s=0.5)
    child = gui.settle()
    gui.model.run("deaf", {})
    gui.until(Started)
    if stopped:
        child.suspend()
        gui.model.focus(0, (0, 0, 1, 1))

    assert gui.end() < 2
    assert not _runs(child.pid)


@posix
@pytest.mark.flaky(reruns=2)
def test_a_child_that_does_not_read_its_commands_holds_nobody_up(watching):
    gui = watching(heartbeat_s=60)
    child = gui.settle()
    child.suspend()
    gui.watch.send(Run("quick", {"paths": ["x" * 100] * 30_000}, "quick-1"))
    begun = time.monotonic()
    gui.turn()
    gui.turn()

    assert time.monotonic() - begun < 1
    child.resume()
    gui.until(Finished)


def test_asking_for_a_restart_ends_a_job_that_no_longer_answers(watching):
    gui = watching()
    child = gui.settle()
    gui.model.restart_wanted.connect(gui.watch.restart)
    gui.model.run("deaf", {"run": "/runs/1"})
    gui.until(Started)
    gui.model.restart()
    gui.until(ChildEnded)

    assert "ended during the deaf at your request" in gui.model.message
    assert not _runs(child.pid)
    gui.until(lambda: gui.model.status == "ready")


@pytest.mark.fault
def test_engines_one_after_the_other_leave_no_descriptor_and_no_thread(watching):
    gui = watching(script=f"{GREETING}\ntime.sleep(60)")
    gui.settle()
    here = psutil.Process()
    gc.collect()
    before = here.num_fds(), threading.active_count()
    for count in range(2, 10):
        gui.watch.restart()
        gui.until(lambda count=count: len(gui.pids) == count)
    gc.collect()

    assert (here.num_fds(), threading.active_count()) == before
    assert len([pid for pid in gui.pids if _runs(pid)]) == 1


@posix
def test_the_child_is_polite_and_shares_nothing_with_the_viewer(watching, monkeypatch):
    def never(*_: object) -> None:
        raise AssertionError("a fork copies the viewer's threads and locks")

    monkeypatch.setattr(os, "fork", never)
    gui = watching()
    gui.settle()
    gui.model.run("environment", {})
    facts = gui.until(Finished).facts

    assert facts["nice"] == 10
    assert facts["idle"] == hasattr(os, "SCHED_IDLE")
    assert facts["omp"] == thread_environment()["OMP_NUM_THREADS"]
    assert facts["modules"] == []
    assert facts["group"]
    assert facts["session"] == os.getsid(0), "Linux weighs priorities only within a session"


def test_each_engine_leaves_a_dated_line_in_the_same_log(watching):
    gui = watching()
    gui.settle()
    gui.watch.restart()
    gui.until(ChildStarted)

    lines = [line for line in gui.watch.log.path.read_text().splitlines() if " engine: " in line]
    assert len(lines) == 2
    assert "fake_jobs.py" in lines[0]


def test_events_reach_the_model_in_the_order_in_which_they_were_said(watching):
    gui = watching()
    gui.settle()
    order: list[Event] = []
    gui.model.received.connect(lambda _, event: order.append(event))
    gui.model.run("count", {"steps": 3})
    gui.until(Finished)
    gui.watch.send(Stop())

    kinds = [type(event).__name__ for event in order]
    assert kinds[0] == "Started"
    assert kinds[-2:] == ["Validated", "Finished"]


@pytest.mark.fault
def test_the_engine_itself_proposes_nuclei_before_torch_is_there_and_can_be_closed_meanwhile(tmp_path):
    tifffile.imwrite(tmp_path / "nuclei.tif", _discs())
    gui = Watching(EngineWatch(log=EngineLog(tmp_path)))
    gui.model.run("propose", {"image": str(tmp_path / "nuclei.tif"), "out": str(tmp_path / "proposal")})
    ended = gui.until(Finished, within_s=60)

    assert ended.facts["nuclei"] == 4
    assert gui.end() < 3
    assert not _runs(gui.pids[0])
    assert len(gui.pids) == 1


@pytest.mark.parametrize("how", ["file", "stdin", "ipython"])
def test_a_script_without_a_main_guard_starts_one_engine_and_runs_once(tmp_path, how):
    script = f"""
from pathlib import Path
from napari_semiseg.app.engine_log import EngineLog
from napari_semiseg.app.engine_watch import EngineWatch
from napari_semiseg.events import Ready
print("script")
watch = EngineWatch(log=EngineLog(Path({str(tmp_path)!r})))
for batch in watch.batches():
    if any(isinstance(item, tuple) and isinstance(item[0], Ready) for item in batch):
        print("engine")
        watch.close()
    watch.acknowledge()
"""
    path = tmp_path / "unguarded.py"
    path.write_text(script)
    command, stdin = {
        "file": ([sys.executable, str(path)], ""),
        "stdin": ([sys.executable], script),
        "ipython": ([sys.executable, "-m", "IPython", "--no-banner", str(path)], ""),
    }[how]
    environment = {**os.environ, "IPYTHONDIR": str(tmp_path / "ipython")}
    ended = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=30, env=environment)

    assert ended.stdout.split() == ["script", "engine"], ended.stderr


def _discs() -> np.ndarray:
    """Four dark discs on a bright field, as hematoxylin stains them, with a little noise."""
    rows, columns = np.indices((128, 128))
    nuclei = np.zeros((128, 128), bool)
    for y, x in ((30, 30), (30, 90), (90, 30), (90, 90)):
        nuclei |= (rows - y) ** 2 + (columns - x) ** 2 < 12**2
    image = np.where(nuclei[..., None], (90, 60, 140), (235, 215, 230)).astype(float)
    return np.clip(image + np.random.default_rng(0).normal(0, 4, image.shape), 0, 255).astype(np.uint8)
