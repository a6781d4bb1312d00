"""What a run has said, read back from its folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from napari_semiseg.errors import InputError
from napari_semiseg.events import MAX_EVENT, Event, Lines, decode_event

LARGEST_LOG = 256_000_000
"""Bytes of ``events.jsonl`` that are read at most: its end."""
_SAID_AT = re.compile(r', "time": [0-9.]+\}$')
"""The log adds to each event when it was said."""


def read_events(path: Path) -> Iterator[Event]:
    """Yield the events of an ``events.jsonl``, in order. Lines that are no event (a torn last one) are passed over.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - LARGEST_LOG))
        lines = Lines(MAX_EVENT)
        while chunk := file.read(1_000_000):
            for line in lines.feed(chunk):
                try:
                    yield decode_event(_SAID_AT.sub("}", line))[0]
                except InputError:
                    continue
