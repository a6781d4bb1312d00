"""Work in a thread of its own, so that commands are answered whatever library is at work."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

from napari_semiseg.engine.control import Control
from napari_semiseg.events import Cancel, Event, Pause, Paused, Progressed, Resume, Resumed, Stop

Report = Callable[[int, int], None]
"""Called with how many parts of how many are done. What it raises breaks the work off."""

_POLL_S = 0.1


def watched(
    work: Callable[[Report], dict[str, Any]], control: Control, what: str
) -> Generator[Event, None, dict[str, Any] | type[Stop] | type[Cancel]]:
    """Do the work in a thread, and yield its progress at most ten times a second.

    Parameters
    ----------
    work : callable
        Is given a `Report`, which holds or ends it, and returns its facts.
    control : Control
    what : str
        Name of the work in the events.

    Yields
    ------
    Progressed, Paused, Resumed

    Returns
    -------
    dict or type
        The facts, or the command that the work was ended by.
    """
    worker, clock = _Worker(work), _Clock(what)
    asked: type[Stop] | type[Cancel] | None = None
    ended = said_paused = False
    asked = _obey(worker, control, asked)
    worker.begin()
    try:
        while not ended:
            ended = worker.wait(_POLL_S)
            yield from clock.progress(worker.news)
            if worker.holds.is_set() and not said_paused:
                said_paused = True
                yield Paused(clock.done)
            asked = _obey(worker, control, asked)
            if said_paused and asked is None and worker.going.is_set():
                said_paused = False
                yield Resumed(clock.done)
    finally:
        worker.halt()
        worker.wait()
    if worker.error is not None:
        raise worker.error
    if worker.outcome is None:
        assert asked is not None
        return asked
    return worker.outcome


class _HaltedError(Exception):
    """Raised in the working thread by its next report."""


class _Worker:
    """The work in a thread, which holds or ends at its reports."""

    def __init__(self, work: Callable[[Report], dict[str, Any]]) -> None:
        self.news: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()
        self.going = threading.Event()
        self.going.set()
        self.holds = threading.Event()
        self.halted = False
        self.outcome: dict[str, Any] | None = None
        self.error: BaseException | None = None
        self._work = work
        self._thread = threading.Thread(target=self._run, name="work", daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait, and say whether the work has ended."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def halt(self) -> None:
        """Let the next report end the work."""
        self.halted = True
        self.going.set()

    def _run(self) -> None:
        try:
            self.outcome = self._work(self._report)
        except _HaltedError:
            return
        except BaseException as error:  # handed to the thread that waits
            self.error = error

    def _report(self, done: int, total: int) -> None:
        self.news.put((done, total))
        if not self.going.is_set():
            self.holds.set()
            self.going.wait()
            self.holds.clear()
        if self.halted:
            raise _HaltedError


def _obey(
    worker: _Worker, control: Control, asked: type[Stop] | type[Cancel] | None
) -> type[Stop] | type[Cancel] | None:
    """Do what was asked since the last look. Return the command that ends the work, if there was one."""
    for command in control.take():
        if isinstance(command, Pause) and asked is None:
            worker.going.clear()
        elif isinstance(command, Resume):
            worker.going.set()
        elif isinstance(command, Stop | Cancel):
            asked = type(command)
            worker.halt()
    return asked


class _Clock:
    """How far the work is, and how fast it goes."""

    def __init__(self, what: str) -> None:
        self._what, self.done = what, 0
        self._begun = time.monotonic()

    def progress(self, news: queue.SimpleQueue[tuple[int, int]]) -> Iterator[Progressed]:
        latest = None
        while not news.empty():
            latest = news.get()
        if latest is not None:
            self.done, total = latest
            rate = self.done / max(time.monotonic() - self._begun, 1e-9)
            yield Progressed(self._what, self.done, total, rate, (total - self.done) / rate)
