"""The bridge between the engine's watch, which has a thread, and its model, which lives with the widgets."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import Any

from napari.qt.threading import GeneratorWorker, thread_worker
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QCoreApplication, QObject, QThreadPool, Signal, Slot

from napari_semiseg.app.engine_model import EngineModel
from napari_semiseg.app.engine_watch import EngineWatch

LONG_JOB_S = 1.0
"""Seconds after which a job is one that napari asks about before it closes."""
ERRORS, ERRORS_S = 3, 60.0
"""So many errors of the supervisor itself in so many seconds, and it gives up."""


class Supervisor(QObject):
    """Watches the engine in a napari worker, and keeps the model up to date.

    Closing napari ends it within some 3 s: a running job is asked to stop and keep its best, and an engine that does
    not end is ended. Only while a long job runs is the worker registered with napari, which then asks before it closes.

    Parameters
    ----------
    model : EngineModel
        Everything that is shown is there; it is only ever touched by the thread that made this object.
    parent : QObject, optional
        With it the supervisor ends.
    watch : EngineWatch, optional
        By default one that starts this package's engine.
    """

    closed = Signal()
    """The engine has ended and no thread is left."""

    def __init__(self, model: EngineModel, parent: QObject | None = None, *, watch: EngineWatch | None = None) -> None:
        super().__init__(parent)
        self.model = model
        self.watch = watch or EngineWatch()
        self._worker: GeneratorWorker | None = None
        self._deaf = False
        self._errors: deque[float] = deque(maxlen=ERRORS)
        model.commanded.connect(self.watch.send)
        model.restart_wanted.connect(self.watch.restart)
        self._shifts = Shifts(self.watch)
        # A method of an object that outlives this one: Python's garbage collector may have emptied a closure by then.
        self.destroyed.connect(self._shifts.end)

    def start(self) -> None:
        """Start the engine, and watch it from now on. A second call does nothing."""
        if self._worker is None and not self.watch.closed:
            self._next_worker()

    def close(self) -> None:
        """Ask the engine to end, without waiting; `closed` tells when it has. The model hears nothing more."""
        self._deaf = True
        self.model.commanded.disconnect(self.watch.send, missing_ok=True)
        self.model.restart_wanted.disconnect(self.watch.restart, missing_ok=True)
        self.watch.close()

    def wait(self, timeout_s: float = 3.0) -> bool:
        """Let Qt work until the engine has ended, and return whether it has."""
        until = time.monotonic() + timeout_s
        while self._worker and time.monotonic() < until:
            QCoreApplication.processEvents()
            time.sleep(0.01)
        return self._worker is None

    def _next_worker(self) -> None:
        long_job = self.watch.busy_s > LONG_JOB_S
        task = _Task(_watch, self.watch, long_job)
        # `thread_worker` registers with napari, which then asks before it closes: not while nothing is being done.
        worker = (
            thread_worker(task, worker_class=_EngineWorker, ignore_errors=True)() if long_job else _EngineWorker(task)
        )
        worker.shifts = self._shifts
        worker.yielded.connect(self._deliver)
        worker.errored.connect(self._count_error)
        worker.finished.connect(self._go_on)
        self._worker = worker
        self._shifts.begin()
        worker.start()

    @Slot(object)
    def _deliver(self, batch: tuple[Any, ...]) -> None:
        if not batch or self._deaf:
            return
        try:
            self.model.apply(batch)
        finally:  # a widget that fails must not stop the engine's events
            self.watch.acknowledge()

    @Slot(object)
    def _count_error(self, error: Exception) -> None:
        """Show an error as napari does its own, and survive a few."""
        notification_manager.receive_error(type(error), error, error.__traceback__)
        self._errors.append(time.monotonic())
        if len(self._errors) == ERRORS and self._errors[-1] - self._errors[0] < ERRORS_S:
            self.watch.close()
            self.model.fail(error)

    @Slot()
    def _go_on(self) -> None:
        if self.watch.closed:
            self._worker = None
            self.closed.emit()
        else:
            self._next_worker()


class Shifts:
    """Who watches the engine: one worker after the other, and at the end whoever is there, so that it is ended.

    A worker's successor is started by the supervisor. Where that is deleted in between, or the worker loses its signals
    with the window, nobody would be left who closes the engine.

    Parameters
    ----------
    watch : EngineWatch
    """

    def __init__(self, watch: EngineWatch) -> None:
        self.watch = watch
        self._lock = threading.Lock()
        self._manned = self._last = False

    def begin(self) -> None:
        """Note that a worker has been started."""
        with self._lock:
            self._manned = True

    def leave(self) -> None:
        """Note that a worker has come to its end; in its thread. It ends the engine if it is the last one."""
        with self._lock:
            self._manned = False
            orphaned = self._last
        if orphaned or self.watch.closing:
            self._see_off()

    def end(self) -> None:
        """Have the engine ended, by the worker or, between two of them, by a thread made for it: no other comes."""
        self.watch.close()
        with self._lock:
            self._last = True
            orphaned = not self._manned
        if orphaned and not self.watch.closed:
            threading.Thread(target=self._see_off, name="end of the engine", daemon=True).start()

    def _see_off(self) -> None:
        for _ in self.watch.batches():
            continue


class _EngineWorker(GeneratorWorker):
    """A worker for a whole session, where napari's are made for work that is soon done."""

    shifts: Shifts

    def quit(self) -> None:
        """End the generator in an orderly way: napari's would drop it where it stands."""
        self.shifts.watch.close()

    def run(self) -> None:
        """Do as napari's, but for three things.

        That one makes every warning of the whole process a notification while it runs, and puts back in the end what it
        found, which by then may no longer be napari's handler. It ends without `finished` after a `RuntimeError`. And
        its signals may be deleted with the window while it runs: the engine is then still to be ended.
        """
        try:
            self.started.emit()
            self._running = True
            failure = self.work()
        except Exception as error:
            failure = error
        self.shifts.leave()
        self._running = False
        with contextlib.suppress(RuntimeError):  # signals that are gone: nobody is left who could hear of it
            if isinstance(failure, Exception):
                self.errored.emit(failure)
            self.finished.emit()
            self._finished.emit(self)


class _Task(partial):  # type: ignore[type-arg]
    """What the worker does, by the name that napari shows for it in the question before closing."""

    def __str__(self) -> str:
        return "a long nucleus segmentation job (closing stops it and keeps the best so far)"


def _watch(watch: EngineWatch, long_job: bool) -> Iterator[tuple[Any, ...]]:
    """Watch until napari closes or the job turns out to be long, or to be over if it was."""
    pool = QThreadPool.globalInstance()
    pool.releaseThread()  # this thread mostly waits: others that napari's pool has room for are not to go short
    try:
        for batch in watch.batches():
            yield batch
            if (watch.busy_s > LONG_JOB_S) is not long_job and not watch.closing:
                return
    finally:
        pool.reserveThread()
