"""Where an image shows ink and not a stain: see `postprocess.ink`, in operations that a network is exported with."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from napari_semiseg.postprocess.ink import DARK, LEAST, NEUTRAL, RIM, SMOOTHING


def find_ink(image: Tensor) -> Tensor:
    """Return where there is ink, bool (B, 1, H, W), in images (B, 3, H, W) in [0, 1]."""
    smooth = F.avg_pool2d(_continued(255 * image, SMOOTHING), SMOOTHING, stride=1)
    strongest, weakest = smooth.amax(1, keepdim=True), smooth.amin(1, keepdim=True)
    colored = ((strongest >= DARK) | (strongest - weakest >= NEUTRAL)).to(image.dtype)
    core = 1 - _largest(colored, LEAST)
    return _largest(core, LEAST + 2 * RIM) > 0.5


def _largest(values: Tensor, side: int) -> Tensor:
    """Return the largest value in the square around each pixel: along rows, then along columns, which is faster."""
    padded = _continued(values, side)
    return F.max_pool2d(F.max_pool2d(padded, (1, side), stride=1), (side, 1), stride=1)


def _continued(values: Tensor, side: int) -> Tensor:
    """Continue an image by its last pixels, by half of a square."""
    half = side // 2
    return F.pad(values, (half, half, half, half), mode="replicate")
