"""A map of where a magnification can be told from: what scale pretext training learns."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_semiseg.nn.network import Network

DILATIONS = (1, 2, 3, 5, 10, 20)
SHARPNESS = 20.0

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

    def logits_on_grid(self, features: Tensor) -> Tensor:
        """Return 0 and the logit of the attention, (B, 2, H, W): their softmax is the attention."""
        nucleus = SHARPNESS * (self.last(features) - self.level)
        return torch.cat([torch.zeros_like(nucleus), nucleus], dim=1)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits, (B, 2, H, W); averaged as `average` says."""
        if not self.average:
            return super().forward(image)
        found = self._of_each_view(image, lambda view: self.attention(self.scores(view)))
        nucleus = found.mean(0).clamp(1e-6, 1 - 1e-6).logit()
        return torch.cat([torch.zeros_like(nucleus), nucleus], dim=1)

    def predicted_scores(self, image: Tensor) -> Tensor:
        """Return scores, (B, 1, H, W), of which those above the level are predicted to be nuclei.

        So steep an attention is nearly 0 or 1, and the mean of several is above one half where the lower of their two
        middle scores is above the level.
        """
        return self._of_each_view(image, self.scores).median(0).values if self.average else self.scores(image)

    def _of_each_view(self, image: Tensor, read: Callable[[Tensor], Tensor]) -> Tensor:
        """Return what is read off an image, off all that flips and turns make of it, and off half of its resolution."""
        found = [read(image)]
        found += [back(read(warp(image))) for warp, back in WARPS]
        half = read(F.avg_pool2d(image, 2))
        found.append(F.interpolate(half, scale_factor=2.0, mode="bilinear", align_corners=False))
        return torch.stack(found)


def level_of(scores: Tensor, sparsity: float) -> Tensor:
    """Return τ: the mean over images of the level above which the share `sparsity` of their pixels lies."""
    return scores.flatten(1).float().quantile(1 - sparsity, dim=1).mean()


def _convolution(incoming: int, outgoing: int, dilation: int) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    convolution = nn.Conv2d(incoming, outgoing, 3, padding=dilation, dilation=dilation, bias=False)
    return convolution, nn.BatchNorm2d(outgoing)
