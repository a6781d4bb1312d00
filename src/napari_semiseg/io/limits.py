"""What a file may ask for before memory is given to it.

A TIFF of 4 kB can claim 3 million by 3 million pixels, and a `zarr.json` of 200 bytes can claim 10^18. So every reader
checks what a header *claims* against these numbers first and reads only then.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from napari_semiseg.errors import InputError

MAX_SIDE = 1_000_000
"""Longest side of an image, in pixels. The largest slides have some 300,000."""

MAX_READ_BYTES = 2**31
"""Most bytes that one call may return or one file or segment may decode to."""

MAX_CHUNK_BYTES = 2**29
"""Most bytes of one decoded Zarr chunk."""

MAX_RATIO = 1000
"""Highest ratio of decoded to stored bytes that is believed above `FREE_BYTES`."""

FREE_BYTES = 2**26
"""Decoded bytes below which any ratio is believed: an empty tile compresses well."""

MAX_AXES = 8
"""Most axes of an array."""

MAX_XML_BYTES = 2**24
"""Longest OME-XML or other description, in bytes."""

MAX_JSON_BYTES = 2**24
"""Longest metadata file of an OME-Zarr, in bytes."""


def check_shape(shape: Sequence[int], where: str) -> None:
    """Refuse an image that is empty or longer than `MAX_SIDE`.

    Parameters
    ----------
    shape : sequence of int
        Rows and columns, in pixels.
    where : str
        The file or layer, for the message.

    Raises
    ------
    InputError
    """
    height, width = (int(side) for side in shape[:2])
    if height < 1 or width < 1:
        raise InputError(f"'{where}' has {height} x {width} pixels: open an image that is not empty.")
    if max(height, width) > MAX_SIDE:
        raise InputError(
            f"'{where}' claims {height:,} x {width:,} pixels and images have at most {MAX_SIDE:,} a side: the file is "
            "broken, export it again."
        )


def check_bytes(decoded: int, where: str, what: str = "The image", limit: int = MAX_READ_BYTES) -> None:
    """Refuse to hold more than `limit` bytes at once.

    Raises
    ------
    InputError
    """
    if decoded > limit:
        raise InputError(
            f"{what} in '{where}' needs {decoded / 2**30:,.1f} GiB at once and at most {limit / 2**30:g} GiB are "
            "allowed: "
            "save it in tiles (pyramidal TIFF or OME-Zarr)."
        )


def check_ratio(decoded: int, stored: int, where: str) -> None:
    """Refuse a decompression bomb: much more than was stored.

    Parameters
    ----------
    decoded, stored : int
        Bytes after and before decompression.
    where : str
        The file, for the message.

    Raises
    ------
    InputError
    """
    if decoded > FREE_BYTES and decoded > MAX_RATIO * max(1, stored):
        raise InputError(
            f"A part of '{where}' would grow more than {MAX_RATIO}-fold to {decoded / 2**20:,.0f} MiB when read: "
            "the file is broken or made to fill the memory, so save it again from its source."
        )


def bytes_of(shape: Sequence[int], dtype: np.dtype) -> int:
    """Count the bytes of an array that does not exist yet, in Python integers, which do not overflow."""
    return math.prod(int(side) for side in shape) * dtype.itemsize
