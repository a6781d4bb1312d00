"""Nuclei split cell by cell: the same as at once, none lost or doubled at a seam."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import ndimage as ndi

from napari_semiseg.postprocess.instances import split_nuclei
from napari_semiseg.postprocess.merge import BlockwiseSplit, SplitRule, split_blockwise


def blobs(shape, seed, scale=3.0):
    """Return smooth random confidence, which makes nuclei of all shapes, many of them touching."""
    noise = ndi.gaussian_filter(np.random.default_rng(seed).normal(size=shape), scale)
    return np.rint(255 / (1 + np.exp(-25 * noise))).astype(np.uint8)


def same_partition(a, b):
    """Whether two label images hold the same nuclei, whatever their ids."""
    pairs = np.unique(np.stack([a.ravel(), b.ravel()]), axis=1)
    return len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]


@settings(deadline=None, max_examples=25)
@given(st.integers(20, 220), st.integers(20, 220), st.integers(30, 150), st.integers(0, 99))
@example(97, 32, 32, 32)  # a nucleus in three cells, one of them a single row
def test_cells_of_any_size_give_the_nuclei_of_the_whole_image(height, width, cell, seed):
    confidence = blobs((height, width), seed)
    whole = split_nuclei(confidence, threshold=0.6, min_area=10, strength=0.6)
    rule = SplitRule(threshold=0.6, min_area=10, strength=0.6)

    found = split_blockwise(confidence, rule, cell=cell, halo=90)

    assert same_partition(found, whole)
    assert found.max() == whole.max() == len(np.unique(found)) - (0 in found)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_order_of_the_cells_changes_nothing_but_the_numbers(seed):
    confidence = blobs((300, 300), 5)
    work = BlockwiseSplit(lambda box: confidence[None, *box.slices], (300, 300), SplitRule(), cell=64, halo=64)
    labels = np.zeros((300, 300), np.uint32)
    for number in np.random.default_rng(seed).permutation(len(work.cells)):
        keep = work.cells[number]
        labels[keep.slices] = work.number(keep, work.split(keep)).labels

    assert same_partition(labels, split_blockwise(confidence, cell=64, halo=64))
    assert work.nuclei == labels.max() == len(np.unique(labels)) - 1


def test_a_nucleus_on_the_corner_of_four_cells_is_one():
    confidence = np.zeros((80, 80), np.uint8)
    y, x = np.mgrid[:80, :80]
    confidence[(y - 40) ** 2 + (x - 40) ** 2 < 100] = 255
    found = split_blockwise(confidence, cell=40, halo=30)
    assert found.max() == 1
    np.testing.assert_array_equal(found > 0, confidence > 127)


@pytest.mark.parametrize("halo", [0, 5, 20])
def test_what_is_longer_than_the_halo_may_be_cut_but_no_pixel_is_lost(halo):
    confidence = np.zeros((100, 400), np.uint8)
    confidence[40:60, 5:395] = 255
    found = split_blockwise(confidence, SplitRule(strength=0), cell=50, halo=halo)
    np.testing.assert_array_equal(found > 0, confidence > 127)


def test_the_memory_of_seams_does_not_grow_with_the_image():
    confidence = np.tile(blobs((128, 128), 9), (12, 1))
    work = BlockwiseSplit(
        lambda box: confidence[None, *box.slices], confidence.shape, SplitRule(min_area=10), cell=64, halo=40
    )
    sizes = []
    for keep in work.cells:
        work.number(keep, work.split(keep))
        sizes.append(len(work._numbering.on_seams))
    assert max(sizes[-8:]) <= 2 * max(sizes[:8])
    assert sizes[-1] == 0
    assert work.nuclei > 3 * max(sizes)


def test_every_nucleus_has_one_class_also_across_seams():
    confidence = blobs((150, 150), 4)
    share = (np.arange(150) * 255 // 149).astype(np.uint16)  # the second class prevails on the right
    second = (confidence.astype(np.uint16) * share // 255).astype(np.uint8)
    both = np.stack([confidence - second, second])
    work = BlockwiseSplit(lambda box: both[:, *box.slices], (150, 150), SplitRule(), cell=50, halo=60)
    labels, classes = np.zeros((150, 150), np.uint32), np.zeros((150, 150), np.uint8)
    for keep in work.cells:
        part = work.number(keep, work.split(keep))
        labels[part.keep.slices], classes[part.keep.slices] = part.labels, part.classes

    assert same_partition(labels, split_nuclei(confidence))
    assert ((classes > 0) == (labels > 0)).all()
    for nucleus in range(1, work.nuclei + 1):
        here = labels == nucleus
        assert set(classes[here]) == {1 + int(second[here].sum() > (confidence - second)[here].sum())}
    assert set(classes.ravel()) == {0, 1, 2}
