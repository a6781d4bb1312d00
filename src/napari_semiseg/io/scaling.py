"""From the pixels of a file to what a network and a person look at: uint8 RGB."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semiseg.errors import InputError

_HUGE = 1e150  # a difference of two such numbers is still finite
_LOW, _HIGH = 0.1, 99.9


@dataclass(frozen=True)
class Scaling:
    """The straight line that brings a file's values to 0 to 255.

    Attributes
    ----------
    low, high : float
        Values of the file that become 0 and 255; values beyond are clipped. Where they are equal, every pixel becomes
        0.
    """

    low: float
    high: float

    def apply(self, pixels: NDArray[Any]) -> NDArray[np.uint8]:
        """Scale to uint8, rounding to nearest. NaN becomes 0, infinities 0 and 255."""
        if pixels.dtype == np.uint8 and (self.low, self.high) == (0.0, 255.0):
            return pixels.astype(np.uint8, copy=False)
        span = self.high - self.low
        if not span > np.finfo(np.float64).tiny * 1e6:
            return np.zeros(pixels.shape, np.uint8)
        dtype = np.float32 if pixels.dtype.itemsize <= 2 else np.float64
        values = np.nan_to_num(pixels.astype(dtype), nan=self.low, posinf=self.high, neginf=self.low)
        np.clip(values, self.low, self.high, out=values)
        values -= values.dtype.type(self.low)
        values *= values.dtype.type(255.0 / span)
        np.clip(np.rint(values, out=values), 0, 255, out=values)
        return np.asarray(values, np.uint8)


def exact_scaling(dtype: np.dtype) -> Scaling | None:
    """Return the scaling of types that need no look at the pixels (uint8 stays, bool becomes 0 and 255), else None."""
    if dtype == np.uint8:
        return Scaling(0.0, 255.0)
    return Scaling(0.0, 1.0) if dtype == np.bool_ else None


def robust_scaling(sample: NDArray[Any]) -> Scaling:
    """Find a scaling that a few extreme pixels do not decide.

    Parameters
    ----------
    sample : ndarray, (n, 1 | 3 | 4)
        Pixels of the whole image, NaN and infinities included. A fourth channel is opacity, which decides nothing.

    Returns
    -------
    Scaling
        For one channel the 0.1st and 99.9th percentile of the finite values. For color one gain for all channels, which
        keeps hues and black: from 0 (or the least value, where that is negative) to the 99.9th percentile; floats
        within [0, 1] keep exactly that range. Without any finite value, 0 to 0.
    """
    values = np.asarray(sample)[..., :3].astype(np.float64)
    color = values.shape[-1] == 3
    values = values[np.isfinite(values)]
    if not values.size:
        return Scaling(0.0, 0.0)
    values = np.clip(values, -_HUGE, _HUGE)
    if color and np.issubdtype(sample.dtype, np.floating) and values.min() >= 0 and values.max() <= 1:
        return Scaling(0.0, 1.0)
    low, high = (float(value) for value in np.percentile(values, (_LOW, _HIGH)))
    if low == high:  # mostly one value: let the rest be seen
        low, high = float(values.min()), float(values.max())
    return Scaling(min(0.0, float(values.min())) if color else low, high)


def check_dtype(dtype: np.dtype, where: str) -> None:
    """Refuse pixel types that have no order: complex numbers, text, objects.

    Raises
    ------
    InputError
    """
    if dtype.kind not in "buif":
        raise InputError(f"'{where}' holds pixels of type {dtype}: convert it to integers or floating point numbers.")


def to_rgb(pixels: NDArray[Any], scaling: Scaling) -> NDArray[np.uint8]:
    """Scale to uint8 and make three channels: gray is repeated, RGBA is laid on white.

    Parameters
    ----------
    pixels : ndarray, (h, w, 1 | 3 | 4)
    scaling : Scaling

    Returns
    -------
    ndarray, uint8, (h, w, 3)
    """
    if pixels.shape[-1] == 4:
        return _on_white(pixels, scaling)
    scaled = scaling.apply(pixels)
    return np.repeat(scaled, 3, axis=-1) if scaled.shape[-1] == 1 else scaled


def _on_white(pixels: NDArray[Any], scaling: Scaling) -> NDArray[np.uint8]:
    alpha = pixels[..., 3:]
    color = scaling.apply(pixels[..., :3])
    if pixels.dtype == np.uint8 and int(alpha.min(initial=255)) == 255:
        return color
    full = np.iinfo(pixels.dtype).max if pixels.dtype.kind in "ui" else 1.0
    opacity = np.clip(np.nan_to_num(alpha.astype(np.float32) / np.float32(full)), 0, 1)
    return np.asarray(np.rint(255 + (color.astype(np.float32) - 255) * opacity), np.uint8)
