"""CutMix: a box of one crop pasted into another, with whatever belongs to its pixels.

S. Yun et al., "CutMix: regularization strategy to train strong classifiers with localizable features", ICCV 2019; for
segmentation G. French et al., BMVC 2020. Boxes are drawn from torch's global generator.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def boxes_of_area(shape: Sequence[int], area: float = 0.5) -> Tensor:
    r"""Draw boxes that cover the same share of a crop each, in shapes from upright to lying.

    With :math:`u \sim U(0, 1)` a box has the height :math:`a^u` and the width :math:`a^{1 - u}`, as parts of the
    crop's, and lies anywhere in it.

    Parameters
    ----------
    shape : (int, int, int)
        B, H and W of a batch.
    area : float, in (0, 1]
        a. Sides are rounded to pixels.

    Returns
    -------
    Tensor, (B, H, W), bool
        On the CPU. True inside the box.

    References
    ----------
    French et al., BMVC 2020: one box, a = 0.5 (released code).
    """
    count, height, width = shape
    upright = torch.rand(count, dtype=torch.float64)
    high = (height * area**upright).round()
    wide = (width * area ** (1 - upright)).round()
    top = ((height - high) * torch.rand(count, dtype=torch.float64)).round()
    left = ((width - wide) * torch.rand(count, dtype=torch.float64)).round()
    return _filled(torch.stack([top, left, top + high, left + wide]).long(), height, width)


def random_boxes(
    shape: Sequence[int],
    *,
    probability: float = 0.5,
    area: tuple[float, float] = (0.02, 0.4),
    aspect: float = 1 / 0.3,
) -> Tensor:
    """Draw boxes of any area and aspect within bounds, and for some crops none.

    Parameters
    ----------
    shape : (int, int, int)
        B, H and W of a batch.
    probability : float, in [0, 1]
        How often a crop gets a box.
    area : (float, float), in (0, 1]
        Smallest and largest share of the crop; each between is as likely.
    aspect : float, at least 1
        Largest ratio of height to width; the smallest is its inverse. Each between is as likely.

    Returns
    -------
    Tensor, (B, H, W), bool
        On the CPU. True inside the box; nowhere for a crop without one.

    References
    ----------
    UniMatch (Yang et al., CVPR 2023, released code): a box that would cross the border is drawn again, with another
    aspect.
    """
    count, height, width = shape
    corners = torch.zeros(4, count, dtype=torch.long)
    for crop in range(count):
        if float(torch.rand(())) < probability:
            corners[:, crop] = _box(height, width, area, aspect)
    return _filled(corners, height, width)


def _box(height: int, width: int, area: tuple[float, float], aspect: float) -> Tensor:
    """Draw top, left, bottom and right of a box that lies inside."""
    pixels = _uniform(*area) * height * width
    while True:
        ratio = _uniform(1 / aspect, aspect)
        high, wide = int(math.sqrt(pixels * ratio)), int(math.sqrt(pixels / ratio))
        top, left = int(_uniform(0, height)), int(_uniform(0, width))
        if top + high <= height and left + wide <= width:
            return torch.tensor([top, left, top + high, left + wide])


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), dtype=torch.float64))


def _filled(corners: Tensor, height: int, width: int) -> Tensor:
    """Return the pixels inside boxes given by rows of tops, lefts, bottoms and rights, (4, B)."""
    top, left, bottom, right = corners[:, :, None, None]
    y, x = torch.arange(height)[:, None], torch.arange(width)
    inside: Tensor = (top <= y) & (y < bottom) & (left <= x) & (x < right)
    return inside


def partner(values: Tensor) -> Tensor:
    """Return for each crop of a batch the one that is pasted into it: the crop before it, for the first the last.

    A batch of one has no other crop: then what is pasted is the crop itself, and nothing changes.
    """
    return values.roll(1, 0)


def mixed(boxes: Tensor, values: Tensor) -> Tensor:
    """Paste into each crop the box of its partner.

    Parameters
    ----------
    boxes : Tensor, (B, H, W), bool
    values : Tensor, (B, H, W) or (B, C, H, W)
        Images, logits, or masks of a batch.

    Returns
    -------
    Tensor, the same shape
        From the partner inside the box, unchanged outside.
    """
    inside = boxes.to(values.device)
    return torch.where(inside if values.dim() == 3 else inside[:, None], partner(values), values)
