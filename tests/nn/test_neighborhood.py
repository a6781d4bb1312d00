"""The mean of a map around each of its places."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from napari_semiseg.nn.neighborhood import NEIGHBORHOOD, Neighborhood


def by_loops(values: Tensor, stride: int) -> Tensor:
    """Weighed by a Gaussian that ends at two standard deviations and at the border."""
    sigma = NEIGHBORHOOD / stride
    radius = round(2 * sigma)
    height, width = values.shape
    out = torch.empty_like(values)
    for y in range(height):
        for x in range(width):
            total = weight = 0.0
            for v in range(max(0, y - radius), min(height, y + radius + 1)):
                for u in range(max(0, x - radius), min(width, x + radius + 1)):
                    w = math.exp(-((v - y) ** 2 + (u - x) ** 2) / (2 * sigma**2))
                    total, weight = total + w * float(values[v, u]), weight + w
            out[y, x] = total / weight
    return out


@pytest.mark.parametrize("stride", [4, 8])
def test_a_mean_is_weighed_by_a_gaussian_that_ends_at_two_standard_deviations_and_at_the_border(stride: int) -> None:
    torch.manual_seed(0)
    values = torch.randn(2, 2, 13, 21, dtype=torch.float64)
    found = Neighborhood(stride).double()(values)

    for image in range(2):
        for channel in range(2):
            expected = by_loops(values[image, channel], stride)
            torch.testing.assert_close(found[image, channel], expected, rtol=1e-6, atol=1e-6)


def test_a_map_that_is_the_same_everywhere_is_its_own_mean() -> None:
    values = torch.full((2, 1, 9, 5), 3.25)
    torch.testing.assert_close(Neighborhood(2)(values), values)


def test_what_lies_beyond_its_reach_changes_nothing() -> None:
    mean = Neighborhood(4)
    cells = mean.reach // 4
    values = torch.zeros(1, 1, 64, 64)
    beyond, within = values.clone(), values.clone()
    beyond[0, 0, 10 + cells + 1, 10] = 100.0
    within[0, 0, 10 + cells, 10] = 100.0

    assert float(mean(beyond)[0, 0, 10, 10]) == 0.0
    assert float(mean(within)[0, 0, 10, 10]) > 0.0
