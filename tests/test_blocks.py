"""Rectangles: kept parts cover any image once, read parts lie on the network's grid."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_semiseg.blocks import Box, cells, plan_blocks

shapes = st.tuples(st.integers(1, 100), st.integers(1, 100))
boxes = st.builds(Box, *[st.integers(-50, 50)] * 4)


@settings(deadline=None)
@given(shapes, st.integers(1, 16), st.integers(1, 20), st.integers(0, 90))
def test_kept_parts_cover_any_image_exactly_once(shape, stride, multiple, halo):
    times = np.zeros(shape, int)
    for block in plan_blocks(shape, size=stride * multiple, halo=halo, stride=stride):
        times[block.keep.slices] += 1
        assert Box.whole(shape).contains(block.keep)
    assert (times == 1).all()


@settings(deadline=None)
@given(shapes, st.integers(1, 16), st.integers(1, 20), st.integers(0, 90))
def test_read_parts_hold_the_kept_part_with_the_whole_halo_on_the_grid(shape, stride, multiple, halo):
    for number, block in enumerate(plan_blocks(shape, size=stride * multiple, halo=halo, stride=stride)):
        assert block.index == number
        assert block.read.contains(block.keep.grown(halo))
        assert all(corner % stride == 0 for corner in block.read)
        # no more is read than the grid makes necessary
        assert block.keep.grown(halo + 2 * stride - 1).contains(block.read)


@pytest.mark.parametrize("size", [0, -8, 12])
def test_a_block_size_off_the_grid_is_refused(size):
    with pytest.raises(ValueError, match="multiple"):
        list(plan_blocks((100, 100), size=size, halo=0, stride=8))


@settings(deadline=None)
@given(shapes, st.integers(1, 300))
def test_cells_cover_any_image_exactly_once_in_row_major_order(shape, size):
    times = np.zeros(shape, int)
    found = cells(shape, size)
    for cell in found:
        times[cell.slices] += 1
        assert max(cell.shape) <= size
    assert (times == 1).all()
    assert found == sorted(found)
    assert len(found) == -(-shape[0] // size) * -(-shape[1] // size)


def test_an_image_smaller_than_a_cell_is_one_cell():
    assert cells((30, 40), 250) == [Box(0, 0, 30, 40)]


@given(boxes, boxes)
def test_an_intersection_holds_just_the_common_pixels(a, b):
    def mask(box):
        inside = np.zeros((100, 100), bool)
        inside[box.y0 + 50 : max(box.y0, box.y1) + 50, box.x0 + 50 : max(box.x0, box.x1) + 50] = True
        return inside

    common = mask(a) & mask(b)
    assert a.intersect(b).area == b.intersect(a).area == common.sum()
    if b.area and a.contains(b):
        assert (mask(b) <= mask(a)).all()
        assert a.intersect(b) == b


@given(boxes, st.integers(-9, 9), st.integers(-9, 9), st.integers(0, 9))
def test_moving_and_growing_keep_what_they_should(box, dy, dx, margin):
    assert box.shifted(dy, dx).shifted(-dy, -dx) == box
    assert box.shifted(dy, dx).shape == box.shape == (box.height, box.width)
    assert box.grown(margin).grown(-margin) == box
    assert box.grown(margin).shape == (box.height + 2 * margin, box.width + 2 * margin)
    assert box.grown(margin).contains(box)


def test_a_box_cuts_its_rectangle_out_of_an_array():
    image = np.arange(30).reshape(5, 6)
    np.testing.assert_array_equal(image[Box(1, 2, 4, 6).slices], image[1:4, 2:6])
    assert image[Box.whole(image.shape).slices].shape == image.shape


@given(st.integers(-50, 50), st.integers(-50, 50), st.integers(1, 90), st.integers(1, 90), st.integers(1, 100))
def test_the_middle_of_a_box_lies_in_it_as_far_from_both_sides(y, x, height, width, most):
    box = Box(y, x, y + height, x + width)
    middle = box.middle(most)

    assert box.contains(middle)
    assert middle.shape == (min(height, most), min(width, most))
    assert 0 <= (box.y1 - middle.y1) - (middle.y0 - box.y0) <= 1
    assert 0 <= (box.x1 - middle.x1) - (middle.x0 - box.x0) <= 1
