"""Whether an image is stained with one dye only, so that darkness tells its nuclei better than hematoxylin does.

To unmix hematoxylin from eosin costs contrast: it weighs the channels against each other. Where there is no eosin, and
no DAB, nothing has to be unmixed; what a purple dye absorbs most is green light. Whether there is a second dye is seen
by comparing both: it absorbs green as well, but is no hematoxylin, and so the two mark different places.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from skimage.filters import threshold_otsu

from napari_semiseg import metrics
from napari_semiseg.blocks import cells
from napari_semiseg.postprocess.threshold import Stain, density, find_stain

AGREEMENT = 0.8
"""Dice of the two masks from which on there is one dye: `docs/decisions/one-dye.md`."""

_CELL = 512
_ENOUGH = 8  # cells that are looked at, evenly spaced: two megapixels


def best_stain(parts: Sequence[NDArray[np.uint8]], look: NDArray[np.uint8], *, gray: bool) -> Stain:
    """Find what nuclei stand out by, as `find_stain` does, and ``green`` where there is a single dye.

    Parameters
    ----------
    parts : sequence of ndarray, (h, w, 3), uint8
        The whole image, or samples of its tissue, at full resolution: seen from afar tissue and glass would be told
        apart, and by any dye alike.
    look : ndarray, (h, w, 3), uint8
        The whole image, perhaps at a lower resolution.
    gray : bool
        Whether the file has one channel.

    Returns
    -------
    {"hematoxylin", "green", "intensity", "inverted"}
    """
    stain = find_stain(look, gray)
    return "green" if stain == "hematoxylin" and agreement(parts) >= AGREEMENT else stain


def agreement(parts: Sequence[NDArray[np.uint8]]) -> float:
    """Return the Dice, in [0, 1], of where Otsu's thresholds find hematoxylin and where they find green light absorbed.

    Parameters
    ----------
    parts : sequence of ndarray, (h, w, 3), uint8

    Returns
    -------
    float
        0 where either finds nothing.
    """
    some = _samples(parts)
    stained, dark = (_above(some, stain) for stain in ("hematoxylin", "green"))
    return metrics.dice(metrics.confusion(stained, dark)) if stained.any() else 0.0


def _samples(parts: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    every = [part[cell.slices] for part in parts for cell in cells(part.shape[:2], _CELL)]
    return [every[place] for place in np.unique(np.linspace(0, len(every) - 1, _ENOUGH).astype(int))]


def _above(parts: Sequence[NDArray[np.uint8]], stain: Stain) -> NDArray[np.bool_]:
    values = np.concatenate([density(part, stain).ravel() for part in parts])
    above: NDArray[np.bool_] = values > threshold_otsu(values)  # type: ignore[no-untyped-call]
    return above
