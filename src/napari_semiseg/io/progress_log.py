"""Which parts of a result are on the disk: what lets a broken-off prediction go on where it stopped."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from napari_semiseg import atomic
from napari_semiseg.blocks import Box

NAME = ".semiseg-progress"
"""The file, in the folder of the result."""

_SYNC_EVERY_S = 2.0
_OUT = "-"


class ProgressLog:
    """Which rectangles are written: a file of one line each, which follows after the data are on the disk.

    Of what was written as a whole, rectangles can be taken out again; their lines begin with a minus.

    Safe to use from several threads.

    Parameters
    ----------
    folder : Path
        The result; the log of an earlier writer is gone on with.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._lock = threading.Lock()
        self._done: set[tuple[str, Box]] = set()
        self._out: set[tuple[str, Box]] = set()
        for kind, box in _read(self._path):
            if kind.startswith(_OUT):
                self._out.add((kind.removeprefix(_OUT), box))
            else:
                self._note(kind, box)
        self._lines: list[str] = []
        self._files: set[Path] = set()
        self._flushed_at = time.monotonic()

    def has(self, kind: str, box: Box) -> bool:
        """Whether exactly this rectangle was written."""
        return (kind, box) in self._done

    def has_of(self, kind: str, box: Box, whole: Box) -> bool:
        """Whether this rectangle was written, or with the whole that it is a part of and not taken out since."""
        if box != whole and self.has(kind, box):
            return True
        return self.has(kind, whole) and not any(name == kind and out.intersect(box).area for name, out in self._out)

    def take_out(self, kind: str, box: Box) -> None:
        """Note that a rectangle of what was written as a whole is to be written again."""
        with self._lock:
            self._out.add((kind, box))
            self._lines.append(_line(f"{_OUT}{kind}", box))

    def add(self, kind: str, box: Box, files: Sequence[Path]) -> None:
        """Note that a rectangle was written to `files`, and flush every few seconds."""
        with self._lock:
            self._note(kind, box)
            self._lines.append(_line(kind, box))
            self._files.update(files)
            due = time.monotonic() - self._flushed_at > _SYNC_EVERY_S
        if due:
            self.flush()

    def _note(self, kind: str, box: Box) -> None:
        self._done.add((kind, box))
        if self._out:
            self._out = {(name, out) for name, out in self._out if name != kind or not box.contains(out)}

    def flush(self) -> None:
        """Flush the files to the disk, and then the lines that speak of them."""
        with self._lock:
            for path in self._files:
                sync_file(path)
            if self._lines:
                with self._path.open("ab") as file:
                    if file.tell() and not _ends_a_line(self._path):
                        file.write(b"\n")  # after the torn line of a killed writer
                    file.write("".join(self._lines).encode())
                    file.flush()
                    atomic.sync(file.fileno())
            self._files.clear()
            self._lines.clear()
            self._flushed_at = time.monotonic()

    def forget(self, *kinds: str) -> None:
        """Forget all rectangles of some kinds, before they are removed."""
        self.flush()
        with self._lock:
            self._done = {entry for entry in self._done if entry[0] not in kinds}
            self._out = {entry for entry in self._out if entry[0] not in kinds}
            lines = [_line(kind, box) for kind, box in sorted(self._done)]
            lines += [_line(f"{_OUT}{kind}", box) for kind, box in sorted(self._out)]
            atomic.write_text(self._path, "".join(lines))

    def remove(self) -> None:
        """Remove the log: the result is complete."""
        with self._lock:
            self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Flush what is left, if that is possible."""
        if self._path.parent.exists() and self._lines:
            with contextlib.suppress(OSError):  # a full disk: these blocks are computed again
                self.flush()


def _line(kind: str, box: Box) -> str:
    return f"{kind} {box.y0} {box.x0} {box.y1} {box.x1} .\n"


def _read(path: Path) -> Iterator[tuple[str, Box]]:
    if not path.exists():
        return
    with atomic.open_regular(path) as file:
        for line in file:
            words = line.decode("ascii", "replace").split()
            numbers = [int(word) for word in words[1:5] if word.isdecimal()]
            if len(words) == 6 and len(numbers) == 4 and words[5] == ".":
                yield words[0], Box(*numbers)


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def sync_file(path: Path) -> None:
    """Flush a file to the disk; one that is missing holds only zeros, for which Zarr keeps none."""
    try:
        with path.open("rb+") as file:
            atomic.sync(file.fileno())
    except FileNotFoundError:
        return
