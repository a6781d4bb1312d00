"""Outlines: they hold their pixels and nothing else, whatever the label looks like and wherever cells cut it."""

from __future__ import annotations

import numpy as np
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from napari_semiseg.blocks import Box, cells
from napari_semiseg.io.outlines import OutlineTracer, Polygon, area, fill, nested, trace

small_labels = arrays.arrays(
    np.uint32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 3), fill=st.nothing()
)


def in_cells(labels: np.ndarray, size: int) -> dict[int, list[Polygon]]:
    """Trace cell by cell, and take each label with the last cell that holds some of it."""
    tracer, padded, found = OutlineTracer(), np.pad(labels, 1), {}
    parts = cells(labels.shape, size)
    for number, cell in enumerate(parts):
        tracer.add(cell, padded[cell.y0 : cell.y1 + 2, cell.x0 : cell.x1 + 2])
        later = np.concatenate([[0], *(labels[part.slices].ravel() for part in parts[number + 1 :])])
        found.update(tracer.take(np.setdiff1d(labels[cell.slices], later).astype(np.uint32)))
    assert not list(tracer.take(np.unique(labels)))
    return found


@settings(deadline=None)
@given(small_labels)
def test_what_is_traced_and_filled_is_what_was_there(labels: np.ndarray) -> None:
    filled = np.zeros_like(labels)
    for label, polygons in trace(labels).items():
        inside = fill(polygons, Box.whole(labels.shape))
        assert not filled[inside].any()
        filled[inside] = label
        assert area(polygons) == inside.sum()
    np.testing.assert_array_equal(filled, labels)


@settings(deadline=None)
@given(small_labels)
def test_outlines_are_valid_for_programs_that_are_strict(labels: np.ndarray) -> None:
    for label, polygons in trace(labels).items():
        shape = shapely.MultiPolygon([(outer, holes) for outer, *holes in polygons])
        assert shapely.is_valid(shape), shapely.is_valid_reason(shape)
        assert shape.area == (labels == label).sum()
        assert all(shapely.is_ccw(shapely.LinearRing(outer[:, ::-1])) for outer, *_ in polygons)


@settings(deadline=None)
@given(small_labels, st.integers(1, 5))
def test_cells_change_nothing(labels: np.ndarray, size: int) -> None:
    whole, cut = trace(labels), in_cells(labels, size)

    assert cut.keys() == whole.keys()
    for label, polygons in whole.items():
        assert len(cut[label]) == len(polygons)
        np.testing.assert_array_equal(fill(cut[label], Box.whole(labels.shape)), labels == label)


def test_a_hole_that_touches_the_outside_by_a_corner_is_a_hole() -> None:
    labels = np.array([[1, 1, 0], [1, 0, 1], [1, 1, 1]], np.uint32)

    assert [[len(ring) for ring in polygon] for polygon in trace(labels)[1]] == [[6, 4]]


def test_pixels_that_touch_by_a_corner_are_two_parts() -> None:
    assert len(trace(np.eye(2, dtype=np.uint32))[1]) == 2


def test_an_island_in_a_hole_is_a_part_of_its_own() -> None:
    labels = np.zeros((9, 9), np.uint32)
    labels[1:8, 1:8] = 1
    labels[2:7, 2:7] = 0
    labels[3:6, 3:6] = 1
    labels[4, 4] = 0
    parts = trace(labels)[1]

    assert sorted(len(part) for part in parts) == [2, 2]
    again = nested([ring for part in parts for ring in part])
    np.testing.assert_array_equal(fill(again, Box(0, 0, 9, 9)), labels == 1)


def test_filling_shows_only_what_lies_in_the_box() -> None:
    square = [[np.array([(2.2, 2.2), (2.2, 7.9), (7.9, 7.9), (7.9, 2.2)])]]

    filled = fill(square, Box(5, 5, 10, 10))
    assert filled.sum() == 9  # middles 5.5 to 7.5
    assert filled[:3, :3].all()
