"""What is kept of a fast stream of events for a slow reader: the newest state, and every result."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Generic, TypeVar

from napari_semiseg.events import Event, Heartbeat, LabelsRead, PreviewWritten, Progressed, Skipped, StepDone

Item = TypeVar("Item")

_NEWEST: dict[type[Event], Callable[[Any], Hashable]] = {
    Heartbeat: lambda _: None,
    StepDone: lambda _: None,
    Skipped: lambda _: None,
    LabelsRead: lambda _: None,
    Progressed: lambda event: event.what,
    PreviewWritten: lambda event: (event.image, event.box),
}
"""Events that say how things stand: a newer one of the same kind and subject takes the place of an older one."""


@dataclass
class _Shelf(Generic[Item]):
    """The waiting events of one kind, oldest first: when each came, what is handed out, and its size."""

    entries: OrderedDict[Hashable, tuple[int, Item, int]] = field(default_factory=OrderedDict)
    size: int = 0

    def drop(self, key: Hashable) -> None:
        _, _, size = self.entries.pop(key)
        self.size -= size


class Coalescer(Generic[Item]):
    """A bounded mailbox for events. Any thread may put and take; nobody ever waits for room.

    State (progress, steps, heartbeats, previews of the same rectangle) is replaced by newer state. Everything else is
    kept in order, but of each kind at most the newest `capacity`: so a flood of one kind cannot push out another.

    Parameters
    ----------
    capacity : int
        Most events of one kind.
    max_size : int
        Largest sum of the sizes of one kind's events, in the unit of `put`; the newest event is kept whatever its size.
    on_first : callable
        Called without arguments when something comes into the empty mailbox, in the thread that put it.
    """

    def __init__(
        self, capacity: int = 1_000, max_size: int = 4_000_000, on_first: Callable[[], None] = lambda: None
    ) -> None:
        self._capacity = capacity
        self._max_size = max_size
        self._on_first = on_first
        self._lock = threading.Lock()
        self._numbers = count()
        self._shelves: dict[type[Event], _Shelf[Item]] = {}
        self._left_out = 0

    def put(self, event: Event, job: str, item: Item, size: int = 0) -> None:
        """Put an event.

        Parameters
        ----------
        event : Event
            Decides with what it is coalesced.
        job : str
            Events of different jobs are never coalesced.
        item : Item
            What `take` hands out: the event itself, or its encoded form.
        size : int
            How much it counts towards `max_size`.
        """
        kind = type(event)
        with self._lock:
            first = not self._shelves
            number = next(self._numbers)
            shelf = self._shelves.setdefault(kind, _Shelf())
            key = (job, _NEWEST[kind](event)) if kind in _NEWEST else number
            if key in shelf.entries:
                shelf.drop(key)
            shelf.entries[key] = (number, item, size)
            shelf.size += size
            while len(shelf.entries) > self._capacity or (shelf.size > self._max_size and len(shelf.entries) > 1):
                shelf.drop(next(iter(shelf.entries)))
                self._left_out += 1
        if first:
            self._on_first()

    def take(self) -> list[Item]:
        """Return all that waits, in the order in which it came, and be empty."""
        with self._lock:
            shelves, self._shelves = self._shelves, {}
        entries = [entry for shelf in shelves.values() for entry in shelf.entries.values()]
        return [item for _, item, _ in sorted(entries, key=lambda entry: entry[0])]

    def count_left_out(self) -> int:
        """Return how many events were dropped for want of room since the last call; replaced state does not count."""
        with self._lock:
            left_out, self._left_out = self._left_out, 0
        return left_out

    def __bool__(self) -> bool:
        return bool(self._shelves)
