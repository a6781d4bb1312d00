"""Squared differences, weighted by how much of a batch a teacher is sure of."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from napari_semiseg.losses._reduce import in_full_precision, mean_where


def confident_mse(
    student: Tensor,
    teacher: Tensor,
    *,
    threshold: float,
    valid: Tensor | None = None,
    weigh: Literal["batch", "pixels"] = "batch",
    over_classes: Literal["mean", "sum"] = "sum",
) -> Tensor:
    r"""Squared difference of two class distributions, in proportion to the confident part.

    .. math:: \frac{1}{|\Omega|} \sum_{i \in \Omega} w_i \sum_c (\sigma(z_i)_c - \sigma(z'_i)_c)^2,
              \quad k_i = [\max_c \sigma(z'_i)_c \geq \tau]

    with :math:`w_i = k_i`, or for all pixels the same :math:`w_i = \sum_j k_j / |\Omega|`: then unsure pixels count as
    much as sure ones, and the whole term grows with the share of the sure.

    Parameters
    ----------
    student, teacher : Tensor, (B, C, H, W), logits
        No gradient reaches `teacher`. Half precision is computed in float32.
    threshold : float, in [0, 1]
        τ; a probability that equals it is confident.
    valid : Tensor, (B, H, W), bool, or None
        Ω; all pixels where None.
    weigh : {"batch", "pixels"}
        Which of the two weights.
    over_classes : {"mean", "sum"}
        Whether C divides besides.

    Returns
    -------
    Tensor, (), dimensionless, in [0, 2]
        A zero on the graph, with zero gradient, where nothing is valid or confident.

    References
    ----------
    French et al., BMVC 2020; the weight of the whole batch, and the sum over classes, are those of the released code.
    """
    target = in_full_precision(teacher.detach()).softmax(1)
    squared = (in_full_precision(student).softmax(1) - target).square()
    values = squared.sum(1) if over_classes == "sum" else squared.mean(1)
    sure = (target.amax(1) >= threshold).to(values.dtype)
    if weigh == "pixels":
        return mean_where(values * sure, valid)
    return mean_where(values, valid) * mean_where(sure, valid)
