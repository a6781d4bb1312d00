"""How far a job over blocks is, and what it was asked meanwhile."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

from napari_semiseg.blocks import Box
from napari_semiseg.engine.control import Control
from napari_semiseg.events import BlockDone, Cancel, Command, Event, Focus, Pause, Paused, Resume, Resumed, Stop


class BlockProgress:
    """Counts blocks, knows their pace, and answers the mailbox.

    Parameters
    ----------
    control : Control

    Attributes
    ----------
    total, done : int
        Blocks of the whole job, and those in the results.
    ending : Stop, Cancel or None
        How the job was asked to end.
    focus : Focus or None
        What is wanted first.
    """

    def __init__(self, control: Control) -> None:
        self.total = self.done = 0
        self.ending: Stop | Cancel | None = None
        self.focus: Focus | None = None
        self._control = control
        self._computed = 0
        self._spent_s = 0.0
        self._since = time.monotonic()

    def ends(self) -> bool:
        """Whether the job was asked to end."""
        return self.ending is not None

    def restart_clock(self) -> None:
        """Begin to measure the pace now."""
        self._since = time.monotonic()

    def block_done(self, image: int, box: Box) -> BlockDone:
        """Count a block that was computed and written."""
        self.done += 1
        self._computed += 1
        spent = self._spent_s + time.monotonic() - self._since
        rate = self._computed / spent if spent > 0 else math.nan
        return BlockDone(image, box, self.done, self.total, rate, (self.total - self.done) / rate)

    def asked(self) -> Iterator[Event]:
        """Answer what was asked since the last call; hold while paused."""
        for command in self._control.take():
            yield from self._answer(command)

    def _answer(self, command: Command) -> Iterator[Event]:
        match command:
            case Stop() | Cancel():
                self.ending = command
            case Focus():
                self.focus = command
            case Pause():
                yield from self._hold()

    def _hold(self) -> Iterator[Event]:
        self._spent_s += time.monotonic() - self._since
        yield Paused(self.done)
        while not self.ends():
            command = self._control.wait()
            if isinstance(command, Resume):
                yield Resumed(self.done)
                break
            if not isinstance(command, Pause):
                yield from self._answer(command)
        self.restart_clock()
