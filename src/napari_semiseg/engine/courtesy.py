"""Computing with what nobody else wants, unless that is nothing."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from pathlib import Path

NICE = 10
PATIENCE_LOOKS = 10
"""Looks over which a share is measured, some seconds apart at most."""
LEAST_SHARE = 0.05
"""Share of the time it could have computed that a process has to be given, lest it asks for an ordinary place."""
LEAST_WAIT_S = 3.0
"""Seconds of waiting below which no share says anything: a paused training wants no processor."""


class Courtesy:
    """The place of this process among the others.

    Linux has a class for work that takes only what nobody else wants. A low priority alone still holds a processor for
    some milliseconds while a frame waits to be drawn, which shows as strokes that lag. But where every processor is
    busy with something else, that class gets next to nothing: then the low priority has to do. Elsewhere than on Linux
    there is the low priority alone (on Windows whoever starts the process gives it).

    Parameters
    ----------
    proc : Path, optional
        Where Linux tells of this process.
    """

    def __init__(self, proc: Path = Path("/proc/self")) -> None:
        self._proc = proc
        self._seen: deque[tuple[int, int]] = deque(maxlen=PATIENCE_LOOKS + 1)
        self.idle = False

    def begin(self) -> None:
        """Yield to the viewer and to whatever else the user does: this thread, and those it starts from here on."""
        if hasattr(os, "setpriority") and os.getpriority(os.PRIO_PROCESS, 0) < NICE:
            os.setpriority(os.PRIO_PROCESS, 0, NICE)
        if hasattr(os, "SCHED_IDLE"):
            with contextlib.suppress(OSError):  # some sandboxes forbid it; the low priority is then all there is
                os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
                self.idle = True

    def look(self) -> None:
        """Leave that class where it gives next to nothing. To be called every second or so."""
        times = self._times()
        if not self.idle or times is None:
            return
        self._seen.append(times)
        computed, waited = (now - then for now, then in zip(self._seen[-1], self._seen[0], strict=True))
        starved = waited >= LEAST_WAIT_S * 1e9 and computed < LEAST_SHARE * (computed + waited)
        if starved and len(self._seen) > PATIENCE_LOOKS:
            self.end()

    def end(self) -> None:
        """Take an ordinary place again, at the low priority: where somebody waits for the end of a job, too."""
        if not self.idle:
            return
        self.idle = False
        for thread in Path("/proc/self/task").iterdir():
            with contextlib.suppress(OSError):  # it has ended meanwhile
                os.sched_setscheduler(int(thread.name), os.SCHED_OTHER, os.sched_param(0))

    def _times(self) -> tuple[int, int] | None:
        """Return for how many nanoseconds the main thread has computed, and has waited for a processor."""
        try:
            computed, waited, *_ = (self._proc / "schedstat").read_text().split()
            return int(computed), int(waited)
        except (OSError, ValueError):  # a system that does not tell
            return None
