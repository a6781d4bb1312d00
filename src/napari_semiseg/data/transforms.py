"""Draws of geometry and of color, and how they are applied.

A draw is a small record of numbers, made by a generator that depends on nothing but the run's seed, the step and the
crop's place in the batch. The same draw of geometry serves image, label and every view, so nothing ever has to be
warped back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torchvision.transforms.v2.functional as F
from skimage.color import hed_from_rgb, rgb_from_hed
from torch import Tensor
from torchvision.transforms import InterpolationMode


@dataclass(frozen=True)
class GeometryRange:
    """What geometry may be drawn: scale within 1 ± `scale`, rotation within ± `degrees`, flips and quarter turns."""

    scale: float = 0.2
    degrees: float = 15.0
    flips: bool = True

    def draw(self, rng: np.random.Generator) -> Geometry:
        """Draw once."""
        return Geometry(
            scale=float(rng.uniform(1 - self.scale, 1 + self.scale)),
            degrees=float(rng.uniform(-self.degrees, self.degrees)),
            flip=bool(rng.random() < 0.5) and self.flips,
            quarter_turns=int(rng.integers(4)) if self.flips else 0,
        )


@dataclass(frozen=True)
class Geometry:
    """One draw: magnification, rotation, then a flip left to right, then quarter turns."""

    scale: float = 1.0
    degrees: float = 0.0
    flip: bool = False
    quarter_turns: int = 0

    def window(self, crop: int) -> int:
        """Return the side, in source pixels, of the square to read so that no corner of the crop lies outside of it."""
        if self.scale == 1.0 and self.degrees == 0.0:
            return crop
        angle = math.radians(self.degrees)
        side = crop / self.scale * (abs(math.cos(angle)) + abs(math.sin(angle)))
        return math.ceil(max(side, crop)) + 2

    def apply(self, window: Tensor, crop: int, *, nearest: bool = False, fill: float = 0.0) -> Tensor:
        """Cut the crop out of the window that was read for it.

        Parameters
        ----------
        window : Tensor, (C, W, W), with W = `window(crop)`
        crop : int
            Side of the result, in pixels.
        nearest : bool
            For labels: no value is made that was not there.
        fill : float
            Value of what lies outside the window.

        Returns
        -------
        Tensor, (C, crop, crop), same type
        """
        if self.scale != 1.0 or self.degrees != 0.0:
            window = F.affine(
                window,
                angle=self.degrees,
                translate=[0, 0],
                scale=self.scale,
                shear=[0.0, 0.0],
                interpolation=InterpolationMode.NEAREST if nearest else InterpolationMode.BILINEAR,
                fill=[fill],
            )
        window = F.center_crop(window, [crop, crop])
        if self.flip:
            window = window.flip(-1)
        return torch.rot90(window, self.quarter_turns, (-2, -1)).contiguous()


ColorName = Literal["none", "mild", "paper", "stain"]


@dataclass(frozen=True)
class ColorRange:
    """What a draw of color may be.

    `jitter` holds the half-widths of brightness, contrast, saturation and hue; `jitter_p`, `gray_p` and `blur_p` how
    often each is applied. The blur has a 5 x 5 kernel. `stain` is the half-width by which the amount of each stain is
    multiplied.
    """

    jitter: tuple[float, float, float, float]
    jitter_p: float
    gray_p: float
    blur_p: float
    stain: float = 0.0

    def draw(self, rng: np.random.Generator) -> Color:
        """Draw once."""
        factors = [float(rng.uniform(1 - width, 1 + width)) for width in self.jitter[:3]]
        hue = float(rng.uniform(-self.jitter[3], self.jitter[3]))
        jittered = bool(rng.random() < self.jitter_p)
        brightness, contrast, saturation = factors if jittered else (1.0, 1.0, 1.0)
        return Color(
            brightness=brightness,
            contrast=contrast,
            saturation=saturation,
            hue=hue if jittered else 0.0,
            gray=bool(rng.random() < self.gray_p),
            blur_sigma=float(rng.uniform(0.5, 1.5)) if rng.random() < self.blur_p else 0.0,
            stains=self._stains(rng) if self.stain else None,
        )

    def _stains(self, rng: np.random.Generator) -> tuple[tuple[float, ...], tuple[float, ...]]:
        factors = rng.uniform(1 - self.stain, 1 + self.stain, 3)
        offsets = rng.uniform(-self.stain / 10, self.stain / 10, 3)
        return tuple(factors.tolist()), tuple(offsets.tolist())


COLORS: dict[ColorName, ColorRange | None] = {
    "none": None,
    "mild": ColorRange((0.2, 0.2, 0.2, 0.04), 0.8, 0.0, 0.2),
    "paper": ColorRange((0.4, 0.4, 0.4, 0.1), 0.8, 0.2, 0.5),
    "stain": ColorRange((0.15, 0.15, 0.15, 0.02), 0.5, 0.0, 0.2, stain=0.2),
}
"""Strengths by name. `paper` is that of CAC's and CRCFP's code, which CDCL's text fits; `mild` keeps the stain
recognizable; `stain` varies hematoxylin, eosin and the rest each by itself (Tellez et al., IEEE TMI 2018)."""


_RGB_FROM_HED = torch.from_numpy(rgb_from_hed.astype(np.float32))
_HED_FROM_RGB = torch.from_numpy(hed_from_rgb.astype(np.float32))
_DENSITY = -torch.log((torch.arange(256) + 1) / 256.0)
"""Optical density of each byte; a byte more than there is, so that black stays finite."""


@dataclass(frozen=True)
class Color:
    """One draw of color."""

    brightness: float
    contrast: float
    saturation: float
    hue: float
    gray: bool
    blur_sigma: float
    stains: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """What each stain's amount is multiplied by, and what is added to it."""

    def apply(self, image: Tensor) -> Tensor:
        """Recolor an image, (3, H, W), uint8."""
        if self.stains is not None:
            image = _restained(image, *self.stains)
        if self.brightness != 1.0:
            image = F.adjust_brightness(image, self.brightness)
            image = F.adjust_contrast(image, self.contrast)
            image = F.adjust_saturation(image, self.saturation)
            image = F.adjust_hue(image, self.hue)
        if self.gray:
            image = F.rgb_to_grayscale(image, num_output_channels=3)
        if self.blur_sigma:
            image = F.gaussian_blur(image, [5, 5], [self.blur_sigma, self.blur_sigma])
        return image


def _restained(image: Tensor, factors: tuple[float, ...], offsets: tuple[float, ...]) -> Tensor:
    """Change the amounts of hematoxylin, eosin and residual in an image, (3, H, W), uint8."""
    change = _HED_FROM_RGB @ torch.diag(torch.tensor(factors, dtype=torch.float32)) @ _RGB_FROM_HED
    shift = torch.tensor(offsets, dtype=torch.float32) @ _RGB_FROM_HED
    density = _DENSITY[image.long()]
    density = torch.tensordot(change.T, density, 1) + shift[:, None, None]
    return (256 * torch.exp(-density) - 1).round_().clamp_(0, 255).to(torch.uint8)
