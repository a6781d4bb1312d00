"""Nuclei without any training: Otsu's threshold on the stain, or on intensity where nothing is stained.

This is the row that every table starts with, and the proposal that a user sees first.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from skimage.filters import gaussian, threshold_otsu

from napari_semiseg.io.stains import separated
from napari_semiseg.postprocess import ink

Stain = Literal["hematoxylin", "intensity", "inverted", "green"]
"""What nuclei stand out by: hematoxylin (H&E, IHC); bright, as in fluorescence; dark, as in unstained bright field; or
dark in green light, where there is a single dye (`postprocess.single_stain`)."""

SIGMA = 1.0
"""Smoothing before the threshold, in pixels."""

REACH = 4 + ink.REACH
"""Pixels around a pixel that its smoothed value depends on."""

_COLORFUL = 16  # of 255, between the strongest and the weakest channel: less is gray with noise
_DARK_FIELD = 64  # of 255: no bright field has a median below


@dataclass(frozen=True)
class Threshold:
    """A threshold that was found, with what is needed to apply it elsewhere in the same image.

    Attributes
    ----------
    stain : {"hematoxylin", "intensity", "inverted", "green"}
        What it is applied to.
    value : float
        Nuclei are where `density` is greater.
    slope : float
        Steepness of the confidence at the threshold, per unit of density.
    """

    stain: Stain
    value: float
    slope: float

    def mask(self, image: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Return where nuclei are: uint8 (h, w, 3) → bool (h, w)."""
        above: NDArray[np.bool_] = density(image, self.stain) > self.value
        return above

    def confidence(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return how sure the threshold is, as a probability times 255: uint8 (h, w, 3) → uint8 (h, w).

        The posterior of two normal classes of equal variance and prior, ``1 / (1 + exp(-slope (density - value)))``.
        The mask is exactly where it is 128 or more.
        """
        beyond = density(image, self.stain) - self.value
        values = np.rint(255 / (1 + np.exp(-np.clip(self.slope * beyond, -50, 50)))).astype(np.uint8)
        return np.where(beyond > 0, np.maximum(values, 128), np.minimum(values, 127)).astype(np.uint8)


def raw_density(image: NDArray[np.uint8], stain: Stain) -> NDArray[np.float64]:
    """Return what nuclei stand out by: uint8 (h, w, 3) → float (h, w).

    Hematoxylin is the first channel of `skimage.color.rgb2hed`; intensity is the strongest channel, 0 to 255; inverted
    is 255 less that, green 255 less the green channel. More is more nucleus. Where there is ink, there is
    no stain.
    """
    values: NDArray[np.float64]
    if stain in ("intensity", "inverted"):
        values = image.max(axis=-1).astype(np.float64)
        return values if stain == "intensity" else np.subtract(255.0, values)
    values = separated(image)[..., 0] if stain == "hematoxylin" else np.subtract(255.0, image[..., 1])
    values[ink.find_ink(image)] = 0.0
    return values


def density(image: NDArray[np.uint8], stain: Stain) -> NDArray[np.float64]:
    """Return `raw_density`, smoothed (Gaussian, sigma `SIGMA`): uint8 (h, w, 3) → float (h, w)."""
    smooth: NDArray[np.float64] = gaussian(raw_density(image, stain), SIGMA, preserve_range=True)  # type: ignore[no-untyped-call]
    return smooth


def find_stain(image: NDArray[np.uint8], gray: bool = False) -> Stain:
    """Find what nuclei stand out by.

    Parameters
    ----------
    image : ndarray, (h, w, 3), uint8
        A typical part of the image.
    gray : bool
        Whether the file has one channel, so that there can be no stain.

    Returns
    -------
    {"hematoxylin", "intensity", "inverted"}
        Color on a bright field is stain. In gray images, and in color on a dark field, nuclei are on the rarer side of
        Otsu's threshold.
    """
    spread = image.max(axis=-1).astype(np.int16) - image.min(axis=-1)
    colorful = not gray and np.percentile(spread, 99) >= _COLORFUL
    if colorful and np.median(image.max(axis=-1)) >= _DARK_FIELD:
        return "hematoxylin"
    values = density(image, "intensity")
    return "intensity" if np.mean(values > threshold_otsu(values)) <= 0.5 else "inverted"  # type: ignore[no-untyped-call]


def find_threshold(images: Iterable[NDArray[np.uint8]], stain: Stain) -> Threshold:
    """Find Otsu's threshold over parts of one image.

    Parameters
    ----------
    images : iterable of ndarray, (h, w, 3), uint8
        At least one. The whole image, or parts of it that show tissue.
    stain : {"hematoxylin", "intensity", "inverted", "green"}

    Returns
    -------
    Threshold
        Of an image that is all one color nothing is above it.

    References
    ----------
    N. Otsu, "A threshold selection method from gray-level histograms", IEEE Trans. Syst. Man Cybern. 9, 1979; 256 bins.
    """
    values = np.concatenate([density(image, stain).ravel() for image in images])
    value = float(threshold_otsu(values))  # type: ignore[no-untyped-call]
    above = values > value
    if not above.any():
        return Threshold(stain, value, 0.0)
    low, high = values[~above], values[above]
    within = (low.var() * low.size + high.var() * high.size) / values.size
    return Threshold(stain, value, float((high.mean() - low.mean()) / max(within, 1e-12)))


def hematoxylin_threshold(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Segment an H&E image by Otsu's threshold on its hematoxylin: uint8 (h, w, 3) → bool (h, w)."""
    return find_threshold([image], "hematoxylin").mask(image)
