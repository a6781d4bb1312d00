"""Nuclei of images of any size: split cell by cell, each nucleus once.

The cells are a grid of their own: how an image was predicted makes no difference. Each cell is split together with a
halo wider than any nucleus, so that both sides of a seam see the nuclei on it alike, and only what lies in the cell is
written. A nucleus on a seam is known again by its first pixel, which is the same from either side.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semiseg.blocks import Box, cells
from napari_semiseg.postprocess.classes import any_nucleus, nucleus_classes
from napari_semiseg.postprocess.instances import MIN_AREA, MPP, first_pixels, split_nuclei

CELL = 2048
"""Side of a cell, in pixels."""

HALO_UM = 32.0
"""Seen beyond a cell on every side, in µm. What is longer than this may be cut at a seam."""

_Seen = tuple[NDArray[np.uint32], NDArray[np.uint8] | None]


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

    def apply(self, confidence: NDArray[Any]) -> NDArray[np.uint32]:
        """Split a map of confidence, (h, w)."""
        return split_nuclei(confidence, threshold=self.threshold, strength=self.strength, min_area=self.min_area)


@dataclass
class Numbering:
    """Gives nuclei ids from 1 on, and knows those on seams again.

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

    def apply(self, labels: NDArray[np.uint32], seen: Box, keep: Box) -> NDArray[np.uint32]:
        """Return what is kept of a cell's nuclei, with ids that are unique over the image.

        Parameters
        ----------
        labels : ndarray, uint32
            Nuclei of the part that was seen, numbered from 1.
        seen, keep : Box
            Where that part lies in the image, and what of it is kept.
        """
        first = first_pixels(labels)
        kept = labels[keep.shifted(-seen.y0, -seen.x0).slices]
        area = np.bincount(labels.ravel(), minlength=len(first))
        area_kept = np.bincount(kept.ravel(), minlength=len(first))
        ids = np.zeros(len(first), np.uint32)
        for nucleus in np.flatnonzero(area_kept[1:]) + 1:
            row, column = divmod(int(first[nucleus]), labels.shape[1])
            place = (seen.y0 + row) * self.width + seen.x0 + column
            ids[nucleus] = self._id(place, on_seam=bool(area[nucleus] > area_kept[nucleus]))
        return ids[kept]

    def forget_above(self, row: int) -> None:
        """Drop nuclei on seams whose first pixel lies above a row: no later cell sees it."""
        self.on_seams = {place: number for place, number in self.on_seams.items() if place >= row * self.width}

    def _id(self, place: int, *, on_seam: bool) -> int:
        if (known := self.on_seams.get(place)) is not None:
            return known
        self.count += 1
        if on_seam:
            self.on_seams[place] = self.count
        return self.count


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
    """

    keep: Box
    labels: NDArray[np.uint32]
    classes: NDArray[np.uint8] | None


class BlockwiseSplit:
    """Splits an image cell by cell, as far as its confidence is there.

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
    done, total : int
        Cells that were split, and all of them.
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
        self._cells = cells(shape, cell)
        self._numbering = Numbering(shape[1])
        self.done = 0
        self.total = len(self._cells)

    @property
    def nuclei(self) -> int:
        """Number of nuclei found so far."""
        return self._numbering.count

    def advance(self, rows: int, *, threads: int = 1) -> Iterator[CellNuclei]:
        """Split the cells that see nothing below the first `rows` rows of the image, in row-major order.

        Parameters
        ----------
        rows : int
            Rows whose confidence is there.
        threads : int
            Cells that are split at the same time. Ids do not depend on it.
        """
        ready = []
        for keep in self._cells[self.done :]:
            seen = keep.grown(self._halo).intersect(self._whole)
            if seen.y1 > rows:
                break
            ready.append((keep, seen))
        with ThreadPoolExecutor(threads, "split") as pool:
            ahead: deque[tuple[Box, Box, Future[_Seen]]] = deque()
            for keep, seen in ready:
                ahead.append((keep, seen, pool.submit(self._split, seen)))
                if len(ahead) > threads:
                    yield self._kept(*ahead.popleft())
            while ahead:
                yield self._kept(*ahead.popleft())

    def _split(self, seen: Box) -> _Seen:
        confidence = self._read(seen)
        labels = self._rule.apply(any_nucleus(confidence))
        return labels, nucleus_classes(confidence, labels) if len(confidence) > 1 else None

    def _kept(self, keep: Box, seen: Box, split: Future[_Seen]) -> CellNuclei:
        if keep.x0 == 0:
            self._numbering.forget_above(seen.y0)
        labels, classes = split.result()
        inside = keep.shifted(-seen.y0, -seen.x0).slices
        self.done += 1
        return CellNuclei(keep, self._numbering.apply(labels, seen, keep), None if classes is None else classes[inside])


def split_blockwise(
    confidence: NDArray[np.uint8],
    rule: SplitRule | None = None,
    *,
    cell: int = CELL,
    halo: int | None = None,
    threads: int = 1,
) -> NDArray[np.uint32]:
    """Split the nuclei of a map in memory cell by cell: (h, w) → uint32 (h, w), ids from 1 without gaps."""
    labels = np.zeros(confidence.shape, np.uint32)
    work = BlockwiseSplit(
        lambda box: confidence[None, *box.slices], confidence.shape[:2], rule or SplitRule(), cell=cell, halo=halo
    )
    for part in work.advance(len(confidence), threads=threads):
        labels[part.keep.slices] = part.labels
    return labels
