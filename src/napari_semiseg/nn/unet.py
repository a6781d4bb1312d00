"""A small U-Net of finite reach that trains in minutes on two cores."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_semiseg.nn.network import Network
from napari_semiseg.nn.reach import Span, reach, through_bilinear, through_convolution, union
from napari_semiseg.nn.stain import Stain, StainInput

WIDTH = 32
LEVELS = 4
_CONVOLUTIONS = 2  # per level, on the way down and on the way up


class SmallUNet(Network):
    """U-Net that starts at half the resolution and is shown the hematoxylin channel too.

    Nuclei at 0.25 µm per pixel are 20 to 40 pixels wide: at half the resolution nothing of them is lost that a mask
    needs, and a step costs a quarter. Four levels of two 3x3 convolutions with batch normalization; on the way down a
    convolution of stride 2, on the way up a 1x1 convolution, bilinear upsampling and the skip beside it. Upsampling is
    ``align_corners=False``, since only then does a block sample the same grid as the whole image; batch statistics are
    the running ones when predicting, so that blocks do not see each other.

    Parameters
    ----------
    classes : int
        Number of classes, with background.
    stain : {"hematoxylin", "intensity", "inverted", "green"}
        What the fourth input channel shows.
    width : int
        Channels of the first level; each has twice as many as the one before.

    References
    ----------
    O. Ronneberger, P. Fischer, T. Brox, "U-Net: convolutional networks for biomedical image segmentation", MICCAI 2015.
    Ours are the stride of the first convolution, the normalization, padding instead of cropping, and the fourth input
    channel.
    """

    stride = 2
    divisor = 2**LEVELS

    def __init__(self, classes: int = 2, stain: Stain = "hematoxylin", width: int = WIDTH) -> None:
        super().__init__()
        channels = [width * 2**level for level in range(LEVELS)]
        self.classes = classes
        self.feature_channels = width
        self.reach = reach(_traced, self.divisor)
        self.stain_input = StainInput(stain)
        incoming = [4, *channels[:-1]]
        self.down = nn.ModuleList(_level(i, o, stride=2) for i, o in zip(incoming, channels, strict=True))
        skips = channels[-2::-1]
        self.reduce = nn.ModuleList(nn.Conv2d(2 * c, c, 1, bias=False) for c in skips)
        self.up = nn.ModuleList(_level(2 * c, c) for c in skips)
        self.classifier = nn.Conv2d(self.feature_channels, classes, 1)
        self.apply(_initialize)

    def features(self, image: Tensor) -> Tensor:
        """Return features, (B, width, H / 2, W / 2), at least 0."""
        x: Tensor = self.stain_input(image)
        skips: list[Tensor] = []
        for level in self.down:
            x = level(x)
            skips.append(x)
        x = skips.pop()
        for reduce, level in zip(self.reduce, self.up, strict=True):
            x = F.interpolate(reduce(x), scale_factor=2, mode="bilinear", align_corners=False)
            x = level(torch.cat([x, skips.pop()], dim=1))
        return x

    def logits_on_grid(self, features: Tensor) -> Tensor:
        """Classify every cell with one 1x1 convolution."""
        logits: Tensor = self.classifier(features)
        return logits


def _level(incoming: int, outgoing: int, *, stride: int = 1) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(_CONVOLUTIONS):
        convolution = nn.Conv2d(incoming, outgoing, 3, stride, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(outgoing), nn.ReLU(inplace=True)]
        incoming, stride = outgoing, 1
    return nn.Sequential(*layers)


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _traced(span: Span) -> Span:
    """Return the image pixels behind a span of output pixels."""
    return _through_decoder(through_bilinear(span, 2), 0)


def _through_decoder(span: Span, level: int) -> Span:
    if level == LEVELS - 1:
        return _through_encoder(span, level)
    for _ in range(_CONVOLUTIONS):
        span = through_convolution(span)
    return union(_through_encoder(span, level), _through_decoder(through_bilinear(span, 2), level + 1))


def _through_encoder(span: Span, level: int) -> Span:
    for _ in range(_CONVOLUTIONS - 1):
        span = through_convolution(span)
    span = through_convolution(span, stride=2)
    return _through_encoder(span, level - 1) if level else span
