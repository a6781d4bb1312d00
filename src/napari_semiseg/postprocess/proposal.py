"""What a user sees of an image before anything was trained: nuclei by a threshold."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_semiseg.postprocess.single_stain import best_stain
from napari_semiseg.postprocess.threshold import find_threshold


def propose(image: NDArray[np.uint8], gray: bool = False) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
    """Propose nuclei before any training.

    Parameters
    ----------
    image : ndarray, (h, w, 3), uint8
    gray : bool
        Whether the file has one channel.

    Returns
    -------
    mask : ndarray, (h, w), bool
    confidence : ndarray, (h, w), uint8
        128 and more where the mask is.
    """
    found = find_threshold([image], best_stain([image], image, gray=gray))
    confidence = found.confidence(image)
    return confidence >= 128, confidence
