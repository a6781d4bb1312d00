from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from napari_semiseg.engine.pipes import trim_log
from napari_semiseg.engine.serve import VERBS
from napari_semiseg.events import (
    RENEW_STATUS,
    Cancel,
    Command,
    Describe,
    Described,
    Event,
    Failed,
    Finished,
    Focus,
    Heartbeat,
    LabelsChanged,
    LabelsRead,
    Pause,
    Paused,
    PreviewWritten,
    Progressed,
    Ready,
    Resume,
    Resumed,
    Run,
    Saved,
    Started,
    StepDone,
    Stop,
    Validated,
    Warned,
    Written,
    decode_event,
    encode,
)

FAKE_JOBS = Path(__file__).with_name("fake_jobs.py")
posix = pytest.mark.skipif(os.name != "posix", reason="POSIX signals")


class Child:
    """A real child process, driven through its pipes."""

    def __init__(self, log: Path, *options: str, environment: dict[str, str] | None = None) -> None:
        self.log = log
        with log.open("ab+") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, str(FAKE_JOBS), *options],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env={**os.environ, **(environment or {})},
            )
        self.raw: list[bytes] = []
        self.said: queue.SimpleQueue[tuple[Event, str]] = queue.SimpleQueue()
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.raw.append(line)
            self.said.put(decode_event(line.decode("ascii")))

    def tell(self, *commands: Command) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("".join(encode(command) + "\n" for command in commands).encode())
        self.process.stdin.flush()

    def run(self, verb: str, job: str = "job", **args: Any) -> None:
        self.tell(Run(verb, args, job))

    def until(self, kind: type[Event], within_s: float = 10) -> list[tuple[Event, str]]:
        """Return what was said up to the first event of that kind, heartbeats left out."""
        seen = []
        deadline = time.monotonic() + within_s
        while True:
            try:
                event, job = self.said.get(timeout=max(0.001, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no {kind.__name__} within {within_s} s, only {seen}") from None
            if not isinstance(event, Heartbeat) or kind is Heartbeat:
                seen.append((event, job))
            if isinstance(event, kind):
                return seen

    def first(self, kind: type[Event], within_s: float = 10) -> Any:
        return self.until(kind, within_s)[-1][0]

    def end(self, within_s: float) -> int:
        """Wait for the end, and return the exit status."""
        return self.process.wait(within_s)

    def close_stdin(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Callable[..., Child]]:
    children: list[Child] = []

    def start(*options: str, environment: dict[str, str] | None = None) -> Child:
        children.append(Child(tmp_path / "engine.log", *options, environment=environment))
        children[-1].first(Ready)
        return children[-1]

    yield start
    for started in children:
        started.process.kill()
        started.process.wait()
        started.reader.join()
        for pipe in (started.process.stdin, started.process.stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def test_a_job_says_what_happens_and_then_that_it_is_over(child):
    engine = child()
    engine.run("count", job="train-1", steps=3, run="")
    said = engine.until(Finished)

    assert {job for _, job in said} == {"train-1"}
    assert [type(event) for event, _ in said if not isinstance(event, StepDone)] == [Started, Validated, Finished]
    assert said[-1][0] == Finished("train")


def test_a_job_that_ends_without_a_word_is_said_to_have_finished(child):
    engine = child()
    engine.run("quick", radius=3)

    assert [event for event, _ in engine.until(Finished)] == [
        Written("nuclei", "labels.npy", {"args": {"radius": 3}}),
        Finished("quick"),
    ]


def test_jobs_follow_one_another_without_a_gap_in_which_they_are_refused(child):
    engine = child()
    for number in range(30):
        engine.run("quick", job=f"split-{number}")
        last, job = engine.until(Finished)[-1]
        assert (last, job) == (Finished("quick"), f"split-{number}")


@pytest.mark.fault
def test_a_second_job_is_refused_in_one_sentence_while_one_runs(child):
    engine = child()
    engine.run("count", job="first", steps=1000)
    engine.first(StepDone)
    for number in range(20):
        engine.run("count", job=f"more-{number}", steps=1000)
    refused = [engine.until(Failed)[-1] for _ in range(20)]
    engine.tell(Stop())

    assert [job for _, job in refused] == [f"more-{number}" for number in range(20)]
    assert {(event.message, event.wrong_input) for event, _ in refused} == {
        ("Another job is still running: wait for its end or stop it, then start this one again.", True)
    }
    assert engine.until(Finished)[-1] == (Finished("train", stopped=True), "first")


def test_a_small_job_is_done_beside_a_training_which_goes_on(child):
    engine = child()
    engine.run("count", job="training", steps=10_000)
    engine.first(StepDone)
    engine.tell(
        Run("region", {"of": "result"}, "look", aside=True), Run("doubtful", {"how": "input"}, "bad", aside=True)
    )
    said = [item for item in engine.until(Failed) if not isinstance(item[0], StepDone)]
    engine.tell(Stop())

    assert said[0] == (Written("nuclei", "labels.npy", {"args": {"of": "result"}}), "look")
    assert said[1] == (Finished("region"), "look")
    assert said[-1] == (Failed("The image 'a.tif' has two channels: choose one with a.tif[c=1].", True), "bad")
    assert engine.until(Finished)[-1] == (Finished("train", stopped=True), "training")


def test_what_writes_results_is_never_done_beside_another_job(child):
    engine = child()
    engine.run("count", job="training", steps=10_000)
    engine.tell(Run("quick", {}, "export", aside=True))

    failed, job = engine.until(Failed)[-1]
    assert job == "export"
    assert "no small job" in failed.message


def test_a_job_begins_when_the_small_ones_are_over_since_they_may_read_what_it_writes(child):
    engine = child()
    engine.run("count", job="training", steps=10_000)
    engine.first(StepDone)
    engine.tell(Run("compare", {"steps": 20, "seconds": 0.02}, "look", aside=True))
    while engine.until(Started)[-1][1] != "look":
        continue
    engine.tell(Stop())
    assert engine.until(Finished)[-1][1] == "training"
    engine.run("quick", job="next")

    assert [job for event, job in engine.until(Written) if isinstance(event, Finished | Written)] == ["look", "next"]


def test_commands_reach_the_job_that_runs(child):
    engine = child()
    engine.run("count", steps=10_000)
    engine.first(StepDone)

    engine.tell(Focus(2, (1, 2, 3, 4)))
    assert engine.first(PreviewWritten).box == (1, 2, 3, 4)
    engine.tell(LabelsChanged())
    assert engine.first(LabelsRead) == LabelsRead(1, 2, "abc")
    engine.tell(Pause())
    held = engine.first(Paused).step
    time.sleep(0.2)
    engine.tell(Resume())
    assert engine.first(Resumed).step == held
    engine.tell(Cancel())
    assert engine.first(Finished) == Finished("train", stopped=True, canceled=True)


def test_commands_without_a_job_do_nothing(child):
    engine = child()
    engine.tell(Stop(), Pause(), Resume(), Cancel(), LabelsChanged(), Focus(0, (0, 0, 1, 1)))
    engine.run("count", steps=3)

    assert engine.first(Finished) == Finished("train")


def test_stop_while_a_job_is_only_about_to_start_stops_it(child):
    engine = child()
    engine.tell(Run("count", {"steps": 100_000}, "train-1"), Stop())

    assert engine.first(Finished) == Finished("train", stopped=True)


@pytest.mark.fault
def test_pausing_and_resuming_a_hundred_times_leaks_nothing(child):
    engine = child()
    engine.run("threads")
    before = engine.first(Finished).facts
    engine.run("count", steps=100_000, seconds=0.0005)
    for _ in range(100):
        engine.tell(Pause(), Resume())
    for _ in range(100):
        engine.first(Resumed)
    engine.tell(Stop())
    engine.first(Finished)
    engine.run("threads")

    after = engine.first(Finished).facts
    assert after["files"] == before["files"]
    assert after["threads"] <= before["threads"]


@pytest.mark.fault
@pytest.mark.flaky(reruns=2)
def test_the_heartbeat_goes_on_whatever_the_job_does(child):
    engine = child()
    engine.run("deaf", seconds=2.4)
    engine.first(Started)
    begun = time.monotonic()
    beats = [engine.first(Heartbeat) for _ in range(2)]

    assert time.monotonic() - begun < 2.4
    assert all(beat.rss_bytes > 1_000_000 for beat in beats)


def test_bad_input_is_the_users_and_its_sentence_is_handed_on(child):
    engine = child()
    engine.run("fail", how="input")
    failed = engine.first(Failed)

    assert failed.wrong_input
    assert failed.message == "The image 'a.tif' has two channels: choose one with a.tif[c=1]."


@pytest.mark.parametrize(
    ("how", "kind"),
    [("defect", "ZeroDivisionError: division by zero"), ("exit", "SystemExit: 7"), ("unspeakable", "RecursionError")],
)
def test_a_defect_is_said_in_one_line_with_the_traceback_apart_and_the_next_job_runs(child, how, kind):
    engine = child()
    engine.run("fail", how=how)
    failed = engine.first(Failed)
    engine.run("quick")

    assert not failed.wrong_input
    assert kind in failed.message
    assert "\n" not in failed.message
    assert failed.detail.startswith("Traceback")
    assert kind.partition(":")[0] in engine.log.read_text()
    assert engine.first(Finished) == Finished("quick")


def test_a_verb_that_is_not_there_is_refused(child):
    engine = child()
    engine.run("paint")

    assert engine.first(Failed).message.startswith("There is no verb 'paint': choose one of count,")


def test_a_line_that_is_no_command_is_said_and_passed_over(child):
    engine = child()
    engine.process.stdin.write(b"hello\n\xff\xfe\x00\n" + b"[" * 100_000 + b"\n")
    engine.process.stdin.flush()
    for _ in range(3):
        assert engine.first(Warned).message.startswith("This is not a command")
    engine.run("quick")

    assert engine.first(Finished) == Finished("quick")


@pytest.mark.fault
def test_a_process_whose_graphics_driver_is_lost_ends_and_asks_for_a_new_one(child):
    engine = child()
    engine.run("fail", how="cuda")

    assert "unspecified launch failure" in engine.first(Failed).message
    assert engine.end(within_s=3) == RENEW_STATUS


@pytest.mark.fault
@pytest.mark.parametrize("verb", ["count", "deaf", "gripping"])
def test_it_ends_within_two_seconds_of_its_stdin_closing_even_in_the_middle_of_a_job(child, verb):
    engine = child()
    engine.run(verb, steps=100_000, seconds={"count": 0.01, "deaf": 60, "gripping": 1.5}[verb])
    engine.first(Started)
    time.sleep(0.1)
    engine.close_stdin()

    engine.end(within_s=2)


def test_a_job_that_is_running_when_stdin_closes_keeps_its_best(child, tmp_path):
    engine = child()
    engine.run("count", steps=100_000, run=str(tmp_path))
    engine.first(StepDone)
    engine.close_stdin()

    assert engine.first(Saved).path == str(tmp_path)
    assert engine.first(Finished).stopped
    assert (tmp_path / "checkpoint").exists()
    assert engine.end(within_s=2) == 0


def test_a_paused_job_ends_with_its_stdin_too(child):
    engine = child()
    engine.run("count", steps=100_000)
    engine.tell(Pause())
    engine.first(Paused)
    engine.close_stdin()

    assert engine.end(within_s=2) == 0


@pytest.mark.fault
@posix
def test_it_ends_when_the_process_that_started_it_is_killed(tmp_path):
    script = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, {str(FAKE_JOBS)!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdin.write({encode(Run("count", {"steps": 10**6}, "j"))!r}.encode() + bytes([10]))
child.stdin.flush()
while b"StepDone" not in child.stdout.readline():
    pass
print(child.pid, flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    parent.stdout.close()

    with contextlib.suppress(psutil.NoSuchProcess):
        child.wait(timeout=2)
    assert not child.is_running()


@posix
def test_being_told_to_terminate_is_like_stdin_closing(child):
    engine = child()
    engine.run("count", steps=100_000)
    engine.first(StepDone)
    engine.process.send_signal(signal.SIGTERM)

    assert engine.first(Finished).stopped
    assert engine.end(within_s=2) == 0


def test_an_idle_process_ends_by_itself(child):
    engine = child("idle=0.5")

    assert engine.end(within_s=3) == 0


def test_a_process_with_a_job_is_not_idle(child):
    engine = child("idle=0.3")
    engine.run("count", steps=6, seconds=0.1)

    assert engine.first(Finished) == Finished("train")
    assert engine.end(within_s=3) == 0


def test_what_anything_else_prints_never_mixes_with_the_events(child):
    engine = child(environment={"PYTHONIOENCODING": "ascii:strict", "LC_ALL": "C", "PYTHONUTF8": "0"})
    engine.run("noisy")
    said = [event for event, _ in engine.until(Finished)]

    assert said == [Written("csv", "/tmp/ergebnis é 日本 \udcff.csv", {"dice": 0.5}), Finished("noisy")]
    assert all(line.isascii() for line in engine.raw)
    log = engine.log.read_text()
    for printed in ("plain print", "raw write", "from a child of the child", "to stderr", "a library's warning"):
        assert printed in log


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "latin-1"])
def test_the_events_do_not_depend_on_the_console(child, encoding):
    engine = child(environment={"PYTHONIOENCODING": encoding, "LANG": "de_DE.UTF-8", "LC_NUMERIC": "de_DE.UTF-8"})
    engine.run("noisy")

    assert engine.first(Written).facts == {"dice": 0.5}
    assert engine.first(Finished) == Finished("noisy")


@pytest.mark.fault
def test_a_reader_that_stalls_holds_up_no_job_and_then_gets_the_newest_and_every_result(tmp_path):
    log = tmp_path / "log"
    with log.open("ab+") as stderr:
        process = subprocess.Popen(
            [sys.executable, str(FAKE_JOBS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr
        )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write((encode(Run("flood", {"count": 3_000}, "f")) + "\n").encode())
        process.stdin.flush()
        time.sleep(4)  # a pipe holds far less than the flood; the engine steps back for whoever else computes
        busy = psutil.Process(process.pid).cpu_percent(interval=0.5)
        memory = psutil.Process(process.pid).memory_info().rss
        process.stdin.close()
        said = [decode_event(line.decode())[0] for line in process.stdout]

    assert busy < 50
    assert memory < 200_000_000
    assert len([event for event in said if isinstance(event, Saved)]) == 10
    assert said[-1] == Finished("flood", facts={"count": 3_000}) or isinstance(said[-1], Heartbeat)
    steps = [event.step for event in said if isinstance(event, StepDone)]
    assert steps[-1] == 2_999
    assert len(steps) < 1_500


def test_a_description_is_given_at_once_and_again_when_torch_is_there(child):
    engine = child("prepare=0.5")
    engine.tell(Describe())

    outline = engine.first(Described).description
    assert not outline["complete"]
    assert "count" in outline["verbs"]
    assert engine.first(Described).description == {"complete": True, "verbs": outline["verbs"], "methods": []}
    engine.tell(Describe())
    assert engine.first(Described).description["complete"]


def test_what_needs_no_torch_and_is_asked_for_at_once_comes_before_torch(tmp_path):
    engine = Child(tmp_path / "log")
    engine.tell(Run("deaf", {"seconds": 0.5}, "propose-1"), Describe())
    said = [event for event, _ in engine.until(Finished)]
    assert not [event for event in said if isinstance(event, Described) and event.description["complete"]]
    assert engine.first(Described).description["complete"]

    engine.close_stdin()
    engine.end(within_s=3)
    engine.reader.join()
    engine.process.stdout.close()


def test_a_job_that_needs_torch_waits_for_it_and_says_so_while_others_run_at_once(child):
    engine = child("prepare=0.7")
    engine.run("quick")
    assert engine.until(Finished, within_s=0.5)[-1][0] == Finished("quick")
    engine.run("with_torch")

    assert [event for event, _ in engine.until(Finished)] == [
        Progressed("loading PyTorch", 0, 1),
        Finished("with_torch"),
    ]


@pytest.mark.fault
def test_without_torch_the_reason_is_said_and_what_needs_none_still_runs(child):
    engine = child("torch=broken")
    failed = engine.first(Failed)
    assert "PyTorch could not be loaded (ImportError: libcudart.so.99" in failed.message
    assert "napari-semiseg doctor" in failed.message

    engine.run("with_torch")
    assert engine.first(Failed) == Failed(failed.message, wrong_input=True)
    engine.run("quick")
    assert engine.first(Finished) == Finished("quick")


@posix
def test_it_yields_to_the_viewer(child):
    engine = child()
    engine.run("environment")

    assert engine.first(Finished).facts["nice"] >= 10


def test_ready_names_the_versions(child, tmp_path):
    engine = Child(tmp_path / "second.log")
    ready = engine.first(Ready)
    engine.close_stdin()
    engine.end(within_s=3)
    engine.reader.join()
    engine.process.stdout.close()

    assert ready.pid == engine.process.pid
    assert ready.versions["torch"][0].isdigit()
    assert json.loads(engine.raw[0])["event"] == "Ready"


def test_a_log_that_grows_too_large_loses_its_older_lines(tmp_path):
    path = tmp_path / "log"
    with path.open("ab+") as log:
        log.write(b"".join(b"line %05d\n" % number for number in range(1_000)))
        log.flush()
        trim_log(log.fileno(), limit=20_000, keep=100)
        assert len(path.read_bytes()) == 11_000
        trim_log(log.fileno(), limit=10_000, keep=105)
        log.write(b"line after\n")

    kept = path.read_bytes().splitlines()
    assert kept[0] == b"[older lines were dropped]"
    assert kept[1:] == [b"line %05d" % number for number in range(991, 1_000)] + [b"line after"]


def test_a_log_that_is_no_file_of_ours_is_left_alone(tmp_path):
    path = tmp_path / "users.log"
    path.write_bytes(b"x" * 1_000)
    with path.open("ab") as log:  # as a shell's 2>> does
        trim_log(log.fileno(), limit=10, keep=5)

    assert path.stat().st_size == 1_000


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_its_job(verb):
    assert callable(VERBS[verb].load())
