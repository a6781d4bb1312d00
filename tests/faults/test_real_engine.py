"""The real engine with real trainings: killed, left alone, closed, and unable to load what it needs."""

from __future__ import annotations

import ast
import inspect
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from napari_semiseg.app.engine_log import EngineLog
from napari_semiseg.app.engine_model import ChildEnded, ChildStarted, EngineModel
from napari_semiseg.app.engine_process import COMMAND
from napari_semiseg.app.engine_watch import EngineWatch
from napari_semiseg.engine.requests import TrainRequest
from napari_semiseg.events import Failed, Finished, Paused, Saved, StepDone

SOURCE = Path(inspect.getfile(EngineWatch)).parents[1]
FAILING_DRIVER = Path(__file__).with_name("failing_driver.py")
TRAINING_CHILD = Path(__file__).with_name("training_child.py")
# Raised in the thread itself, as a fault is: sent to the process, another thread may take it while this one runs on.
CRASH = "import signal\nsignal.raise_signal(signal.SIGSEGV)"

pytestmark = pytest.mark.skipif(os.name != "posix", reason="POSIX signals")


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Viewer:
    """Watches an engine as the dock's worker does, and keeps its model up to date."""

    def __init__(self, log: Path, **limits: Any) -> None:
        self.watch = EngineWatch(log=EngineLog(log), **limits)
        self.model = EngineModel()
        self.model.commanded.connect(self.watch.send)
        self.batches = self.watch.batches()
        self.seen: list[Any] = []
        self.pids: list[int] = []

    def until(self, kind: type, within_s: float) -> Any:
        """Go on until something of that kind comes; return it."""
        deadline = time.monotonic() + within_s
        while True:
            assert time.monotonic() < deadline, f"no {kind.__name__} in {within_s} s; {self.seen[-9:]}, {self.log()}"
            batch = next(self.batches)
            news = [item[0] if isinstance(item, tuple) else item for item in batch]
            self.seen += news
            self.pids += [item.pid for item in news if isinstance(item, ChildStarted)]
            if batch:
                self.model.apply(batch)
                self.watch.acknowledge()
            for item in news:
                if isinstance(item, kind):
                    return item
                assert not isinstance(item, Failed), item.message

    def log(self) -> str:
        return self.watch.log.path.read_text(errors="replace")[-2000:] if self.watch.log.path.exists() else ""

    def close(self) -> float:
        """Close, and return how long that took."""
        begun = time.monotonic()
        self.watch.close()
        for batch in self.batches:
            self.seen += [item[0] if isinstance(item, tuple) else item for item in batch]
            self.watch.acknowledge()
        return time.monotonic() - begun


@pytest.fixture
def viewer(tmp_path: Path) -> Iterator[Callable[..., Viewer]]:
    opened: list[Viewer] = []

    def open_one(**limits: Any) -> Viewer:
        opened.append(Viewer(tmp_path / "log", **limits))
        return opened[-1]

    yield open_one
    for each in opened:
        if not each.watch.closed:
            each.close()
        assert not [pid for pid in each.pids if runs(pid)]


def long_training(ask: Callable[..., TrainRequest]) -> dict[str, Any]:
    return ask(steps=100_000).model_dump(mode="json")


@pytest.mark.fault
@pytest.mark.timeout(900)  # it loads torch twice, which takes minutes where others compute too
def test_a_training_whose_graphics_driver_gave_up_goes_on_by_itself_in_a_new_process(
    viewer: Callable[..., Viewer], ask: Callable[..., TrainRequest], tmp_path: Path
) -> None:
    gui = viewer(command=[sys.executable, str(FAILING_DRIVER), str(tmp_path / "mark")])
    request = ask(steps=4).model_dump(mode="json")
    gui.model.run("train", request)
    failed = gui.until(Failed, within_s=400)
    told = [event for event in gui.seen if isinstance(event, ChildEnded)]  # perhaps in one batch with the failure
    ended = told[0] if told else gui.until(ChildEnded, within_s=60)

    assert "unspecified launch failure" in failed.message
    assert ended.how == "renewed"
    assert gui.model.lost_job.run == request["out"]

    gui.model.resume_lost()  # as the dock does, twice; see app/test_training_model.py
    finished = gui.until(Finished, within_s=400)

    assert len(set(gui.pids)) == 2
    assert (finished.stopped, finished.facts["steps"]) == (False, 4)


@pytest.mark.fault
@pytest.mark.flaky(reruns=2)
def test_a_training_that_is_killed_is_resumed_where_it_was_saved_and_closing_saves_it(
    viewer: Callable[..., Viewer], ask: Callable[..., TrainRequest]
) -> None:
    from napari_semiseg.engine.checkpoint import RunFolder

    gui = viewer()
    request = long_training(ask)
    gui.model.run("train", request)
    gui.until(StepDone, within_s=90)
    gui.model.pause()  # which saves; otherwise it does so every 20 s
    saved = gui.until(Paused, within_s=20).step
    gui.model.resume()
    gui.until(StepDone, within_s=20)
    psutil.Process(gui.pids[-1]).kill()
    begun = time.monotonic()
    ended = gui.until(ChildEnded, within_s=5)

    assert time.monotonic() - begun < 1
    assert ended.how == "crash"
    assert gui.model.lost_job.run == request["out"]
    newest = RunFolder(Path(request["out"])).latest()
    assert newest is not None
    assert newest.stem == f"step-{saved:07d}"

    gui.model.resume_lost()
    step = gui.until(StepDone, within_s=90).step
    assert step >= saved
    assert gui.close() <= 3
    assert not runs(gui.pids[-1])
    newest = RunFolder(Path(request["out"])).latest()
    assert newest is not None
    assert int(newest.stem[5:]) >= step
    assert any(isinstance(event, Saved) for event in gui.seen)


@pytest.mark.fault
def test_a_real_training_does_not_outlive_the_script_that_started_it(
    ask: Callable[..., TrainRequest], tmp_path: Path
) -> None:
    """The script has no main guard, plays the viewer, and is killed."""
    script = subprocess.Popen(
        [sys.executable, TRAINING_CHILD, json.dumps(long_training(ask)), str(tmp_path / "log")],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert script.stdout is not None
    assert script.stdout.readline() == "script\n"
    engine = psutil.Process(int(script.stdout.readline()))
    assert script.stdout.readline() == "training\n"
    family = [engine, *engine.children(recursive=True)]
    assert "serve" in engine.cmdline()
    assert len(psutil.Process(script.pid).children(recursive=True)) == len(family)
    script.kill()
    script.wait()
    rest = script.stdout.read()
    script.stdout.close()

    _, alive = psutil.wait_procs(family, timeout=2)
    assert [process for process in alive if runs(process.pid)] == []
    assert "script" not in rest  # nobody ran it a second time


@pytest.mark.fault
@pytest.mark.parametrize(
    ("torch", "said"),
    [
        ("raise ImportError('libcudart.so.99: cannot open shared object file')", "libcudart.so.99"),
        ("__version__ = '1.2.0'", "PyTorch could not be loaded"),
        ("raise OSError('[WinError 1114] a DLL failed')", "WinError 1114"),
    ],
    ids=["no CUDA library", "another version", "a DLL"],
)
def test_the_engine_says_that_torch_cannot_be_loaded_and_stays(
    viewer: Callable[..., Viewer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torch: str, said: str
) -> None:
    (tmp_path / "broken" / "torch").mkdir(parents=True)
    (tmp_path / "broken" / "torch" / "__init__.py").write_text(torch)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))
    gui = viewer()
    failed = gui.until(Failed, within_s=60)

    assert said in failed.message
    assert "\n" not in failed.message
    assert gui.model.status == "ready"
    assert failed.detail
    assert psutil.pid_exists(gui.pids[-1])


@pytest.mark.fault
def test_a_torch_that_takes_the_process_down_is_said_with_the_log(
    viewer: Callable[..., Viewer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken" / "torch").mkdir(parents=True)
    (tmp_path / "broken" / "torch" / "__init__.py").write_text(CRASH)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))
    gui = viewer()
    ended = gui.until(ChildEnded, within_s=60)

    assert (ended.how, ended.again) == ("crash", False)
    assert "SIGSEGV" in gui.model.message
    assert str(gui.watch.log.path) in gui.model.message
    assert "torch" in ended.detail  # faulthandler's trace
    assert gui.model.status == "failed"


def test_a_silent_engine_is_given_ten_seconds() -> None:
    assert inspect.signature(EngineWatch).parameters["heartbeat_s"].default == 10.0


def test_no_process_is_ever_forked_and_nothing_runs_a_shell_or_a_pickle() -> None:
    forbidden = {"multiprocessing", "pickle", "dill", "cloudpickle", "marshal", "shelve", "torch.multiprocessing"}
    calls = {"fork", "forkpty", "ProcessPoolExecutor"}
    found = []
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: set[str] = set()
            if isinstance(node, ast.Import):
                names = {alias.name for alias in node.names} & forbidden
            elif isinstance(node, ast.ImportFrom):
                names = {node.module or "", *(alias.name for alias in node.names)} & (forbidden | calls)
            elif isinstance(node, ast.Call):
                names = {getattr(node.func, "id", getattr(node.func, "attr", ""))} & calls
                names |= {getattr(node.func, "id", "")} & {"eval", "exec"}  # networks have an `eval` of their own
                if getattr(getattr(node.func, "value", None), "id", "") == "os":
                    names |= {node.func.attr} & {"system", "popen"}
                names |= {"shell=True" for word in node.keywords if word.arg == "shell"}
                names |= {"workers" for word in node.keywords if word.arg == "num_workers"}
            found += [f"{path.relative_to(SOURCE)}:{getattr(node, 'lineno', 0)} {name}" for name in names]

    assert found == []
    assert COMMAND[0] == sys.executable
    assert "-m" in COMMAND
