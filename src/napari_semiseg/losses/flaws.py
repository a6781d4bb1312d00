"""Flaw maps: where a prediction is wrong, and what two predictions learn from each other by them.

Z. Ke, D. Qiu, K. Li, Q. Yan, R. W. H. Lau, "Guided Collaborative Training for Pixel-wise Semi-Supervised Learning"
(GCT), ECCV 2020; numbers are those of the released code.

The code blurs with kernels of an eighth, a quarter and a sixteenth of the image. A Gaussian is a product of two, so
here rows are blurred and then columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_semiseg.losses._reduce import in_full_precision

_FAINT = 0.1
"""Flaw maps that are nowhere higher than this show no flaw."""
_EPS = 1e-9


def gaussian_blur(maps: Tensor, kernel: int) -> Tensor:
    r"""Blur maps, (B, 1, H, W), with reflected borders.

    .. math:: \sigma = 0.3 \, ((k - 1) / 2 - 1) + 0.8

    Parameters
    ----------
    maps : Tensor, (B, 1, H, W)
    kernel : int, odd
        k, the width of the Gaussian, in pixels; at most twice the smaller side.

    References
    ----------
    GCT, released code, which takes the σ that OpenCV gives to a kernel.
    """
    half = kernel // 2
    sigma = 0.3 * ((kernel - 1) * 0.5 - 1) + 0.8
    at = torch.arange(-half, half + 1, device=maps.device, dtype=maps.dtype)
    weights = torch.exp(-0.5 * (at / sigma).square())
    weights = weights / weights.sum()
    padded = F.pad(maps, (half, half, half, half), mode="reflect")
    return F.conv2d(F.conv2d(padded, weights.view(1, 1, -1, 1)), weights.view(1, 1, 1, -1))


@torch.no_grad()
def flaw_targets(probs: Tensor, onehot: Tensor, known: Tensor, *, mu: float = 0.5, nu: int = 1) -> Tensor:
    r"""Return where predictions are wrong, as the flaw detector is to say it: blurred, widened, in [0, 1].

    .. math:: \mathrm{norm} \big( (B_{1/4} \circ D)^{\nu} \, B_{1/8} \, \mu \sum_c |y_c - p_c| \big)

    B blurs with a kernel of that part of the image, D takes the maximum of 3 x 3 pixels.

    Parameters
    ----------
    probs, onehot : Tensor, (B, C, H, W), in [0, 1]
        p and y.
    known : Tensor, (B, H, W), bool
        Pixels with a label; the others count as right.
    mu : float
        μ.
    nu : int, >= 0
        ν, how often flaws are widened.

    Returns
    -------
    Tensor, (B, 1, H, W), in [0, 1]
        0 everywhere for a prediction without a flaw.
    """
    probs = in_full_precision(probs)
    wrong = mu * (onehot - probs).abs().sum(1, keepdim=True) * known[:, None]
    side = wrong.shape[-1]
    wrong = gaussian_blur(wrong, _odd(side // 8))
    for _ in range(nu):
        wrong = F.max_pool2d(F.pad(wrong, (1, 1, 1, 1), mode="reflect"), 3, 1)
        wrong = gaussian_blur(wrong, _odd(side // 4))
    return _normalized(wrong)


@torch.no_grad()
def handled_flaws(flaws: Tensor) -> Tensor:
    """Return flaw maps, (B, 1, H, W), of the detector in [0, 1]: smoothed, and 0 where no flaw stands out."""
    flaws = gaussian_blur(in_full_precision(flaws).clamp_min(0), _odd(flaws.shape[-1] // 16))
    return _normalized(flaws * (flaws.amax((1, 2, 3), keepdim=True) > _FAINT))


@dataclass(frozen=True)
class Exchange:
    """What two predictions are to learn from each other.

    Attributes
    ----------
    left, right : Tensor, (B, C, H, W), in [0, 1]
        Targets: of the two probabilities the one with the smaller flaw.
    both_bad : Tensor, (B, 1, H, W), bool
        Pixels that both are likely to have wrong.
    taken : Tensor, ()
        Share of pixels that the left one takes from the right.
    """

    left: Tensor
    right: Tensor
    both_bad: Tensor
    taken: Tensor


@torch.no_grad()
def exchange(left: Tensor, right: Tensor, left_flaws: Tensor, right_flaws: Tensor, *, threshold: float) -> Exchange:
    """Return for each pixel which of two predictions both should follow.

    Parameters
    ----------
    left, right : Tensor, (B, C, H, W), in [0, 1]
    left_flaws, right_flaws : Tensor, (B, 1, H, W), in [0, 1]
        From `handled_flaws`.
    threshold : float
        ξ. Flaws above it count as 1. Where both flaws are equal, each follows itself.
    """
    left_bad, right_bad = left_flaws > threshold, right_flaws > threshold
    left_flaws, right_flaws = left_flaws.masked_fill(left_bad, 1.0), right_flaws.masked_fill(right_bad, 1.0)
    keeps_left, keeps_right = right_flaws >= left_flaws, left_flaws >= right_flaws
    return Exchange(
        left=torch.where(keeps_left, left, right),
        right=torch.where(keeps_right, right, left),
        both_bad=left_bad & right_bad,
        taken=1 - keeps_left.float().mean(),
    )


def _normalized(maps: Tensor) -> Tensor:
    low, high = maps.amin((1, 2, 3), keepdim=True), maps.amax((1, 2, 3), keepdim=True)
    return (maps - low) / (high - low + _EPS)


def _odd(kernel: int) -> int:
    return math.floor(kernel / 2) * 2 + 1
