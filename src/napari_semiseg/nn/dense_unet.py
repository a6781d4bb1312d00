"""DenseUNet-161, the network of CDCL."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from napari_semiseg.nn.encoders import build_encoder
from napari_semiseg.nn.network import Network

_SKIPS = ("denseblock1", "denseblock2", "denseblock3")
_DROPOUT = 0.2


class DenseUNet(Network):
    """DenseNet-161 encoder and a decoder that adds skips, down to a stride of 4.

    Parameters
    ----------
    classes : int
        Number of classes, with background.
    pretrained : bool
        Whether the encoder starts from ImageNet; `notes` says if that failed.

    References
    ----------
    CDCL, released code, after X. Li et al., "H-DenseUNet", IEEE TMI 2018. 49,942,368 parameters up to the features.
    What deviates stands in `_registry.py`.
    """

    feature_channels = 256
    stride = 4
    divisor = 32
    reach = None

    def __init__(self, classes: int = 2, *, pretrained: bool = False) -> None:
        super().__init__()
        self.classes = classes
        built = build_encoder("densenet161", pretrained=pretrained)
        self.color, self.encoder, self.notes = built.color, built.module, built.notes
        for layer in self.encoder.modules():
            if hasattr(layer, "drop_rate"):  # the dense layers; the library builds them without dropout
                layer.drop_rate = _DROPOUT  # type: ignore[assignment]
        self.skip = nn.Conv2d(2112, 2208, 1)
        self.up = nn.ModuleList(
            (_convolution(2208, 768), _convolution(768, 384), _convolution(384, self.feature_channels))
        )
        self.classifier = nn.Sequential(
            nn.Conv2d(self.feature_channels, 64, 3, padding=1),
            nn.Dropout2d(0.3),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            nn.Conv2d(64, classes, 1),
        )
        for part in (self.skip, self.up, self.classifier):
            part.apply(_initialize)

    def features(self, image: Tensor) -> Tensor:
        """Return features, (B, 256, H / 4, W / 4), at least 0."""
        x: Tensor = self.color(image)
        skips: list[Tensor] = []
        for name, layer in self.encoder.get_submodule("features").named_children():
            x = layer(x)
            if name in _SKIPS:  # before the transition
                skips.append(x)
        skips[-1] = self.skip(skips[-1])
        x = F.relu(x)
        for convolution in self.up:
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = convolution(x + skips.pop())
        return x

    def logits_on_grid(self, features: Tensor) -> Tensor:
        """Classify every cell: 3x3 convolution to 64 channels, dropout, 1x1 convolution."""
        logits: Tensor = self.classifier(features)
        return logits


def _convolution(incoming: int, outgoing: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(incoming, outgoing, 3, padding=1), nn.BatchNorm2d(outgoing), nn.ReLU(inplace=True))


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.xavier_normal_(module.weight)
