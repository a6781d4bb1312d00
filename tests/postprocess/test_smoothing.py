"""A Gaussian that goes down columns by whole rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage as ndi

from napari_semiseg.postprocess.smoothing import smoothed

heights = st.floats(0, 100, width=32)


@settings(max_examples=60, deadline=None)
@given(
    arrays.arrays(np.float32, st.tuples(st.integers(1, 40), st.integers(1, 40)), elements=heights),
    st.sampled_from([0.375, 1.5, 6.0]),
)
def test_it_is_that_of_scipy_but_for_rounding_also_in_an_image_smaller_than_its_sight(image, sigma):
    np.testing.assert_allclose(smoothed(image, sigma), ndi.gaussian_filter(image, sigma), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("start", [1, 31, 32, 77])
def test_a_part_comes_out_to_the_bit_as_in_the_whole(start):
    image = np.random.default_rng(3).random((200, 50), dtype=np.float32)
    part = smoothed(image[start:], 1.5)
    np.testing.assert_array_equal(part[6:], smoothed(image, 1.5)[start + 6 :])
