"""An image of ours as something that napari shows: whole where it is small, lazy where it is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_semiseg.blocks import Box
from napari_semiseg.io.images import Image as Picture
from napari_semiseg.plugin.lazy_array import LazyArray, Squares

WHOLE_PIXELS = 64_000_000
"""Up to this size an image is read at once."""
LARGEST_COARSE = 8192
"""Longer side, in pixels, of the finest level that is made for an image that has only one."""
SMALLEST_COARSE = 2048
"""A level no longer than this needs none below it; it fits into a texture of any graphics card."""


@dataclass(frozen=True)
class Shown:
    """What `napari.layers.Image` is given."""

    data: Any
    rgb: bool
    multiscale: bool
    place: dict[str, Any]


def picture_layer(picture: Picture, whole: int | None = None) -> Shown:
    """Prepare an image for display. Reads it if it is small, or has one level only: not for the GUI thread.

    Values are those that everything else of this package sees: 0 to 255.

    Parameters
    ----------
    picture : Image
    whole : int
        Pixels up to which it is read at once, instead of `WHOLE_PIXELS`.
    """
    place: dict[str, Any] = {"axis_labels": ("y", "x")}
    if picture.mpp is not None:
        place |= {"scale": (picture.mpp, picture.mpp), "units": ("um", "um"), "translate": picture.translation}
    if picture.shape[0] * picture.shape[1] <= (WHOLE_PIXELS if whole is None else whole):
        pixels = picture.read(Box.whole(picture.shape))
        return Shown(pixels[..., 0] if picture.gray else pixels, not picture.gray, False, place)
    levels: list[Any] = [Level(picture, level) for level in range(len(picture.levels))]
    if len(levels) == 1:
        levels += [Squares(level) for level in _coarse_levels(picture)]
    return Shown(levels, not picture.gray, True, place)


def _coarse_levels(picture: Picture) -> list[np.ndarray]:
    """Make the levels that an image has not got: no card can show it as one texture, and no memory hold it all."""
    levels = [picture.overview(min(LARGEST_COARSE, max(picture.shape) // 4))]
    while max(levels[-1].shape) > SMALLEST_COARSE:
        fine = levels[-1]
        padded = np.pad(fine, ((0, -fine.shape[0] % 4), (0, -fine.shape[1] % 4), (0, 0)), mode="edge")
        squares = padded.reshape(padded.shape[0] // 4, 4, padded.shape[1] // 4, 4, 3)
        levels.append(np.rint(squares.mean((1, 3), dtype=np.float32)).astype(np.uint8))
    return [level[..., 0] for level in levels] if picture.gray else levels


class Level(LazyArray):
    """One level of an image: (h, w, 3), or (h, w) for one channel."""

    def __init__(self, picture: Picture, level: int) -> None:
        super().__init__(picture.levels[level] if picture.gray else (*picture.levels[level], 3), np.uint8)
        self._picture, self._level = picture, level

    def read(self, box: Box) -> np.ndarray:
        """Read a rectangle."""
        pixels = self._picture.read(box, self._level)
        return pixels[..., 0] if self._picture.gray else pixels
