"""Several networks asked about the same image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from napari_semiseg.nn.opinions import opinions_of
from napari_semiseg.nn.stain_unet import StainUNet
from napari_semiseg.nn.two_opinions import two_opinions
from napari_semiseg.nn.unet import SmallUNet


class Always(nn.Module):
    """Says the same of every pixel."""

    def __init__(self, *probs: float) -> None:
        super().__init__()
        self.register_buffer("logits", torch.tensor([1 - sum(probs), *probs]).log())

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.logits.view(1, -1, 1, 1).expand(len(image), -1, *image.shape[2:])


def answers(opinions: nn.Module, image: torch.Tensor) -> torch.Tensor:
    """(B, n, H, W)."""
    shares = opinions(image).softmax(1)[:, 1:]
    return shares * shares.shape[1]


def test_each_network_is_one_opinion_and_its_classes_of_nuclei_are_one():
    found = answers(opinions_of([Always(0.9), Always(0.1, 0.2), Always(0.5)]), torch.rand(2, 3, 4, 4))

    assert found.shape == (2, 3, 4, 4)
    torch.testing.assert_close(found[:, :, 0, 0], torch.tensor([[0.9, 0.3, 0.5]] * 2))


def test_one_network_says_what_it_says_alone():
    found = answers(opinions_of([Always(0.7)]), torch.rand(1, 3, 4, 4))

    torch.testing.assert_close(found, torch.full((1, 1, 4, 4), 0.7))


@torch.no_grad()
def test_networks_that_are_asked_as_one_are_two_opinions_unless_one_has_no_say():
    torch.manual_seed(0)
    network, image = two_opinions(SmallUNet(), SmallUNet()).eval(), torch.rand(1, 3, 32, 32)
    own, second = network.first(image), network.second(image)
    network.share.fill_(0.35)
    both = answers(opinions_of([network]), image)
    torch.testing.assert_close(both[:, 0], own.softmax(1)[:, 1])
    torch.testing.assert_close(both[:, 1], second.softmax(1)[:, 1])

    network.share.fill_(1.0)
    torch.testing.assert_close(answers(opinions_of([network]), image), second.softmax(1)[:, 1:])


@torch.no_grad()
@pytest.mark.parametrize("others", [0, 1])
def test_a_network_that_looks_at_the_whole_image_first_does_so_here_too(others):
    torch.manual_seed(0)
    network = two_opinions(StainUNet(), StainUNet()).eval()
    network.share.fill_(0.35)
    part = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    image = torch.from_numpy(part).permute(2, 0, 1)[None].float() / 255
    ready = opinions_of([network, *[Always(0.7)] * others]).for_image([part], part, gray=False).eval()
    found = answers(ready, image)

    assert found.shape == (1, 2 + others, 32, 32)
    network.share.fill_(1.0)
    alone = network.for_image([part], part, gray=False).eval()(image).softmax(1)[:, 1]
    torch.testing.assert_close(found[:, 1], alone)
    if others:
        torch.testing.assert_close(found[:, 2], torch.full((1, 32, 32), 0.7))


@torch.no_grad()
def test_what_lies_beyond_the_reach_of_two_opinions_changes_nothing():
    torch.manual_seed(0)
    network = two_opinions(SmallUNet(), SmallUNet(), contrast=0.25, around=9.0).double().eval()
    network.share.fill_(0.3)
    side = 2 * network.reach + 2 * network.divisor
    image, middle = torch.rand(1, 3, side - side % network.divisor, side - side % network.divisor).double(), side // 2
    before = network(image)[0, :, middle, middle]
    for edge in (middle - network.reach - 1, middle + network.reach + 1):
        other = image.clone()
        other[..., edge] = 1 - other[..., edge]
        assert torch.equal(network(other)[0, :, middle, middle], before)
    near = image.clone()
    near[..., middle + network.first.reach + 1] = 1 - near[..., middle + network.first.reach + 1]
    assert not torch.equal(network(near)[0, :, middle, middle], before)
