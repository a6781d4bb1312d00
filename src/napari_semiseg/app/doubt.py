"""Where a result is in doubt: places worth a look, and a tile."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_semiseg.metrics.entropy import binary_entropy

SIDE = 64
"""Side of a place, in pixels of the map."""
LEAST, MOST = 0.2, 20
"""Mean doubt, in bits, from which a place is worth a look; and as many as somebody would look at."""
_ENTROPY = binary_entropy(np.arange(256) / 255).astype(np.float32)
"""Of each confidence, in bits."""


@dataclass(frozen=True)
class Place:
    """A square of the image.

    Attributes
    ----------
    center : (float, float)
        y, x in pixels of level 0.
    doubt : float
        Mean entropy of its pixels, in bits, 0 to 1.
    """

    center: tuple[float, float]
    doubt: float


def doubtful_places(confidence: NDArray[np.uint8], downsample: int = 1) -> list[Place]:
    """Find the squares of a map whose pixels are most in doubt, the most doubtful first.

    Parameters
    ----------
    confidence : array, uint8, (h, w)
        0 to 255.
    downsample : int
        Pixels of level 0 per pixel of the map.

    Returns
    -------
    list of Place
        Those whose mean doubt is at least `LEAST`, at most `MOST`.
    """
    doubt = _ENTROPY[confidence]
    rows, columns = (np.arange(0, side, SIDE) for side in doubt.shape)
    sums = np.add.reduceat(np.add.reduceat(doubt, rows, axis=0), columns, axis=1)
    heights, widths = (np.diff([*starts, side]) for starts, side in zip((rows, columns), doubt.shape, strict=True))
    means = sums / np.outer(heights, widths)
    order = np.argsort(-means, axis=None, kind="stable")
    places: list[Place] = []
    for row, column in zip(*np.unravel_index(order, means.shape), strict=True):
        if means[row, column] < LEAST or len(places) == MOST:
            break
        y, x = rows[row] + (heights[row] - 1) / 2, columns[column] + (widths[column] - 1) / 2
        shift = (downsample - 1) / 2
        places.append(Place((y * downsample + shift, x * downsample + shift), float(means[row, column])))
    return places
