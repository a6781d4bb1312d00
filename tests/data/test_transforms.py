"""Geometry and color: the same draw does the same to every view."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as F
from torchvision.transforms import InterpolationMode

from napari_semiseg.data.transforms import COLORS, Color, Geometry, GeometryRange


def coordinates(side: int) -> torch.Tensor:
    """An image whose pixels say where they are: row, column, and zero."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return torch.stack([rows, columns, torch.zeros_like(rows)]).float()


@pytest.mark.parametrize("seed", range(12))
def test_image_and_label_stay_aligned_under_any_draw(seed: int) -> None:
    geometry = GeometryRange(0.3, 30.0).draw(np.random.default_rng(seed))
    window = coordinates(geometry.window(64))
    label = (window[1:2] > window.shape[-1] / 2).to(torch.uint8)

    image = geometry.apply(window, 64)
    moved = geometry.apply(label, 64, nearest=True, fill=255)[0]

    expected = image[1] > window.shape[-1] / 2
    assert (moved.bool() == expected).float().mean() > 0.98  # nearest and bilinear differ at the edge only


@pytest.mark.parametrize("seed", range(12))
def test_the_window_is_large_enough_that_no_corner_is_filled(seed: int) -> None:
    geometry = GeometryRange(0.3, 45.0).draw(np.random.default_rng(seed))
    label = torch.zeros(1, geometry.window(64), geometry.window(64), dtype=torch.uint8)

    assert not (geometry.apply(label, 64, nearest=True, fill=255) == 255).any()


def test_a_flip_and_a_quarter_turn_are_exact() -> None:
    window = coordinates(8)
    moved = Geometry(flip=True, quarter_turns=1).apply(window, 8)

    assert torch.equal(moved, torch.rot90(window.flip(-1), 1, (-2, -1)))


def noise(side: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, side, side), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("nearest", [False, True])
@pytest.mark.parametrize("crop", [64, 63])
def test_a_rotated_and_magnified_crop_is_the_middle_of_what_torchvision_makes(crop: int, nearest: bool) -> None:
    geometry = Geometry(scale=0.83, degrees=-21.0)
    window = noise(geometry.window(crop))
    kind = InterpolationMode.NEAREST if nearest else InterpolationMode.BILINEAR
    whole = F.affine(window, geometry.degrees, [0, 0], geometry.scale, [0.0, 0.0], interpolation=kind)
    expected = F.center_crop(whole, [crop, crop])

    found = geometry.apply(window, crop, nearest=nearest)

    assert found.dtype == torch.uint8
    differences = (found.int() - expected.int()).abs()
    assert (differences > 0).float().mean() < 0.001  # ties alone
    assert nearest or differences.max() <= 1


def test_jitter_and_blur_are_those_of_torchvision_but_for_rounding() -> None:
    image = noise(48)
    image[:, :8, :8] = 77  # gray has no hue
    color = Color(brightness=1.2, contrast=0.8, saturation=1.3, hue=-0.07, gray=False, blur_sigma=1.1)
    expected = F.adjust_saturation(F.adjust_contrast(F.adjust_brightness(image.double() / 255, 1.2), 0.8), 1.3)
    expected = F.gaussian_blur(F.adjust_hue(expected, -0.07), [5, 5], [1.1, 1.1]) * 255

    found = color.apply(image)

    assert found.dtype == torch.uint8
    assert (found.double() - expected).abs().max() <= 1.01  # two roundings


def test_color_keeps_place_and_type() -> None:
    image = torch.zeros(3, 16, 16, dtype=torch.uint8)
    image[:, 4:8, 4:8] = 200
    color = COLORS["paper"]
    assert color is not None

    for seed in range(8):
        changed = color.draw(np.random.default_rng(seed)).apply(image)
        assert changed.dtype == torch.uint8
        assert changed.shape == image.shape
        assert changed[:, 5:7, 5:7].float().mean() > changed[:, 12:, 12:].float().mean()
