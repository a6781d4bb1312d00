"""How sure a map is of its patches: histograms of their mean confidence and of their mean entropy.

A run that goes well moves its patches to both ends of the first and to the low end of the second; one that collapses
moves all of them to one end.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_semiseg.metrics.entropy import binary_entropy

BINS = 20
PATCH = 50
"""Side of a patch in pixels of the image, as in CSL."""
_ENTROPY = binary_entropy(np.arange(256) / 255).astype(np.float32)
"""Of each level of confidence, in bits."""


def patch_histograms(confidence: NDArray[np.uint8], downsample: int = 1) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count patches by mean confidence and by mean binary entropy, in bits.

    Parameters
    ----------
    confidence : ndarray, (h, w), uint8
        Probability of nucleus times 255.
    downsample : int
        Pixels of the image per pixel of the map.

    Returns
    -------
    by_confidence, by_entropy : ndarray, (20,), int64
        Equal bins of [0, 1]. Patches lie side by side from the corner on; what is left over at the other sides does not
        count. All 0 where the map holds no whole patch.
    """
    side = max(1, round(PATCH / downsample))
    rows, columns = (length // side for length in confidence.shape)
    whole = confidence[: rows * side, : columns * side].reshape(rows, side, columns, side)
    means = whole.mean((1, 3), dtype=np.float64) / 255
    entropy = _ENTROPY[whole].mean((1, 3), dtype=np.float64)
    by_confidence, by_entropy = (np.histogram(values, BINS, (0, 1))[0] for values in (means, entropy.clip(0, 1)))
    return by_confidence, by_entropy
