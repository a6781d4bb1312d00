"""Work that would hold up the viewer, done in a thread; what comes of it is handed over where it was asked for."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

UNREADABLE = (OSError, ValueError, EOFError)
"""What reading a file may raise: it is gone, damaged (an `InputError` is a `ValueError`) or empty."""


@dataclass(frozen=True)
class _Task:
    work: Callable[[], Any]
    done: Callable[[Any], object] | None
    failed: Callable[[Exception], object] | None


class Background:
    """One thread that does one thing after the other.

    The thread is a daemon: it never keeps a program from ending. Nothing is called back from it: `deliver`, called by
    the owner's own thread, calls `done` or `failed`.

    Parameters
    ----------
    name : str
        Name of the thread, for people who look at a stuck program.
    foreseen : types of errors
        Any other is a defect: `deliver` raises it, too.
    """

    def __init__(self, name: str, *, foreseen: tuple[type[Exception], ...] = UNREADABLE) -> None:
        self._foreseen = foreseen
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._results: deque[Callable[[], object]] = deque()
        self._idle = threading.Condition()
        self._pending = 0
        self._ended = False
        threading.Thread(target=self._run, name=name, daemon=True).start()

    @property
    def pending(self) -> int:
        """Tasks that wait or run."""
        return self._pending

    def submit(
        self,
        work: Callable[[], Any],
        done: Callable[[Any], object] | None = None,
        failed: Callable[[Exception], object] | None = None,
    ) -> None:
        """Do `work` in the thread, then `done` with its result, or `failed` with its error, in `deliver`.

        `failed` puts back what waited, and tells what it has to tell, whatever the error. One that nobody asked for
        or that is not foreseen is then raised by `deliver`.
        """
        with self._idle:
            if self._ended:
                return
            self._pending += 1
        self._tasks.put(_Task(work, done, failed))

    def deliver(self) -> None:
        """Hand over what was finished since the last call, in order."""
        for _ in range(len(self._results)):
            self._results.popleft()()

    def drain(self, timeout_s: float) -> bool:
        """Wait until nothing is left to do; whether that was reached in time."""
        with self._idle:
            return self._idle.wait_for(lambda: self._pending == 0, timeout_s)

    def end(self) -> None:
        """Take nothing more, and hand nothing more over."""
        with self._idle:
            self._ended = True
        self._results.clear()
        self._tasks.put(None)

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            self._do(task)
            with self._idle:
                self._pending -= 1
                self._idle.notify_all()

    def _do(self, task: _Task) -> None:
        try:
            result = task.work()
        except Exception as error:
            self._keep(partial(self._fail, task, error))
        else:
            self._keep(lambda: task.done(result) if task.done else None)

    def _keep(self, call: Callable[[], object]) -> None:
        if not self._ended:
            self._results.append(call)

    def _fail(self, task: _Task, error: Exception) -> None:
        if task.failed is not None:
            task.failed(error)
        if task.failed is None or not isinstance(error, self._foreseen):
            raise error
