"""The flaw detector of GCT: where a segmentation of an image is wrong."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALLEST = 92
"""Side of the smallest input, in pixels, of which eight convolutions leave more than one cell: a map of one value tells
nothing from anything."""


class FlawDetector(nn.Module):
    """Eight 4x4 convolutions over an image and the probabilities of its classes.

    Half of the channels after each of the first seven are normalized over the batch, half in each image; then LeakyReLU
    0.2. The map is brought back to the size of the image.

    Parameters
    ----------
    classes : int
        Channels of the probabilities.
    width : int
        Channels after the first convolution, at least 2.

    References
    ----------
    GCT (Ke et al., ECCV 2020), released code; 8,274,561 parameters with two classes.
    """

    def __init__(self, classes: int, width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        incoming = 3 + classes
        for factor, stride in ((1, 2), (2, 2), (2, 1), (4, 2), (4, 1), (8, 2), (8, 1)):
            outgoing = width * factor
            layers += [
                nn.Conv2d(incoming, outgoing, 4, stride, 1),
                _HalfAndHalf(outgoing),
                nn.LeakyReLU(0.2, inplace=True),
            ]
            incoming = outgoing
        self.layers = nn.Sequential(*layers, nn.Conv2d(incoming, 1, 4, 2, 1))

    def forward(self, image: Tensor, probs: Tensor) -> Tensor:
        """Return the flaw map, (B, 1, H, W), of any range.

        Parameters
        ----------
        image : Tensor, (B, 3, H, W), in [0, 1]
            Sides at least `SMALLEST`.
        probs : Tensor, (B, classes, H, W), in [0, 1]
        """
        found = self.layers(torch.cat([image[:, :3], probs], 1))
        return F.interpolate(found, size=probs.shape[-2:], mode="bilinear", align_corners=True)


class _HalfAndHalf(nn.Module):
    """Batch normalization of the first half of the channels, instance normalization of the others."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.over_batch = (channels + 1) // 2
        self.batch = nn.BatchNorm2d(self.over_batch)
        self.instance = nn.InstanceNorm2d(channels - self.over_batch)

    def forward(self, features: Tensor) -> Tensor:
        """Return features of the same shape."""
        first, second = features[:, : self.over_batch], features[:, self.over_batch :]
        return torch.cat([self.batch(first), self.instance(second)], 1)
