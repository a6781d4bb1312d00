"""A student asked to say what its teacher says."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_semiseg.losses._reduce import in_full_precision, mean_where, most_likely


def softmax_mse(
    student: Tensor,
    teacher: Tensor,
    *,
    valid: Tensor | None = None,
    threshold: float | None = None,
    over_classes: Literal["mean", "sum"] = "mean",
) -> Tensor:
    r"""Mean squared difference between two class distributions.

    .. math:: \frac{1}{|\Omega| C} \sum_{i \in \Omega} \sum_c (\sigma(z_i)_c - \sigma(z'_i)_c)^2

    Parameters
    ----------
    student, teacher : Tensor, (B, C, H, W), logits
        No gradient reaches `teacher`. Half precision is computed in float32.
    valid : Tensor, (B, H, W), bool, or None
        Pixels that count; all of them where None.
    threshold : float, in [0, 1], or None
        With it, only pixels whose highest teacher probability is above it count.
    over_classes : {"mean", "sum"}
        Whether C divides. With two classes the sum weighs as much as twice the mean.

    Returns
    -------
    Tensor, (), dimensionless, in [0, 1]; in [0, 2] for the sum
        A zero on the graph, with zero gradient, where no pixel counts.

    References
    ----------
    Tarvainen and Valpola, NeurIPS 2017, Eq. 1; the mean over pixels and classes is ours. The threshold is that of
    the cross-consistency of CRCFP (Bashir et al., arXiv:2301.13141).

    Examples
    --------
    >>> import torch
    >>> softmax_mse(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4)).item()
    0.0
    """
    target = in_full_precision(teacher.detach()).softmax(1)
    squared = _over_classes((in_full_precision(student).softmax(1) - target).square(), over_classes)
    if threshold is not None:
        valid = _both(valid, target.amax(1) > threshold)
    return mean_where(squared, valid)


def probability_mse(student: Tensor, teacher: Tensor, *, valid: Tensor | None = None) -> Tensor:
    r"""Mean squared difference between maps that are probabilities already.

    .. math:: \frac{1}{|\Omega| C} \sum_{i \in \Omega} \sum_c (p_{ic} - p'_{ic})^2

    For what was turned or resized after the softmax; otherwise `softmax_mse`.

    Parameters
    ----------
    student, teacher : Tensor, (B, C, H, W), in [0, 1]
        No gradient reaches `teacher`. Half precision is computed in float32.
    valid : Tensor, (B, H, W), bool, or None
        Pixels that count; all of them where None.

    Returns
    -------
    Tensor, (), dimensionless, in [0, 1]
        A zero on the graph, with zero gradient, where no pixel counts.
    """
    return mean_where((in_full_precision(student) - in_full_precision(teacher.detach())).square().mean(1), valid)


def logit_mse(
    student: Tensor,
    teacher: Tensor,
    *,
    valid: Tensor | None = None,
    over_classes: Literal["mean", "sum"] = "mean",
) -> Tensor:
    r"""Mean squared difference between logits.

    .. math:: \frac{1}{|\Omega| C} \sum_{i \in \Omega} \sum_c (z_{ic} - z'_{ic})^2

    Parameters
    ----------
    student, teacher : Tensor, (B, C, H, W), logits
        No gradient reaches `teacher`. Half precision is computed in float32.
    valid : Tensor, (B, H, W), bool, or None
        Pixels that count; all of them where None.
    over_classes : {"mean", "sum"}
        Whether C divides.

    Returns
    -------
    Tensor, (), squared logits, at least 0
        A zero on the graph, with zero gradient, where no pixel counts.

    References
    ----------
    The Mean Teacher of PixelSSL (Ke et al., ECCV 2020, released code).
    """
    squared = (in_full_precision(student) - in_full_precision(teacher.detach())).square()
    return mean_where(_over_classes(squared, over_classes), valid)


def pseudo_label_cross_entropy(
    student: Tensor,
    teacher: Tensor,
    *,
    valid: Tensor | None = None,
    threshold: float | None = None,
    keep: Literal["confident", "unconfident"] = "confident",
    mean_over: Literal["kept", "valid"] = "kept",
) -> Tensor:
    r"""Cross-entropy against the class that the teacher finds most likely.

    .. math:: -\frac{1}{|\Omega|} \sum_{i \in \Omega} \log \sigma(z_i)_{\hat y_i}, \quad \hat y_i = \arg\max_c z'_{ic}

    Parameters
    ----------
    student, teacher : Tensor, (B, C, H, W), logits
        No gradient reaches `teacher`. Equal teacher logits give the lowest class. Half precision is computed in
        float32.
    valid : Tensor, (B, H, W), bool, or None
        Pixels that count; all of them where None.
    threshold : float, in [0, 1], or None
        With it, only pixels on one side of it count, by the highest teacher probability.
    keep : {"confident", "unconfident"}
        Which side: above or equal (FixMatch), or below or equal (as in the released code of CDCL, whose mask sets the
        confident pixels to ignore).
    mean_over : {"kept", "valid"}
        Divide by the pixels that are left, or by all valid ones (FixMatch as in UniMatch).

    Returns
    -------
    Tensor, (), natural log, at least 0
        A zero on the graph, with zero gradient, where no pixel counts.

    References
    ----------
    Wu et al. (CDCL), CVPR 2022, Eqs. 13 and 14, which have no threshold; Sohn et al. (FixMatch), NeurIPS 2020, Eq. 4.
    """
    target = in_full_precision(teacher.detach())
    values = F.cross_entropy(in_full_precision(student), most_likely(target), reduction="none")
    if threshold is None:
        return mean_where(values, valid)
    certainty = target.softmax(1).amax(1)
    chosen = certainty >= threshold if keep == "confident" else certainty <= threshold
    every = torch.ones_like(chosen) if valid is None else valid
    return mean_where(values, chosen & every, every.sum() if mean_over == "valid" else None)


def _over_classes(values: Tensor, how: Literal["mean", "sum"]) -> Tensor:
    return values.mean(1) if how == "mean" else values.sum(1)


def _both(first: Tensor | None, second: Tensor) -> Tensor:
    return second if first is None else first & second
