"""One level of a result, read where it is sliced."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from napari_semiseg.blocks import Box
from napari_semiseg.errors import InputError
from napari_semiseg.io.result import Result


class LazyLevel:
    """What napari needs of an array.

    Parameters
    ----------
    result : Result
    kind : {"nuclei", "confidence"}
        Confidence is that of any nucleus.
    level : int
    """

    def __init__(self, result: Result, kind: Literal["nuclei", "confidence"], level: int) -> None:
        self._read = result.nuclei if kind == "nuclei" else result.nucleus_confidence
        self._level = level
        self.dtype = np.dtype(np.uint32 if kind == "nuclei" else np.uint8)
        self.shape = tuple(result.levels[level])
        self.ndim = 2
        self.size = self.shape[0] * self.shape[1]
        self.nbytes = self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        """Read the rectangle that a key spans, and take the key's part of it."""
        keys = key if isinstance(key, tuple) else (key,)
        if Ellipsis in keys:
            keys = tuple(part for part in keys if part is not Ellipsis)
        keys = (*keys, slice(None), slice(None))[:2]
        spans = [_span(part, side) for part, side in zip(keys, self.shape, strict=True)]
        box = Box(spans[0][0], spans[1][0], spans[0][1], spans[1][1])
        part = self._read(box, self._level) if box.area else np.zeros(box.shape, self.dtype)
        return part[tuple(rest for _, _, rest in spans)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:, :], dtype)


class GrowingLevel(LazyLevel):
    """A level of a result that is being written: what is not there yet, or no longer, is 0."""

    def __getitem__(self, key: Any) -> np.ndarray:
        """Read as `LazyLevel` does."""
        try:
            return super().__getitem__(key)
        except InputError:  # taken away, or begun anew, while it is looked at
            return np.broadcast_to(self.dtype.type(0), self.shape)[key].copy()


def _span(part: Any, side: int) -> tuple[int, int, Any]:
    """Return from where to where an index reaches, and the index within that."""
    if isinstance(part, slice):
        start, stop, step = part.indices(side)
        return (start, max(start, stop), slice(None, None, step)) if step > 0 else (0, side, part)
    index = int(part) + (side if int(part) < 0 else 0)
    return index, index + 1, 0
