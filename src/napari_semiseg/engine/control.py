"""How a running job is asked to pause, stop, or look at new labels, from another thread."""

from __future__ import annotations

import queue
from collections.abc import Iterator

from napari_semiseg.events import Command


class Control:
    """A mailbox between whoever asks and the job that answers.

    `send` may be called from any thread. The job calls `take` between steps and `wait` while it is paused. A job that
    nobody controls is given an empty one.
    """

    def __init__(self) -> None:
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()

    def send(self, command: Command) -> None:
        """Ask for something."""
        self._commands.put(command)

    def take(self) -> Iterator[Command]:
        """Yield what was asked since the last call, oldest first, without waiting."""
        while True:
            try:
                yield self._commands.get_nowait()
            except queue.Empty:
                return

    def wait(self) -> Command:
        """Wait until something is asked, and return it: what a paused job does."""
        return self._commands.get()
