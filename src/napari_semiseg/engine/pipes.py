"""The three streams of the process that runs jobs: commands in, events out, everything else into the log."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import sys
import threading
from collections.abc import Callable, Iterator

from napari_semiseg.coalesce import Coalescer
from napari_semiseg.errors import InputError
from napari_semiseg.events import MAX_COMMAND, MAX_EVENT, Command, Event, Lines, Warned, decode_command, encode

PAUSE_S = 0.02
"""Seconds between two writes: what comes meanwhile is coalesced."""
LOG_BYTES = 4_000_000
"""Size of the log beyond which its older part is dropped."""
LOG_KEPT = 500_000


def claim_streams() -> tuple[int, int]:
    """Take stdin and stdout for commands and events; whatever else prints goes to stderr from now on.

    Returns
    -------
    int, int
        File descriptors to read commands from and to write events to; no process that a job starts inherits them.
    """
    commands, events = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a library prints must not fail on any code page
            stream.reconfigure(errors="backslashreplace", line_buffering=True)
    return commands, events


def read_commands(descriptor: int) -> Iterator[Command | InputError]:
    """Yield commands as they arrive, and an error for each line that is none, until the other side closes the pipe."""
    lines = Lines(MAX_COMMAND)
    with contextlib.suppress(OSError):
        while chunk := os.read(descriptor, 65_536):
            for line in lines.feed(chunk):
                try:
                    yield decode_command(line)
                except InputError as error:
                    yield error


class Outbox:
    """Writes events from a thread of its own, so that no job ever waits for a reader.

    Parameters
    ----------
    descriptor : int
        Where the lines go.
    on_broken : callable
        Called, in the writer's thread, once nobody reads any more.
    """

    def __init__(self, descriptor: int, on_broken: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._on_broken = on_broken
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._mailbox: Coalescer[bytes] = Coalescer(on_first=self._wake.set)
        self._thread = threading.Thread(target=self._write, name="events out", daemon=True)
        self._thread.start()

    def say(self, event: Event, job: str = "") -> None:
        """Send an event. Any thread may; nobody waits.

        Raises
        ------
        Exception
            If the event cannot be written as JSON.
        """
        line = encode(event, job).encode("ascii") + b"\n"
        if len(line) > MAX_EVENT:
            event = Warned(f"An event of kind {type(event).__name__} was too long to be sent ({len(line)} bytes).")
            line = encode(event, job).encode("ascii") + b"\n"
        self._mailbox.put(event, job, line, len(line))

    def close(self, timeout_s: float) -> None:
        """Write what waits, for at most `timeout_s` seconds, and end."""
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout_s)

    def _write(self) -> None:
        try:
            while True:
                self._wake.wait()
                self._wake.clear()
                closing = self._closing.is_set()
                _write_all(self._descriptor, b"".join(self._waiting()))
                if closing:
                    return
                self._closing.wait(PAUSE_S)
        except OSError:
            self._on_broken()

    def _waiting(self) -> Iterator[bytes]:
        yield from self._mailbox.take()
        if left_out := self._mailbox.count_left_out():
            warning = Warned(f"{left_out} messages were left out because they came faster than they could be read.")
            yield encode(warning).encode("ascii") + b"\n"


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def trim_log(descriptor: int = 2, *, limit: int = LOG_BYTES, keep: int = LOG_KEPT) -> None:
    """Drop the older part of a log that has grown too large.

    Parameters
    ----------
    descriptor : int
        An open file. Anything but a regular file that may be read and written (a terminal, a pipe, a file that a shell
        opened) is left alone.
    limit : int
        Size in bytes from which on it is cut.
    keep : int
        Bytes at its end that stay.
    """
    with contextlib.suppress(OSError):
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode) or state.st_size <= limit:
            return
        os.lseek(descriptor, -keep, os.SEEK_END)
        tail = os.read(descriptor, keep)
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        _write_all(descriptor, b"[older lines were dropped]\n" + tail.partition(b"\n")[2])
