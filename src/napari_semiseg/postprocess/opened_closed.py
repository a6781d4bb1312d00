"""A mask without specks and pinholes, as CSL's test scores are of."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi
from skimage.morphology import disk

RADII = (3, 1)


def opened_and_closed(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Open and close a mask with a disk of radius 3, then both with one of radius 1.

    What touches the border of the image is eroded there by the closing, since nothing lies beyond it.

    Parameters
    ----------
    mask : ndarray, (h, w), bool

    Returns
    -------
    ndarray, (h, w), bool

    References
    ----------
    N. Boserup, R. Selvan, "Efficient self-supervision using patch-based contrastive learning for histopathology image
    segmentation" (CSL), NLDL 2023, and its released code.

    Examples
    --------
    >>> import numpy as np
    >>> specks = np.zeros((9, 9), bool)
    >>> specks[4, 4] = True
    >>> bool(opened_and_closed(specks).any())
    False
    """
    for radius in RADII:
        shape = disk(radius)  # type: ignore[no-untyped-call]
        mask = ndi.binary_closing(ndi.binary_opening(mask, shape), shape)
    return mask
