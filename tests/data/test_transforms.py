"""Geometry and color: the same draw does the same to every view."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_semiseg.data.transforms import COLORS, Geometry, GeometryRange


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
