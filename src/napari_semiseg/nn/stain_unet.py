"""The small U-Net, shown how much each pixel is stained on a scale of its image's own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_semiseg.nn.network import PerImage
from napari_semiseg.nn.stain import ColorInput, Stain
from napari_semiseg.nn.stain_scale import UNITS, StainScale, own_channel
from napari_semiseg.nn.unet import WIDTH, SmallUNet
from napari_semiseg.postprocess import ink
from napari_semiseg.postprocess.stain_guide import find_guide


class StainUNet(SmallUNet, PerImage):
    """`SmallUNet`, whose fourth input says how far a pixel lies beyond the threshold on the stain of its image.

    The threshold of an image (Otsu's) segments pale and dark slides alike, and knows nothing of shape; a network knows
    shape, and takes a dark slide's stroma for nuclei. Together they need fewer labels than the network alone:
    ``docs/decisions/choosing-the-method.md``. In training the fourth channel comes with the crops, from the colors as
    they are in the image; an image of three channels is taken for a whole one, whose threshold is found first.

    Parameters
    ----------
    classes : int
        Number of classes, with background.
    stain : {"hematoxylin", "intensity", "inverted", "green"}
        What most of the images are stained with: that of an image which comes without its channel. `for_image` looks
        at each image again.
    width : int
        See `SmallUNet`.
    """

    def __init__(self, classes: int = 2, stain: Stain = "hematoxylin", width: int = WIDTH) -> None:
        super().__init__(classes, stain, width)
        self.stain: Stain = stain
        assert self.reach is not None  # that of a small U-Net is finite
        self.reach += ink.REACH  # the channel says nothing of a stain where there is ink
        self.stain_input = _ScaledStain()  # type: ignore[assignment]  # the same shape, made otherwise

    def features(self, image: Tensor) -> Tensor:
        """Return features, (B, width, H / 2, W / 2), of crops (B, 4, H, W), or of whole images (B, 3, H, W)."""
        if image.shape[1] == 3:
            image = torch.cat([image, own_channel(image, self.stain)], 1)
        return super().features(image)

    def for_image(self, parts: Sequence[NDArray[np.uint8]], look: NDArray[np.uint8], *, gray: bool) -> nn.Module:
        """See `PerImage`."""
        return AtImage(self, find_scale(parts, look, gray=gray))


class AtImage(nn.Module):
    """A network that is shown the stain, told on what scale to read one image.

    Parameters
    ----------
    network : nn.Module
        (B, 4, H, W) → logits (B, classes, H, W).
    scale : StainScale
    """

    def __init__(self, network: nn.Module, scale: StainScale) -> None:
        super().__init__()
        self.network = network
        self.scale = scale

    def forward(self, image: Tensor) -> Tensor:
        """Return logits, (B, classes, H, W), of parts (B, 3, H, W) of the image."""
        logits: Tensor = self.network(torch.cat([image, self.scale.channel(image)], 1))
        return logits


class _ScaledStain(nn.Module):
    """Standardized color, and the fourth channel in standard deviations."""

    def __init__(self) -> None:
        super().__init__()
        self.color = ColorInput()

    def forward(self, image: Tensor) -> Tensor:
        return torch.cat([self.color(image[:, :3]), (image[:, 3:] - 0.5) * UNITS], 1)


def find_scale(parts: Sequence[NDArray[np.uint8]], look: NDArray[np.uint8], *, gray: bool) -> StainScale:
    """Find the scale of an image: see `find_guide`, whose threshold it is."""
    return StainScale.of(find_guide(parts, look, gray=gray))
