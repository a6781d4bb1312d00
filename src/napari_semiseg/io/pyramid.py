"""Half-size images: the mean of confidences, the most frequent of labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_TOP = 512
"""The coarsest level is the first whose longer side is at most this, in pixels."""


def level_shapes(shape: tuple[int, int]) -> list[tuple[int, int]]:
    """Return rows and columns of every level, finest first; each is half of the one before, rounded up.

    Examples
    --------
    >>> level_shapes((1500, 1001))
    [(1500, 1001), (750, 501), (375, 251)]
    """
    shapes = [(int(shape[0]), int(shape[1]))]
    while max(shapes[-1]) > MAX_TOP:
        shapes.append((-(-shapes[-1][0] // 2), -(-shapes[-1][1] // 2)))
    return shapes


def halved_mean(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the rounded mean of each 2 x 2 square of the last two axes; an odd last row or column stands for two."""
    corners = [corner.astype(np.uint16) for corner in _corners(values)]
    return ((corners[0] + corners[1] + corners[2] + corners[3] + 2) >> 2).astype(np.uint8)


def halved_mode(labels: NDArray[Any]) -> NDArray[Any]:
    """Return the most frequent value of each 2 x 2 square of the last two axes; at ties the first in reading order."""
    a, b, c, d = _corners(labels)
    pair_elsewhere = (a != b) & (a != c) & (a != d)
    return np.where(pair_elsewhere & ((b == c) | (b == d)), b, np.where(pair_elsewhere & (c == d), c, a))


def _corners(values: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    rows, columns = values.shape[-2:]
    if rows % 2 or columns % 2:
        values = np.pad(values, [(0, 0)] * (values.ndim - 2) + [(0, rows % 2), (0, columns % 2)], mode="edge")
    return values[..., ::2, ::2], values[..., ::2, 1::2], values[..., 1::2, ::2], values[..., 1::2, 1::2]
