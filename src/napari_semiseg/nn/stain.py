"""What a network is shown: standardized color, and how much hematoxylin (or intensity) there is at each pixel."""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import Literal, get_args

import torch
from torch import Tensor, nn

Stain = Literal["hematoxylin", "intensity", "inverted", "green"]
"""What the fourth channel shows: ``hematoxylin`` on H&E and IHC; where nothing is stained ``intensity`` (bright nuclei,
as in fluorescence) or ``inverted`` intensity (dark nuclei); where there is a single dye, how much ``green`` light it
absorbs."""

STAINS: tuple[Stain, ...] = get_args(Stain)

RGB_MEAN = (0.485, 0.456, 0.406)
RGB_STD = (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet: what pretrained encoders were trained with."""

_GRAY_MEAN, _GRAY_STD = sum(RGB_MEAN) / 3, sum(RGB_STD) / 3
_HEMATOXYLIN_MEAN, _HEMATOXYLIN_STD = 0.034, 0.039  # of H&E tissue at 40x, in the units of `hematoxylin`

_STAIN_VECTORS = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))  # hematoxylin, eosin, DAB
_UNMIXING = tuple(torch.linalg.inv(torch.tensor(_STAIN_VECTORS, dtype=torch.float64))[:, 0].tolist())
_UNIT = -log(1e-6)  # scikit-image counts optical density in this unit
_DARKEST = 1 / 255  # a pixel that is black in eight bits must not count as infinitely stained


def hematoxylin(image: Tensor) -> Tensor:
    """Return the density of hematoxylin.

    The first channel of `skimage.color.rgb2hed`, but differentiable, with negative densities kept (they say how far
    eosin or DAB prevails) and with black read as the darkest gray that eight bits know beside it.

    Parameters
    ----------
    image : Tensor, (B, 3, H, W), in [0, 1]

    Returns
    -------
    Tensor, (B, 1, H, W)
        Optical density in the unit of scikit-image, natural logarithm over ``-log(1e-6)``; about 0.03 on average over
        H&E tissue and 0.1 in nuclei.

    References
    ----------
    A. C. Ruifrok, D. A. Johnston, "Quantification of histochemical staining by color deconvolution", Anal. Quant.
    Cytol. Histol. 2001.

    Examples
    --------
    >>> import torch
    >>> hematoxylin(torch.ones(1, 3, 2, 2)).abs().max().item()
    0.0
    """
    density = image.clamp_min(_DARKEST).log() / -_UNIT
    red, green, blue = torch.split(density, 1, dim=1)
    unmixed: Tensor = _UNMIXING[0] * red + _UNMIXING[1] * green + _UNMIXING[2] * blue
    return unmixed


class ColorInput(nn.Module):
    """Standardize the colors of an image before a network.

    Parameters
    ----------
    mean, std : sequence of 3 floats
        Of red, green and blue in [0, 1], as the network's encoder was trained with.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float] = RGB_MEAN, std: Sequence[float] = RGB_STD) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Return (B, 3, H, W), standardized, of an image (B, 3, H, W) in [0, 1]."""
        return (image - self.mean) / self.std


class StainInput(nn.Module):
    """Put standardized RGB and a standardized channel of stain or intensity before a network.

    The choice is a buffer, so that it travels with the weights.

    Parameters
    ----------
    stain : {"hematoxylin", "intensity", "inverted", "green"}
        What the fourth channel shows.
    """

    mode: Tensor

    def __init__(self, stain: Stain = "hematoxylin") -> None:
        super().__init__()
        self.register_buffer("mode", torch.tensor(STAINS.index(stain)))
        self.color = ColorInput()

    @property
    def stain(self) -> Stain:
        """What the fourth channel shows."""
        return STAINS[int(self.mode)]

    def forward(self, image: Tensor) -> Tensor:
        """Return the network's input.

        Parameters
        ----------
        image : Tensor, (B, 3, H, W), in [0, 1]

        Returns
        -------
        Tensor, (B, 4, H, W)
            Red, green, blue, and hematoxylin or intensity; each about zero on average with a spread of about one.
            Finite for any finite image.
        """
        color = self.color(image)
        gray = (image.mean(1, keepdim=True) - _GRAY_MEAN) / _GRAY_STD
        stained = (hematoxylin(image) - _HEMATOXYLIN_MEAN) / _HEMATOXYLIN_STD
        intensity = torch.where(self.mode == STAINS.index("inverted"), -gray, gray)
        unstained = torch.where(self.mode == STAINS.index("green"), -color[:, 1:2], intensity)
        fourth = torch.where(self.mode == STAINS.index("hematoxylin"), stained, unstained)
        return torch.cat([color, fourth], dim=1)
