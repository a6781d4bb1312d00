"""The distance to the background."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage as ndi

from napari_semiseg.postprocess.distance import REACH, distance_to_background


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_it_is_that_of_scipy_to_the_last_bit(mask):
    mask[0, 0] = False  # without any background there is no distance
    np.testing.assert_array_equal(distance_to_background(mask), ndi.distance_transform_edt(mask).astype(np.float32))


@pytest.mark.parametrize("side", [REACH - 2, 2 * REACH, 5 * REACH])
def test_it_is_so_in_blobs_of_any_size(side):
    mask = np.ones((side, side + 7), bool)
    mask[3, 5] = mask[-1, -1] = False
    np.testing.assert_array_equal(distance_to_background(mask), ndi.distance_transform_edt(mask).astype(np.float32))


def test_a_map_without_foreground_is_zero_and_one_without_background_is_no_error():
    assert not distance_to_background(np.zeros((5, 6), bool)).any()
    assert np.isfinite(distance_to_background(np.ones((5, 6), bool))).all()
