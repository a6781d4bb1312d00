"""One child process that runs jobs, and its three pipes. What to do about it is decided elsewhere."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from io import FileIO

from napari_semiseg.app.cpu_budget import thread_environment
from napari_semiseg.coalesce import Coalescer
from napari_semiseg.errors import InputError
from napari_semiseg.events import MAX_EVENT, Command, Event, Lines, Warned, decode_event, encode

COMMAND = (sys.executable, "-P", "-X", "faulthandler", "-m", "napari_semiseg", "serve", "--events", "jsonl")
"""``-P``: modules in the folder where napari happens to run are not imported."""
NICE = 10
GARBLED_LINES = 50
"""Lines that are no events after which a child counts as broken; one or two may be some library's."""
LINES_A_TURN = 250
BYTES_A_TURN = 250_000
TURN_S = 0.05
"""Little more than that is read in so many seconds: a flood waits in its pipe instead of keeping the viewer busy."""
JOIN_S = 0.3


class EngineProcess:
    """A running child.

    Parameters
    ----------
    command : sequence of str
        Program and arguments; no shell is involved.
    log : file
        Where its stderr goes. May be closed once this returns.
    on_event : callable
        Called, in a thread of its own, when an event comes after a while without.

    Raises
    ------
    OSError
        If it cannot be started.
    """

    def __init__(self, command: Sequence[str], log: FileIO, on_event: Callable[[], None]) -> None:
        self._inbox: Coalescer[tuple[Event, str]] = Coalescer(on_first=on_event)
        self._outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._heard = False
        self._over = threading.Event()
        self._strange_lines = 0
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            bufsize=0,
            env={**os.environ, **thread_environment()},
            # Ctrl-C in napari's terminal is napari's; and a group of its own can be killed whole. Not a session of its
            # own: Linux weighs sessions against each other first ("autogroup"), and priorities only within one.
            process_group=0 if os.name == "posix" else None,
            creationflags=_windows_flags(),
        )
        if os.name == "posix":
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, self._process.pid, NICE)
        self._threads = [
            threading.Thread(target=self._read, name="engine: events in", daemon=True),
            threading.Thread(target=self._write, name="engine: commands out", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        return self._process.poll()

    @property
    def garbled(self) -> bool:
        """Whether it has said so much that is no event that it cannot be relied on."""
        return self._strange_lines >= GARBLED_LINES

    def heard(self) -> bool:
        """Whether it has said anything valid since the last call."""
        heard, self._heard = self._heard, False
        return heard

    def send(self, command: Command) -> None:
        """Write a command, without waiting."""
        self._outgoing.put(encode(command).encode("ascii") + b"\n")

    def take(self) -> list[tuple[Event, str]]:
        """Return the events, each with its job, that came since the last call, coalesced."""
        events = self._inbox.take()
        if left_out := self._inbox.count_left_out():
            events.append((Warned(f"{left_out} messages came faster than they could be shown, and were left out."), ""))
        return events

    @property
    def has_events(self) -> bool:
        """Whether `take` would return any."""
        return bool(self._inbox)

    def close_input(self) -> None:
        """Close its stdin once what was sent is written: it then ends by itself."""
        self._outgoing.put(None)

    def kill(self) -> None:
        """End it and what it has started, at once; a stopped process too."""
        if self._process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.name == "posix":
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()

    def dispose(self) -> None:
        """Wait for the end of a process that has ended or was killed, and give back its pipes and threads."""
        self._over.set()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(JOIN_S)
        self._outgoing.put(None)
        # Each thread closes its pipe. A grandchild that has inherited one may keep a thread waiting beyond this.
        for thread in self._threads:
            thread.join(JOIN_S)

    def _read(self) -> None:
        assert self._process.stdout is not None
        lines = Lines(MAX_EVENT)
        turn = _Turn(self._over)
        with self._process.stdout as stdout, contextlib.suppress(OSError):
            while chunk := os.read(stdout.fileno(), 65_536):
                turn.spend(size=len(chunk))
                for line in lines.feed(chunk):
                    self._receive(line)
                    turn.spend(lines=1)

    def _receive(self, line: str) -> None:
        try:
            event, job = decode_event(line)
        except InputError as error:
            self._strange_lines += GARBLED_LINES if len(line) > MAX_EVENT else 1
            if self._strange_lines == 1:
                warning = Warned(f"The engine said something that is no event, which was passed over: {error}")
                self._inbox.put(warning, "", (warning, ""))
            return
        self._heard = True
        self._inbox.put(event, job, (event, job), len(line))

    def _write(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it has ended, which is noticed elsewhere
            while (data := self._outgoing.get()) is not None:
                view = memoryview(data)
                while view:
                    view = view[self._process.stdin.write(view) :]
        with contextlib.suppress(OSError):
            self._process.stdin.close()


class _Turn:
    """Waits for the end of a turn once its worth is read, unless the process is over and the rest is wanted at once."""

    def __init__(self, over: threading.Event) -> None:
        self._over = over
        self._begin()

    def spend(self, *, size: int = 0, lines: int = 0) -> None:
        self._size += size
        self._lines += lines
        if self._size >= BYTES_A_TURN or self._lines >= LINES_A_TURN:
            self._over.wait(max(0.0, self._begun + TURN_S - time.monotonic()))
            self._begin()

    def _begin(self) -> None:
        self._begun, self._size, self._lines = time.monotonic(), 0, 0


def _windows_flags() -> int:
    """No console, below normal priority, no Ctrl-C from napari's; these constants are 0 elsewhere."""
    names = ("CREATE_NO_WINDOW", "BELOW_NORMAL_PRIORITY_CLASS", "CREATE_NEW_PROCESS_GROUP")
    return sum(getattr(subprocess, name, 0) for name in names)
