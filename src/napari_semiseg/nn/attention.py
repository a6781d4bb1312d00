"""A map of where a magnification can be told from: what scale pretext training learns."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_semiseg.nn.network import Network

DILATIONS = (1, 2, 3, 5, 10, 20)
SHARPNESS = 20.0
MEMORY = 0.9
"""Memory of the running level, per step."""

Warp = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]

WARPS: tuple[Warp, ...] = (
    (lambda x: x.flip(-1), lambda x: x.flip(-1)),
    (lambda x: x.flip(-2), lambda x: x.flip(-2)),
    (lambda x: x.transpose(-1, -2), lambda x: x.transpose(-1, -2)),
    (lambda x: x.rot90(1, (-2, -1)), lambda x: x.rot90(-1, (-2, -1))),
    (lambda x: x.rot90(2, (-2, -1)), lambda x: x.rot90(-2, (-2, -1))),
    (lambda x: x.rot90(3, (-2, -1)), lambda x: x.rot90(-3, (-2, -1))),
)
"""Flips, the transpose and quarter turns, each with its inverse."""


class AttentionNetwork(Network):
    """Full resolution, six dilated residual units, one score per pixel: ``a = σ(20 (F(x) - τ))``.

    τ is the level above which a small share of all pixels lies: of a batch in training, a running mean afterwards.

    Parameters
    ----------
    width : int
        Channels of every layer but the last.
    average : bool
        Whether a prediction is the mean attention over flips, quarter turns, the transpose and half the resolution.

    References
    ----------
    M. Sahasrabudhe et al., "Self-supervised nuclei segmentation in histopathological images using attention", MICCAI
    2020, released code.
    """

    level: Tensor

    classes = 2
    stride = 1

    def __init__(self, width: int = 64, *, average: bool = False) -> None:
        super().__init__()
        self.feature_channels, self.average = width, average
        self.first = nn.Sequential(*_convolution(3, width, 1), nn.ReLU())
        self.units = nn.ModuleList(
            nn.Sequential(*_convolution(width, width, d), nn.ReLU(), *_convolution(width, width, d)) for d in DILATIONS
        )
        self.last = nn.Conv2d(width, 1, 1)
        self.register_buffer("level", torch.tensor(0.0))
        own = 1 + 2 * sum(DILATIONS)
        self.reach = 2 * own + 3 if average else own  # at half the resolution it sees twice as far
        self.divisor = 2 if average else 1

    def features(self, image: Tensor) -> Tensor:
        """Return features, (B, width, H, W), at least 0."""
        x: Tensor = self.first(image)
        for unit in self.units:
            x = F.relu(x + unit(x))
        return x

    def scores(self, image: Tensor) -> Tensor:
        """Return F(x), (B, 1, H, W)."""
        found: Tensor = self.last(self.features(image))
        return found

    def attention(self, scores: Tensor, level: Tensor | None = None) -> Tensor:
        """Return the attention, in [0, 1], of scores: above `level`, or above the running one."""
        return (SHARPNESS * (scores - (self.level if level is None else level))).sigmoid()

    def remember(self, level: Tensor) -> None:
        """Move the running level towards that of a batch."""
        self.level.mul_(MEMORY).add_(level.detach(), alpha=1 - MEMORY)

    def logits_on_grid(self, features: Tensor) -> Tensor:
        """Return 0 and the logit of the attention, (B, 2, H, W): their softmax is the attention."""
        nucleus = SHARPNESS * (self.last(features) - self.level)
        return torch.cat([torch.zeros_like(nucleus), nucleus], dim=1)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits, (B, 2, H, W); averaged as `average` says."""
        if not self.average:
            return super().forward(image)
        found = [self.attention(self.scores(image))]
        found += [back(self.attention(self.scores(warp(image)))) for warp, back in WARPS]
        half = self.attention(self.scores(F.avg_pool2d(image, 2)))
        found.append(F.interpolate(half, scale_factor=2.0, mode="bilinear", align_corners=False))
        nucleus = torch.stack(found).mean(0).clamp(1e-6, 1 - 1e-6).logit()
        return torch.cat([torch.zeros_like(nucleus), nucleus], dim=1)


def level_of(scores: Tensor, sparsity: float) -> Tensor:
    """Return τ: the mean over images of the level above which the share `sparsity` of their pixels lies."""
    return scores.flatten(1).float().quantile(1 - sparsity, dim=1).mean()


def _convolution(incoming: int, outgoing: int, dilation: int) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    convolution = nn.Conv2d(incoming, outgoing, 3, padding=dilation, dilation=dilation, bias=False)
    return convolution, nn.BatchNorm2d(outgoing)
