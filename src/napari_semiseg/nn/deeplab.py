"""DeepLabV3+ as CRCFP and context-aware consistency train it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.segmentation.deeplabv3 import ASPP

from napari_semiseg.nn.encoders import build_encoder
from napari_semiseg.nn.network import Network

RATES = (6, 12, 18)
_WIDTH = 256
_LOW_LEVEL = 48


class DeepLabV3Plus(Network):
    """ResNet at output stride 16, atrous spatial pyramid pooling, and a decoder at stride 4.

    Layer for layer the network of the released code; 40.3 million parameters with ResNet-50. What deviates stands in
    `_registry.py`.

    Parameters
    ----------
    classes : int
        Number of classes, with background.
    encoder : str
        ``resnet50`` or ``resnet101``.
    pretrained : bool
        Whether the encoder starts from ImageNet; `notes` says if that failed.

    References
    ----------
    L.-C. Chen et al., "Encoder-decoder with atrous separable convolution for semantic image segmentation", ECCV 2018.
    """

    feature_channels = _WIDTH
    stride = 4
    divisor = 16
    reach = None

    def __init__(self, classes: int = 2, encoder: str = "resnet50", *, pretrained: bool = False) -> None:
        super().__init__()
        self.classes = classes
        built = build_encoder(encoder, pretrained=pretrained, output_stride=16)
        self.color, self.encoder, self.notes = built.color, built.module, built.notes
        _, _, low, *_, high = built.channels
        self.pyramid = ASPP(high, list(RATES), _WIDTH)
        self.pyramid.convs[-1][2] = _PooledNorm(_WIDTH)
        self.low_level = nn.Sequential(nn.Conv2d(low, _LOW_LEVEL, 1, bias=False), nn.BatchNorm2d(_LOW_LEVEL), nn.ReLU())
        self.decoder = nn.Sequential(*_fusion(_LOW_LEVEL + _WIDTH), nn.Dropout(0.5), *_fusion(_WIDTH))
        self.classifier = nn.Sequential(nn.Dropout(0.1), nn.Conv2d(_WIDTH, classes, 1))
        for part in (self.pyramid, self.low_level, self.decoder, self.classifier):
            part.apply(_initialize)

    def features(self, image: Tensor) -> Tensor:
        """Return features, (B, 256, H / 4, W / 4), at least 0."""
        _, _, low, *_, high = self.encoder(self.color(image))
        context = F.interpolate(self.pyramid(high), scale_factor=4, mode="bilinear", align_corners=False)
        features: Tensor = self.decoder(torch.cat([context, self.low_level(low)], dim=1))
        return features

    def logits_on_grid(self, features: Tensor) -> Tensor:
        """Classify every cell with dropout and one 1x1 convolution."""
        logits: Tensor = self.classifier(features)
        return logits


class _PooledNorm(nn.BatchNorm2d):
    """Batch normalization of one value per image: by the running statistics where the batch is a single image."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and len(x) == 1:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


def _fusion(incoming: int) -> list[nn.Module]:
    return [nn.Conv2d(incoming, _WIDTH, 3, padding=1, bias=False), nn.BatchNorm2d(_WIDTH), nn.ReLU()]


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
