"""What napari needs of an array that is read where it is sliced."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from napari_semiseg.blocks import Box

SQUARE = 256
"""Side of the squares that napari reads whole: it reads again only where the view leaves those that it has."""


class LazyArray:
    """A rectangle of pixels, (h, w) or (h, w, channels); whoever derives from it reads them.

    Parameters
    ----------
    shape : tuple of int
    dtype : dtype

    Attributes
    ----------
    chunks : tuple of int
        What napari takes for the least that can be read at once. Without it, every step of a moving view would be
        read, its contours drawn and given to the graphics card.
    """

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self.shape = tuple(shape)
        self.dtype = np.dtype(dtype)
        self.ndim = len(self.shape)
        self.size = int(np.prod(self.shape, dtype=np.int64))
        self.nbytes = self.size * self.dtype.itemsize
        self.chunks = (SQUARE, SQUARE, *self.shape[2:])

    def read(self, box: Box) -> np.ndarray:
        """Read a rectangle that lies inside and is not empty."""
        raise NotImplementedError

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        """Read the rectangle that a key spans, and take the key's part of it."""
        keys = key if isinstance(key, tuple) else (key,)
        if Ellipsis in keys:
            place = keys.index(Ellipsis)
            keys = keys[:place] + (slice(None),) * (self.ndim - len(keys) + 1) + keys[place + 1 :]
        keys = (*keys, *(slice(None),) * (self.ndim - len(keys)))
        (y0, y1, rows), (x0, x1, columns) = (
            _span(part, side) for part, side in zip(keys[:2], self.shape[:2], strict=True)
        )
        box = Box(y0, x0, y1, x1)
        part = self.read(box) if box.area else np.zeros((*box.shape, *self.shape[2:]), self.dtype)
        return part[(rows, columns, *keys[2:])]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)


class Squares(LazyArray):
    """Pixels in memory that napari takes square by square, as it would not take an array.

    Parameters
    ----------
    values : array, shape (h, w) or (h, w, channels)
    """

    def __init__(self, values: np.ndarray) -> None:
        super().__init__(values.shape, values.dtype)
        self.values = values

    def read(self, box: Box) -> np.ndarray:
        """Return a view of a rectangle."""
        return self.values[box.slices]


def _span(part: Any, side: int) -> tuple[int, int, Any]:
    """Return from where to where an index reaches, and the index within that."""
    if isinstance(part, slice):
        start, stop, step = part.indices(side)
        return (start, max(start, stop), slice(None, None, step)) if step > 0 else (0, side, part)
    index = int(part) + (side if int(part) < 0 else 0)
    return index, index + 1, 0
