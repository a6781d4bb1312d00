"""Glass is passed over, tissue never is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_semiseg.blocks import Box
from napari_semiseg.io.images import open_image
from napari_semiseg.postprocess.threshold import hematoxylin_threshold
from napari_semiseg.postprocess.tissue import TissueMask, find_tissue


def slide(tissue, glass=(240, 236, 242), seed=0):
    """Return an overview: pink tissue where the mask says, slightly noisy glass elsewhere."""
    noise = np.random.default_rng(seed).normal(0, 2, (*tissue.shape, 3))
    return np.clip(np.where(tissue[..., None], (220, 190, 215), glass) + noise, 0, 255).astype(np.uint8)


def test_pale_tissue_is_found_and_glass_passed_over():
    truth = np.zeros((100, 150), bool)
    truth[20:60, 30:90] = True
    found = find_tissue(slide(truth), (3000, 4500))
    assert found.mask[truth].all()
    assert found.any_in(Box(0, 0, 3000, 4500))
    assert not found.any_in(Box(2000, 3000, 3000, 4500))
    assert found.mask.mean() < 2 * truth.mean()


@pytest.mark.parametrize(
    "overview",
    [np.full((50, 50, 3), 20, np.uint8), slide(np.ones((50, 50), bool)), np.zeros((1, 1, 3), np.uint8)],
    ids=["dark field", "full of tissue", "one pixel"],
)
def test_where_there_is_no_glass_everything_may_be_tissue(overview):
    assert find_tissue(overview, (5000, 5000)).mask.all() or overview.min() > 180


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 9), st.data())
def test_a_rectangle_has_tissue_if_any_of_its_pixels_has(height, width, step, data):
    overview = np.random.default_rng(height * width).random((-(-height // step), -(-width // step))) < 0.1
    tissue = TissueMask(overview, (height, width))
    whole = tissue.part(Box(0, 0, height, width))
    y0, x0 = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    box = Box(y0, x0, data.draw(st.integers(y0 + 1, height)), data.draw(st.integers(x0 + 1, width)))
    assert whole.shape == (height, width)
    np.testing.assert_array_equal(tissue.part(box), whole[box.slices])
    assert tissue.any_in(box) == whole[box.slices].any()
    assert tissue.all_in(box) == whole[box.slices].all()
    assert tissue.share(box) == whole[box.slices].mean()


def test_no_stained_nucleus_of_a_real_slide_lies_on_what_is_taken_for_glass(dataset):
    image = open_image(next(dataset("slides").rglob("*.svs")))
    tissue = find_tissue(image.overview(512), image.shape)
    whole = Box.whole(image.shape)
    nuclei = hematoxylin_threshold(image.read(whole))
    assert nuclei[~tissue.part(whole)].mean() < 0.01
