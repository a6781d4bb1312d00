"""The network that reads pixels with the help of prototypes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from napari_semiseg.nn.network import Network
from napari_semiseg.nn.prototypes import PrototypeNetwork


class Body(Network):
    """A convolution of stride 2."""

    def __init__(self) -> None:
        super().__init__()
        self.classes, self.feature_channels, self.stride, self.divisor, self.reach = 3, 6, 2, 2, 4
        self.convolution, self.head = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 3, 1)

    def features(self, image: Tensor) -> Tensor:
        return self.convolution(image)

    def logits_on_grid(self, features: Tensor) -> Tensor:
        return self.head(features)


@pytest.fixture
def network() -> PrototypeNetwork:
    torch.manual_seed(0)
    return PrototypeNetwork(Body(), prototypes=4, references=5, channels=7, beta=0.8).double()


@pytest.fixture
def features() -> Tensor:
    return torch.randn(2, 6, 8, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def softmax(values: list[Tensor]) -> list[Tensor]:
    total = sum(value.exp() for value in values)
    return [value.exp() / total for value in values]


@torch.no_grad()
def read_loop(network: PrototypeNetwork, features: Tensor) -> tuple[list, list]:
    """Correlation and prototypes of the first image, cell by cell."""
    reduced = network.reduce(features)[0]
    cells = [reduced[:, y : y + 2, x : x + 2].mean((1, 2)) for y in range(0, 8, 2) for x in range(0, 6, 2)]
    prototypes = list(network.prototypes)
    direct = [[p @ x / 7**0.5 for x in cells] for p in prototypes]
    shares = [softmax(row) for row in direct]
    usage = [float(sum(row[i] for row in shares)) for i in range(len(cells))]
    best = sorted(range(len(cells)), key=lambda i: -usage[i])[:5]
    by_references = lambda vector: torch.stack(softmax([vector @ cells[i] / 7**0.5 for i in best]))  # noqa: E731
    rectified = []
    for p, row in zip(prototypes, direct, strict=True):
        rho = by_references(p)
        sigma = [by_references(x) for x in cells]
        alike = [(rho @ s) / (rho.norm() * s.norm()) for s in sigma]
        rectified.append(softmax([d + 0.8 * a for d, a in zip(row, alike, strict=True)]))
    gathered = [sum(share * x for share, x in zip(row, cells, strict=True)) for row in rectified]
    return rectified, gathered


def test_correlation_and_prototypes_are_those_of_the_equations(network: PrototypeNetwork, features: Tensor) -> None:
    with torch.no_grad():
        reading = network.read(features)
    rectified, gathered = read_loop(network, features)

    torch.testing.assert_close(reading.correlation[0], torch.stack([torch.stack(row) for row in rectified]))
    torch.testing.assert_close(reading.prototypes[0], torch.stack(gathered))
    torch.testing.assert_close(reading.usage.sum(1), torch.full((2,), 4.0).double())


def test_hidden_cells_give_nothing_to_any_prototype(network: PrototypeNetwork, features: Tensor) -> None:
    shown = torch.ones(2, 8, 6, dtype=torch.bool)
    shown[0, :, 4:] = False
    before = network.read(features, shown)
    changed = features.clone()
    changed[0, :, :, 4:] = 100.0
    after = network.read(changed, shown)

    assert before.correlation[0].view(4, 4, 3)[..., 2].abs().max() == 0
    torch.testing.assert_close(before.prototypes, after.prototypes)


def test_an_image_that_shows_nothing_is_read_without_nan(network: PrototypeNetwork, features: Tensor) -> None:
    reading = network.read(features, torch.zeros(2, 8, 6, dtype=torch.bool))
    assert bool(reading.logits.isfinite().all())
    assert bool(reading.prototypes.isfinite().all())


def test_more_references_than_cells_are_all_cells(features: Tensor) -> None:
    torch.manual_seed(0)
    network = PrototypeNetwork(Body(), prototypes=2, references=4096, channels=7).double()
    assert network.read(features).correlation.shape == (2, 2, 12)


def test_it_is_a_network_like_the_one_inside(network: PrototypeNetwork) -> None:
    image = torch.rand(1, 3, 16, 12, dtype=torch.float64)
    assert network(image).shape == (1, 3, 16, 12)
    assert (network.classes, network.stride, network.divisor, network.reach) == (3, 2, 2, None)
