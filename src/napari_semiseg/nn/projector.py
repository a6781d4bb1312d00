"""From features to the unit sphere on which contrast is measured."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Projector(nn.Module):
    """Average pooling, 1x1 convolution, ReLU, 1x1 convolution, normalization over channels.

    Parameters
    ----------
    feature_channels : int
        D of the network's features; also the width of the hidden layer.
    channels : int
        Length of a projection.
    pool : int
        Side of the average pooling before the first convolution: 2 puts projections on a grid twice as coarse as the
        features', 1 does nothing.

    References
    ----------
    CDCL and CRCFP (released code): 256 features at stride 4, pooled 2x2, 256 → 256 → 128; 98,688 parameters.
    """

    def __init__(self, feature_channels: int = 256, channels: int = 128, pool: int = 2) -> None:
        super().__init__()
        self.channels, self.pool = channels, pool
        self.layers = nn.Sequential(
            nn.Conv2d(feature_channels, feature_channels, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(feature_channels, channels, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return projections.

        Parameters
        ----------
        features : Tensor, (B, D, h, w)
            Sides that `pool` does not divide lose their last cells.

        Returns
        -------
        Tensor, (B, channels, h // pool, w // pool), of unit length over channels
            At least in float32, also under autocast.
        """
        pooled = F.avg_pool2d(features, self.pool) if self.pool > 1 else features
        return unit_length(self.layers(pooled))


def unit_length(vectors: Tensor) -> Tensor:
    """Scale to unit length over channels, in float32 at least.

    A vector shorter than 1e-6 is divided by that: a zero vector stays zero, so that its cosine is 0 and never NaN.
    The papers' codes use 1e-12, which gives such a vector a gradient that large numbers of it cannot survive.

    Parameters
    ----------
    vectors : Tensor, (B, D, ...)

    Returns
    -------
    Tensor, (B, D, ...)
    """
    return F.normalize(vectors.to(torch.promote_types(vectors.dtype, torch.float32)), dim=1, eps=1e-6)
