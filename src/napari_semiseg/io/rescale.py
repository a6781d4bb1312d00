"""Rectangles of an image as it would look at another pixel size.

Sample positions are those of the whole image, whichever rectangle is asked for: neighboring rectangles fit, and a
prediction at another pixel size depends on its blocks as little as one at the image's own.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from napari_semiseg.blocks import Box
from napari_semiseg.errors import InputError
from napari_semiseg.io.images import Image

SAME_SCALE = 0.05
"""Pixel sizes that differ by less than this part count as the same: training varies the scale by more."""
LARGEST_SCALE = 16.0
"""Pixel sizes that differ by a greater factor are taken for a mistake."""


class Readable(Protocol):
    """What can be segmented: rectangles of pixels."""

    def read(self, box: Box) -> NDArray[np.uint8]:
        """Return (h, w, 3); `box` may reach outside."""


def scale_of(image: Image, mpp: float | None) -> float:
    """Return network pixels per image pixel; 1 where either pixel size is unknown or they are nearly the same.

    Raises
    ------
    InputError
        If they differ so much that one of them must be wrong.
    """
    if image.mpp is None or mpp is None or abs(image.mpp / mpp - 1) <= SAME_SCALE:
        return 1.0
    scale = image.mpp / mpp
    if not 1 / LARGEST_SCALE <= scale <= LARGEST_SCALE:
        raise InputError(
            f"'{image.name}' has pixels of {image.mpp:g} µm and the run works at {mpp:g} µm: if the file is "
            "wrong, give the right size with --mpp."
        )
    return scale


class Rescaled:
    """An image at `factor` times its number of pixels along either axis.

    Parameters
    ----------
    image : Readable
    factor : float
        Pixels of the rescaled image per pixel of `image`.
    """

    def __init__(self, image: Readable, factor: float) -> None:
        self._image = image
        self._factor = factor

    def read(self, box: Box) -> NDArray[np.uint8]:
        """Return the rectangle, (h, w, 3), in rescaled pixels; it may reach outside."""
        source = source_box(box, self._factor)
        return resample(self._image.read(source), source, box, self._factor)


def scaled_box(box: Box, factor: float) -> Box:
    """Return a rectangle of an image in pixels of the rescaled image, at least one of them."""
    y0, x0, y1, x1 = (round(value * factor) for value in box)
    return Box(y0, x0, max(y1, y0 + 1), max(x1, x0 + 1))


def source_box(box: Box, factor: float) -> Box:
    """Return the pixels of an image that a rectangle of the rescaled image is made of."""
    margin = math.ceil(4 * _sigma(factor)) + 1
    (top, bottom), (left, right) = (
        (math.floor(_position(low, factor)), math.floor(_position(high - 1, factor)) + 2)
        for low, high in ((box.y0, box.y1), (box.x0, box.x1))
    )
    return Box(top - margin, left - margin, bottom + margin, right + margin)


def resample(pixels: NDArray[np.uint8], source: Box, box: Box, factor: float) -> NDArray[np.uint8]:
    """Sample a rectangle of an image that is `factor` times as large.

    Bilinear between pixel centers; where the image becomes smaller it is smoothed first (Gaussian, sigma
    ``(1 / factor - 1) / 2``, as `skimage.transform.resize` does).

    Parameters
    ----------
    pixels : ndarray, uint8, (h, w) or (h, w, channels)
        What lies at `source`.
    source : Box
        `source_box` of `box`.
    box : Box
        In pixels of the result.
    factor : float
        Pixels of the result per pixel of the image, more than 0.

    Returns
    -------
    ndarray, uint8, (box.height, box.width[, channels])
    """
    values = pixels.astype(np.float32)
    if sigma := _sigma(factor):
        values = gaussian_filter(values, sigma, axes=(0, 1), mode="nearest", truncate=4.0)
    values = _interpolated(values, _position(np.arange(box.y0, box.y1), factor) - source.y0)
    values = _interpolated(values.swapaxes(0, 1), _position(np.arange(box.x0, box.x1), factor) - source.x0)
    return np.ascontiguousarray(np.rint(values.swapaxes(0, 1)).astype(np.uint8))


def _position(pixel: Any, factor: float) -> Any:
    """Return where the center of a pixel of the rescaled image lies in the image."""
    return (pixel + 0.5) / factor - 0.5


def _sigma(factor: float) -> float:
    return max(0.0, (1 / factor - 1) / 2)


def _interpolated(values: NDArray[Any], positions: NDArray[np.float64]) -> NDArray[Any]:
    """Interpolate linearly along the first axis."""
    below = np.floor(positions).astype(np.intp)
    weight = (positions - below).astype(np.float32).reshape(-1, *[1] * (values.ndim - 1))
    return values[below] * (1 - weight) + values[below + 1] * weight
