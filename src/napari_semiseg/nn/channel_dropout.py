"""Whole channels of features left out: for one map, or for two so that each has what the other lacks."""

from __future__ import annotations

import torch
from torch import Tensor


def channel_dropout(features: Tensor, probability: float = 0.5) -> Tensor:
    """Leave out channels of features, in every mode, and enlarge the others so that the mean stays.

    Parameters
    ----------
    features : Tensor, (B, D, h, w)
    probability : float, in [0, 1)
        Of a channel of an image to be left out.

    Returns
    -------
    Tensor, the same shape
    """
    return torch.nn.functional.dropout2d(features, probability, training=True)


def complementary_dropout(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Divide the channels between two views of the same images.

    Every channel of an image is left out in one view and doubled in the other, a coin says which. In half of the
    images, drawn at random and rounded down, both views keep everything.

    Parameters
    ----------
    first, second : Tensor, (B, D, h, w)
        Features of two views of the same crops.

    Returns
    -------
    tuple of two Tensor, the same shapes

    References
    ----------
    L. Yang et al., "UniMatch V2: pushing the limit of semi-supervised semantic segmentation", TPAMI 2025, and its
    released code.
    """
    count, channels = first.shape[:2]
    share = 2.0 * torch.randint(2, (count, channels)).to(first.dtype)
    share[torch.randperm(count)[: count // 2]] = 1.0
    share = share.to(first.device)[:, :, None, None]
    return first * share, second * (2.0 - share)
