"""An image of ours as something that napari shows: whole where it is small, lazy where it is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_semiseg.blocks import Box
from napari_semiseg.io.images import Image as Picture

WHOLE_PIXELS = 64_000_000
"""Up to this size an image is read at once."""


@dataclass(frozen=True)
class Shown:
    """What `napari.layers.Image` is given."""

    data: Any
    rgb: bool
    multiscale: bool
    place: dict[str, Any]


def picture_layer(picture: Picture) -> Shown:
    """Prepare an image for display. Reads it if it is small: not for the GUI thread.

    Values are those that everything else of this package sees: 0 to 255.
    """
    place: dict[str, Any] = {"axis_labels": ("y", "x")}
    if picture.mpp is not None:
        place |= {"scale": (picture.mpp, picture.mpp), "units": ("um", "um"), "translate": picture.translation}
    if picture.shape[0] * picture.shape[1] <= WHOLE_PIXELS:
        whole = picture.read(Box.whole(picture.shape))
        return Shown(whole[..., 0] if picture.gray else whole, not picture.gray, False, place)
    levels = [Level(picture, level) for level in range(len(picture.levels))]
    return Shown(levels if len(levels) > 1 else levels[0], not picture.gray, len(levels) > 1, place)


class Level:
    """One level of an image, read where it is sliced.

    Attributes
    ----------
    shape : tuple of int
        (h, w, 3), or (h, w) for one channel.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, picture: Picture, level: int) -> None:
        self._picture, self._level = picture, level
        self.shape = picture.levels[level] if picture.gray else (*picture.levels[level], 3)
        self.ndim = len(self.shape)
        self.size = int(np.prod(self.shape, dtype=np.int64))
        self.nbytes = self.size

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        """Read the rectangle that a key spans, and take the key's part of it."""
        keys = key if isinstance(key, tuple) else (key,)
        if Ellipsis in keys:
            place = keys.index(Ellipsis)
            keys = keys[:place] + (slice(None),) * (self.ndim - len(keys) + 1) + keys[place + 1 :]
        keys = (*keys, *(slice(None),) * (self.ndim - len(keys)))
        spans, rest = zip(
            *(_span(part, side) for part, side in zip(keys[:2], self.shape[:2], strict=True)), strict=True
        )
        box = Box(spans[0][0], spans[1][0], spans[0][1], spans[1][1])
        part = self._picture.read(box, self._level)
        part = part[..., 0] if self._picture.gray else part
        return part[(*rest, *keys[2:])]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)


def _span(part: Any, side: int) -> tuple[tuple[int, int], Any]:
    """Return the pixels from and to which an index reaches, and the index within them."""
    if isinstance(part, slice):
        start, stop, step = part.indices(side)
        if step <= 0:
            return (0, side), part
        return (start, max(start, stop)), slice(None, None, step)
    index = int(part)
    index = index + side if index < 0 else index
    return (index, index + 1), 0
