"""The confidence network of CSL: seven thousand weights, every pixel seen at full resolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from napari_semiseg.nn.network import Network

CHANNELS = 8
DILATIONS = (1, 2, 3, 5, 10, 20)


class ConfidenceNetwork(Network):
    """Map an image to several confidences per pixel, each a sigmoid of its own.

    A 3x3 convolution to 8 channels, six residual units of two dilated 3x3 convolutions, and a 1x1 convolution; batch
    normalization and ELU after every 3x3. Without a label nobody knows which of the confidences is that of a nucleus:
    the method finds out and says so through `choose`, and the network then has the logits of two classes, background
    and nucleus, whose softmax is that confidence.

    Parameters
    ----------
    channels : int
        K, how many confidences are learned side by side, at least 1.

    References
    ----------
    CSL (patch-entropy contrastive self-supervision), released code; receptive field 167 x 167, 7,372 parameters at K =
    4. The paper counts 10.8k, with a featurizer that its losses do not use.
    """

    chosen: Tensor
    inverted: Tensor

    classes = 2
    feature_channels = CHANNELS
    stride = 1
    divisor = 1
    reach = 1 + 2 * sum(DILATIONS)

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.channels = channels
        self.first = _block(3, dilation=1)
        self.units = nn.ModuleList(
            nn.Sequential(_block(CHANNELS, dilation=d), _block(CHANNELS, dilation=d)) for d in DILATIONS
        )
        self.last = nn.Conv2d(CHANNELS, channels, 1)
        self.register_buffer("chosen", torch.tensor(0))
        self.register_buffer("inverted", torch.tensor(False))

    def scaled(self, image: Tensor) -> Tensor:
        """Return ``0.95 image + 0.05``, in [0.05, 1]: what the network sees and what the losses multiply by confidence.

        Black stays distinguishable from a confidence of zero. In the released code only.
        """
        return 0.95 * image + 0.05

    def features(self, image: Tensor) -> Tensor:
        """Return features, (B, 8, H, W)."""
        x: Tensor = self.first(self.scaled(image))
        for unit in self.units:
            x = x + unit(x)
        return x

    def confidences(self, image: Tensor) -> Tensor:
        """Return all confidences, (B, K, H, W), in [0, 1], of an image (B, 3, H, W) in [0, 1]."""
        logits: Tensor = self.last(self.features(image))
        return logits.sigmoid()

    def choose(self, channel: int, *, inverted: bool = False) -> None:
        """Say which confidence is that of a nucleus, counted from 0; `inverted` if it is that of the background.

        The choice travels with the weights, in buffers.
        """
        if not 0 <= channel < self.channels:
            raise ValueError(f"There is no channel {channel} among {self.channels}.")
        self.chosen.fill_(channel)
        self.inverted.fill_(inverted)

    def logits_on_grid(self, features: Tensor) -> Tensor:
        """Return 0 and the logit of the chosen confidence, (B, 2, h, w): their softmax is that confidence."""
        logits: Tensor = self.last(features)
        nucleus = logits.index_select(1, self.chosen.view(1))
        nucleus = torch.where(self.inverted, -nucleus, nucleus)
        return torch.cat([torch.zeros_like(nucleus), nucleus], dim=1)


def _block(incoming: int, *, dilation: int) -> nn.Sequential:
    convolution = nn.Conv2d(incoming, CHANNELS, 3, padding=dilation, dilation=dilation, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(CHANNELS), nn.ELU())
