"""A map that stands out from its neighborhood."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from napari_semiseg.nn.local_contrast import NEIGHBORHOOD, LocalContrast


def by_loops(values: Tensor, amount: float, stride: int) -> Tensor:
    """x + γ (x - x̄), x̄ weighed by a Gaussian that ends at two standard deviations and at the border."""
    sigma = NEIGHBORHOOD / stride
    radius = round(2 * sigma)
    height, width = values.shape[-2:]
    out = values.clone()
    for y in range(height):
        for x in range(width):
            total = weight = 0.0
            for v in range(max(0, y - radius), min(height, y + radius + 1)):
                for u in range(max(0, x - radius), min(width, x + radius + 1)):
                    w = math.exp(-((v - y) ** 2 + (u - x) ** 2) / (2 * sigma**2))
                    total, weight = total + w * float(values[0, 0, v, u]), weight + w
            out[0, 0, y, x] += amount * (float(values[0, 0, y, x]) - total / weight)
    return out


@pytest.mark.parametrize("stride", [2, 4])
def test_each_value_gains_what_it_has_more_than_its_neighborhood(stride: int) -> None:
    torch.manual_seed(0)
    values = torch.randn(1, 1, 13, 21, dtype=torch.float64)
    found = LocalContrast(0.4, stride).double()(values)

    torch.testing.assert_close(found, by_loops(values, 0.4, stride), rtol=1e-6, atol=1e-6)


def test_a_map_that_is_the_same_everywhere_stays_as_it_is() -> None:
    values = torch.full((2, 1, 9, 5), 3.25)
    torch.testing.assert_close(LocalContrast(1.0, 2)(values), values)


def test_no_amount_is_no_change_and_reaches_nowhere() -> None:
    values = torch.randn(1, 1, 8, 8)
    none = LocalContrast(0.0, 2)

    assert none(values) is values
    assert none.reach == 0


def test_the_gap_between_two_nuclei_that_touch_gets_deeper() -> None:
    at = torch.arange(64.0)
    row = 4 * torch.exp(-(((at - 24) / 7) ** 2)) + 4 * torch.exp(-(((at - 40) / 7) ** 2)) - 0.5
    values = row.repeat(64, 1)[None, None]
    found = LocalContrast(0.5, 1)(values)

    def gap(of: Tensor) -> float:
        return float(of[0, 0, 32, 24] - of[0, 0, 32, 32])

    assert gap(found) > 1.2 * gap(values)


def test_what_lies_beyond_its_reach_changes_nothing() -> None:
    contrast = LocalContrast(1.0, 2)
    values = torch.zeros(1, 1, 64, 64)
    other = values.clone()
    cells = contrast.reach // 2
    other[0, 0, 10 + cells + 1, 10] = 100.0
    inside = values.clone()
    inside[0, 0, 10 + cells, 10] = 100.0

    assert torch.equal(contrast(values)[0, 0, 10, 10], contrast(other)[0, 0, 10, 10])
    assert not torch.equal(contrast(values)[0, 0, 10, 10], contrast(inside)[0, 0, 10, 10])
