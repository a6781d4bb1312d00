"""What of some proposed nuclei is proposed beside what is painted already."""

import numpy as np
import pytest

from napari_semiseg.app.tile_proposals import LEAST_PIXELS, beside_paint


@pytest.fixture
def disc():
    """A round nucleus: (h, w), bool."""
    rows, columns = np.indices((100, 100))
    return lambda y, x, radius: (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def test_a_nucleus_that_is_painted_is_not_proposed_as_the_rim_around_it(disc):
    proposed = np.where(disc(40, 40, 13), 7, 0)
    left = beside_paint(proposed, disc(41, 40, 10), None)
    assert not left.any()


def test_of_two_nuclei_proposed_as_one_the_other_is_left_when_one_is_painted(disc):
    first, second = disc(40, 30, 11), disc(40, 51, 11)
    proposed = np.where(first | second, 7, 0)
    left = beside_paint(proposed, first, None)
    (number,) = np.unique(left[left > 0])
    assert (left == number)[second].mean() > 0.9
    assert not left[first].any()


def test_two_pieces_of_one_proposal_are_two_proposals(disc):
    proposed = np.where(disc(50, 20, 10) | disc(50, 40, 10) | disc(50, 60, 10), 7, 0)
    proposed += np.where(disc(85, 85, 9), 3, 0)
    left = beside_paint(proposed, disc(50, 40, 11), None)
    assert len(np.unique(left)) - 1 == 3
    assert (left[disc(85, 85, 9)] == 3).all()


def test_what_no_paint_touches_stays_as_it_is_however_thin(disc):
    proposed = np.zeros((100, 100), int)
    proposed[:, 40:43] = 5
    np.testing.assert_array_equal(beside_paint(proposed, disc(80, 80, 9), None), proposed)


def test_a_nucleus_that_the_border_cuts_is_still_proposed_beside_a_painted_one(disc):
    cut, painted = disc(0, 40, 12), disc(20, 40, 9)
    proposed = np.where(cut | painted, 4, 0)
    left = beside_paint(proposed, painted, None)
    assert (left > 0).sum() > 0.8 * cut.sum() > LEAST_PIXELS


def test_the_size_of_a_pixel_decides_what_a_rim_is(disc):
    proposed, painted = np.where(disc(50, 50, 14), 2, 0), disc(50, 50, 8)
    assert not beside_paint(proposed, painted, 0.15).any()
    assert beside_paint(proposed, painted, 1.0).any()
