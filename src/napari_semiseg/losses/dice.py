"""Soft Dice: overlap of probabilities and labels, as a loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_semiseg.losses._reduce import in_full_precision
from napari_semiseg.losses.cross_entropy import IGNORE


def soft_dice(
    logits: Tensor,
    label: Tensor,
    *,
    ignore: int = IGNORE,
    background: bool = False,
    smooth: float = 1e-5,
) -> Tensor:
    r"""One minus the Dice coefficient of probabilities and labels, mean over classes.

    .. math:: 1 - \frac{1}{|K|} \sum_{c \in K}
        \frac{2 \sum_{i \in \Omega} p_{ic} g_{ic} + s}{\sum_{i \in \Omega} p_{ic} + \sum_{i \in \Omega} g_{ic} + s}

    Sums run over the labeled pixels :math:`\Omega` of the whole batch, so that a crop without nuclei does not count as
    much as one full of them.

    Parameters
    ----------
    logits : Tensor, (B, C, H, W)
        Half precision is computed in float32.
    label : Tensor, (B, H, W), int64
        Classes 0 to C - 1, or `ignore`.
    ignore : int
        Class value of pixels that do not count.
    background : bool
        Whether class 0 is among the classes K.
    smooth : float, > 0
        s. A class that is neither labeled nor predicted has the coefficient 1.

    Returns
    -------
    Tensor, (), in [0, 1]
        A zero on the graph, with zero gradient, where every pixel is ignored.

    References
    ----------
    Sudre et al., "Generalised Dice overlap as a deep learning loss function", DLMIA 2017, without class weights;
    pooling over the batch as in nnU-Net (Isensee et al., Nature Methods 2021).
    """
    probs = in_full_precision(logits).softmax(1)
    known = label != ignore
    target = F.one_hot(torch.where(known, label, 0), probs.shape[1]).movedim(-1, 1).to(probs.dtype)
    counted = known.unsqueeze(1)
    probs, target = probs * counted, target * counted
    first = 0 if background else 1
    overlap = (probs * target).sum(dim=(0, 2, 3))[first:]
    size = (probs + target).sum(dim=(0, 2, 3))[first:]
    loss = 1 - ((2 * overlap + smooth) / (size + smooth)).mean()
    return loss * known.any()
