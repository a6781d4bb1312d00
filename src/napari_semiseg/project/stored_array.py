"""An image that exists only in memory, written once into the project."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semiseg import atomic
from napari_semiseg.errors import InputError

_SIDE = 512


def array_bytes(array: Any, name: str) -> int:
    """Return how large an image would be in the project, in bytes before compression: to be said before it is written.

    Parameters
    ----------
    array : array_like
        (h, w) gray, or (h, w, 3) or (h, w, 4) color; anything that NumPy can slice, also lazily.
    name : str
        Layer, for the message.

    Raises
    ------
    InputError
        If it is no such image.
    """
    height, width, *rest = _checked_shape(array, name)
    return height * width * math.prod(rest) * _stored_dtype(np.dtype(array.dtype), name).itemsize


def write_array(path: Path, array: Any, name: str, mpp: float | None) -> tuple[int, int]:
    """Write an image as a tiled, compressed OME-TIFF, whole or not at all, a piece at a time.

    Returns
    -------
    tuple of int
        Rows and columns.

    Raises
    ------
    InputError
        If it is no image, or there is no room for it.
    """
    atomic.require_space(path.parent, array_bytes(array, name), f"the image {name!r:.100}")
    import tifffile

    shape = _checked_shape(array, name)
    dtype = _stored_dtype(np.dtype(array.dtype), name)
    size = (
        {}
        if mpp is None
        else {"PhysicalSizeX": mpp, "PhysicalSizeY": mpp, "PhysicalSizeXUnit": "µm", "PhysicalSizeYUnit": "µm"}
    )
    with atomic.staged(path) as temporary:
        tifffile.imwrite(
            temporary,
            _pieces(array, shape, dtype),
            shape=shape,
            dtype=dtype,
            tile=(_SIDE, _SIDE),
            photometric="minisblack" if len(shape) == 2 else "rgb",
            extrasamples=["unassalpha"] if shape[2:] == (4,) else None,
            compression="zlib",
            bigtiff=math.prod(shape) * dtype.itemsize > 2**31,
            ome=True,
            metadata={"axes": "YXS"[: len(shape)], "Name": name, **size},
        )
    return shape[0], shape[1]


def _pieces(array: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Iterator[NDArray[Any]]:
    for y in range(0, shape[0], _SIDE):
        for x in range(0, shape[1], _SIDE):
            piece = np.asarray(array[y : y + _SIDE, x : x + _SIDE])
            yield piece.astype(np.uint8) * 255 if piece.dtype == bool else piece.astype(dtype)


def _checked_shape(array: Any, name: str) -> tuple[int, ...]:
    shape = tuple(getattr(array, "shape", ()))
    where = f"The image {name!r:.100}"
    if any(side != side for side in shape):  # a lazy array that does not know its own size
        raise InputError(f"{where} does not know its own size: compute it first.")
    if 0 in shape or len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (3, 4)):
        sides = " x ".join(str(side) for side in shape) or "nothing"
        raise InputError(
            f"{where} is {sides}, but an image is rows x columns, or rows "
            "x columns x 3 or 4 colors: choose one plane or channel."
        )
    return tuple(int(side) for side in shape)


def _stored_dtype(dtype: np.dtype[Any], name: str) -> np.dtype[Any]:
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype.kind in "iu" and dtype.itemsize <= 4:
        return dtype.newbyteorder("=")
    if dtype.kind == "f" and dtype.itemsize <= 4:
        return np.dtype(np.float32)
    if dtype.kind in "iuf":
        return np.dtype(np.float64)  # OME knows no 64-bit integers
    raise InputError(
        f"The image {name!r:.100} has the type {dtype}, which is no gray "
        "value or color: convert it to whole or real numbers."
    )
