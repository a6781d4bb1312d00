"""What a threshold looks at to know an image as a whole. Free of torch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_semiseg.blocks import Box, cells
from napari_semiseg.io.images import Image
from napari_semiseg.postprocess.tissue import OVERVIEW, find_tissue

LARGEST = 4096
"""Images whose longer side is at most this, in pixels, are looked at whole."""
_CELL = 512
_SAMPLES = 24


class Typical(NamedTuple):
    """An image in short.

    Attributes
    ----------
    parts : list of ndarray, (h, w, 3), uint8
        The whole image, or samples of its tissue, at full resolution.
    look : ndarray, (h, w, 3), uint8
        The whole image, perhaps at a lower resolution.
    """

    parts: list[NDArray[np.uint8]]
    look: NDArray[np.uint8]


def typical_of(image: Image) -> Typical:
    """Return the whole of an image, or where it is large, samples of its tissue: the same at every call."""
    parts = [image.read(box) for box in typical_boxes(image)]
    return Typical(parts, parts[0] if max(image.shape) <= LARGEST else image.overview(OVERVIEW))


def typical_boxes(image: Image) -> list[Box]:
    """Return where the parts of `typical_of` lie, in pixels of the image."""
    if max(image.shape) <= LARGEST:
        return [Box.whole(image.shape)]
    tissue = find_tissue(image.overview(OVERVIEW), image.shape)
    parts = [cell for cell in cells(image.shape, _CELL) if tissue.any_in(cell)]
    full = [cell for cell in parts if tissue.share(cell) > 0.9] or parts or cells(image.shape, _CELL)
    return [full[place] for place in np.unique(np.linspace(0, len(full) - 1, _SAMPLES).astype(int))]
