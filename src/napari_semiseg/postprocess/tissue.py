"""Where a slide shows tissue, and where only glass."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from napari_semiseg.blocks import Box

LARGE = 4096
"""Images whose longer side is at most this, in pixels, are looked at everywhere: there is little to gain."""

OVERVIEW = 2048
"""Longer side of the overview in which tissue is looked for, in pixels."""

_GLASS_LEVEL = 180  # of 255: the brightest part of a slide is glass only if it is as bright as this
_DIFFERENT = 10  # of 255, in any channel: more noise than that is not left in an overview
_MARGIN = 2  # overview pixels around tissue that count as tissue


@dataclass(frozen=True)
class TissueMask:
    """Which parts of an image are worth a prediction.

    Attributes
    ----------
    mask : ndarray of bool, (h, w)
        In pixels of the overview.
    shape : tuple of int
        Rows and columns of the image.
    """

    mask: NDArray[np.bool_]
    shape: tuple[int, int]

    def including(self, boxes: Iterable[Box]) -> TissueMask:
        """Return a mask that calls these rectangles of the image tissue as well."""
        more = TissueMask(self.mask.copy(), self.shape)
        for box in boxes:
            more._coarse(box)[:] = True
        return more

    def part(self, box: Box) -> NDArray[np.bool_]:
        """Return where there is tissue in a rectangle of the image, in the image's pixels."""
        rows = np.arange(box.y0, box.y1) * self.mask.shape[0] // self.shape[0]
        columns = np.arange(box.x0, box.x1) * self.mask.shape[1] // self.shape[1]
        return self.mask[np.ix_(rows, columns)]

    def any_in(self, box: Box) -> bool:
        """Whether there is tissue in a rectangle of the image."""
        return bool(self._coarse(box).any())

    def all_in(self, box: Box) -> bool:
        """Whether there is nothing but tissue in a rectangle of the image."""
        return bool(self._coarse(box).all())

    def share(self, box: Box) -> float:
        """Return how much of a rectangle of the image is tissue, 0 to 1: the mean of `part`, without making it."""
        rows, columns = (
            np.bincount(np.arange(low, high) * small // large - low * small // large)
            for low, high, small, large in zip(box[:2], box[2:], self.mask.shape, self.shape, strict=True)
        )
        return float(rows @ self._coarse(box) @ columns) / box.area

    def _coarse(self, box: Box) -> NDArray[np.bool_]:
        (height, width), (rows, columns) = self.mask.shape, self.shape
        top, left = box.y0 * height // rows, box.x0 * width // columns
        bottom, right = (box.y1 - 1) * height // rows, (box.x1 - 1) * width // columns
        return self.mask[top : bottom + 1, left : right + 1]


def find_tissue(overview: NDArray[np.uint8], shape: tuple[int, int]) -> TissueMask:
    """Find tissue on a bright field.

    Glass is what has the color of the brightest twentieth of the overview, within noise. Where that is not bright, as
    in fluorescence or where tissue fills the field, everything is tissue. Better a block too many than a nucleus
    missed: all that is not clearly glass counts, with a margin.

    Parameters
    ----------
    overview : ndarray, (h, w, 3), uint8
        The whole image, small.
    shape : tuple of int
        Rows and columns of the image.

    Returns
    -------
    TissueMask
    """
    luminance = overview.mean(axis=-1)
    brightest = overview[luminance >= np.percentile(luminance, 95)]
    glass = np.median(brightest, axis=0)
    if glass.min() < _GLASS_LEVEL:
        return TissueMask(np.ones(overview.shape[:2], bool), shape)
    tissue = (np.abs(overview - glass) > _DIFFERENT).any(axis=-1)
    return TissueMask(ndi.binary_dilation(tissue, np.ones((3, 3)), iterations=_MARGIN), shape)
