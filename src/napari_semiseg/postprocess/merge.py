"""Nuclei of images of any size: split cell by cell, each nucleus once.

The cells are a grid of their own: how an image was predicted makes no difference. Each cell is split together with a
halo wider than any nucleus, so that both sides of a seam see the nuclei on it alike, and only what lies in the cell is
written. A nucleus on a seam is known again by its first pixel, which is the same from either side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semiseg.blocks import Box, cells
from napari_semiseg.postprocess.classes import any_nucleus, nucleus_classes
from napari_semiseg.postprocess.instances import MIN_AREA, MPP, first_places, split_nuclei

CELL = 2048
"""Side of a cell, in pixels."""

HALO_UM = 32.0
"""Seen beyond a cell on every side, in µm. What is longer than this may be cut at a seam."""


@dataclass(frozen=True)
class SplitRule:
    """How nuclei are split: the options of `split_nuclei`."""

    threshold: float = 0.5
    strength: float = 0.5
    min_area: int = MIN_AREA
    mpp: float | None = None

    @property
    def halo(self) -> int:
        """Pixels that have to be seen beyond a part: `HALO_UM`, within 32 and 512 pixels."""
        return min(512, max(32, round(HALO_UM / (self.mpp or MPP))))

    def apply(self, confidence: NDArray[Any], wanted: Box | None = None) -> NDArray[np.uint32]:
        """Split a map of confidence, (h, w), or only those clusters in it that reach into a part of it."""
        return split_nuclei(
            confidence,
            threshold=self.threshold,
            strength=self.strength,
            min_area=self.min_area,
            mpp=self.mpp,
            wanted=wanted,
        )


@dataclass
class Numbering:
    """Gives nuclei ids from 1 on, and knows those on seams again, in whatever order the cells come.

    Attributes
    ----------
    width : int
        Columns of the image.
    count : int
        Nuclei numbered so far.
    on_seams : dict of int to int
        Ids of nuclei that later cells may meet again, by the index of their first pixel in the image.
    """

    width: int
    count: int = 0
    on_seams: dict[int, int] = field(default_factory=dict)

    def apply(self, labels: NDArray[np.uint32], seen: Box, keep: Box) -> tuple[NDArray[np.uint32], list[int]]:
        """Return what is kept of a cell's nuclei, with ids that are unique over the image.

        Parameters
        ----------
        labels : ndarray, uint32
            Nuclei of the part that was seen, numbered from 1.
        seen, keep : Box
            Where that part lies in the image, and what of it is kept.

        Returns
        -------
        ids : ndarray, uint32
            Of the shape of `keep`.
        places : list of int
            The keys of `on_seams` that are new.
        """
        inner = keep.shifted(-seen.y0, -seen.x0)
        inside = np.flatnonzero(labels != 0)
        nucleus = labels.ravel()[inside]
        row, column = np.divmod(inside, labels.shape[1])
        is_kept = (row >= inner.y0) & (row < inner.y1) & (column >= inner.x0) & (column < inner.x1)
        area_kept = np.bincount(nucleus[is_kept])
        nuclei = np.flatnonzero(area_kept)
        ids = np.zeros(len(area_kept), np.uint32)
        kept = labels[inner.slices]
        if not nuclei.size:
            return np.zeros(kept.shape, np.uint32), []
        outside = np.bincount(nucleus)[nuclei] > area_kept[nuclei]
        first = first_places(nucleus)[nuclei]
        places = ((seen.y0 + row[first]) * self.width + seen.x0 + column[first]).tolist()
        met = [self.on_seams.get(place) if out else None for place, out in zip(places, outside.tolist(), strict=True)]
        fresh = np.array([known is None for known in met])
        numbers = np.array([known or 0 for known in met], np.int64)
        numbers[fresh] = self.count + 1 + np.arange(fresh.sum())
        self.count += int(fresh.sum())
        added = {places[i]: int(numbers[i]) for i in np.flatnonzero(fresh & outside)}
        self.on_seams.update(added)
        ids[nuclei] = numbers
        return ids[kept], list(added)

    def forget(self, places: Iterable[int]) -> None:
        """Drop nuclei on seams that no later cell sees."""
        for place in places:
            self.on_seams.pop(place, None)


@dataclass(frozen=True)
class CellNuclei:
    """The nuclei of one cell.

    Attributes
    ----------
    keep : Box
        Where the cell lies in the image.
    labels : ndarray, uint32
        Of its shape; ids are unique over the image.
    classes : ndarray, uint8, or None
        Class of every labeled pixel, 1 the first; None where there is one class only.
    confidence : ndarray, uint8, (classes of nuclei, h, w)
        What they were made of.
    """

    keep: Box
    labels: NDArray[np.uint32]
    classes: NDArray[np.uint8] | None
    confidence: NDArray[np.uint8]


@dataclass(frozen=True)
class SeenNuclei:
    """The nuclei of all that a cell sees, before they have their ids."""

    confidence: NDArray[np.uint8]
    labels: NDArray[np.uint32]
    classes: NDArray[np.uint8] | None


class BlockwiseSplit:
    """Splits an image cell by cell, in any order.

    Parameters
    ----------
    read : callable
        Box within the image → confidence, uint8 (classes of nuclei, h, w). Called from several threads.
    shape : tuple of int
        Rows and columns of the image.
    rule : SplitRule
    cell : int
        Side of a cell, in pixels.
    halo : int, optional
        Pixels that are seen beyond a cell, instead of the rule's own.

    Attributes
    ----------
    cells : list of Box
        They cover the image exactly once; row-major.
    """

    def __init__(
        self,
        read: Callable[[Box], NDArray[np.uint8]],
        shape: tuple[int, int],
        rule: SplitRule,
        *,
        cell: int = CELL,
        halo: int | None = None,
    ) -> None:
        self._read = read
        self._whole = Box.whole(shape)
        self._rule = rule
        self._halo = rule.halo if halo is None else halo
        self._side = cell
        self.cells = cells(shape, cell)
        self._numbering = Numbering(shape[1])
        self._seams: dict[tuple[int, int], list[int]] = {}  # by cell: what it was the first to number on its seams
        self._open = {self._place(keep) for keep in self.cells}

    @property
    def nuclei(self) -> int:
        """Number of nuclei numbered so far."""
        return self._numbering.count

    def seen(self, keep: Box) -> Box:
        """Return what has to be there before a cell can be split."""
        return keep.grown(self._halo).intersect(self._whole)

    def split(self, keep: Box) -> SeenNuclei:
        """Split a cell with its surroundings. Several threads may do this at once."""
        seen = self.seen(keep)
        confidence = self._read(seen)
        labels = self._rule.apply(any_nucleus(confidence), keep.shifted(-seen.y0, -seen.x0))
        return SeenNuclei(confidence, labels, nucleus_classes(confidence, labels) if len(confidence) > 1 else None)

    def number(self, keep: Box, split: SeenNuclei) -> CellNuclei:
        """Give the nuclei of a cell their ids, in the order of the calls: one at a time, each cell once."""
        seen = self.seen(keep)
        inside = keep.shifted(-seen.y0, -seen.x0).slices
        labels, self._seams[self._place(keep)] = self._numbering.apply(split.labels, seen, keep)
        self._open.discard(self._place(keep))
        self._forget_around(self._place(keep))
        classes = None if split.classes is None else split.classes[inside]
        return CellNuclei(keep, labels, classes, split.confidence[:, *inside])

    def _place(self, keep: Box) -> tuple[int, int]:
        return keep.y0 // self._side, keep.x0 // self._side

    def _forget_around(self, place: tuple[int, int]) -> None:
        """Forget the seams of cells all of whose neighbors are done: no other cell meets their nuclei."""
        for near in self._around(place):
            if near in self._seams and self._open.isdisjoint(self._around(near)):
                self._numbering.forget(self._seams.pop(near))

    def _around(self, place: tuple[int, int]) -> list[tuple[int, int]]:
        """Return the cells that may see a nucleus of this one: as many to each side as the halo reaches into."""
        far = max(1, -(-self._halo // self._side))
        steps = range(-far, far + 1)
        return [(place[0] + dy, place[1] + dx) for dy in steps for dx in steps]


def split_blockwise(
    confidence: NDArray[np.uint8],
    rule: SplitRule | None = None,
    *,
    cell: int = CELL,
    halo: int | None = None,
) -> NDArray[np.uint32]:
    """Split the nuclei of a map in memory cell by cell: (h, w) → uint32 (h, w), ids from 1 without gaps."""
    labels = np.zeros(confidence.shape, np.uint32)
    work = BlockwiseSplit(
        lambda box: confidence[None, *box.slices], confidence.shape[:2], rule or SplitRule(), cell=cell, halo=halo
    )
    for keep in work.cells:
        labels[keep.slices] = work.number(keep, work.split(keep)).labels
    return labels
