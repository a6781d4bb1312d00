"""From the confidence of several classes to that of any nucleus, and to one class for each nucleus."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def any_nucleus(confidence: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the probability of any nucleus: uint8 (c, h, w) → uint8 (h, w), the sum over the classes."""
    if len(confidence) == 1:
        return np.asarray(confidence[0])
    return np.asarray(np.minimum(confidence.sum(axis=0, dtype=np.uint16), 255), np.uint8)


def nucleus_classes(confidence: NDArray[np.uint8], labels: NDArray[Any]) -> NDArray[np.uint8]:
    """Give every nucleus the class that is most probable over all of it.

    Parameters
    ----------
    confidence : ndarray, (c, h, w), uint8
    labels : ndarray, (h, w), int
        Instances, 0 background.

    Returns
    -------
    ndarray, (h, w), uint8
        0 background, 1 the first class. On a tie the first of the tied classes.
    """
    flat = labels.ravel()
    votes = np.stack([np.bincount(flat, weights=plane.ravel()) for plane in confidence])
    winner = (votes.argmax(axis=0) + 1).astype(np.uint8)
    winner[0] = 0
    return np.asarray(winner[labels])


def pixel_classes(confidence: NDArray[np.uint8], threshold: float) -> NDArray[np.uint8]:
    """Return the most probable class of each pixel that exceeds the threshold: uint8 (c, h, w) → uint8 (h, w).

    0 is background, 1 the first class. On a tie the first of the tied classes.
    """
    classes: NDArray[np.uint8] = (confidence.argmax(axis=0) + 1).astype(np.uint8)
    classes[any_nucleus(confidence) <= threshold * 255] = 0
    return classes
