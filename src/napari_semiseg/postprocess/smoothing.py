"""A Gaussian that goes down columns by whole rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

_BAND = 32
"""Rows that are summed at a time: so few stay in the processor's cache, and that is what makes it quick."""


def smoothed(image: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Smooth with a Gaussian, mirrored at the border.

    The same numbers as `scipy.ndimage.gaussian_filter`, but for the rounding of float32. SciPy gathers each column of
    an image before it sums along it, and spends three quarters of its time there.

    Parameters
    ----------
    image : ndarray of float32, (h, w)
    sigma : float, in pixels

    Returns
    -------
    ndarray of float32, (h, w)

    Examples
    --------
    >>> import numpy as np
    >>> (100 * smoothed(np.eye(3, dtype=np.float32), 0.5)).round().astype(int).tolist()
    [[81, 18, 1], [18, 64, 18], [1, 18, 81]]
    """
    radius = reach(sigma)
    weights = np.exp(-0.5 * (np.arange(radius + 1) / sigma) ** 2)
    weights = (weights / (2 * weights.sum() - weights[0])).astype(np.float32)
    padded = np.pad(image, ((radius, radius), (0, 0)), "symmetric")
    down = np.empty_like(image)
    for start in range(0, len(image), _BAND):
        band = down[start : start + _BAND]
        middle = start + radius
        np.multiply(padded[middle : middle + len(band)], weights[0], out=band)
        for step in range(1, radius + 1):
            above, below = (padded[row : row + len(band)] for row in (middle - step, middle + step))
            pair = above + below
            pair *= weights[step]
            band += pair
    return np.asarray(ndi.gaussian_filter1d(down, sigma, axis=1), np.float32)


def reach(sigma: float) -> int:
    """Return how many pixels away the Gaussian sees, as SciPy cuts it off."""
    return int(4 * sigma + 0.5)
