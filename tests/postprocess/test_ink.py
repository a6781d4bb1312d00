"""Black that is no stain."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from napari_semiseg import metrics
from napari_semiseg.nn.ink import find_ink as find_ink_in_tensor
from napari_semiseg.postprocess.ink import LEAST, REACH, find_ink
from napari_semiseg.postprocess.proposal import propose
from napari_semiseg.postprocess.stain_guide import find_guide


@pytest.fixture
def tissue() -> tuple[np.ndarray, np.ndarray]:
    """An H&E-like image, 200 x 300: twelve nuclei in eosin, beside glass; and where they are."""
    rows, columns = np.mgrid[:200, :300]
    nuclei = np.zeros((200, 300), bool)
    for y in range(30, 200, 60):
        for x in range(30, 210, 55):
            nuclei |= (rows - y) ** 2 + (columns - x) ** 2 < 9**2
    blue_purple, pink = np.array([0.65, 0.70, 0.29]), np.array([0.07, 0.99, 0.11])
    depth = np.where(nuclei[..., None], blue_purple, 0.35 * pink * (columns < 240)[..., None])
    light = gaussian_filter(np.exp(-1.3 * depth), (1, 1, 0))
    noise = np.random.default_rng(0).normal(0, 3, light.shape)
    return np.clip(255 * light + noise, 0, 255).astype(np.uint8), nuclei


def inked(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the image with a band of ink at its right, gray where it ends, and how much of each pixel is ink."""
    share = gaussian_filter(np.where(np.arange(image.shape[1]) >= 220, 1.0, 0.0), 1)[None, :, None]
    noise = np.random.default_rng(1).normal(0, 4, image.shape)
    return np.clip(image * (1 - share) + share * (40 + noise), 0, 255).astype(np.uint8), share[0, :, 0]


def dice(found: np.ndarray, truth: np.ndarray) -> float:
    return metrics.dice(metrics.confusion(found, truth))


def test_ink_is_found_to_where_its_gray_edge_ends_and_nothing_else_is(tissue: tuple[np.ndarray, np.ndarray]) -> None:
    image, nuclei = tissue
    marked, share = inked(image)

    assert not find_ink(image).any()
    found = find_ink(marked)
    assert found[:, share > 0.1].all()
    assert not found[nuclei].any()


def test_a_margin_of_ink_takes_nothing_from_the_first_proposal(tissue: tuple[np.ndarray, np.ndarray]) -> None:
    image, nuclei = tissue
    marked, _ = inked(image)

    assert dice(propose(image)[0], nuclei) > 0.9
    assert dice(propose(marked)[0], nuclei) > 0.9


def test_what_is_learned_from_the_stain_says_background_where_there_is_ink(
    tissue: tuple[np.ndarray, np.ndarray],
) -> None:
    marked, share = inked(tissue[0])

    beyond = find_guide([marked], marked, gray=False).beyond(marked)

    assert (beyond[:, share > 0.5] < 0).all()
    assert (beyond[tissue[1]] > 0).mean() > 0.9


def test_a_black_nucleus_is_a_nucleus(tissue: tuple[np.ndarray, np.ndarray]) -> None:
    image = tissue[0].copy()
    image[60 : 60 + LEAST - 1, 100 : 100 + LEAST - 1] = 30  # no larger than a nucleus

    assert not find_ink(image).any()


def test_a_dark_gray_picture_keeps_its_nuclei() -> None:
    rows, columns = np.mgrid[:120, :120]
    nuclei = (rows - 60) ** 2 + (columns - 60) ** 2 < 20**2
    gray = np.where(nuclei, 30, 200).astype(np.uint8)

    assert dice(propose(np.repeat(gray[..., None], 3, axis=-1), gray=True)[0], nuclei) > 0.95


def test_ink_of_a_part_of_an_image_is_that_of_the_whole(tissue: tuple[np.ndarray, np.ndarray]) -> None:
    marked, _ = inked(tissue[0])
    marked[90:112, 130:152] = 35  # a blot
    whole = find_ink(marked)
    assert whole[100, 140]

    for left in range(REACH, 220, 9):
        part = find_ink(marked[:, left - REACH : left + 40 + REACH])
        assert (part[:, REACH : REACH + 40] == whole[:, left : left + 40]).all()


def test_networks_see_the_same_ink(tissue: tuple[np.ndarray, np.ndarray]) -> None:
    marked, _ = inked(tissue[0])
    tensor = torch.from_numpy(marked).permute(2, 0, 1)[None].float() / 255

    assert (find_ink_in_tensor(tensor)[0, 0].numpy() == find_ink(marked)).mean() > 0.999
