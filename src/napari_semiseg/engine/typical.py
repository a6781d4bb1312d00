"""What a threshold looks at to know an image as a whole. Free of torch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_semiseg.blocks import Box, cells
from napari_semiseg.errors import ReadError
from napari_semiseg.io.images import Image
from napari_semiseg.io.rescale import Readable, Rescaled, scaled_box
from napari_semiseg.postprocess.tissue import OVERVIEW, find_tissue

LARGEST = 4096
"""Images whose longer side is at most this, in pixels of the network, are looked at whole."""
_CELL = 512  # pixels of the network
_SAMPLES = 24


class Typical(NamedTuple):
    """An image in short.

    Attributes
    ----------
    parts : list of ndarray, (h, w, 3), uint8
        The whole image, or where it is large or cannot be read everywhere, samples of it, at the pixel size of the
        network.
    look : ndarray, (h, w, 3), uint8
        The whole image, perhaps at a lower resolution.
    """

    parts: list[NDArray[np.uint8]]
    look: NDArray[np.uint8]


def typical_of(image: Image, scale: float = 1.0) -> Typical:
    """Return the whole of an image, or where it is large, samples of its tissue: the same at every call.

    Parts that cannot be read are left out, and named in ``image.unread`` then.

    Parameters
    ----------
    image : Image
    scale : float
        Network pixels per image pixel: what is found in the parts holds for an image only at that size.

    Raises
    ------
    ReadError
        If no part can be read, or many next to each other cannot.
    """
    source: Readable = image if scale == 1.0 else Rescaled(image, scale)
    boxes = _boxes(image, scale)
    if len(boxes) == 1:
        try:
            whole = source.read(scaled_box(boxes[0], scale))
            return Typical([whole], whole if scale == 1.0 else image.overview(OVERVIEW))
        except ReadError:
            boxes = cells(image.shape, _side(scale))
    edge = scaled_box(Box.whole(image.shape), scale)
    parts = image.readable(boxes, lambda box: source.read(scaled_box(box, scale).intersect(edge)))
    return Typical([pixels for _, pixels in parts], image.overview(OVERVIEW))


def _boxes(image: Image, scale: float) -> list[Box]:
    """Return where the parts lie, in pixels of the image."""
    if max(image.shape) * scale <= LARGEST:
        return [Box.whole(image.shape)]
    tissue = find_tissue(image.overview(OVERVIEW), image.shape)
    parts = cells(image.shape, _side(scale))
    some = [cell for cell in parts if tissue.any_in(cell)]
    full = [cell for cell in some if tissue.share(cell) > 0.9] or some or parts
    return [full[place] for place in np.unique(np.linspace(0, len(full) - 1, _SAMPLES).astype(int))]


def _side(scale: float) -> int:
    return max(1, round(_CELL / scale))
