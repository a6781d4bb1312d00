"""Stains of a color image, quickly: 256 values of a byte have 256 logarithms, and each is taken once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from skimage.color import hed_from_rgb

OD_PER_UNIT = 6.0
"""Optical density, base 10, that 1 stands for: natural logarithms are divided by that of a millionth."""

STAINED_OD = 0.45
"""Optical density of all three colors together from which a pixel is stained at all."""
BROWN = 1.1
"""Where blue light is absorbed by so much more than red and than green, a pixel is brown."""
LEAST_BROWN = 0.01
"""Part of the stained pixels from which an image is stained with DAB. Without, 85 images had at most 0.004, and with it
one had 0.87."""

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


def shows_dab(rgb: NDArray[np.uint8]) -> bool:
    """Say whether there is DAB in an image: brown, where blue light is absorbed more than any other.

    Color deconvolution gives every dark nucleus some DAB, also where nobody has put any: on hematoxylin and eosin it
    finds nearly all nuclei positive.

    Parameters
    ----------
    rgb : ndarray, uint8, (..., 3)
        All of an image, at any resolution.
    """
    red, green, blue = np.moveaxis(-np.log10(np.maximum(rgb, 1) / 255), -1, 0)
    stained = red + green + blue > STAINED_OD
    brown = stained & (blue > BROWN * red) & (blue > BROWN * green)
    return bool(np.count_nonzero(brown) > LEAST_BROWN * np.count_nonzero(stained))
