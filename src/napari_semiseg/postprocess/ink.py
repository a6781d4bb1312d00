"""Where an image shows ink and not a stain: what is black there is no nucleus.

Margins of specimens are marked with ink, and coal dust and blots are black as well. Black absorbs light of all colors,
hematoxylin's among them, and more of it than any nucleus: unmixed as if it were stained, ink has three times the
hematoxylin of nuclei, and Otsu's threshold then parts ink from tissue instead of nuclei from the rest.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, minimum_filter, uniform_filter

DARK = 60
"""Of 255: ink lets less light through, in any channel."""
NEUTRAL = 20
"""Of 255, between the channels: hematoxylin lets blue light through, however dark it is."""
SMOOTHING = 5
"""Side of the square, in pixels, whose mean is looked at: by noise a pixel of a dark nucleus may be black."""
LEAST = 13
"""Side of the black squares, in pixels, that ink is made of: they fit in no nucleus, as far as images have shown."""
RIM = 4
"""Pixels around ink where it shines through, as gray."""

REACH = SMOOTHING // 2 + 2 * (LEAST // 2) + RIM
"""Pixels around a pixel that decide whether it is ink."""


def find_ink(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Find ink in an image in color, and other black too wide to be a nucleus.

    Parameters
    ----------
    image : ndarray, (h, w, 3), uint8

    Returns
    -------
    ndarray, (h, w), bool
        Ink with a rim around it. Nothing, of an image without black.
    """
    if not (image.max(axis=-1) < DARK).any():
        return np.zeros(image.shape[:2], bool)
    pixels = image.astype(np.float32)
    smooth = np.stack([uniform_filter(pixels[..., band], SMOOTHING, mode="nearest") for band in range(3)], axis=-1)
    strongest = smooth.max(axis=-1)
    black = (strongest < DARK) & (strongest - smooth.min(axis=-1) < NEUTRAL)
    core = minimum_filter(black, LEAST, mode="nearest")
    found: NDArray[np.bool_] = maximum_filter(core, LEAST + 2 * RIM, mode="nearest") if core.any() else core
    return found
