"""From confidence to nuclei."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage as ndi
from skimage.segmentation import watershed

from napari_semiseg.errors import InputError
from napari_semiseg.metrics import compare
from napari_semiseg.postprocess.instances import (
    MIN_AREA,
    PROMINENCE,
    SMOOTHING,
    first_places,
    smallest_area,
    split_nuclei,
)


def tissue(shape=(400, 400), count=150, seed=0):
    """Return round nuclei that touch and overlap: labels, and a confidence that sinks a little between them."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint32)
    y, x = np.mgrid[: shape[0], : shape[1]]
    for number in range(1, count + 1):
        cy, cx, radius = rng.uniform(0, shape[0]), rng.uniform(0, shape[1]), rng.uniform(7, 12)
        labels[((y - cy) ** 2 + (x - cx) ** 2 < radius**2) & (labels == 0)] = number
    edge = (ndi.maximum_filter(labels, 3) != ndi.minimum_filter(labels, 3)) & (labels > 0)
    confidence = np.where(labels > 0, np.where(edge, 0.75, 0.95), 0.05)
    return labels, np.rint(255 * ndi.gaussian_filter(confidence, 0.7)).astype(np.uint8)


def by_the_book(confidence, threshold, height):
    """Return the watershed from the h-maxima of the landscape, with scikit-image."""
    from skimage.morphology import h_maxima

    mask = confidence > threshold * 255
    landscape = ndi.gaussian_filter(
        ndi.distance_transform_edt(mask).astype(np.float32) * (confidence.astype(np.float32) / 255), SMOOTHING
    )
    markers = ndi.label(h_maxima(landscape, height) & mask, np.ones((3, 3)))[0]
    return watershed(-landscape, markers, mask=mask, connectivity=2)


def test_touching_nuclei_are_parted_and_more_so_with_more_strength():
    truth, confidence = tissue()
    counts = [int(split_nuclei(confidence, strength=strength).max()) for strength in (0, 0.2, 0.5, 0.8, 1)]
    assert counts == sorted(counts)
    assert counts[0] < 0.75 * counts[2]
    plain = compare(split_nuclei(confidence, strength=0), truth).aji
    assert compare(split_nuclei(confidence), truth).aji > plain + 0.3


def test_the_split_is_that_of_the_watershed_from_h_maxima():
    _, confidence = tissue(shape=(250, 250), count=60, seed=3)
    ours = split_nuclei(confidence, min_area=1)
    book = by_the_book(confidence, 0.5, PROMINENCE)
    agreement = compare(ours, book)
    assert agreement.truth == agreement.predicted == agreement.matched
    assert agreement.sq > 0.97  # they differ in single pixels on the lines between nuclei


def test_without_strength_nuclei_are_the_connected_components():
    _, confidence = tissue(seed=1)
    expected = ndi.label(confidence > 127, np.ones((3, 3)))[0]
    found = split_nuclei(confidence, strength=0, min_area=1)
    assert compare(found, expected).pq == 1


@settings(deadline=None, max_examples=100)
@given(
    arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=24), elements=st.integers(0, 255)),
    st.floats(0, 1),
    st.floats(0, 1),
    st.integers(1, 12),
)
def test_whatever_the_map_labels_are_consecutive_connected_and_large_enough(confidence, threshold, strength, min_area):
    labels = split_nuclei(confidence, threshold=threshold, strength=strength, min_area=min_area)

    assert labels.dtype == np.uint32
    assert labels.shape == confidence.shape
    count = int(labels.max())
    assert len(np.unique(labels[labels > 0])) == count
    first = first_places(labels.ravel())[1:]
    assert (np.diff(first) > 0).all()
    for nucleus in range(1, count + 1):
        assert (labels == nucleus).sum() >= min_area
        assert ndi.label(labels == nucleus, np.ones((3, 3)))[1] == 1
    # the mask does not depend on how it is split
    np.testing.assert_array_equal(
        labels > 0, split_nuclei(confidence, threshold=threshold, strength=0, min_area=min_area) > 0
    )


@settings(deadline=None, max_examples=30)
@given(arrays(np.uint8, (20, 24), elements=st.integers(0, 255)), st.integers(1, 40), st.sampled_from([0.1, 0.25, 1.0]))
def test_the_background_around_nuclei_changes_nothing_however_wide_it_is(confidence, width, mpp):
    narrow, wide = (split_nuclei(np.pad(confidence, by), mpp=mpp, min_area=3) for by in (1, 1 + width))
    np.testing.assert_array_equal(wide[width:-width, width:-width], narrow)


def test_small_holes_are_filled_and_specks_removed_but_open_gaps_stay():
    confidence = np.zeros((60, 60), np.uint8)
    confidence[10:40, 10:40] = 255
    confidence[20:24, 20:24] = 0  # a hole
    confidence[30:34, 36:40] = 0  # a notch
    confidence[50:53, 50:53] = 255  # a speck
    labels = split_nuclei(confidence, strength=0)
    assert labels[21, 21] == 1
    assert labels[31, 38] == 0
    assert labels[51, 51] == 0
    large = split_nuclei(confidence, strength=0, min_area=5)
    assert large[21, 21] == 0
    assert large[51, 51] == 2


def test_float_and_uint8_maps_give_the_same_nuclei():
    _, confidence = tissue(shape=(120, 120), count=20)
    np.testing.assert_array_equal(split_nuclei(confidence), split_nuclei(confidence.astype(np.float32) / 255))


@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize("shape", [(1, 1), (1, 90), (70, 80)])
def test_maps_of_one_value_hold_no_nucleus_or_one(value, shape):
    labels = split_nuclei(np.full(shape, value, np.uint8))
    assert labels.max() == (1 if value and labels.size >= MIN_AREA else 0)


def test_the_threshold_is_where_the_foreground_begins():
    confidence = np.tile(np.arange(256, dtype=np.uint8), (20, 1))
    assert (split_nuclei(confidence, threshold=0.5) > 0).sum(axis=1).tolist() == [128] * 20
    assert not split_nuclei(confidence, threshold=1.0).any()


def test_an_image_of_half_the_size_is_split_alike_when_its_pixel_size_is_known():
    truth, confidence = tissue(seed=2)
    half = confidence[::2, ::2]
    found = [compare(split_nuclei(half, min_area=12, mpp=mpp), truth[::2, ::2]).aji for mpp in (None, 0.5)]
    assert found[1] > found[0] + 0.02
    np.testing.assert_array_equal(split_nuclei(confidence, mpp=0.25), split_nuclei(confidence))


def test_the_smallest_nucleus_follows_the_pixel_size():
    assert smallest_area(None) == MIN_AREA
    assert smallest_area(0.25) == 48
    assert smallest_area(0.5) == 12
    assert smallest_area(5.0) == 1


def test_a_smallest_nucleus_that_is_asked_for_is_the_same_at_every_pixel_size():
    assert [smallest_area(mpp, um2=8.0) for mpp in (0.25, 0.5, 1.0, 5.0)] == [128, 32, 8, 1]
    assert [smallest_area(mpp, pixels=7) for mpp in (0.25, None)] == [7, 7]
    with pytest.raises(InputError, match="the pixel size of the image is not known"):
        smallest_area(None, um2=8.0)
    with pytest.raises(InputError, match="in pixels and in µm²: give one"):
        smallest_area(0.25, 7, 8.0)
