"""One level of a result, read where it is sliced."""

from __future__ import annotations

from typing import Literal

import numpy as np

from napari_semiseg.blocks import Box
from napari_semiseg.errors import InputError
from napari_semiseg.io.result import Result
from napari_semiseg.plugin.lazy_array import LazyArray


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
    """Outlines of the nuclei of a level that is being written: what is not there yet, or no longer, is 0.

    napari would draw the outlines of whole nuclei just as well, but needs three times as long, in the window's thread
    and each time that the view moves on.
    """

    def read(self, box: Box) -> np.ndarray:
        """Read as `LazyLevel` does, without what lies within a nucleus."""
        try:
            return outlines(super().read(box))
        except InputError:  # taken away, or begun anew, while it is looked at
            return np.zeros(box.shape, self.dtype)


def outlines(labels: np.ndarray) -> np.ndarray:
    """Return labels, (h, w), where one of the four neighbors has another, and 0 elsewhere."""
    within = np.ones(labels.shape, bool)
    for here, there in (np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1]):
        same = labels[here] == labels[there]
        within[here] &= same
        within[there] &= same
    return np.where(within, labels.dtype.type(0), labels)
