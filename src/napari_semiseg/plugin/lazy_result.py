"""One level of a result, read where it is sliced."""

from __future__ import annotations

from typing import Literal

import numpy as np

from napari_semiseg.blocks import Box
from napari_semiseg.errors import InputError
from napari_semiseg.io.result import Result
from napari_semiseg.plugin.lazy_array import LazyArray

_NUMBERS = 252
"""Labels that are told apart in a byte: whole rounds of two, three, four, six or seven colors."""


class LazyLevel(LazyArray):
    """A level of a result that is whole.

    Parameters
    ----------
    result : Result
    kind : {"nuclei", "confidence"}
        Confidence is that of any nucleus.
    level : int
    """

    def __init__(self, result: Result, kind: Literal["nuclei", "confidence"], level: int) -> None:
        super().__init__(result.levels[level], np.uint32 if kind == "nuclei" else np.uint8)
        self._read = result.nuclei if kind == "nuclei" else result.nucleus_confidence
        self._level = level

    def read(self, box: Box) -> np.ndarray:
        """Read a rectangle, (h, w)."""
        return self._read(box, self._level)


class GrowingLevel(LazyLevel):
    """Outlines of the nuclei of a level that is being written, uint8; what is not there yet, or no longer, is 0.

    napari would draw the outlines of whole nuclei just as well, but needs five times as long, in the window's thread
    and each time that the view moves on.
    """

    def __init__(self, result: Result, level: int) -> None:
        super().__init__(result, "nuclei", level)
        self.dtype = np.dtype(np.uint8)

    def read(self, box: Box) -> np.ndarray:
        """Read as `LazyLevel` does, and keep the outlines."""
        try:
            return outlines(super().read(box))
        except InputError:  # taken away, or begun anew, while it is looked at
            return np.zeros(box.shape, self.dtype)


def outlines(labels: np.ndarray) -> np.ndarray:
    """Return where one of the four neighbors has another label, in numbers that napari colors as it would the labels.

    Parameters
    ----------
    labels : ndarray, uint32, (h, w)

    Returns
    -------
    ndarray, uint8, (h, w)
        From 1; 0 within nuclei and outside of them.
    """
    edge = np.zeros(labels.shape, bool)
    for here, there in (np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1]):
        other = labels[here] != labels[there]
        edge[here] |= other
        edge[there] |= other
    edge &= labels > 0
    drawn = np.zeros(labels.shape, np.uint8)
    drawn[edge] = (labels[edge] - 1) % _NUMBERS + 1
    return drawn
