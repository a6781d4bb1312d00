"""Keeps one engine alive: starts it, passes commands on, collects what it says, and notices when it is gone."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence

from napari_semiseg.app.engine_log import EngineLog
from napari_semiseg.app.engine_model import ChildEnded, ChildStarted, Ending
from napari_semiseg.app.engine_process import COMMAND, EngineProcess
from napari_semiseg.events import (
    RENEW_STATUS,
    Command,
    Describe,
    Described,
    Event,
    Failed,
    Finished,
    Ready,
    Run,
    Stop,
)

SHORTEST_S, LONGEST_S = 0.1, 0.2
"""Seconds between two batches: at least so many where something happens, at most so many in any case."""
CRASHES, CRASHES_S = 3, 60.0
"""So many crashes in so many seconds, and the engine stays down until it is wanted."""

Item = tuple[Event, str] | ChildStarted | ChildEnded


class EngineWatch:
    """One engine at a time, watched by whichever thread runs through `batches`.

    Parameters
    ----------
    command : sequence of str
        How an engine is started.
    log : EngineLog, optional
    heartbeat_s : float
        Seconds without any sign of life after which an engine is ended. Time in which this process itself was held up
        or suspended does not count.
    start_s : float
        The same while it starts and loads torch, which may take long and cannot be interrupted.
    close_s : float
        Seconds that an engine has to end when it is no longer wanted.
    """

    def __init__(
        self,
        command: Sequence[str] = COMMAND,
        *,
        log: EngineLog | None = None,
        heartbeat_s: float = 10.0,
        start_s: float = 180.0,
        close_s: float = 2.2,
    ) -> None:
        self._command = command
        self.log = log or EngineLog()
        self._heartbeat_s, self._start_s, self._close_s = heartbeat_s, start_s, close_s
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._restarting = threading.Event()
        self.closed = False
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._process: EngineProcess | None = None
        self._wanted = True  # an engine is started before anyone asks, so that torch is there in time
        self._held: list[Command] = []  # commands that wait for an engine
        self._run: Run | None = None  # the job that is asked for and not over
        self._run_since = 0.0
        self._answered = False  # whether the engine has said anything about it
        self._ready = self._settled = False
        self._silent_s = 0.0
        self._last_turn = time.monotonic()
        self._handed_over = -math.inf
        self._crashes: deque[float] = deque(maxlen=CRASHES)
        self._pending: list[Item] = []
        self._unread = False

    # From any thread

    def send(self, command: Command) -> None:
        """Pass a command on. A `Run` starts an engine if there is none."""
        self._commands.put(command)
        self._wake.set()

    def restart(self) -> None:
        """End the engine, whatever it does, and start a new one."""
        self._restarting.set()
        self._wake.set()

    def close(self) -> None:
        """Ask the engine to end, and `batches` with it, soon."""
        self._closing.set()
        self._wake.set()

    def acknowledge(self) -> None:
        """Say that a batch was read: the next is only handed over then, and what comes meanwhile is coalesced."""
        self._unread = False
        process = self._process
        if process and process.has_events:
            self._wake.set()

    @property
    def closing(self) -> bool:
        """Whether `close` was called."""
        return self._closing.is_set()

    @property
    def busy_s(self) -> float:
        """Seconds since the present job was asked for; 0 if there is none."""
        return time.monotonic() - self._run_since if self._run else 0.0

    # The thread that watches

    def batches(self) -> Iterator[tuple[Item, ...]]:
        """Watch, and yield what happened: at most 10 times a second, and at least every 200 ms, if only with nothing.

        Ends within some 3 s after `close`. Whoever drops it earlier can run through a new one, which goes on where this
        one stood.
        """
        while not self._closing.is_set():
            yield self._hand_over(self._turn())
            self._pause()
        if not self.closed:
            yield from self._shut_down()

    def _pause(self) -> None:
        """Wait until there is something to hand over; pass commands on meanwhile."""
        until = time.monotonic() + LONGEST_S
        while (left := until - time.monotonic()) > 0 and not self._closing.is_set():
            if self._wake.wait(left):
                self._wake.clear()
                if self._restarting.is_set():
                    return
                self._forward()
            if self._has_news():
                until = min(until, self._handed_over + SHORTEST_S)

    def _has_news(self) -> bool:
        if self._process is None:
            return self._wanted
        return self._process.has_events and not self._unread

    def _turn(self) -> list[Item]:
        now = time.monotonic()
        passed, self._last_turn = min(now - self._last_turn, 1.0), now
        self._forward()
        process = self._process
        if process is None:
            return self._start() if self._wanted else []
        status = process.status
        if status is not None:
            return self._ended(process, None, status)
        if self._restarting.is_set():
            self._restarting.clear()
            return self._ended(process, "restarted", None)
        if process.garbled:
            return self._ended(process, "garbled", None)
        self._silent_s = 0.0 if process.heard() else self._silent_s + passed
        if self._silent_s > (self._heartbeat_s if self._settled else self._start_s):
            return self._ended(process, "hung", None)
        return [] if self._unread else self._take(process)

    def _start(self) -> list[Item]:
        self._wanted = False
        self._restarting.clear()
        self._ready = self._settled = False
        self._silent_s = 0.0
        try:
            with self.log.open("engine: " + " ".join(self._command)) as log:
                self._process = EngineProcess(self._command, log, on_event=self._wake.set)
        except OSError as error:
            self._drop_job()
            return [ChildEnded("start", log=str(self.log.path), detail=str(error))]
        self._process.send(Describe())
        held, self._held = self._held, []
        for command in held:
            self._process.send(command)
        return [ChildStarted(self._process.pid, str(self.log.path))]

    def _forward(self) -> None:
        while True:
            try:
                command = self._commands.get_nowait()
            except queue.Empty:
                return
            if isinstance(command, Run) and not command.aside and self._run is None:
                self._run, self._run_since, self._answered = command, time.monotonic(), False
                self._wanted = self._process is None
            if self._process:
                self._process.send(command)
            elif self._wanted:
                self._held.append(command)

    def _take(self, process: EngineProcess) -> list[Item]:
        events = process.take()
        for event, job in events:
            self._note(event, job)
        return list(events)

    def _note(self, event: Event, job: str) -> None:
        match event:
            case Ready():
                self._ready = True
            case Described(description) if description.get("complete"):
                self._settled = True
            case Failed() if not job:
                self._settled = True
        if self._run and job == self._run.job:
            self._answered = True
            if isinstance(event, Finished | Failed):
                self._run = None

    def _by_itself(self, status: int | None) -> Ending:
        """Say how an engine has ended of its own accord, once all that it said was heard."""
        if not self._ready:
            return "start"
        if status == 0 and not (self._run and self._answered):
            return "idle"
        if status == RENEW_STATUS and self._run is None:
            return "renewed"
        return "crash"

    def _ended(self, process: EngineProcess, how: Ending | None, status: int | None) -> list[Item]:
        """Clear up after an engine: one that is ended for a reason, or one that has ended (`how` is None)."""
        process.kill()
        process.dispose()
        said = self._take(process)
        how = how or self._by_itself(status)
        self._process = None
        if how == "idle":
            # A job that was asked for just as the engine decided to end has not begun: the next one does it.
            self._held = [self._run] if self._run else []
            again = bool(self._held)
        else:
            again = how in ("renewed", "restarted") or self._may_try_again(how)
            self._drop_job()
        self._wanted = again
        detail = "" if how in ("idle", "renewed", "restarted") else self.log.tail()
        return [*said, ChildEnded(how, status, str(self.log.path), detail, again)]

    def _may_try_again(self, how: Ending) -> bool:
        """Whether to start anew unasked: not what fails as it starts, and not again and again."""
        now = time.monotonic()
        self._crashes.append(now)
        often = len(self._crashes) == CRASHES and now - self._crashes[0] < CRASHES_S
        return how != "start" and self._settled and not often

    def _drop_job(self) -> None:
        self._run = None
        self._held = []

    def _hand_over(self, items: list[Item]) -> tuple[Item, ...]:
        self._pending += items
        if self._unread or not self._pending:
            return ()
        batch, self._pending = tuple(self._pending), []
        self._handed_over = time.monotonic()
        self._unread = True
        return batch

    def _shut_down(self) -> Iterator[tuple[Item, ...]]:
        process = self._process
        if process is None:
            self.closed = True
            return
        process.send(Stop())
        process.close_input()
        until = time.monotonic() + self._close_s
        while process.status is None and time.monotonic() < until:
            self._wake.wait(SHORTEST_S)
            self._wake.clear()
            yield self._hand_over([])
        process.kill()
        process.dispose()
        self._process = None
        self._unread = False  # nobody may be there to read any more; whoever is gets the rest
        self.closed = True
        yield self._hand_over([*process.take(), ChildEnded("closed", process.status, str(self.log.path))])
