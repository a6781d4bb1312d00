"""What every method is given in the tests: a network of a few hundred weights, and a batch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_semiseg.data.batch import IGNORE, Batch, Pair
from napari_semiseg.nn.network import Network

CROP = 64


class TinyNetwork(Network):
    """Two convolutions, stride 2, with batch normalization."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.classes, self.feature_channels, self.stride, self.divisor, self.reach = classes, 16, 2, 2, 8
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 5, 2, 2), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU()
        )
        self.head = nn.Conv2d(16, classes, 1)

    def features(self, image: Tensor) -> Tensor:
        return self.body(image)

    def logits_on_grid(self, features: Tensor) -> Tensor:
        return self.head(features)


@pytest.fixture
def new_network() -> Callable[..., Callable[[], Network]]:
    return lambda classes=2: lambda: TinyNetwork(classes)


@pytest.fixture
def make_batch() -> Callable[..., Batch]:
    """Make a batch of dark squares on light ground: (B, 3, 64, 64)."""

    def make(*, classes: int = 2, labeled: bool = True, ignored: bool = False, size: int = 2, seed: int = 0) -> Batch:
        generator = torch.Generator().manual_seed(seed)
        label = torch.zeros(size, CROP, CROP, dtype=torch.long)
        for index in range(size):
            for k in range(4):
                y, x = torch.randint(0, CROP - 24, (2,), generator=generator).tolist()
                label[index, y : y + 24, x : x + 24] = 1 + k % (classes - 1)
        shade = 0.85 - 0.6 * label.float()[:, None] / max(1, classes - 1)
        noise = 0.03 * torch.randn(size, 3, CROP, CROP, generator=generator)
        image = (shade.expand(-1, 3, -1, -1) + noise).clamp(0, 1)
        if ignored:
            label = torch.full_like(label, IGNORE)
        return Batch(
            image_l=image if labeled else None,
            label_l=label if labeled else None,
            weak_u=image,
            strong_u=(image * 0.9 + 0.05, image * 0.8 + 0.1),
            valid_u=torch.ones(size, CROP, CROP, dtype=torch.bool),
            guide_u=4 * (0.7 - image.mean(1)),  # beyond a threshold on darkness
            pair_u=pair_of(image),
            whole_u=image,
            whole_valid_u=torch.ones(size, CROP, CROP, dtype=torch.bool),
        )

    return make


def pair_of(image: Tensor) -> Pair:
    """Cut two crops out of images, (B, 3, 64, 64), that are continued by reflection; every other second one is flipped.

    The second crop lies 8 pixels lower and 16 to the right.
    """
    wide = F.pad(image, (0, 16, 0, 8), mode="reflect")
    first, second = wide[..., :CROP, :CROP], wide[..., 8 : CROP + 8, 16 : CROP + 16].clone()
    second[::2] = second[::2].flip(-1)
    shown = torch.ones(len(image), CROP, CROP, dtype=torch.bool)
    flipped = torch.zeros(len(image), 2, dtype=torch.bool)
    flipped[::2, 1] = True
    return Pair((first, second), (shown, shown), torch.tensor([[8, 16]] * len(image)), flipped)
