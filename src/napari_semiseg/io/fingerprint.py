"""A hash that changes when a file or folder does, cheap for any size."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

_PIECES, _PIECE = 64, 65_536
"""How many pieces of a large file are read, and their bytes."""


def fingerprint_of(path: str | Path) -> str:
    """Return a hash of what lies in a file or folder: sizes, metadata and samples of files; cheap for any size."""
    digest = hashlib.sha256()
    hash_path(Path(path), digest)
    return digest.hexdigest()


def hash_path(path: Path, digest: Any) -> None:
    """Add to a hash what lies in a file or folder; see `fingerprint_of`."""
    if path.is_file():
        _hash_file(path, digest)
        return
    for folder, folders, files in os.walk(path):
        folders.sort()
        for name in sorted(files):
            file = Path(folder, name)
            digest.update(
                f"{file.relative_to(path).as_posix()} {file.stat().st_size}\n".encode("utf-8", "surrogateescape")
            )
            if name in ("zarr.json", ".zarray", ".zattrs"):
                _hash_file(file, digest)


def _hash_file(path: Path, digest: Any) -> None:
    """Hash a file's size and, of a large file, pieces at equal distances."""
    size = path.stat().st_size
    digest.update(str(size).encode())
    with path.open("rb") as file:
        if size <= _PIECES * _PIECE:
            digest.update(file.read())
            return
        for number in range(_PIECES):
            file.seek((size - _PIECE) * number // (_PIECES - 1))
            digest.update(file.read(_PIECE))
