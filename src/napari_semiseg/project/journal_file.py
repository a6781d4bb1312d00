"""The file that strokes are appended to: checksummed frames, of which any truncation leaves a prefix.

::

    file     magic (16 bytes), key (16 random bytes), frame, frame, …
    frame    marker (2), kind (1), sequence (4), length (4), digest (8), payload (length bytes)

The digest is BLAKE2b over the frame, keyed with the file's own key, so that neither zeros nor blocks of an older
file, which a file system may leave behind after a power cut, pass for a frame. The first frame says what the file is;
each further one holds one stroke.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from napari_semiseg import atomic
from napari_semiseg.errors import InputError
from napari_semiseg.project.strokes import MAX_PAYLOAD, DamagedStroke, Stroke, decode

JOURNAL_VERSION = 1

_MAGIC = b"semiseg-journal\n"
_KEY_BYTES = 16
_MARKER = b"\xf5J"
_FRAME = struct.Struct("<2sBII8s")
_HEADER, _STROKE = 0, 1


class JournalFile:
    """A journal that is being written. It is made anew, never continued: what follows a torn end could not be read.

    Parameters
    ----------
    path : Path
        Where it will lie; nothing may lie there yet.
    shape : tuple of int
        Rows and columns of the tile.

    Raises
    ------
    OSError
        From here and from all methods: the writer of the journal decides what to do.
    """

    def __init__(self, path: Path, shape: tuple[int, int]) -> None:
        self.path = path
        self.bytes = 0
        self._key = secrets.token_bytes(_KEY_BYTES)
        self._sequence = 0
        self._listed = False  # whether its name, too, outlives a power cut
        self._descriptor = os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0), 0o666
        )
        try:
            header = json.dumps({"version": JOURNAL_VERSION, "shape": shape}).encode("ascii")
            self._write(_MAGIC + self._key + self._frame(_HEADER, header))
        except OSError:
            self.close()
            path.unlink(missing_ok=True)
            raise

    def append(self, payload: bytes) -> None:
        """Write one stroke. It is safe from a kill when this returns, and from a power cut after a flush."""
        self._write(self._frame(_STROKE, payload))

    def flusher(self) -> Callable[[], None]:
        """Return what flushes everything written so far to the disk: to be called once, from any thread.

        It works on a duplicate of the file, which may be closed meanwhile.
        """
        duplicate = os.dup(self._descriptor)
        folder = self.path.parent

        def flush() -> None:
            try:
                atomic.sync(duplicate)
                if not self._listed:
                    atomic.sync_folder(folder)
                    atomic.sync_folder(folder.parent)
                    self._listed = True
            finally:
                os.close(duplicate)

        return flush

    def close(self) -> None:
        """Close; nothing is flushed."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _frame(self, kind: int, payload: bytes) -> bytes:
        digest = _digest(self._key, kind, self._sequence, payload)
        frame = _FRAME.pack(_MARKER, kind, self._sequence, len(payload), digest) + payload
        self._sequence += 1
        return frame

    def _write(self, data: bytes) -> None:
        atomic.write_all(self._descriptor, data)
        self.bytes += len(data)


@dataclass(frozen=True)
class Replay:
    """What a journal holds.

    Attributes
    ----------
    strokes : tuple of Stroke
        In the order they were painted, up to the first byte that is not as it was written.
    torn_bytes : int
        Bytes after that. Some, where the writer was killed while it wrote; many, where the disk is failing.
    """

    strokes: tuple[Stroke, ...]
    torn_bytes: int


def replay(path: str | Path, shape: tuple[int, int]) -> Replay:
    """Read a journal, whatever happened to its end.

    Parameters
    ----------
    path : path
    shape : tuple of int
        Rows and columns of the tile that it should be of.

    Raises
    ------
    InputError
        If it was written by a newer version, belongs to a tile of another size, or cannot be read.
    FileNotFoundError
        If it is gone: another process has made a snapshot of it.
    """
    path = Path(path)
    if not os.path.lexists(path):
        raise FileNotFoundError(path)
    strokes: list[Stroke] = []
    with atomic.open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        end = 0
        for kind, payload, position in _frames(file, size):
            try:
                if kind == _HEADER:
                    _require_header(payload, shape, path)
                else:
                    strokes.append(decode(payload, shape))
            except DamagedStroke:
                break
            end = position
    return Replay(tuple(strokes), max(0, size - end))


def _frames(file: BinaryIO, size: int) -> Iterator[tuple[int, bytes, int]]:
    """Yield kind, payload and end of each frame up to the first that is not whole."""
    if file.read(len(_MAGIC)) != _MAGIC:
        return
    key = file.read(_KEY_BYTES)
    sequence = 0
    while len(head := file.read(_FRAME.size)) == _FRAME.size:
        marker, kind, number, length, digest = _FRAME.unpack(head)
        expected = _HEADER if sequence == 0 else _STROKE
        if marker != _MARKER or kind != expected or number != sequence or length > min(MAX_PAYLOAD, size - file.tell()):
            return
        payload = file.read(length)
        if len(payload) != length or _digest(key, kind, number, payload) != digest:
            return
        yield kind, payload, file.tell()
        sequence += 1


def _digest(key: bytes, kind: int, sequence: int, payload: bytes) -> bytes:
    digest = hashlib.blake2b(struct.pack("<BII", kind, sequence, len(payload)), digest_size=8, key=key)
    digest.update(payload)
    return digest.digest()


def _require_header(payload: bytes, shape: tuple[int, int], path: Path) -> None:
    header = atomic.parse_json(payload, f"The journal {atomic.quoted(path)}")
    version = header.get("version") if isinstance(header, dict) else None
    if not isinstance(version, int) or version > JOURNAL_VERSION:
        raise InputError(
            f"{atomic.quoted(path)} was written by a newer version of napari-semiseg: update napari-semiseg to read it."
        )
    if header.get("shape") != list(shape):
        raise InputError(
            f"{atomic.quoted(path)} belongs to a tile of another size: put "
            "it back where it was, or delete it if the tile is not wanted."
        )
