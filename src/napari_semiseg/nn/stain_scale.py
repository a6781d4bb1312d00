"""How much a pixel is stained, on a scale of its image's own.

A dark slide's background is stained as a pale slide's nuclei are. What tells them apart is where a pixel lies between
the two in its own image; a network that is shown this need not guess it from a crop.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_semiseg.nn.ink import find_ink
from napari_semiseg.nn.stain import Stain, hematoxylin
from napari_semiseg.postprocess.stain_guide import SMOOTHING, StainGuide

_BINS = 256
_FLAT = 1e-5
"""Spread, as a part of the level, up to which an image counts as all one color: what rounding leaves."""
_LEAST = 1e-9
UNITS = 8.0
"""Standard deviations that the channel spans: from -4 to 4."""


@dataclass(frozen=True)
class StainScale:
    """What zero and one mean in an image.

    Attributes
    ----------
    stain : {"hematoxylin", "intensity", "inverted", "green"}
        What nuclei stand out by.
    level : float
        Otsu's threshold over the image: optical density of hematoxylin in the unit of `hematoxylin`, or intensity from
        0 to 255.
    spread : float
        Standard deviation over the image, same unit; 0 in an image that is all one color.
    """

    stain: Stain
    level: float
    spread: float

    @classmethod
    def of(cls, guide: StainGuide) -> StainScale:
        """Return the scale whose one half is the threshold of a guide."""
        return cls(guide.stain, guide.value, guide.spread)

    def channel(self, image: Tensor) -> Tensor:
        """Return how far each pixel lies beyond the threshold.

        Parameters
        ----------
        image : Tensor, (B, 3, H, W), in [0, 1]

        Returns
        -------
        Tensor, (B, 1, H, W), in [0, 1]
            0.5 at the threshold, more where there is more stain; `UNITS` standard deviations make 1.
        """
        if not self.spread:
            return torch.full_like(image[:, :1], 0.5)
        beyond = (density(image, self.stain) - self.level) / self.spread
        return (beyond / UNITS + 0.5).clamp(0, 1)


def own_channel(image: Tensor, stain: Stain) -> Tensor:
    """Return the channel of `StainScale`, each image of the batch being the whole of an image.

    The same threshold and spread as `postprocess.stain_guide.find_guide` finds, in operations that a network can be
    exported with; the smoothing continues the border by its last pixel.

    Parameters
    ----------
    image : Tensor, (B, 3, H, W), in [0, 1]
    stain : {"hematoxylin", "intensity", "inverted", "green"}

    Returns
    -------
    Tensor, (B, 1, H, W), in [0, 1]
    """
    found = density(image, stain)
    level, spread = (value.view(-1, 1, 1, 1) for value in _threshold(_smooth(found).flatten(1)))
    channel = ((found - level) / spread.clamp_min(_LEAST) / UNITS + 0.5).clamp(0, 1)
    return torch.where(spread > _FLAT * level.abs() + _LEAST, channel, torch.full_like(channel, 0.5))


def density(image: Tensor, stain: Stain) -> Tensor:
    """Return what nuclei stand out by, (B, 1, H, W), of images (B, 3, H, W) in [0, 1]; see `StainScale.level`."""
    if stain in ("intensity", "inverted"):
        strongest = 255 * image.amax(1, keepdim=True)
        return strongest if stain == "intensity" else 255 - strongest
    found = hematoxylin(image) if stain == "hematoxylin" else 255 - 255 * image[:, 1:2]
    return found.masked_fill(find_ink(image), 0.0)


def _smooth(values: Tensor) -> Tensor:
    """Return (B, 1, H, W) after a Gaussian of standard deviation `SMOOTHING`, cut off at four of them."""
    radius = int(4 * SMOOTHING + 0.5)
    at = torch.arange(-radius, radius + 1, device=values.device, dtype=values.dtype)
    kernel = torch.exp(-0.5 * (at / SMOOTHING) ** 2)
    kernel = kernel / kernel.sum()
    padded = F.pad(values, (radius, radius, radius, radius), mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))


def _threshold(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return Otsu's threshold over 256 bins and the standard deviation, (B,) each, of (B, N)."""
    low, high = values.amin(1, keepdim=True), values.amax(1, keepdim=True)
    width = (high - low).clamp_min(_LEAST) / _BINS
    place = ((values - low) / width).long().clamp(0, _BINS - 1)
    counts = torch.zeros_like(values[:, :1]).expand(-1, _BINS).clone().scatter_add(1, place, torch.ones_like(values))
    centers = low + width * (torch.arange(_BINS, device=values.device, dtype=values.dtype) + 0.5)
    below, mass = counts.cumsum(1), (counts * centers).cumsum(1)
    above = below[:, -1:] - below
    means = mass / below.clamp_min(1), (mass[:, -1:] - mass) / above.clamp_min(1)
    between = below * above * (means[0] - means[1]) ** 2
    level = centers.gather(1, between.argmax(1, keepdim=True))
    spread = (values - values.mean(1, keepdim=True)).square().mean(1).sqrt()
    return level[:, 0], spread
