"""Refuse a TIFF that claims what it cannot hold, before a library gives memory to it.

Reads the chain of directories itself: counts, types and sizes of tags, nothing else.

Reference: TIFF Revision 6.0, Adobe 1992, section 2; BigTIFF as libtiff documents it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from napari_semiseg.errors import InputError
from napari_semiseg.io import limits

MAX_TAGS = 1024
"""Most tags of one directory; real files have some 30."""

MAX_DIRECTORIES = 100_000
"""Most directories (pages) of one file."""

MAX_DEPTH = 4
"""Deepest nesting of sub-directories."""

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_WIDTH, _LENGTH, _BITS, _DESCRIPTION, _SAMPLES, _SUB_IFDS = 256, 257, 258, 270, 277, 330
_ROWS_PER_STRIP, _TILE_WIDTH, _TILE_LENGTH, _DEPTH = 278, 322, 323, 32997
_STRIP_COUNTS, _TILE_COUNTS, _PLANAR = 279, 325, 284
_SCALARS = {_WIDTH, _LENGTH, _BITS, _SAMPLES, _ROWS_PER_STRIP, _TILE_WIDTH, _TILE_LENGTH, _DEPTH, _PLANAR}


@dataclass(frozen=True)
class _Format:
    order: str
    count: str  # how many tags
    entry: str  # code, type, count, value
    offset: str
    inline: int


def check_tiff(path: Path) -> None:
    """Check every directory of a TIFF or BigTIFF file.

    Raises
    ------
    InputError
        If the file is no TIFF, its directories form a ring, or one of them claims more than `limits` allow or than the
        file can hold.
    """
    with path.open("rb") as file:
        layout, first = _header(file, path)
        _check_chain(file, first, layout, path, set(), 0)


def _check_chain(file: BinaryIO, offset: int, layout: _Format, path: Path, seen: set[int], depth: int) -> None:
    """Check a directory, those that it leads to, and those below; `seen` are the offsets of all that were checked."""
    size = path.stat().st_size
    chain: set[int] = set()
    while offset:
        if offset in seen:
            if depth and offset not in chain:
                return  # the list of sub-directories names it too
            raise InputError(
                f"The pages of '{path}' refer to each other in a ring: the file is broken, export it again."
            )
        if len(seen) >= MAX_DIRECTORIES or depth > MAX_DEPTH:
            raise InputError(f"'{path}' has more than {MAX_DIRECTORIES:,} pages, or pages nested too deep: split it.")
        seen.add(offset)
        chain.add(offset)
        tags, offset = _directory(file, offset, layout, size, path)
        scalars = {code: _scalar(file, tag, layout) for code, tag in tags.items() if code in _SCALARS}
        _check_page(scalars, tags, path)
        for below in _offsets(file, tags[_SUB_IFDS], layout) if _SUB_IFDS in tags else []:
            if below not in seen:
                _check_chain(file, below, layout, path, seen, depth + 1)


def _header(file: BinaryIO, path: Path) -> tuple[_Format, int]:
    head = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
    version = struct.unpack(f"{order}H", head[2:4])[0] if order and len(head) >= 8 else 0
    if version == 42:
        return _Format(order, "H", "HHI4s", "I", 4), struct.unpack(f"{order}I", head[4:8])[0]
    if version == 43 and len(head) == 16:
        return _Format(order, "Q", "HHQ8s", "Q", 8), struct.unpack(f"{order}Q", head[8:16])[0]
    raise InputError(f"'{path}' is not a TIFF file: check the file, or its extension.")


_Tag = tuple[int, int, bytes]  # type, count, value or offset


def _directory(file: BinaryIO, offset: int, layout: _Format, size: int, path: Path) -> tuple[dict[int, _Tag], int]:
    broken = InputError(f"'{path}' ends before its pages do: copy it again from its source.")
    width = struct.calcsize(f"{layout.order}{layout.count}")
    if offset + width > size:
        raise broken
    file.seek(offset)
    (number,) = struct.unpack(f"{layout.order}{layout.count}", file.read(width))
    if number > MAX_TAGS:
        raise InputError(
            f"A page of '{path}' claims {number:,} tags and {MAX_TAGS} are believed: the file is broken, export it "
            "again."
        )
    entry = struct.Struct(f"{layout.order}{layout.entry}")
    body = file.read(number * entry.size)
    if len(body) < number * entry.size:
        raise broken
    tags = {}
    for code, kind, count, value in entry.iter_unpack(body):
        stored = count * _SIZES.get(kind, 1)
        if stored > size:
            raise InputError(
                f"Tag {code} of '{path}' claims {stored:,} bytes and the file has {size:,}: it is broken, export it "
                "again."
            )
        tags[code] = (kind, count, value)
    rest = file.read(struct.calcsize(layout.offset))
    following = (
        struct.unpack(f"{layout.order}{layout.offset}", rest)[0] if len(rest) == struct.calcsize(layout.offset) else 0
    )
    return tags, int(following)


def _scalar(file: BinaryIO, tag: _Tag, layout: _Format) -> int:
    """Return the largest value of an integer tag."""
    return max(_integers(file, tag, layout, most=4096), default=0)


def _offsets(file: BinaryIO, tag: _Tag, layout: _Format) -> list[int]:
    return list(_integers(file, tag, layout, most=4096))


def _integers(file: BinaryIO, tag: _Tag, layout: _Format, most: int) -> Iterator[int]:
    kind, count, value = tag
    letter = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}.get(kind)
    if letter is None or count < 1:
        return
    count = min(count, most)
    data = value
    if count * _SIZES[kind] > layout.inline:
        file.seek(struct.unpack(f"{layout.order}{layout.offset}", value)[0])
        data = file.read(count * _SIZES[kind])
    available = min(count, len(data) // _SIZES[kind])
    yield from struct.unpack(f"{layout.order}{available}{letter}", data[: available * _SIZES[kind]])


def _check_page(scalars: dict[int, int], tags: dict[int, _Tag], path: Path) -> None:
    height, width = scalars.get(_LENGTH, 0), scalars.get(_WIDTH, 0)
    if _LENGTH not in scalars and _WIDTH not in scalars:
        return  # a directory that is no image, such as EXIF
    limits.check_shape((height, width), str(path))
    samples = scalars.get(_SAMPLES, 1)
    if samples > 4096 or scalars.get(_BITS, 1) > 128 or scalars.get(_DEPTH, 1) > 1:
        raise InputError(
            f"A page of '{path}' claims {samples:,} values a pixel, or more than 128 bits each, or depth: export it "
            "again as plain pages."
        )
    if tags.get(_DESCRIPTION, (2, 0, b""))[1] > limits.MAX_XML_BYTES:
        raise InputError(
            f"The description of '{path}' is longer than {limits.MAX_XML_BYTES / 2**20:g} MiB: export it again without "
            "it."
        )
    _check_segments(scalars, tags, path)


def _check_segments(scalars: dict[int, int], tags: dict[int, _Tag], path: Path) -> None:
    """Compare the tiles or strips that the size asks for with those that are listed."""
    height, width = scalars[_LENGTH], scalars[_WIDTH]
    tiled = _TILE_WIDTH in tags or _TILE_LENGTH in tags
    rows = scalars.get(_TILE_LENGTH, 0) if tiled else min(scalars.get(_ROWS_PER_STRIP, height), height)
    columns = scalars.get(_TILE_WIDTH, 0) if tiled else width
    if rows < 1 or columns < 1:
        raise InputError(
            f"A page of '{path}' has {'tiles' if tiled else 'strips'} of no size: the file is broken, export it again."
        )
    samples = scalars.get(_SAMPLES, 1)
    planes = samples if scalars.get(_PLANAR, 1) == 2 else 1
    decoded = rows * columns * (samples // planes) * math.ceil(scalars.get(_BITS, 8) / 8)
    limits.check_bytes(decoded, str(path), "A tile" if tiled else "A strip")
    wanted = math.ceil(height / rows) * math.ceil(width / columns) * planes
    counts = tags.get(_TILE_COUNTS if tiled else _STRIP_COUNTS) or tags.get(_STRIP_COUNTS)
    listed = counts[1] if counts else 1
    if listed < wanted:
        raise InputError(
            f"A page of '{path}' claims {height:,} x {width:,} pixels and lists {listed:,} of {wanted:,} parts: it is "
            "broken, export it again."
        )
