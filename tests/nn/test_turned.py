"""Averaging over turns."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from napari_semiseg.engine.infer import weights_digest
from napari_semiseg.nn.turned import Sides, TurnAveraged
from napari_semiseg.nn.unet import SmallUNet


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return SmallUNet(3).eval()


@pytest.mark.parametrize("turns", [4, 8])
def test_the_answer_turns_with_the_image(network: nn.Module, turns: Sides) -> None:
    image = torch.rand(1, 3, 32, 64)
    averaged = TurnAveraged(network, turns).eval()
    with torch.no_grad():
        straight, turned = averaged(image), averaged(torch.rot90(image, 1, (-2, -1)))
        mirrored = averaged(image.flip(-1))

    assert torch.allclose(torch.rot90(straight, 1, (-2, -1)), turned, atol=1e-5)
    assert torch.allclose(straight.flip(-1), mirrored, atol=1e-5) == (turns == 8)


def test_probabilities_are_averaged_and_not_logits(network: nn.Module) -> None:
    image = torch.rand(2, 3, 32, 32)
    expected = torch.zeros(2, 3, 32, 32)
    with torch.no_grad():
        for quarter in range(4):
            seen = network(torch.rot90(image, quarter, (-2, -1))).softmax(1)
            expected += torch.rot90(seen, -quarter, (-2, -1)) / 4
        found: Tensor = TurnAveraged(network, 4)(image).softmax(1)

    assert torch.allclose(found, expected, atol=1e-6)
    assert not torch.allclose(found, network(image).softmax(1), atol=1e-3)


def test_a_certain_answer_stays_finite() -> None:
    class Certain(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return torch.stack([image[:, 0] * 0 + 1e4, image[:, 0] * 0 - 1e4], 1)

    answer = TurnAveraged(Certain(), 4)(torch.rand(1, 3, 16, 16))

    assert bool(answer.isfinite().all())
    assert torch.equal(answer.softmax(1)[:, 0], torch.ones(1, 16, 16))


def test_other_turns_are_another_model(network: nn.Module) -> None:
    others = [TurnAveraged(network, 4), TurnAveraged(network, 8), TurnAveraged(network, 4, largest=10_000)]

    assert len({weights_digest(network), *(weights_digest(other) for other in others)}) == 4
