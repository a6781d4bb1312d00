"""A decoder that learns its upsampling."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PixelShuffleDecoder(nn.Module):
    """Features to logits at the input's size: a 1x1 convolution, then stages that each double the size.

    A stage is a 1x1 convolution to four times the channels, ReLU, and a shuffle of channels into 2 x 2 pixels. All four
    begin equal, so that a fresh stage repeats pixels (ICNR). Because of the ReLU, logits are at least 0 after a stage.

    Parameters
    ----------
    channels : int
        D of the features.
    classes : int
    stride : int
        Pixels per cell of the features: a power of 2. Without stages at 1.

    References
    ----------
    Ouali et al. (CCT), CVPR 2020, released code; Shi et al., CVPR 2016; Aitken et al., arXiv:1707.02937 (ICNR).
    """

    def __init__(self, channels: int, classes: int, stride: int) -> None:
        super().__init__()
        if stride < 1 or stride & (stride - 1):
            raise ValueError(f"Pixels are doubled from stage to stage: a stride of {stride} is no power of 2.")
        first = nn.Conv2d(channels, classes, 1, bias=False)
        nn.init.kaiming_normal_(first.weight)
        stages = (_stage(classes) for _ in range(stride.bit_length() - 1))
        self.layers = nn.Sequential(first, *stages)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits, (B, classes, h * stride, w * stride)."""
        logits: Tensor = self.layers(features)
        return logits


def _stage(classes: int) -> nn.Sequential:
    convolution = nn.Conv2d(classes, 4 * classes, 1)
    with torch.no_grad():
        one = nn.init.kaiming_normal_(torch.empty(classes, classes, 1, 1))
        convolution.weight.copy_(one.repeat_interleave(4, 0))
        assert convolution.bias is not None
        convolution.bias.zero_()
    return nn.Sequential(convolution, nn.ReLU(), nn.PixelShuffle(2))
