"""Two networks that are to find the same prototypes of an image, and prototypes that are to differ."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_semiseg.losses._reduce import in_full_precision, mean_where

_EPS = 1e-6


def prototype_consistency(
    student: Tensor, teacher: Tensor, reliability: Tensor, *, penalty: float = 0.1, counted: Tensor | None = None
) -> Tensor:
    r"""Distance of prototypes, weighted by how reliable each of them is.

    .. math:: \frac{1}{|B|} \sum_{b \in B} \Big( \sum_k w_{bk} (1 - \cos(p_{bk}, p'_{bk}))
              - \frac{\gamma}{K} \sum_k \log w_{bk} \Big)

    Parameters
    ----------
    student, teacher : Tensor, (B, K, C)
        No gradient reaches `teacher`.
    reliability : Tensor, (B, K)
        Logits of w. The second term keeps w from vanishing.
    penalty : float, >= 0
        γ.
    counted : Tensor, (B,), bool, or None
        Images that count; all of them where None.

    Returns
    -------
    Tensor, (), at least 0
        A zero on the graph, with zero gradient, where no image counts.

    References
    ----------
    Mai et al. (DualRel), CVPR 2023, has a reliability-aware consistency of prototypes; its form here is ours.
    """
    student, teacher = in_full_precision(student), in_full_precision(teacher.detach())
    reliability = in_full_precision(reliability)
    distance = 1 - F.cosine_similarity(student, teacher, dim=2, eps=_EPS)
    weighted = (reliability.sigmoid() * distance).sum(1) - penalty * F.logsigmoid(reliability).mean(1)
    return mean_where(weighted, counted)


def prototype_diversity(correlation: Tensor, *, margin: float = 0.1, counted: Tensor | None = None) -> Tensor:
    r"""How much prototypes look at the same cells.

    .. math:: \frac{1}{|B| K (K - 1)} \sum_{b \in B} \sum_{k \neq l}
              \max(0, \cos(\hat s_{bk}, \hat s_{bl}) - m)

    Parameters
    ----------
    correlation : Tensor, (B, K, N)
        Share of each cell in each prototype.
    margin : float, in [0, 1]
        m.
    counted : Tensor, (B,), bool, or None
        Images that count; all of them where None.

    Returns
    -------
    Tensor, (), in [0, 1 - m]
        A zero on the graph, with zero gradient, where no image counts and for a single prototype.

    References
    ----------
    Mai et al. (DualRel), CVPR 2023, has a diversity loss; its form here is ours.
    """
    unit = F.normalize(in_full_precision(correlation), dim=2, eps=_EPS)
    number = correlation.shape[1]
    others = ~torch.eye(number, dtype=torch.bool, device=correlation.device)
    alike = (unit @ unit.transpose(1, 2) - margin).clamp_min(0)[:, others]
    per_image = alike.sum(1) / max(1, number * (number - 1))
    return mean_where(per_image, counted)
