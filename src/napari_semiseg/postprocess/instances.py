"""From confidence to nuclei: touching nuclei are parted where the map between them sinks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from napari_semiseg.blocks import Box
from napari_semiseg.errors import InputError
from napari_semiseg.postprocess.distance import distance_to_background
from napari_semiseg.postprocess.smoothing import reach, smoothed

SMOOTHING = 1.5
"""Gaussian sigma, in pixels of `MPP` µm, of the landscape in which summits are looked for."""

PROMINENCE = 0.6
"""Height, in pixels of `MPP` µm, by which a summit must stand out at split strength 0.5."""

MIN_AREA = 50
"""Smallest nucleus, in pixels of `MPP` µm."""

MIN_AREA_UM2 = 3.0
"""Smallest nucleus, in µm²: two in a hundred annotated nuclei of H&E at 40x are smaller."""

MPP = 0.25
"""Pixel size, in µm, for which these were chosen: by AJI on the training part of MoNuSeg, on true masks, on masks of
the hematoxylin threshold, and on the confidence of a small U-Net that had been trained on other images of that part."""

_EVERY_NEIGHBOR = np.ones((3, 3), dtype=bool)
_Ids = NDArray[np.integer[Any]]


def split_nuclei(
    confidence: NDArray[Any],
    *,
    threshold: float = 0.5,
    strength: float = 0.5,
    min_area: int = MIN_AREA,
    mpp: float | None = None,
    wanted: Box | None = None,
) -> NDArray[np.uint32]:
    """Find the nuclei in a map of confidence.

    Foreground is where confidence exceeds the threshold, with holes smaller than a nucleus filled and specks removed.
    In it a landscape is raised: the distance to the background, in pixels, times the confidence, smoothed. Every pixel
    belongs to the summit that steepest ascent leads it to; summits that do not stand out from the pass to a higher one
    by more than ``h = PROMINENCE (1 / strength - 1)`` are joined to it. This is the watershed from the h-maxima
    of the landscape, without the gray-scale reconstruction, which would take most of the time.

    Parameters
    ----------
    confidence : ndarray, (h, w), uint8 or float
        Probability of nucleus: 0 to 255 for uint8, 0 to 1 for float.
    threshold : float, in [0, 1]
        Foreground has more than this.
    strength : float, in [0, 1]
        How readily touching nuclei are parted: 0 never (plain connected components), 1 at every summit.
    min_area : int, in pixels
        Nothing smaller is a nucleus, and no smaller part is split off.
    mpp : float, optional
        Pixel size in µm; `SMOOTHING` and `PROMINENCE` are brought to it. `MPP` where it is not known.
    wanted : Box, optional
        A part of the map: only clusters that reach into it are looked at, all of each.

    Returns
    -------
    ndarray, (h, w), uint32
        0 background, nuclei 1 to N in the order of their first pixels, row by row. Pixels that touch at a corner are
        connected.

    References
    ----------
    P. Soille, "Morphological Image Analysis", 2nd ed., 2004, sections 6.3.4 (h-maxima) and 9.2 (watershed).

    Examples
    --------
    >>> import numpy as np
    >>> y, x = np.mgrid[:40, :70]
    >>> touching = ((y - 20) ** 2 + (x - 20) ** 2 < 225) | ((y - 20) ** 2 + (x - 46) ** 2 < 225)
    >>> [int(split_nuclei(touching * 1.0, strength=s).max()) for s in (0, 0.5)]
    [1, 2]
    """
    labels = np.zeros(confidence.shape, np.uint32)
    mask = _cleaned(_above(confidence, threshold), min_area, wanted)
    zoom = min(4.0, max(0.25, MPP / (mpp or MPP)))
    part = _surroundings(mask, 1 + reach(SMOOTHING * zoom))
    if part.area:
        labels[part.slices] = _parted(mask[part.slices], confidence[part.slices], strength, min_area, zoom)
    return labels


def smallest_area(mpp: float | None, pixels: int | None = None, um2: float | None = None) -> int:
    """Return the area of the smallest nucleus, in pixels, at least 1.

    Parameters
    ----------
    mpp : float or None
        Size of a pixel, in µm; None where it is not known.
    pixels, um2 : optional
        The area that is asked for, in pixels or in µm². Without either it is `MIN_AREA_UM2`, or `MIN_AREA` where the
        size of a pixel is not known.

    Raises
    ------
    InputError
        If both are given, or µm² without the size of a pixel.
    """
    if pixels is not None:
        if um2 is not None:
            raise InputError("The smallest nucleus is given in pixels and in µm²: give one of them.")
        return pixels
    if mpp is None:
        if um2 is not None:
            raise InputError(
                "The smallest nucleus is given in µm², and the pixel size of the image is not known: give that too "
                "(mpp), or the smallest nucleus in pixels (min_area)."
            )
        return MIN_AREA
    return max(1, round((MIN_AREA_UM2 if um2 is None else um2) / mpp**2))


def _above(confidence: NDArray[Any], threshold: float) -> NDArray[np.bool_]:
    whole_numbers = confidence.dtype == np.uint8
    return np.asarray(confidence > (np.uint8(threshold * 255) if whole_numbers else threshold))


def _cleaned(mask: NDArray[np.bool_], min_area: int, wanted: Box | None = None) -> NDArray[np.bool_]:
    """Fill holes and remove specks smaller than `min_area` pixels; a hole that is open to the border is none."""
    parts, count = ndi.label(_filled(mask, min_area), _EVERY_NEIGHBOR)
    inside = np.flatnonzero(parts != 0)
    part = parts.ravel()[inside]
    keep = np.bincount(part, minlength=count + 1) >= min_area
    if wanted is not None:
        keep &= np.bincount(part[_within(wanted, inside, mask.shape[1])], minlength=count + 1) > 0
    kept = np.zeros(mask.size, bool)
    kept[inside[keep[part]]] = True
    return kept.reshape(mask.shape)


def _within(box: Box, places: NDArray[np.intp], width: int) -> NDArray[np.bool_]:
    """Say which places, flat in an image of so many columns, lie in a rectangle."""
    row, column = np.divmod(places, width)
    return (row >= box.y0) & (row < box.y1) & (column >= box.x0) & (column < box.x1)


def _filled(mask: NDArray[np.bool_], min_area: int) -> NDArray[np.bool_]:
    background = ~mask
    holes, count = ndi.label(background)
    border = np.concatenate([holes[0], holes[-1], holes[:, 0], holes[:, -1]])
    open_ = np.bincount(border, minlength=count + 1)
    open_[0] = 0
    widest = open_.argmax()  # nearly all of the background, which need not be looked at pixel by pixel
    inside = np.flatnonzero(background & (holes != widest))
    hole = holes.ravel()[inside]
    fill = (np.bincount(hole, minlength=count + 1) < min_area) & (open_ == 0)
    filled = mask.copy()
    filled.ravel()[inside[fill[hole]]] = True
    return filled


def _surroundings(mask: NDArray[np.bool_], margin: int) -> Box:
    """Return the part that holds the mask, with a margin as far as the image goes; empty where the mask is.

    With a margin of background as wide as what is computed can see, it comes out there as in the whole image.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return Box(0, 0, 0, 0)
    held = Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
    return held.grown(margin).intersect(Box.whole(mask.shape))


def _parted(
    mask: NDArray[np.bool_], confidence: NDArray[Any], strength: float, min_area: int, zoom: float
) -> NDArray[np.uint32]:
    """Part what touches in a mask of nuclei; see `split_nuclei`."""
    labels = np.zeros(mask.shape, np.uint32)
    if strength <= 0:
        labels[mask] = _numbered(ndi.label(mask, _EVERY_NEIGHBOR)[0][mask])
        return labels
    landscape = _Landscape.over(mask, _height(mask, confidence, SMOOTHING * zoom))
    basins, summits = _ascend(landscape)
    if len(summits) > 2:
        basins = _join(landscape, basins, summits, PROMINENCE * zoom * (1 / strength - 1), min_area)[basins]
    labels[mask] = _numbered(basins)
    return labels


@dataclass(frozen=True)
class _Landscape:
    """A landscape on a mask, with a frame of one pixel, flat: every pixel of the mask has 8 neighbors in it.

    Attributes
    ----------
    height : ndarray of float32, (frame,)
        -1 outside of the mask.
    inside : ndarray of int, (n,)
        Where the pixels of the mask lie in it, row by row.
    width : int
        Of the frame.
    """

    height: NDArray[np.float32]
    inside: NDArray[np.intp]
    width: int

    @classmethod
    def over(cls, mask: NDArray[np.bool_], height: NDArray[np.float32]) -> _Landscape:
        """Lay heights, (h, w), over a mask."""
        framed = np.pad(mask, 1)
        inside = np.flatnonzero(framed)
        flat = np.full(framed.size, -1, np.float32)
        flat[inside] = height[mask]
        return cls(flat, inside, framed.shape[1])


def _height(mask: NDArray[np.bool_], confidence: NDArray[Any], sigma: float) -> NDArray[np.float32]:
    height = distance_to_background(mask)
    height *= confidence.astype(np.float32) * (1 / 255 if confidence.dtype == np.uint8 else 1)
    return smoothed(height, sigma)


def _ascend(landscape: _Landscape) -> tuple[_Ids, NDArray[np.float32]]:
    """Follow steepest ascent from every pixel of the mask, among all 8 neighbors.

    Returns
    -------
    basins : ndarray of int, (n,)
        The number of the summit that each pixel reaches, from 1.
    summits : ndarray of float32, (N + 1,)
        Height of each summit. A plateau has many, which differ by nothing and are joined for it.
    """
    inside, width = landscape.inside, landscape.width
    uphill, highest = inside.copy(), landscape.height[inside]
    for step in (-width, -1, 1, width, -width - 1, -width + 1, width - 1, width + 1):
        beside = inside + step
        there = landscape.height[beside]
        np.copyto(uphill, beside, where=there > highest)
        np.maximum(highest, there, out=highest)
    place = np.empty(landscape.height.size, np.intp)
    place[inside] = np.arange(inside.size)
    goal = place[uphill]
    while not np.array_equal(further := goal[goal], goal):
        goal = further
    is_summit = goal == np.arange(goal.size)
    return np.cumsum(is_summit)[goal], np.append(np.float32(0), landscape.height[inside[is_summit]])


def _saddles(landscape: _Landscape, basins: _Ids) -> tuple[_Ids, _Ids, NDArray[np.float32]]:
    """Return pairs of neighboring basins with the height of the pass between them, highest first."""
    inside, height, width = landscape.inside, landscape.height, landscape.width
    basin = np.zeros(height.size, np.int32)
    basin[inside] = basins
    base = int(basins.max()) + 1
    pairs, passes = [], []
    for step in (1, width, width + 1, width - 1):
        other = basin[inside + step]
        border = np.flatnonzero((basins != other) & (other > 0))
        here, a, b = inside[border], basins[border], other[border]
        pairs.append(np.minimum(a, b).astype(np.int64) * base + np.maximum(a, b))
        passes.append(np.minimum(height[here], height[here + step]))
    pair, level = np.concatenate(pairs), np.concatenate(passes)
    order = np.lexsort((pair, -level))
    _, first = np.unique(pair[order], return_index=True)
    first.sort()
    one, other = np.divmod(pair[order][first], base)
    return one, other, level[order][first]


def _join(landscape: _Landscape, basins: _Ids, summits: NDArray[np.float32], prominence: float, min_area: int) -> _Ids:
    """Join basins over their passes, highest pass first, unless both sides stand out and are large enough.

    Returns
    -------
    ndarray of int, (N + 1,)
        For each basin the basin that stands for it.
    """
    root = list(range(len(summits)))
    height = summits.tolist()
    area = np.bincount(basins, minlength=len(summits)).tolist()

    def find(basin: int) -> int:
        while root[basin] != basin:
            root[basin] = root[root[basin]]
            basin = root[basin]
        return basin

    for one, other, level in zip(*(values.tolist() for values in _saddles(landscape, basins)), strict=True):
        high, low = find(one), find(other)
        if high == low:
            continue
        if height[high] < height[low]:
            high, low = low, high
        if height[low] - level <= prominence or min(area[high], area[low]) < min_area:
            root[low] = high
            area[high] += area[low]
    return np.array([find(basin) for basin in range(len(summits))])


def _numbered(labels: NDArray[Any]) -> NDArray[np.uint32]:
    """Renumber the labels of pixels, (n,), from 1 in the order in which they first come; 0 is none of them."""
    first = first_places(labels)
    number = np.zeros(len(first), np.uint32)
    present = np.flatnonzero(first < labels.size)
    number[present[np.argsort(first[present])]] = np.arange(1, len(present) + 1)
    renumbered: NDArray[np.uint32] = number[labels]
    return renumbered


def first_places(labels: NDArray[Any]) -> NDArray[np.intp]:
    """Return for each number from 0 where it first comes in labels, (n,); n where it does not."""
    first = np.full(int(labels.max(initial=0)) + 1, labels.size, np.intp)
    first[labels[::-1]] = np.arange(labels.size)[::-1]  # the last assignment stays
    return first
