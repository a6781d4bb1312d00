"""A threshold as a predictor: logits that say how far a pixel is beyond."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_semiseg.nn.network import PerImage

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a gray level (ITU-R BT.601)."""
LEAST = 0.01
"""Least absolute logit: rounded to a byte it is still on its own side of one half."""


class GrayThreshold(PerImage):
    """A threshold on gray levels: one for all images, or Otsu's of each.

    Gray levels are `LUMA` of the image, scaled to ``0.95 I + 0.05``. Nuclei are strictly on their side of the
    threshold, and the confidence grows with the distance from it.
    """

    classes = 2
    divisor = 1
    reach = 0
    value: Tensor
    slope: Tensor
    bright: Tensor
    own: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("value", torch.tensor(0.5))
        self.register_buffer("slope", torch.tensor(0.0))
        self.register_buffer("bright", torch.tensor(False))
        self.register_buffer("own", torch.tensor(False))

    def set(self, value: float, slope: float, *, bright: bool) -> Self:
        """Fix the threshold: gray level in [0, 1], steepness of the logit per gray level, and the side of nuclei."""
        self.value.fill_(value)
        self.slope.fill_(slope)
        self.bright.fill_(bright)
        self.own.fill_(False)
        return self

    def set_per_image(self, *, bright: bool) -> Self:
        """Find a threshold for each image, by Otsu."""
        self.bright.fill_(bright)
        self.own.fill_(True)
        return self

    def for_image(self, parts: Sequence[NDArray[np.uint8]], look: NDArray[np.uint8], *, gray: bool) -> nn.Module:
        """See `PerImage`."""
        if not bool(self.own):
            return self
        levels = [gray_levels(torch.from_numpy(part).permute(2, 0, 1)[None] / 255).ravel() for part in parts]
        value, slope = otsu(torch.cat(levels).numpy())
        return GrayThreshold().set(value, slope, bright=bool(self.bright)).to(self.value.device)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits, (B, 2, H, W), of images (B, 3, H, W) in [0, 1]."""
        if bool(self.own):
            found = [self.for_image([pixels], pixels, gray=False) for pixels in image_bytes(image)]
            return torch.cat([one(crop[None]) for one, crop in zip(found, image, strict=True)])
        beyond = gray_levels(image) - self.value
        beyond = torch.where(self.bright, beyond, -beyond)
        certain = (self.slope * beyond).abs().clamp_min(LEAST)
        return two_logits(torch.where(beyond > 0, certain, -certain))


def gray_levels(image: Tensor) -> Tensor:
    """Return gray levels, (B, H, W) in [0.05, 1], of images (B, 3, H, W) in [0, 1]."""
    red, green, blue = image.unbind(1)
    return 0.95 * (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue) + 0.05


def otsu(levels: NDArray[np.float32]) -> tuple[float, float]:
    """Return Otsu's threshold of gray levels, 256 bins, and the slope of the posterior of two normal classes there.

    The threshold is the upper edge of the bin that belongs to the darker side; of one level alone nothing is beyond.
    """
    edges = np.linspace(0.0, 1.0, 257)
    counts, _ = np.histogram(levels, edges)
    centers = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts).astype(np.float64)
    above = below[-1] - below
    mass = np.cumsum(counts * centers)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (mass / below - (mass[-1] - mass) / above) ** 2
    between = np.nan_to_num(between)
    value = float(edges[1:][np.argmax(between)]) if between.any() else 0.0
    return value, slope_at(levels, value)


def slope_at(levels: NDArray[np.float32], value: float) -> float:
    """Return the steepness at a threshold of the posterior of two normal classes of equal variance and prior."""
    above = levels > value
    if above.all() or not above.any():
        return 0.0
    low, high = levels[~above].astype(np.float64), levels[above].astype(np.float64)
    within = (low.var() * low.size + high.var() * high.size) / levels.size
    return float((high.mean() - low.mean()) / max(within, 1e-6))


def two_logits(nucleus: Tensor) -> Tensor:
    """Return 0 and the logit of nucleus, (B, 2, H, W), of (B, H, W): their softmax is its probability."""
    return torch.stack([torch.zeros_like(nucleus), nucleus], dim=1)


def image_bytes(image: Tensor) -> NDArray[np.uint8]:
    """Return images, (B, 3, H, W) in [0, 1], as (B, H, W, 3), uint8."""
    pixels: NDArray[np.uint8] = (image * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return pixels
