"""Entropy of predicted classes, to be made small."""

from __future__ import annotations

from torch import Tensor

from napari_semiseg.losses._reduce import in_full_precision, mean_where


def softmax_entropy(logits: Tensor, *, valid: Tensor | None = None) -> Tensor:
    r"""Mean entropy of the class distribution of a pixel.

    .. math:: -\frac{1}{N} \sum_n \sum_c p_{nc} \log p_{nc}

    Parameters
    ----------
    logits : Tensor, (B, C, H, W)
        Half precision is computed in float32.
    valid : Tensor, (B, H, W), bool, or None
        Pixels that count; all of them where None.

    Returns
    -------
    Tensor, (), natural log, in [0, log C]
        A zero on the graph, with zero gradient, where no pixel is valid.

    References
    ----------
    Grandvalet and Bengio, NeurIPS 2004; Wu et al. (CDCL), CVPR 2022, Eq. 15.

    Examples
    --------
    >>> import torch
    >>> round(softmax_entropy(torch.zeros(1, 2, 4, 4)).item(), 6)
    0.693147
    """
    log_probs = in_full_precision(logits).log_softmax(1)  # never log(softmax): that is -inf where softmax underflows
    return mean_where(-(log_probs.exp() * log_probs).sum(1), valid)
