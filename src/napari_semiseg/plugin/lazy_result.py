"""One level of a result, read where it is sliced."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from napari_semiseg.blocks import Box
from napari_semiseg.errors import InputError
from napari_semiseg.io.overlay import outlines
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


class GrowingLevel(LazyArray):
    """Outlines of the nuclei of a level that is being written, uint8; what is not there yet, or no longer, is 0.

    napari would draw the outlines of whole nuclei just as well, but needs five times as long, in the window's thread
    and each time that the view moves on.
    """

    def __init__(self, result: Result, level: int) -> None:
        super().__init__(result.levels[level], np.uint8)
        self._result, self._level = result, level

    def read(self, box: Box) -> np.ndarray:
        """Read nuclei, and keep their outlines, (h, w)."""
        try:
            return numbered_outlines(self._result.nuclei(box, self._level))
        except InputError:  # taken away, or begun anew, while it is looked at
            return np.zeros(box.shape, self.dtype)


def numbered_outlines(labels: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """Return outlines of nuclei, (h, w), in numbers from 1 that napari colors as it would the labels; 0 elsewhere."""
    edge = outlines(labels)
    numbers = np.zeros(labels.shape, np.uint8)
    numbers[edge] = (labels[edge] - 1) % _NUMBERS + 1
    return numbers
