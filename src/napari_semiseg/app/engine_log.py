"""Where the engine's stderr goes: one small file per napari, in the user's folder for logs."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from io import FileIO
from pathlib import Path

import platformdirs

KEPT = 10
"""Logs that are kept, of this napari and earlier ones. The engine itself keeps each small."""


class EngineLog:
    """The log of the engines that one napari starts, one after the other.

    Parameters
    ----------
    folder : Path, optional
        Where it lies; by default the user's folder for logs, or the one for temporary files if that cannot be written.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or platformdirs.user_log_path("napari-semiseg", appauthor=False)
        self.path = self._folder / f"engine-{os.getpid()}.log"

    def open(self, headline: str) -> FileIO:
        """Open the log at its end, write a dated line, and drop the oldest logs.

        Raises
        ------
        OSError
            If not even the folder for temporary files can be written.
        """
        try:
            log = self._opened()
        except OSError:
            self.path = Path(tempfile.gettempdir()) / "napari-semiseg" / self.path.name
            log = self._opened()
        log.write(f"\n{time.strftime('%Y-%m-%d %H:%M:%S')} {headline}\n".encode("utf-8", "backslashreplace"))
        log.flush()
        self._drop_old()
        return log

    def tail(self, size: int = 16_000) -> str:
        """Return the last `size` bytes as text: the traces of all threads of a crash; "" if there are none."""
        with contextlib.suppress(OSError), self.path.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - size))
            return log.read().decode("utf-8", "replace")
        return ""

    def _opened(self) -> FileIO:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Readable as well, so that the engine can shorten what it inherits; unbuffered, since it writes to it too.
        return self.path.open("ab+", buffering=0)

    def _drop_old(self) -> None:
        with contextlib.suppress(OSError):
            logs = sorted(self.path.parent.glob("engine-*.log"), key=lambda path: path.stat().st_mtime)
            for path in logs[:-KEPT]:
                path.unlink()
