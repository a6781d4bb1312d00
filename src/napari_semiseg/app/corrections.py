"""Corrections of proposed nuclei, each one gesture: accept, delete, cut, join, redraw.

A gesture is a path over a tile. What it does is told by where it leads, so that nobody changes a tool in between:

- around something and back to its beginning: what is inside becomes the nucleus that was there, or a new one;
- from one nucleus into another: all that it crosses become one;
- across nuclei: each is cut in two;
- a click on a proposed nucleus accepts it.

Every correction is pixels and their new numbers, to be written with one entry in the undo history.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.draw import line, polygon

from napari_semiseg.app.painting import (
    BACKGROUND_ID,
    PROPOSED_FROM,
    accepted_numbers,
    drawn_numbers,
    is_proposed,
    next_id,
    proposed_numbers,
)
from napari_semiseg.project.tile_annotation import ACCEPTED_FROM, ACCEPTED_TO

Gesture = Literal["accept", "delete", "cut", "join", "redraw", "draw", "class"]
Point = tuple[float, float]

LEAST_PART = 12
"""Pixels that a nucleus has at least: a cut that leaves less on one side is none, nor is a smaller ring."""
CLOSED = 0.2
"""A path whose ends are nearer to each other than this part of its length goes around something."""
SAME = 0.3
"""A ring redraws a nucleus where it covers this part of it, or the nucleus this part of the ring."""


@dataclass(frozen=True)
class Correction:
    """Pixels of a tile, and the numbers that they get.

    Attributes
    ----------
    gesture : Gesture
    where : tuple of arrays
        Rows and columns.
    numbers : array, integer
        One for each pixel.
    heirs : dict of int to int
        For each number that is new, the one whose class it takes over.
    """

    gesture: Gesture
    where: tuple[NDArray[np.intp], ...]
    numbers: NDArray[np.int64]
    heirs: dict[int, int] = field(default_factory=dict)

    def reversed(self, labels: NDArray[Any]) -> Correction:
        """Return what takes this back; `labels` is what it was made for."""
        return replace(self, numbers=labels[self.where].astype(np.int64), heirs={})

    def only(self, pixels: NDArray[np.bool_]) -> Correction | None:
        """Return the part for some of its pixels, (n,); None where that is nothing."""
        if not pixels.any():
            return None
        return replace(self, where=tuple(axis[pixels] for axis in self.where), numbers=self.numbers[pixels])


def is_nucleus(number: int) -> bool:
    """Whether a number in the layer is a nucleus."""
    return 0 < number < BACKGROUND_ID


def accept(labels: NDArray[Any], number: int) -> Correction | None:
    """Accept a proposed nucleus; None where it is none."""
    if not is_proposed(number):
        return None
    where = np.nonzero(labels == number)
    new = int(accepted_numbers(labels, 1)[0])
    return Correction("accept", where, np.full(where[0].size, new), {new: number})


def accept_all(labels: NDArray[Any]) -> Correction | None:
    """Accept every proposed nucleus; None where there is none."""
    where = np.nonzero((labels >= PROPOSED_FROM) & (labels < BACKGROUND_ID))
    if not where[0].size:
        return None
    ids, places = np.unique(labels[where], return_inverse=True)
    fresh = accepted_numbers(labels, ids.size)
    return Correction("accept", where, fresh[places], dict(zip(fresh.tolist(), ids.tolist(), strict=True)))


def reclass(labels: NDArray[Any], number: int) -> Correction | None:
    """Make a nucleus one of another class, by which a proposed one is accepted; None where there is none.

    It gets a new number, so that undo gives it back the class that it had.
    """
    if not is_nucleus(number):
        return None
    where = np.nonzero(labels == number)
    if not where[0].size:
        return None
    new = int(accepted_numbers(labels, 1)[0]) if number >= ACCEPTED_FROM else next_id(labels)
    return Correction("class", where, np.full(where[0].size, new))


def delete(labels: NDArray[Any], number: int) -> Correction | None:
    """Delete a nucleus; None where it is none."""
    if not is_nucleus(number):
        return None
    where = np.nonzero(labels == number)
    return Correction("delete", where, np.zeros(where[0].size, np.int64))


def apart(
    correction: Correction, kinds: Mapping[int, int], labels: NDArray[Any], class_of: Mapping[int, int]
) -> tuple[Correction, dict[int, int]]:
    """Renumber what would get the number that a nucleus of another class has had: undo may bring that one back.

    Parameters
    ----------
    correction : Correction
    kinds : mapping of int to int
        Class of each of its new numbers.
    labels : array, (h, w), integer
        What it was made for.
    class_of : mapping of int to int
        Class of every number that this tile has had.

    Returns
    -------
    Correction
    kinds : dict of int to int
        Of its numbers as they are now.
    """
    had = [number for number, kind in kinds.items() if class_of.get(number, kind) != kind]
    if not had:
        return correction, dict(kinds)
    taken = np.concatenate([labels.ravel(), correction.numbers, np.array([*class_of], np.int64)])
    new: dict[int, int] = {}
    for start, stop, fresh in (
        (1, ACCEPTED_FROM, drawn_numbers),
        (ACCEPTED_FROM, ACCEPTED_TO, accepted_numbers),
        (PROPOSED_FROM, BACKGROUND_ID, proposed_numbers),
    ):
        old = [number for number in had if start <= number < stop]
        new |= dict(zip(old, fresh(taken, len(old)).tolist(), strict=True))
    ids, places = np.unique(correction.numbers, return_inverse=True)
    numbers = np.array([new.get(number, number) for number in ids.tolist()], np.int64)[places]
    return replace(correction, numbers=numbers), {new.get(number, number): kind for number, kind in kinds.items()}


def decide(labels: NDArray[Any], mask: NDArray[np.bool_], accepted: bool) -> Correction | None:
    """Write down a word on a nucleus that was found: it is one, or what it covers is background.

    What was painted by hand stays; None where that is half of it or more: the word has been said with the brush.
    """
    free = (labels == 0) | (labels == BACKGROUND_ID) | ((labels >= PROPOSED_FROM) & (labels < BACKGROUND_ID))
    where = np.nonzero(mask & free)
    if 2 * where[0].size <= np.count_nonzero(mask):
        return None
    number = int(accepted_numbers(labels, 1)[0]) if accepted else BACKGROUND_ID
    return Correction("accept" if accepted else "delete", where, np.full(where[0].size, number))


def correct(labels: NDArray[Any], path: Sequence[Point]) -> Correction | None:
    """Find out what a gesture means, and what it changes.

    Parameters
    ----------
    labels : array, (h, w), integer
        What is painted; not changed.
    path : sequence of (y, x)
        Where the mouse went, in pixels; it may leave the tile. One point is a click.

    Returns
    -------
    Correction or None
        None where the gesture means nothing there.
    """
    points = np.asarray(path, float).reshape(-1, 2)
    first, last = (_number_at(labels, point) for point in (points[0], points[-1]))
    steps = np.hypot(*np.diff(points, axis=0).T) if len(points) > 1 else np.zeros(0)
    if steps.sum() < 2:
        return accept(labels, first)
    if np.hypot(*(points[-1] - points[0])) <= CLOSED * steps.sum():
        ring = redraw(labels, points)
        if ring is not None:
            return ring
    if is_nucleus(first) and is_nucleus(last) and first != last:
        return join(labels, points)
    return cut(labels, points)


def redraw(labels: NDArray[Any], points: NDArray[np.float64]) -> Correction | None:
    """Make what a path goes around one nucleus: the one that it mostly covers, or a new one. Neighbors are spared."""
    inside = np.zeros(labels.shape, bool)
    inside[polygon(points[:, 0], points[:, 1], labels.shape)] = True  # type: ignore[no-untyped-call]
    if np.count_nonzero(inside) < LEAST_PART:
        return None
    ids, common = np.unique(labels[inside], return_counts=True)
    nuclei = (ids > 0) & (ids < BACKGROUND_ID)
    old = 0
    if nuclei.any():
        best = int(np.argmax(np.where(nuclei, common, 0)))
        smaller = min(np.count_nonzero(inside), np.count_nonzero(labels == ids[best]))
        old = int(ids[best]) if common[best] >= SAME * smaller else 0
    free = inside & ((labels == 0) | (labels == BACKGROUND_ID) | (labels == old))
    if np.count_nonzero(free) < LEAST_PART:
        return None
    new = next_id(labels)
    where = np.nonzero(free | ((labels == old) & (old > 0)))
    return Correction("redraw" if old else "draw", where, np.where(free[where], new, 0), {new: old} if old else {})


def join(labels: NDArray[Any], points: NDArray[np.float64]) -> Correction | None:
    """Make one nucleus of all that a path crosses, and of the free pixels between them that it goes over."""
    seen = _drawn(points, labels.shape)
    ids = np.unique(labels[seen])
    ids = ids[(ids > 0) & (ids < BACKGROUND_ID)]
    if ids.size < 2:
        return None
    bridge = ndimage.binary_dilation(seen) & (labels == 0)
    new = next_id(labels)
    where = np.nonzero(np.isin(labels, ids) | bridge)
    heir = max(ids.tolist(), key=lambda number: np.count_nonzero(labels == number))
    return Correction("join", where, np.full(where[0].size, new), {new: heir})


def cut(labels: NDArray[Any], points: NDArray[np.float64]) -> Correction | None:
    """Cut every nucleus that a path crosses from side to side; the pixels of the cut go to the nearer part."""
    seen = _drawn(points, labels.shape)
    ids = np.unique(labels[seen])
    numbers = labels.astype(np.int64)
    heirs: dict[int, int] = {}
    for number in ids[(ids > 0) & (ids < BACKGROUND_ID)].tolist():
        around = _around(labels == number)
        parts = _parts(labels[around] == number, seen[around])
        for part in range(1, int(parts.max()) + 1):
            new = next_id(numbers)
            numbers[around][parts == part] = new
            heirs[new] = number
    where = np.nonzero(numbers != labels)
    return Correction("cut", where, numbers[where], heirs) if heirs else None


def _parts(whole: NDArray[np.bool_], seen: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return the number, from 1, of the part of a nucleus that a pixel is in; 0 everywhere where there is one."""
    found, count = ndimage.label(whole & ~seen)
    sizes = np.bincount(found.ravel(), minlength=count + 1)
    large = sizes >= LEAST_PART
    large[0] = False
    if np.count_nonzero(large) < 2:
        return np.zeros(whole.shape, np.intp)
    parts = (np.cumsum(large) * large)[found]
    nearest = ndimage.distance_transform_edt(parts == 0, return_distances=False, return_indices=True)
    return np.where(whole, parts[tuple(nearest)], 0)


def _around(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _drawn(points: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return the pixels that a path goes over, without a gap."""
    seen = np.zeros(shape, bool)
    whole = np.rint(points).astype(int)
    for (y0, x0), (y1, x1) in pairwise(whole):
        rows, columns = line(y0, x0, y1, x1)  # type: ignore[no-untyped-call]
        inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
        seen[rows[inside], columns[inside]] = True
    return seen


def _number_at(labels: NDArray[Any], point: NDArray[np.float64]) -> int:
    y, x = np.rint(point).astype(int)
    return int(labels[y, x]) if 0 <= y < labels.shape[0] and 0 <= x < labels.shape[1] else 0
