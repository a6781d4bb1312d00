"""Images of one dye, whose nuclei are seen best in green light."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from skimage.data import immunohistochemistry

from napari_semiseg import metrics
from napari_semiseg.nn.stain_scale import UNITS, StainScale, own_channel
from napari_semiseg.postprocess.proposal import propose
from napari_semiseg.postprocess.single_stain import AGREEMENT, agreement, best_stain
from napari_semiseg.postprocess.stain_guide import find_guide
from napari_semiseg.postprocess.threshold import hematoxylin_threshold

SPLIT = Path(__file__).parents[2] / "benchmarks/splits/dsb2018-stained.json"
PURPLE, PINK, BROWN = np.array([0.65, 0.70, 0.29]), np.array([0.07, 0.99, 0.11]), np.array([0.27, 0.57, 0.78])


def tissue(second=None):
    """Return nuclei in paler cytoplasm, perhaps on fibers of a second dye, and where they are."""
    y, x = np.mgrid[:240, :240]
    nuclei = ((y % 48 - 24) ** 2 + (x % 48 - 24) ** 2) < 12**2
    fibers = (y // 16) % 3 == 0
    depth = np.where(nuclei[..., None], PURPLE, 0.1 * PURPLE)
    if second is not None:
        depth = depth + 0.8 * fibers[..., None] * second
    noise = np.random.default_rng(0).normal(0, 3, (*nuclei.shape, 3))
    return np.clip(255 * np.exp(-1.2 * depth) + noise, 0, 255).astype(np.uint8), nuclei


def test_nuclei_of_a_single_dye_are_looked_for_in_green_light():
    image, _ = tissue()
    assert best_stain([image], image, gray=False) == "green"


@pytest.mark.parametrize("second", [PINK, BROWN], ids=["eosin", "DAB"])
def test_where_there_is_a_second_dye_nuclei_are_looked_for_by_their_own(second):
    image, _ = tissue(second)
    assert agreement([image]) < AGREEMENT
    assert best_stain([image], image, gray=False) == "hematoxylin"


def test_real_tissue_in_two_dyes_is_unmixed():
    image = immunohistochemistry()
    assert best_stain([image], image, gray=False) == "hematoxylin"


def test_gray_images_are_not_asked_for_their_dye():
    image = np.repeat(tissue()[0][..., 1:2], 3, axis=-1)
    assert best_stain([image], image, gray=True) == "inverted"


def test_tissue_and_glass_seen_from_afar_do_not_count_but_tissue_at_full_resolution():
    """From afar both dyes tell tissue from glass, and so would agree."""
    image, _ = tissue(PINK)
    afar = np.full((60, 60, 3), 245, np.uint8)
    afar[20:40, 20:40] = image.mean((0, 1)).astype(np.uint8)
    assert agreement([afar]) > AGREEMENT
    assert best_stain([image], afar, gray=False) == "hematoxylin"


def test_an_image_of_one_color_has_no_agreement():
    assert agreement([np.full((40, 40, 3), 200, np.uint8)]) == 0


def test_few_parts_of_a_large_image_are_looked_at():
    """The last of many cells counts, and what lies between those that are looked at does not."""
    image, _ = tissue()
    large = np.tile(image, (9, 9, 1))
    assert best_stain([large], image, gray=False) == "green"
    large[600:700, 600:700] = 255
    assert best_stain([large], image, gray=False) == "green"


def test_the_guide_and_the_channel_of_a_network_read_the_same_light():
    image, nuclei = tissue()
    guide = find_guide([image], image, gray=False)
    assert guide.stain == "green"
    assert metrics.dice(metrics.confusion(guide.beyond(image) > 0, nuclei)) > 0.95

    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    told, own = StainScale.of(guide).channel(tensor), own_channel(tensor, "green")
    assert (told - own).abs().max() * UNITS < 0.05


def test_tissue_of_two_dyes_is_proposed_as_before(dataset):
    folder = dataset("monuseg")
    for name in json.loads((folder / "splits.json").read_text())["val"]:
        image = np.asarray(Image.open(folder / "images" / f"{name}.png").convert("RGB"))
        assert np.array_equal(propose(image)[0], hematoxylin_threshold(image))


def test_purple_images_of_the_nucleus_challenge_gain_two_points(dataset):
    folder, gains = dataset("dsb2018"), []
    for name in json.loads(SPLIT.read_text())["val"]:
        image = np.asarray(Image.open(folder / "images" / f"{name}.png").convert("RGB"))
        truth = tifffile.imread(folder / "labels" / f"{name}.tif") > 0
        found, before = (
            metrics.dice(metrics.confusion(mask, truth)) for mask in (propose(image)[0], hematoxylin_threshold(image))
        )
        gains.append(found - before)
    assert len(gains) == 12
    assert np.mean(gains) > 0.02
