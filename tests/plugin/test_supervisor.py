from __future__ import annotations

import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from napari.qt.threading import WorkerBase, thread_worker
from napari.utils.notifications import notification_manager
from qtpy import API_NAME
from qtpy.QtCore import QObject, QThread, QThreadPool

from napari_semiseg.app.engine_log import EngineLog
from napari_semiseg.app.engine_model import EngineModel
from napari_semiseg.app.engine_watch import EngineWatch
from napari_semiseg.events import Finished, Saved, Started, StepDone
from napari_semiseg.plugin import supervisor as supervisor_module
from napari_semiseg.plugin.supervisor import Supervisor

if API_NAME == "PySide6":
    from shiboken6 import delete as delete_now
else:
    from PyQt6.sip import delete as delete_now

FAKE_JOBS = (sys.executable, str(Path(__file__).parents[1] / "engine" / "fake_jobs.py"))


class Dock:
    """A supervisor and its model, as a dock has them."""

    def __init__(self, folder: Path, *options: str, **limits: Any) -> None:
        self.model = EngineModel()
        self.watch = EngineWatch((*FAKE_JOBS, *options), log=EngineLog(folder), **limits)
        self.owner = QObject()
        self.supervisor = Supervisor(self.model, self.owner, watch=self.watch)
        self.seen: list[Any] = []
        self.model.received.connect(lambda _, event: self.seen.append(event))

    def saw(self, kind: type) -> bool:
        return any(isinstance(event, kind) for event in self.seen)

    @property
    def settled(self) -> bool:
        return bool(self.model.description.get("complete"))


@pytest.fixture
def dock(tmp_path: Path, qtbot: Any) -> Iterator[Callable[..., Dock]]:
    docks: list[Dock] = []

    def open_dock(*options: str, **limits: Any) -> Dock:
        docks.append(Dock(tmp_path, *options, **limits))
        docks[-1].supervisor.start()
        return docks[-1]

    yield open_dock
    for each in docks:
        each.watch.close()
        qtbot.waitUntil(lambda each=each: each.watch.closed, timeout=4_000)
    qtbot.waitUntil(lambda: not WorkerBase._worker_set, timeout=2_000)
    assert _engines() == []


def _engines() -> list[psutil.Process]:
    own = psutil.Process().children()
    return [one for one in own if one.status() != psutil.STATUS_ZOMBIE and one.name() != "Xvfb"]  # the tests' display


def test_the_engine_starts_with_the_dock_and_does_what_the_model_asks(dock, qtbot):
    opened = dock()
    qtbot.waitUntil(lambda: opened.settled, timeout=10_000)
    opened.model.run("count", {"steps": 10})
    qtbot.waitUntil(lambda: opened.model.status == "ready" and opened.saw(Finished), timeout=10_000)

    assert opened.saw(StepDone)


def test_the_model_is_only_touched_by_the_threads_that_widgets_live_in(dock, qtbot):
    opened = dock()
    here, threads = QThread.currentThread(), set()
    opened.model.events.connect(lambda *_: threads.add(QThread.currentThread() is here))
    opened.model.received.connect(lambda *_: threads.add(QThread.currentThread() is here))
    opened.model.run("quick", {})
    qtbot.waitUntil(lambda: opened.saw(Finished), timeout=10_000)

    assert threads == {True}


def test_a_child_that_is_killed_is_said_in_the_model_and_followed_by_another(dock, qtbot):
    opened = dock()
    qtbot.waitUntil(lambda: opened.settled, timeout=10_000)
    opened.model.run("count", {"steps": 100_000, "run": "/runs/1"})
    qtbot.waitUntil(lambda: opened.saw(StepDone), timeout=5_000)
    [child] = _engines()
    child.kill()
    qtbot.waitUntil(lambda: opened.model.lost_job is not None, timeout=1_000)

    assert opened.model.lost_job.run == "/runs/1"
    assert str(opened.watch.log.path) in opened.model.message
    qtbot.waitUntil(lambda: opened.model.status == "ready", timeout=10_000)


def test_a_long_job_has_a_worker_of_its_own_and_there_is_never_more_than_one(dock, qtbot, monkeypatch):
    monkeypatch.setattr(supervisor_module, "LONG_JOB_S", 0.3)
    opened = dock()
    qtbot.waitUntil(lambda: opened.settled, timeout=10_000)
    kinds: list[bool] = []
    next_worker = opened.supervisor._next_worker
    monkeypatch.setattr(
        opened.supervisor, "_next_worker", lambda: (kinds.append(opened.watch.busy_s > 0.3), next_worker())
    )
    opened.model.run("count", {"steps": 50})
    qtbot.waitUntil(lambda: opened.saw(Finished), timeout=10_000)
    qtbot.waitUntil(lambda: len(kinds) == 2, timeout=2_000)

    assert kinds == [True, False]
    assert len(WorkerBase._worker_set) == 1
    steps = [event.step for event in opened.seen if isinstance(event, StepDone)]
    assert steps == sorted(steps)


def test_closing_ends_the_engine_within_three_seconds_and_says_so(dock, qtbot, tmp_path):
    opened = dock()
    opened.model.run("count", {"steps": 100_000, "run": str(tmp_path)})
    qtbot.waitUntil(lambda: opened.saw(StepDone), timeout=10_000)
    with qtbot.waitSignal(opened.supervisor.closed, timeout=3_000):
        opened.supervisor.close()
        opened.supervisor.close()

    assert _engines() == []
    assert (tmp_path / "checkpoint").exists()
    assert opened.supervisor.wait(0.1)


def test_a_closed_supervisor_tells_the_model_nothing_more(dock, qtbot):
    opened = dock()
    opened.model.run("count", {"steps": 100_000})
    qtbot.waitUntil(lambda: opened.saw(StepDone), timeout=10_000)
    opened.supervisor.close()
    seen = len(opened.seen)
    opened.model.stop()

    assert opened.supervisor.wait(3)
    assert len(opened.seen) == seen


def test_a_supervisor_ends_with_its_widget(dock, qtbot):
    opened = dock()
    qtbot.waitUntil(lambda: opened.settled, timeout=10_000)
    opened.model.run("count", {"steps": 100_000})
    opened.owner.deleteLater()
    qtbot.waitUntil(lambda: opened.watch.closed, timeout=3_500)

    opened.model.stop()  # nobody listens, and nothing breaks
    assert _engines() == []


@pytest.mark.flaky(reruns=2)
def test_the_wait_of_napari_for_its_workers_ends(dock, qtbot):
    opened = dock()
    qtbot.waitUntil(lambda: opened.settled, timeout=10_000)
    opened.model.run("deaf", {})
    qtbot.waitUntil(lambda: opened.saw(Started), timeout=5_000)
    begun = time.monotonic()
    WorkerBase.await_workers()  # what napari does as the application ends; without a limit of its own

    assert time.monotonic() - begun < 3
    assert _engines() == []


def test_other_workers_of_napari_find_room_on_a_machine_of_one_core(dock, qtbot):
    pool = QThreadPool.globalInstance()
    before = pool.maxThreadCount()
    pool.setMaxThreadCount(1)
    try:
        opened = dock()
        qtbot.waitUntil(lambda: opened.settled, timeout=10_000)
        answers: list[int] = []

        @thread_worker(connect={"returned": answers.append})
        def other() -> int:
            return 42

        other()
        qtbot.waitUntil(lambda: answers == [42], timeout=2_000)
        opened.supervisor.close()
        assert opened.supervisor.wait(4)
        qtbot.waitUntil(lambda: pool.activeThreadCount() == 0, timeout=2_000)
    finally:
        pool.setMaxThreadCount(before)


@pytest.mark.parametrize("kind", [ValueError, RuntimeError])
def test_an_error_in_the_worker_is_shown_and_survived(dock, qtbot, monkeypatch, kind):
    opened = dock()
    qtbot.waitUntil(lambda: opened.settled, timeout=10_000)
    turn, broken = opened.watch._turn, []

    def once_broken() -> Any:
        if not broken:
            broken.append(True)
            raise kind("what nobody thought of")
        return turn()

    shown = len(notification_manager.records)
    monkeypatch.setattr(opened.watch, "_turn", once_broken)
    qtbot.waitUntil(lambda: bool(broken), timeout=2_000)
    opened.model.run("quick", {})
    qtbot.waitUntil(lambda: opened.saw(Finished), timeout=5_000)

    assert "what nobody thought of" in notification_manager.records[shown].message


def test_a_worker_that_fails_again_and_again_gives_up_and_says_so(dock, qtbot, monkeypatch):
    opened = dock()
    qtbot.waitUntil(lambda: opened.settled, timeout=10_000)
    monkeypatch.setattr(opened.watch, "_turn", lambda: 1 / 0)
    qtbot.waitUntil(lambda: opened.model.status == "failed", timeout=5_000)

    assert opened.model.message.startswith("The connection to the engine broke (ZeroDivisionError")
    qtbot.waitUntil(lambda: opened.watch.closed, timeout=4_000)
    assert _engines() == []


def test_warnings_of_the_rest_of_the_process_stay_what_they_were(dock, qtbot):
    filters, show = list(warnings.filters), warnings.showwarning
    opened = dock()
    qtbot.waitUntil(lambda: opened.settled, timeout=10_000)

    assert warnings.filters == filters
    assert warnings.showwarning is show
    handler = warnings.showwarning = lambda *_: None  # napari puts its own there when its event loop starts
    opened.supervisor.close()
    assert opened.supervisor.wait(4)
    assert warnings.showwarning is handler
    warnings.showwarning = show


def test_a_supervisor_that_is_deleted_between_two_workers_leaves_no_engine(dock, qtbot, monkeypatch):
    monkeypatch.setattr(supervisor_module, "LONG_JOB_S", 0.3)
    opened = dock()
    qtbot.waitUntil(lambda: opened.settled, timeout=10_000)
    opened.model.run("count", {"steps": 100_000})
    pool, until = QThreadPool.globalInstance(), time.monotonic() + 10
    worker = opened.supervisor._worker
    while worker._running and time.monotonic() < until:  # nobody delivers that it has ended
        opened.watch.acknowledge()
        time.sleep(0.02)
    assert pool.waitForDone(1_000)
    delete_now(opened.owner)
    qtbot.waitUntil(lambda: opened.watch.closed, timeout=3_000)

    assert _engines() == []


def test_a_worker_that_loses_its_signals_with_the_window_still_ends_the_engine(dock, qtbot):
    opened = dock()
    qtbot.waitUntil(lambda: opened.settled, timeout=10_000)
    opened.model.run("count", {"steps": 100_000})
    qtbot.waitUntil(lambda: opened.saw(StepDone), timeout=5_000)
    worker = opened.supervisor._worker
    delete_now(worker.signals)
    delete_now(opened.owner)
    qtbot.waitUntil(lambda: opened.watch.closed, timeout=3_000)
    WorkerBase._worker_set.discard(worker)  # as one of those signals would have done

    assert _engines() == []


def test_a_widget_that_fails_does_not_stop_the_events(dock, qtbot):
    opened = dock()
    qtbot.waitUntil(lambda: opened.settled, timeout=10_000)
    failing = [True]

    def burst(job: str, event: object) -> None:
        if failing:
            failing.clear()
            raise RuntimeError("wrapped C/C++ object has been deleted")

    opened.model.received.connect(burst)
    with qtbot.captureExceptions() as caught:
        opened.model.run("count", {"steps": 30})
        qtbot.waitUntil(lambda: opened.saw(Finished), timeout=5_000)

    assert len(caught) == 1
    assert opened.model.status == "ready"


def test_a_viewer_that_stands_still_gets_a_bounded_batch_afterwards(dock, qtbot):
    opened = dock()
    qtbot.waitUntil(lambda: opened.settled, timeout=10_000)
    opened.model.run("flood", {"count": 30_000})
    qtbot.waitUntil(lambda: opened.saw(StepDone), timeout=5_000)
    time.sleep(1.5)  # another plugin computes in the viewer's thread
    before = len(opened.seen)
    qtbot.waitUntil(lambda: opened.saw(Finished), timeout=10_000)

    assert [event.step for event in opened.seen if isinstance(event, Saved)] == [3_000 * n for n in range(10)]
    assert len(opened.seen) - before < 100


class TestWithNapari:
    """The questions that only napari's own window answers."""

    @pytest.fixture
    def opened(self, make_napari_viewer: Any, dock: Any, qtbot: Any, monkeypatch: Any) -> Any:
        monkeypatch.setattr(supervisor_module, "LONG_JOB_S", 0.2)
        viewer = make_napari_viewer()
        opened = dock()
        opened.window = viewer.window
        qtbot.waitUntil(lambda: opened.settled, timeout=10_000)
        return opened

    def _train(self, opened: Dock, qtbot: Any, folder: Path) -> None:
        opened.model.run("count", {"steps": 100_000, "run": str(folder)})
        qtbot.waitUntil(lambda: opened.window._task_status_manager.is_busy(), timeout=5_000)

    def test_napari_does_not_ask_before_closing_while_nothing_is_done(self, opened):
        assert opened.window._task_status_manager.get_status() == []

    def test_napari_asks_in_words_while_a_long_job_runs_and_no_more_once_it_is_over(self, opened, qtbot, tmp_path):
        self._train(opened, qtbot, tmp_path)
        [question] = opened.window._task_status_manager.get_status()
        assert "nucleus segmentation" in question
        assert "0x" not in question

        opened.model.stop()
        qtbot.waitUntil(lambda: not opened.window._task_status_manager.is_busy(), timeout=5_000)

    def test_declining_to_close_lets_the_training_go_on(self, opened, qtbot, tmp_path, monkeypatch):
        asked = []

        class Dialog:
            def __init__(self, *_: object, extra_info: str = "", **__: object) -> None:
                asked.append(extra_info)

            def exec_(self) -> int:
                return 0

        class UsersClose:
            ignored = False

            def spontaneous(self) -> bool:
                return True

            def ignore(self) -> None:
                self.ignored = True

        self._train(opened, qtbot, tmp_path)
        monkeypatch.setattr("napari._qt.qt_main_window.ConfirmCloseDialog", Dialog)
        event = UsersClose()
        opened.window._qt_window.closeEvent(event)
        newest = max(event.step for event in opened.seen if isinstance(event, StepDone))
        qtbot.wait(500)

        assert event.ignored
        assert "nucleus segmentation" in asked[0]
        assert max(event.step for event in opened.seen if isinstance(event, StepDone)) > newest
        assert opened.model.status == "busy"

    @pytest.mark.flaky(reruns=2)
    def test_closing_the_window_ends_the_training_with_a_checkpoint_within_three_seconds(self, opened, qtbot, tmp_path):
        self._train(opened, qtbot, tmp_path)
        begun = time.monotonic()
        opened.window.close()
        qtbot.waitUntil(lambda: opened.watch.closed, timeout=3_000)

        assert time.monotonic() - begun < 3
        assert (tmp_path / "checkpoint").exists()
        assert _engines() == []


@pytest.mark.fault
@pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
def test_an_engine_does_not_outlive_a_viewer_that_is_killed(tmp_path, qtbot):
    script = f"""
import sys, time
from pathlib import Path
from qtpy.QtCore import QCoreApplication
from napari_semiseg.app.engine_log import EngineLog
from napari_semiseg.app.engine_model import EngineModel
from napari_semiseg.app.engine_watch import EngineWatch
from napari_semiseg.plugin.supervisor import Supervisor
from napari_semiseg.events import StepDone
app = QCoreApplication([])
model = EngineModel()
supervisor = Supervisor(model, watch=EngineWatch({FAKE_JOBS!r}, log=EngineLog(Path({str(tmp_path)!r}))))
supervisor.start()
model.run("count", {{"steps": 10**6}})
model.received.connect(lambda job, event: isinstance(event, StepDone) and print("training", flush=True))
app.exec()
"""
    viewer = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert viewer.stdout is not None
    assert viewer.stdout.readline() == b"training\n"
    [engine] = psutil.Process(viewer.pid).children()
    viewer.kill()
    viewer.wait()
    viewer.stdout.close()

    engine.wait(timeout=2)
    assert not engine.is_running()
