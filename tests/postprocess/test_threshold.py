"""The threshold that needs no label."""

import json

import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage.data import immunohistochemistry
from skimage.filters import gaussian

from napari_semiseg import metrics
from napari_semiseg.postprocess.proposal import propose
from napari_semiseg.postprocess.threshold import (
    REACH,
    density,
    find_stain,
    find_threshold,
    hematoxylin_threshold,
)


def discs(bright, background):
    """Return a gray image of four discs, as RGB, and where they are."""
    y, x = np.mgrid[:120, :120]
    truth = np.zeros((120, 120), bool)
    for cy, cx in ((30, 30), (30, 85), (80, 40), (90, 95)):
        truth |= (y - cy) ** 2 + (x - cx) ** 2 < 14**2
    noise = np.random.default_rng(0).normal(0, 4, truth.shape)
    image = np.clip(gaussian(np.where(truth, bright, background).astype(float), 1) + noise, 0, 255).astype(np.uint8)
    return np.repeat(image[..., None], 3, axis=-1), truth


def stained():
    """Return an H&E-like image: four hematoxylin discs in eosin, on white, and where they are."""
    _, truth = discs(1, 0)
    tissue = np.arange(120) < 100
    blue_purple, pink = np.array([0.65, 0.70, 0.29]), np.array([0.07, 0.99, 0.11])
    depth = np.where(truth[..., None], blue_purple, 0.3 * pink * tissue[:, None])
    return np.rint(255 * np.exp(-1.2 * depth)).astype(np.uint8), truth


def dice(mask, truth):
    return metrics.dice(metrics.confusion(mask, truth))


def test_the_hematoxylin_row_on_the_monuseg_test_images_is_what_every_table_starts_with(dataset):
    folder = dataset("monuseg")
    tables = []
    for name in json.loads((folder / "splits.json").read_text())["test"]:
        image = np.asarray(Image.open(folder / "images" / f"{name}.png").convert("RGB"))
        truth = tifffile.imread(folder / "labels" / f"{name}.tif") > 0
        tables.append(metrics.confusion(hematoxylin_threshold(image), truth))

    pooled = sum(tables)
    assert len(tables) == 14
    assert np.mean([metrics.dice(table) for table in tables]) == pytest.approx(0.769, abs=5e-4)
    assert metrics.dice(pooled) == pytest.approx(0.767, abs=5e-4)
    assert metrics.mean_dice(pooled) == pytest.approx(0.847, abs=5e-4)
    assert metrics.mean_iou(pooled) == pytest.approx(0.744, abs=5e-4)


def test_stained_nuclei_are_found_in_tissue_and_glass():
    image, truth = stained()
    assert find_stain(image) == "hematoxylin"
    assert dice(hematoxylin_threshold(image), truth) > 0.95


@pytest.mark.parametrize(("bright", "background", "stain"), [(180, 20, "intensity"), (70, 200, "inverted")])
def test_the_polarity_of_gray_images_is_found(bright, background, stain):
    image, truth = discs(bright, background)
    assert find_stain(image, gray=True) == stain
    assert find_stain(image, gray=False) == stain  # three equal channels hold no color either
    assert dice(find_threshold([image], stain).mask(image), truth) > 0.95


def test_color_on_a_dark_field_is_fluorescence_and_not_stain():
    image, truth = discs(180, 10)
    image[..., :2] //= 6  # blue
    assert find_stain(image) == "intensity"
    assert dice(propose(image)[0], truth) > 0.95


def test_real_tissue_is_seen_as_stained():
    assert find_stain(immunohistochemistry()) == "hematoxylin"


@pytest.mark.parametrize("image", [stained()[0], discs(180, 20)[0], immunohistochemistry()[:200, :200]])
def test_the_confidence_of_a_proposal_crosses_one_half_where_its_mask_ends(image):
    mask, confidence = propose(image)
    found = find_threshold([image], find_stain(image))
    np.testing.assert_array_equal(mask, confidence >= 128)
    np.testing.assert_array_equal(mask, found.mask(image))
    order = np.argsort(density(image, found.stain), axis=None)
    assert (np.diff(confidence.ravel()[order].astype(int)) >= 0).all()  # more stain is never less confidence


def test_a_threshold_found_in_parts_is_applied_to_any_part_alike():
    image = immunohistochemistry()
    found = find_threshold([image[:256], image[256:]], "hematoxylin")
    part, margin = slice(100, 200), REACH
    wider = image[part.start - margin : part.stop + margin, part.start - margin : part.stop + margin]
    inner = found.confidence(wider)[margin:-margin, margin:-margin]
    np.testing.assert_array_equal(inner, found.confidence(image)[part, part])


@pytest.mark.parametrize("value", [0, 255])
def test_an_image_of_one_color_has_no_nuclei(value):
    image = np.full((50, 50, 3), value, np.uint8)
    for gray in (True, False):
        mask, confidence = propose(image, gray)
        assert not mask.any()
        assert confidence.max() <= 127
    assert not hematoxylin_threshold(image).any()


def test_a_single_pixel_is_no_reason_to_fail():
    assert propose(np.zeros((1, 1, 3), np.uint8))[0].shape == (1, 1)
