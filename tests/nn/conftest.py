"""How far a change of one pixel is seen: measured, for the tests of reach."""

from collections.abc import Callable

import pytest
import torch
from torch import nn


@torch.no_grad()
def _open_up(network: nn.Module) -> nn.Module:
    """Make every weight positive and biases large, so that no ReLU hides a dependence; predicting, in float64."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.fill_(1 / module.weight[0].numel())
    return network.double().eval()


@torch.no_grad()
def _furthest_changes(network: nn.Module, period: int, length: int, height: int, *, rows: bool = False) -> int:
    """Return the largest distance at which an output pixel feels a changed input pixel.

    Pixels are changed one at a time, over a period in the middle of a strip of `length` by `height`.
    """
    middle = length // 2 // period * period
    changed = [middle + k for k in range(period)]
    images = torch.rand(1, 3, height, length, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    images = 0.5 + 0.4 * images.repeat(1 + period, 1, 1, 1)
    for k, pixel in enumerate(changed, start=1):
        images[k, :, height // 2, pixel] = 0.1
    if rows:
        images = images.transpose(2, 3)
    outputs = network(images)
    felt = (outputs[1:] != outputs[:1]).any(dim=1).any(dim=2 if rows else 1)
    where = torch.arange(felt.shape[1])
    return max(int((where[row] - pixel).abs().max()) for row, pixel in zip(felt, changed, strict=True))


@pytest.fixture
def open_up() -> Callable[[nn.Module], nn.Module]:
    return _open_up


@pytest.fixture
def furthest_changes() -> Callable[..., int]:
    return _furthest_changes
