"""A tile's annotation as one file that NumPy opens: ``instance`` and ``class`` in a compressed ``.npz``."""

from __future__ import annotations

import io
import math
import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semiseg import atomic
from napari_semiseg.errors import InputError
from napari_semiseg.project.tile_annotation import TileAnnotation

_MEMBERS: dict[str, np.dtype[Any]] = {"instance.npy": np.dtype(np.uint32), "class.npy": np.dtype(np.uint8)}
_MAX_HEADER = 1024
_MAX_OVERHEAD = 2**16


class DamagedSnapshot(InputError):
    """A snapshot that cannot be used."""


def write_snapshot(path: Path, annotation: TileAnnotation) -> None:
    """Write an annotation whole or not at all.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in zip(_MEMBERS, (annotation.instance, annotation.classes), strict=True):
            with archive.open(zipfile.ZipInfo(name), "w") as member:  # a fixed date: the same labels are the same bytes
                np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
    atomic.write_bytes(path, buffer.getvalue())


def read_snapshot(path: Path, shape: tuple[int, int]) -> TileAnnotation:
    """Read an annotation of a tile of that shape.

    Names, types and sizes are checked before anything is decompressed, and the checksums after.

    Raises
    ------
    DamagedSnapshot
        If it is not what `write_snapshot` writes for such a tile.
    FileNotFoundError
        If it is gone: another process has replaced it by a newer one.
    """
    if not os.path.lexists(path):
        raise FileNotFoundError(path)
    most = 2 * 5 * math.prod(shape) + _MAX_OVERHEAD
    with atomic.open_regular(path) as file:
        data = file.read(most + 1)
    try:
        if len(data) > most:
            raise ValueError("larger than its pixels")
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            arrays = [_member(archive, name, dtype, shape) for name, dtype in _MEMBERS.items()]
    except (zipfile.BadZipFile, zlib.error, struct.error, ValueError, EOFError, RuntimeError) as error:
        raise DamagedSnapshot(
            f"{atomic.quoted(path)} is damaged: put a copy of it back, or delete it to begin the tile again."
        ) from error
    return TileAnnotation(*arrays)


def _member(archive: zipfile.ZipFile, name: str, dtype: np.dtype[Any], shape: tuple[int, int]) -> NDArray[Any]:
    infos = [info for info in archive.infolist() if info.filename == name]
    expected = math.prod(shape) * dtype.itemsize
    if len(infos) != 1 or infos[0].compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise ValueError(f"no {name}")
    if not expected < infos[0].file_size <= expected + _MAX_HEADER:
        raise ValueError(f"no {name} of the expected size")
    with archive.open(infos[0]) as member:
        data = member.read(expected + _MAX_HEADER + 1)  # the end of the member, where its checksum is compared
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ValueError("unknown version of the array format")
    found, fortran, kind = np.lib.format.read_array_header_1_0(stream, max_header_size=_MAX_HEADER)
    if tuple(found) != shape or fortran or kind != dtype or len(data) - stream.tell() != expected:
        raise ValueError(f"{name} has another size or type")
    return np.frombuffer(data, dtype, offset=stream.tell()).reshape(shape).copy()
