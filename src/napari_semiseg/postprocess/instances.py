"""From confidence to nuclei: touching nuclei are parted where the map between them sinks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from napari_semiseg.blocks import Box
from napari_semiseg.postprocess.distance import distance_to_background

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
    mask = confidence > threshold * (255 if confidence.dtype == np.uint8 else 1)
    if not mask.any():
        return np.zeros(mask.shape, np.uint32)
    mask = _cleaned(mask, min_area, wanted)
    if strength <= 0:
        return _numbered(ndi.label(mask, _EVERY_NEIGHBOR)[0])
    zoom = min(4.0, max(0.25, MPP / (mpp or MPP)))
    landscape = _landscape(mask, confidence, SMOOTHING * zoom)
    basins, summits = _ascend(landscape, mask)
    if len(summits) <= 1:
        return _numbered(basins)
    joined = _join(basins, landscape, summits, PROMINENCE * zoom * (1 / strength - 1), min_area)
    return _numbered(joined[basins])


def smallest_area(mpp: float | None) -> int:
    """Return the area of the smallest nucleus, in pixels of `mpp` µm: `MIN_AREA` where that is unknown, at least 1."""
    return MIN_AREA if mpp is None else max(1, round(MIN_AREA_UM2 / mpp**2))


def _cleaned(mask: NDArray[np.bool_], min_area: int, wanted: Box | None = None) -> NDArray[np.bool_]:
    """Fill holes and remove specks smaller than `min_area` pixels; a hole that is open to the border is none."""
    holes, count = ndi.label(~mask)
    area = np.bincount(holes.ravel(), minlength=count + 1)
    fill = area < min_area
    for edge in (holes[0], holes[-1], holes[:, 0], holes[:, -1]):
        fill[edge] = False
    fill[0] = False
    parts, count = ndi.label(mask | fill[holes], _EVERY_NEIGHBOR)
    keep = np.bincount(parts.ravel(), minlength=count + 1) >= min_area
    keep[0] = False
    if wanted is not None:
        keep &= np.bincount(parts[wanted.slices].ravel(), minlength=count + 1) > 0
    kept: NDArray[np.bool_] = keep[parts]
    return kept


def _landscape(mask: NDArray[np.bool_], confidence: NDArray[Any], sigma: float) -> NDArray[np.float32]:
    height = distance_to_background(mask)
    height *= confidence.astype(np.float32) * (1 / 255 if confidence.dtype == np.uint8 else 1)
    smooth: NDArray[np.float32] = ndi.gaussian_filter(height, sigma)
    return smooth


def _ascend(landscape: NDArray[np.float32], mask: NDArray[np.bool_]) -> tuple[_Ids, NDArray[np.float32]]:
    """Follow steepest ascent from every pixel of the mask, among all 8 neighbors.

    Returns
    -------
    basins : ndarray of int, (h, w)
        0 outside the mask, else the number of the summit that is reached, from 1.
    summits : ndarray of float32, (N + 1,)
        Height of each summit. A plateau has many, which differ by nothing and are joined for it.
    """
    padded = np.pad(np.where(mask, landscape, -1), 1, constant_values=-1).ravel()
    width = mask.shape[1] + 2
    inside = np.flatnonzero(np.pad(mask, 1)).astype(np.int32)
    uphill, highest = inside.copy(), padded[inside]
    for step in (-width, -1, 1, width, -width - 1, -width + 1, width - 1, width + 1):
        there = padded[inside + step]
        higher = there > highest
        uphill[higher] = inside[higher] + step
        highest = np.maximum(highest, there)
    place = np.zeros(padded.size, np.int32)
    place[inside] = np.arange(inside.size)
    goal = place[uphill]
    while not np.array_equal(further := goal[goal], goal):
        goal = further
    is_summit = goal == np.arange(goal.size)
    basins = np.zeros(mask.shape, np.int32)
    basins[mask] = np.cumsum(is_summit)[goal]
    return basins, np.append(np.float32(0), padded[inside[is_summit]])


def _saddles(basins: _Ids, landscape: NDArray[np.float32]) -> tuple[_Ids, _Ids, NDArray[np.float32]]:
    """Return pairs of neighboring basins with the height of the pass between them, highest first."""
    width = basins.shape[1] + 2
    basin, height = np.pad(basins, 1).ravel(), np.pad(landscape, 1).ravel()
    inside = np.flatnonzero(basin)
    base = int(basin.max()) + 1
    pairs, passes = [], []
    for step in (1, width, width + 1, width - 1):
        a, b = basin[inside], basin[inside + step]
        border = (a != b) & (b > 0)
        here, a, b = inside[border], a[border], b[border]
        pairs.append(np.minimum(a, b).astype(np.int64) * base + np.maximum(a, b))
        passes.append(np.minimum(height[here], height[here + step]))
    pair, level = np.concatenate(pairs), np.concatenate(passes)
    order = np.lexsort((pair, -level))
    _, first = np.unique(pair[order], return_index=True)
    first.sort()
    one, other = np.divmod(pair[order][first], base)
    return one, other, level[order][first]


def _join(
    basins: _Ids, landscape: NDArray[np.float32], summits: NDArray[np.float32], prominence: float, min_area: int
) -> _Ids:
    """Join basins over their passes, highest pass first, unless both sides stand out and are large enough.

    Returns
    -------
    ndarray of int, (N + 1,)
        For each basin the basin that stands for it.
    """
    root = list(range(len(summits)))
    height = summits.tolist()
    area = np.bincount(basins.ravel(), minlength=len(summits)).tolist()

    def find(basin: int) -> int:
        while root[basin] != basin:
            root[basin] = root[root[basin]]
            basin = root[basin]
        return basin

    for one, other, level in zip(*(values.tolist() for values in _saddles(basins, landscape)), strict=True):
        high, low = find(one), find(other)
        if high == low:
            continue
        if height[high] < height[low]:
            high, low = low, high
        if height[low] - level <= prominence or min(area[high], area[low]) < min_area:
            root[low] = high
            area[high] += area[low]
    return np.array([find(basin) for basin in range(len(summits))])


def first_pixels(labels: NDArray[Any]) -> NDArray[np.intp]:
    """Return for each label from 0 the index of its first pixel, row by row; the array's size where there is none."""
    flat = labels.ravel()
    first = np.full(int(labels.max(initial=0)) + 1, labels.size, np.intp)
    found = np.flatnonzero(flat)[::-1]
    first[flat[found]] = found  # the last assignment stays
    return first


def _numbered(labels: NDArray[Any]) -> NDArray[np.uint32]:
    """Renumber labels from 1 in the order of their first pixels, row by row."""
    first = first_pixels(labels)
    present = np.flatnonzero(first < labels.size)
    number = np.zeros(len(first), np.uint32)
    number[present[np.argsort(first[present])]] = np.arange(1, len(present) + 1)
    renumbered: NDArray[np.uint32] = number[labels]
    return renumbered
