"""``events.jsonl`` of a run folder: what a run has said and when, written and read back."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from napari_semiseg import atomic
from napari_semiseg.errors import InputError
from napari_semiseg.events import MAX_EVENT, Event, Lines, decode_event, encode

LARGEST_LOG = 256_000_000
"""Bytes of ``events.jsonl`` that are read at most: its end."""
_SAID_AT = re.compile(r', "time": (\d+(?:\.\d+)?)\}$')
"""The end of a line; without the time in it the line is the event."""


class EventLog:
    """Appends events to a file, one a line, flushed; each with the time it was said."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, event: Event) -> None:
        """Append one event.

        Raises
        ------
        InputError
            If the disk is full or gone.
        """
        try:
            self._file.write(f'{encode(event)[:-1]}, "time": {time.time():.3f}}}\n')
            self._file.flush()
        except OSError as error:
            raise atomic.said(error, f"{atomic.quoted(self._file.name)} cannot be written") from error


@contextmanager
def open_log(path: Path) -> Iterator[EventLog]:
    """Open an ``events.jsonl`` for appending. A torn last line stays one of its own.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    try:
        torn = _is_torn(path)
        file = path.open("a", encoding="ascii")
    except OSError as error:
        raise atomic.said(error, f"{atomic.quoted(path)} cannot be written") from error
    try:
        if torn:
            file.write("\n")
        yield EventLog(file)
    finally:
        with suppress(OSError):  # of what could not be written it was said when
            file.close()


def read_timed(path: Path) -> Iterator[tuple[float, Event]]:
    """Yield when each event was said, in seconds since 1970 (NaN if not known), and the event; see `read_events`."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - LARGEST_LOG))
        lines = Lines(MAX_EVENT)
        while chunk := file.read(1_000_000):
            for line in lines.feed(chunk):
                said = _SAID_AT.search(line)
                try:
                    event, _ = decode_event(f"{line[: said.start()]}}}" if said else line)
                    yield float(said[1]) if said else math.nan, event
                except InputError:
                    continue


def read_events(path: Path) -> Iterator[Event]:
    """Yield the events of an ``events.jsonl``, in order. Lines that are no event (torn ones) are passed over.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    for _, event in read_timed(path):
        yield event


def _is_torn(path: Path) -> bool:
    """Whether a file ends in the middle of a line."""
    try:
        with path.open("rb") as file:
            if not file.seek(0, 2):
                return False
            file.seek(-1, 2)
            return file.read(1) != b"\n"
    except FileNotFoundError:
        return False
