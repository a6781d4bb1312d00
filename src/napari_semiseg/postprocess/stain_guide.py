"""How far each pixel lies beyond the stain's threshold: what a network can learn from where nobody has painted.

One threshold for a whole image takes pale nuclei in dark tissue for background, and dark stroma for nuclei. So the
threshold follows the tissue: it lies halfway between what is nucleus and what is background nearby, as one threshold
for the image divides them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage.filters import threshold_otsu
from skimage.transform import resize

from napari_semiseg.postprocess.single_stain import best_stain
from napari_semiseg.postprocess.threshold import Stain, raw_density

SMOOTHING = 2.0
"""Standard deviation, in pixels, of the smoothing before the threshold: more than for a mask that is shown, since what
is learned from need not be sharp, and less noise is learned."""
NEARBY = 20.0
"""Standard deviation, in pixels, of what counts as near: a nucleus or two wide."""
MARGIN = round(3 * NEARBY)
"""Pixels around a window that its map depends on, to within what can be seen."""
_STEP = 4  # the map of thresholds is smooth: every fourth pixel will do
_ENOUGH = 0.05  # share of nuclei, or of background, nearby from which on its mean is trusted alone


@dataclass(frozen=True)
class StainGuide:
    """The threshold of one image, to be applied to any part of it.

    Attributes
    ----------
    stain : {"hematoxylin", "intensity", "inverted", "green"}
        What nuclei stand out by.
    value : float
        Otsu's threshold over the image, in the unit of `raw_density`.
    spread : float
        Standard deviation of the smoothed density over the image, same unit; 0 where it is all one color.
    """

    stain: Stain
    value: float
    spread: float

    def beyond(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return how far each pixel lies beyond the threshold that holds where it lies.

        Parameters
        ----------
        image : ndarray, (h, w, 3), uint8
            A part of the image, with `MARGIN` pixels around what is wanted where there are any.

        Returns
        -------
        ndarray, (h, w), float32
            In standard deviations of the image's density: positive in nuclei, negative in background, near zero where
            it is doubtful. Zero everywhere in an image that is all one color.
        """
        if not self.spread:
            return np.zeros(image.shape[:2], np.float32)
        smooth = _smooth(image, self.stain)
        found: NDArray[np.float32] = ((smooth - self._nearby(smooth)) / self.spread).astype(np.float32)
        return found

    def _nearby(self, smooth: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the threshold at each pixel."""
        coarse = smooth[_STEP // 2 :: _STEP, _STEP // 2 :: _STEP]
        if not coarse.size:
            return np.full_like(smooth, self.value)
        nuclei = (coarse > self.value).astype(np.float64)
        share = gaussian_filter(nuclei, NEARBY / _STEP)
        level = gaussian_filter(coarse * nuclei, NEARBY / _STEP) / np.maximum(share, 1e-3)
        ground = gaussian_filter(coarse * (1 - nuclei), NEARBY / _STEP) / np.maximum(1 - share, 1e-3)
        trust = np.clip(np.minimum(share, 1 - share) / _ENOUGH, 0, 1)
        halfway = trust * (level + ground) / 2 + (1 - trust) * self.value
        wide: NDArray[np.float64] = resize(halfway, smooth.shape, order=1)  # type: ignore[no-untyped-call]
        return wide


def find_guide(parts: Sequence[NDArray[np.uint8]], look: NDArray[np.uint8], *, gray: bool) -> StainGuide:
    """Find the threshold of an image.

    Parameters
    ----------
    parts : sequence of ndarray, (h, w, 3), uint8
        The whole image, or samples of its tissue, at full resolution.
    look : ndarray, (h, w, 3), uint8
        The whole image, perhaps at a lower resolution: what it is stained with is found in it.
    gray : bool
        Whether the file has one channel.

    Returns
    -------
    StainGuide

    References
    ----------
    N. Otsu, "A threshold selection method from gray-level histograms", IEEE Trans. Syst. Man Cybern. 9, 1979; 256 bins.
    """
    stain = best_stain(parts, look, gray=gray)
    values = np.concatenate([_smooth(part, stain).ravel() for part in parts])
    spread = float(values.std())
    if spread < 1e-9:
        return StainGuide(stain, float(values[0]), 0.0)
    return StainGuide(stain, float(threshold_otsu(values)), spread)  # type: ignore[no-untyped-call]


def _smooth(image: NDArray[np.uint8], stain: Stain) -> NDArray[np.float64]:
    smooth: NDArray[np.float64] = gaussian_filter(raw_density(image, stain), SMOOTHING)
    return smooth
