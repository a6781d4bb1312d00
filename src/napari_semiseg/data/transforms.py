"""Draws of geometry and of color, and how they are applied.

A draw is a small record of numbers, made by a generator that depends on nothing but the run's seed, the step and the
crop's place in the batch. The same draw of geometry serves image, label and every view, so nothing ever has to be
warped back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
import torchvision.transforms.v2.functional as F
from numpy.typing import NDArray
from skimage.color import hed_from_rgb, rgb_from_hed
from torch import Tensor
from torch.nn.functional import grid_sample, pad


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
            window = self._resampled(window, crop, nearest, fill)
        else:
            window = F.center_crop(window, [crop, crop])
        if self.flip:
            window = window.flip(-1)
        return torch.rot90(window, self.quarter_turns, (-2, -1)).contiguous()

    def _resampled(self, window: Tensor, crop: int, nearest: bool, fill: float) -> Tensor:
        """Return the rotated and magnified middle of the window: only what the crop shows is computed."""
        y, x = _places(self.degrees, self.scale, window.shape[-1], crop)
        if nearest:
            return _nearest(window, y, x, fill)
        half = window.shape[-1] / 2
        grid = torch.from_numpy(np.stack([x + 0.5, y + 0.5], -1) / half - 1).float()[None]
        found = grid_sample(window[None].float(), grid, padding_mode="zeros", align_corners=False)[0]
        return found if window.is_floating_point() else found.round_().to(window.dtype)


@lru_cache(maxsize=2)  # image and label of one draw come one after the other
def _places(degrees: float, scale: float, window: int, crop: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the row and the column of a window, (crop, crop), that each pixel of its rotated crop shows."""
    middle = (window - 1) / 2
    from_middle = np.arange(crop) + round((window - crop) / 2) - middle
    cos, sin = (turn(math.radians(degrees)) / scale for turn in (math.cos, math.sin))
    along, across = from_middle[None, :], from_middle[:, None]
    return cos * across - sin * along + middle, cos * along + sin * across + middle


def _nearest(window: Tensor, y: NDArray[np.float64], x: NDArray[np.float64], fill: float) -> Tensor:
    """Return the pixels of a window, (C, W, W), that lie nearest to some places; `fill` beyond its border."""
    side = window.shape[-1]
    rows, columns = np.rint(y).astype(np.intp), np.rint(x).astype(np.intp)
    beyond = (rows < 0) | (rows >= side) | (columns < 0) | (columns >= side)
    flat = rows.clip(0, side - 1) * side + columns.clip(0, side - 1)
    pixels = window.numpy().reshape(len(window), -1).take(flat, axis=1)
    if beyond.any():
        pixels[:, beyond] = fill
    return torch.from_numpy(pixels)


ColorName = Literal["none", "mild", "paper", "stain", "stain_strong"]


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
    "stain_strong": ColorRange((0.25, 0.25, 0.25, 0.05), 0.8, 0.0, 0.2, stain=0.35),
}
"""Strengths by name. `paper` is that of CAC's and CRCFP's code, which CDCL's text fits; `mild` keeps the stain
recognizable; `stain` and `stain_strong` vary hematoxylin, eosin and the rest each by itself (Tellez et al., IEEE TMI
2018)."""


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
            image = self._jittered(image)
        if self.gray:
            image = F.rgb_to_grayscale(image, num_output_channels=3)
        if self.blur_sigma:
            image = _blurred(image, self.blur_sigma)
        return image

    def _jittered(self, image: Tensor) -> Tensor:
        """Change brightness, contrast, saturation and hue as torchvision does, but round once and not four times."""
        bright = image.float().mul_(self.brightness).clamp_(0, 255)
        mean = _grayed(bright).mean()
        contrasted = bright.mul_(self.contrast).add_((1 - self.contrast) * mean).clamp_(0, 255)
        gray = _grayed(contrasted)
        saturated = contrasted.mul_(self.saturation).add_(gray, alpha=1 - self.saturation).clamp_(0, 255)
        return _hue_shifted(saturated, self.hue).round_().to(torch.uint8)


_BLUR_RADIUS = 2


def _blurred(image: Tensor, sigma: float) -> Tensor:
    """Blur an image, (3, H, W), uint8, along its rows and then along its columns, reflected at its border."""
    bell = torch.exp(-0.5 * (torch.arange(-_BLUR_RADIUS, _BLUR_RADIUS + 1) / sigma) ** 2)
    taps: list[float] = (bell / bell.sum()).tolist()
    wide = pad(image[None].float(), [_BLUR_RADIUS] * 4, mode="reflect")[0]
    for axis in (1, 2):
        length = wide.shape[axis] - 2 * _BLUR_RADIUS
        total = wide.narrow(axis, 0, length) * taps[0]
        for start, tap in enumerate(taps[1:], start=1):
            total.add_(wide.narrow(axis, start, length), alpha=tap)
        wide = total
    return wide.round_().to(torch.uint8)


_LUMINANCE = torch.tensor([0.2989, 0.587, 0.114])
_SEXTANTS = torch.tensor([5.0, 3.0, 1.0])[:, None, None]
"""Where on the circle of hues, in sixths of it, red, green and blue are lowest."""


def _grayed(image: Tensor) -> Tensor:
    gray: Tensor = torch.tensordot(_LUMINANCE, image, 1)
    return gray


def _hue_shifted(image: Tensor, turn: float) -> Tensor:
    """Turn the hue of an image, (3, H, W), by a share of the circle; the largest and the smallest value stay."""
    red, green, blue = image
    largest = torch.maximum(torch.maximum(red, green), blue)
    chroma = largest - torch.minimum(torch.minimum(red, green), blue)
    divisor = chroma.clamp_min(1e-6)  # gray has no hue, and none is seen
    after_green = torch.where(largest == green, (blue - red) / divisor + 2, (red - green) / divisor + 4)
    hue = torch.where(largest == red, (green - blue) / divisor, after_green)
    place = _SEXTANTS.add(hue.add_(6 * turn))
    place.sub_(torch.floor(place / 6), alpha=6)
    return largest - chroma * torch.minimum(place, 4 - place).clamp_(0, 1)


def _restained(image: Tensor, factors: tuple[float, ...], offsets: tuple[float, ...]) -> Tensor:
    """Change the amounts of hematoxylin, eosin and residual in an image, (3, H, W), uint8."""
    change = _HED_FROM_RGB @ torch.diag(torch.tensor(factors, dtype=torch.float32)) @ _RGB_FROM_HED
    shift = torch.tensor(offsets, dtype=torch.float32) @ _RGB_FROM_HED
    density = torch.from_numpy(np.take(_DENSITY.numpy(), image.numpy()))  # faster than indexing in torch
    light = torch.addmm(-shift[:, None], change.T, density.flatten(1), alpha=-1).exp_()
    return light.mul_(256).sub_(1).round_().clamp_(0, 255).to(torch.uint8).view(image.shape)
