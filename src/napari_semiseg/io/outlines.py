"""Outlines of labels along the edges of pixels, so that nuclei do not shrink, and labels from outlines.

A border between two pixels is a directed edge of length 1 with its label on the right (in a picture whose rows go
down). Edges are found cell by cell, wait until their nucleus is there as a whole, and are then followed to rings, for
all nuclei of a cell at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.draw import polygon as draw_polygon
from skimage.measure import points_in_poly

from napari_semiseg.blocks import Box

Ring = NDArray[np.int64]
"""Corners (y, x) of a closed line, (n, 2); the first is not repeated at the end. (0, 0) is the corner of the image, so
that the middle of its first pixel is (0.5, 0.5)."""

Polygon = list[Ring]
"""The outer ring, then those of the holes, which turn the other way."""

_STEPS = np.array([(0, 1), (1, 0), (0, -1), (-1, 0)])  # right, down, left, up
_AT_ONCE = 200_000  # edges that are followed together: some megabytes of indices
_FIRST_CORNER = ((0, 0), (0, 1), (1, 1), (1, 0))  # of the edges above, right of, below and left of a pixel


@dataclass(frozen=True)
class _Edges:
    """Borders of labels: their label, where they begin (y, x) and where they go (an index of `_STEPS`)."""

    label: NDArray[np.uint32]
    y: NDArray[np.int32]
    x: NDArray[np.int32]
    way: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.label)

    def where(self, chosen: NDArray[Any] | slice) -> _Edges:
        return _Edges(self.label[chosen], self.y[chosen], self.x[chosen], self.way[chosen])

    @classmethod
    def joined(cls, parts: Sequence[_Edges]) -> _Edges:
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("label", "y", "x", "way")))


class OutlineTracer:
    """Traces the labels of an image of any size, cell by cell; holds those only that were not taken yet."""

    def __init__(self) -> None:
        self._waiting: list[_Edges] = []

    def add(self, cell: Box, labels: NDArray[np.uint32]) -> None:
        """Add a cell.

        Parameters
        ----------
        cell : Box
            A part of the image. Cells cover the image exactly once.
        labels : ndarray, uint32, (h + 2, w + 2)
            Labels of the cell grown by one pixel, 0 outside of the image.
        """
        self._waiting.append(_edges(cell, labels))

    def take(self, ids: NDArray[np.uint32]) -> Iterator[tuple[int, list[Polygon]]]:
        """Yield the outlines of some labels, all of whose cells were added, and forget them.

        Yields
        ------
        label : int
        polygons : list of Polygon
            One for each part that hangs together by the sides of pixels. Together they cover the pixels of the label
            and nothing else.
        """
        if not self._waiting:
            return
        edges = _Edges.joined(self._waiting)
        taken = np.isin(edges.label, ids)
        self._waiting = [edges.where(~taken)]
        edges = edges.where(taken)
        edges = edges.where(np.argsort(edges.label, kind="stable"))
        start = 0
        while start < len(edges):
            last = edges.label[min(start + _AT_ONCE, len(edges)) - 1]
            end = int(np.searchsorted(edges.label, last, side="right"))
            yield from _traced(edges.where(slice(start, end)))
            start = end


def trace(labels: NDArray[np.uint32]) -> dict[int, list[Polygon]]:
    """Trace every label of an image that is in memory; see `OutlineTracer`.

    Parameters
    ----------
    labels : ndarray, uint32, (h, w)

    Examples
    --------
    >>> trace(np.array([[0, 7, 7]], np.uint32))[7][0][0].tolist()
    [[0, 1], [0, 3], [1, 3], [1, 1]]
    """
    return dict(_traced(_edges(Box.whole(labels.shape), np.pad(labels, 1))))


def area(polygons: Sequence[Polygon]) -> float:
    """Return the area of polygons without their holes, in pixels."""
    return float(sum(_signed_area(ring) for polygon in polygons for ring in polygon))


def fill(polygons: Sequence[Sequence[NDArray[np.number]]], box: Box) -> NDArray[np.bool_]:
    """Return the pixels of a rectangle whose middle lies inside of polygons or on their line, and not in a hole.

    Parameters
    ----------
    polygons : sequence of sequence of ndarray, (n, 2)
        Corners (y, x), as in `Polygon`; fractions of pixels are allowed.
    box : Box
        What is drawn of them.

    Returns
    -------
    ndarray, bool, (h, w)
    """
    mask = np.zeros(box.shape, np.bool_)
    for outer, *holes in polygons:
        part = np.zeros(box.shape, np.bool_)
        part[_inside(outer, box)] = True
        for hole in holes:
            part[_inside(hole, box)] = False
        mask |= part
    return mask


def holds(polygons: Sequence[Sequence[NDArray[np.number]]], points: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return which points, (n, 2), lie inside of polygons and not in a hole."""
    inside = np.zeros(len(points), np.bool_)
    for outer, *holes in polygons:
        part = points_in_poly(points, outer)  # type: ignore[no-untyped-call]
        for hole in holes:
            part &= ~points_in_poly(points, hole)  # type: ignore[no-untyped-call]
        inside |= part
    return inside


def nested(rings: Sequence[NDArray[np.floating]]) -> list[list[NDArray[np.floating]]]:
    """Sort rings that do not cross into polygons: what lies inside of an odd number of others is a hole.

    Parameters
    ----------
    rings : sequence of ndarray, (n, 2)
        Corners (y, x), n at least 3; they may turn either way.

    Returns
    -------
    list of list of ndarray
        Polygons, each an outer ring and then its holes.
    """
    if len(rings) == 1:
        return [list(rings)]
    ordered = sorted(rings, key=lambda ring: -abs(_signed_area(ring)))
    outer: dict[int, list[NDArray[np.floating]]] = {}
    for number, ring in enumerate(ordered):
        point = _point_inside(ring)
        around = [k for k in range(number) if _lies_in(point, ordered[k])]
        if len(around) % 2:
            outer[next(k for k in reversed(around) if k in outer)].append(ring)
        else:
            outer[number] = [ring]
    return list(outer.values())


def _point_inside(ring: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return a point a little inside of a ring's longest side."""
    sides = np.roll(ring, -1, axis=0) - ring
    longest = int((sides**2).sum(1).argmax())
    dy, dx = sides[longest] / (np.hypot(*sides[longest]) or 1.0)
    inward = np.array([dx, -dy]) * (1e-3 if _signed_area(ring) > 0 else -1e-3)
    return np.asarray(ring[longest] + sides[longest] / 2 + inward, np.float64)[None]


def _inside(ring: NDArray[np.number], box: Box) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    rows, columns = draw_polygon(  # type: ignore[no-untyped-call]
        ring[:, 0] - 0.5 - box.y0, ring[:, 1] - 0.5 - box.x0, box.shape
    )
    return rows, columns


def _edges(cell: Box, labels: NDArray[np.uint32]) -> _Edges:
    inner = labels[1:-1, 1:-1]
    beside = (labels[:-2, 1:-1], labels[1:-1, 2:], labels[2:, 1:-1], labels[1:-1, :-2])
    parts = []
    for way, (neighbor, (dy, dx)) in enumerate(zip(beside, _FIRST_CORNER, strict=True)):
        rows, columns = np.nonzero((inner != neighbor) & (inner != 0))
        y, x = (rows + cell.y0 + dy).astype(np.int32), (columns + cell.x0 + dx).astype(np.int32)
        parts.append(_Edges(inner[rows, columns], y, x, np.full(len(rows), way, np.uint8)))
    return _Edges.joined(parts)


def _traced(edges: _Edges) -> Iterator[tuple[int, list[Polygon]]]:
    """Follow edges to rings, and yield the polygons of each label."""
    if not len(edges):
        return
    order, ring = _in_rings(_following(edges))
    way, starts = edges.way[order], np.flatnonzero(np.diff(ring, prepend=-1))
    before = np.roll(way, 1)
    before[starts] = way[np.append(starts[1:], len(way)) - 1]
    order, ring = order[way != before], ring[way != before]  # corners only
    points = np.stack([edges.y[order], edges.x[order]], 1).astype(np.int64)
    starts = np.flatnonzero(np.diff(ring, prepend=-1))
    owner = edges.label[order[starts]]
    touching = _touching(points, ring)
    ends = np.append(starts[1:], len(points))
    by_label: dict[int, list[Ring]] = {}
    for label, start, end in zip(owner.tolist(), starts.tolist(), ends.tolist(), strict=True):
        line = points[start:end]
        rings = _simple_rings(line) if int(ring[start]) in touching else [line]
        by_label.setdefault(label, []).extend(rings)
    for label, rings in by_label.items():
        yield label, _polygons(rings)


def _following(edges: _Edges) -> NDArray[np.int64]:
    """Return the index of the edge that goes on where each edge ends.

    Where two pixels of a label touch by a corner, four of its edges meet: there the line turns right, and so stays with
    its pixel.
    """
    _, number = np.unique(edges.label, return_inverse=True)
    y, x = edges.y - edges.y.min() + 1, edges.x - edges.x.min() + 1
    width = int(x.max()) + 2
    begin = (number * (int(y.max()) + 2) + y) * width + x
    end = begin + _STEPS[edges.way] @ np.array([width, 1])
    order = np.argsort(begin, kind="stable")
    ordered = begin[order]
    first = np.searchsorted(ordered, end)
    second = np.minimum(first + 1, len(order) - 1)
    right = (ordered[second] == end) & (edges.way[order[second]] == (edges.way + 1) % 4)
    return np.asarray(order[np.where(right, second, first)], np.int64)


def _in_rings(following: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return edges in the order of their rings, and the ring of each, by pointer jumping: no loop over edges."""
    least, jump = np.arange(len(following)), following
    while True:
        smaller = np.minimum(least, least[jump])
        if np.array_equal(smaller, least):
            break
        least, jump = smaller, jump[jump]
    head = least == np.arange(len(following))
    jump = np.where(head, np.arange(len(following)), following)
    to_go = np.where(head, 0, 1)
    while not head[jump].all():
        to_go, jump = to_go + to_go[jump], jump[jump]
    to_go[head] = len(following)
    order = np.lexsort((-to_go, least))
    return order, least[order]


def _touching(points: Ring, ring: NDArray[np.int64]) -> set[int]:
    """Return the rings that come to the same corner twice."""
    order = np.lexsort((points[:, 1], points[:, 0], ring))
    sorted_points, sorted_ring = points[order], ring[order]
    twice = (np.diff(sorted_ring) == 0) & (np.diff(sorted_points, axis=0) == 0).all(1)
    return set(sorted_ring[1:][twice].tolist())


def _simple_rings(line: Ring) -> list[Ring]:
    """Cut a closed line where it touches itself, so that every ring comes to a corner once."""
    rings: list[Ring] = []
    path: list[tuple[int, int]] = []
    place: dict[tuple[int, int], int] = {}
    for y, x in line.tolist():
        if (y, x) in place:
            cut, path = path[place[y, x] :], path[: place[y, x]]
            rings.append(np.array(cut, np.int64))
            for corner in cut:
                del place[corner]
        place[y, x] = len(path)
        path.append((y, x))
    return [*rings, np.array(path, np.int64)]


def _polygons(rings: list[Ring]) -> list[Polygon]:
    """Give every hole to the part of the label that it lies in."""
    if len(rings) == 1:
        return [rings]
    areas = [_signed_area(ring) for ring in rings]
    parts = sorted(
        ((size, [ring]) for ring, size in zip(rings, areas, strict=True) if size > 0), key=lambda part: part[0]
    )
    for ring in (ring for ring, size in zip(rings, areas, strict=True) if size < 0):
        inside = _pixel_beside(ring)
        around = (polygon for _, polygon in parts if _lies_in(inside, polygon[0]))
        next(around).append(ring)
    return [polygon for _, polygon in parts]


def _pixel_beside(ring: Ring) -> NDArray[np.float64]:
    """Return the middle of the label's pixel at the right of a ring's first edge."""
    dy, dx = np.sign(ring[1] - ring[0])
    return np.asarray(ring[0] + np.array([dy + dx, dx - dy]) / 2, np.float64)[None]


def _lies_in(point: NDArray[np.float64], ring: NDArray[Any]) -> bool:
    return bool(points_in_poly(point, ring.astype(np.float64))[0])  # type: ignore[no-untyped-call]


def _signed_area(ring: NDArray[Any]) -> float:
    """Return the area inside of a ring, negative for a hole."""
    y, x = ring[:, 0], ring[:, 1]
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) / 2
