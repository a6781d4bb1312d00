"""Cross-entropy over the pixels that have a label."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_semiseg.losses._reduce import in_full_precision

IGNORE = 255
"""Class value of pixels that no loss may look at."""


def cross_entropy(logits: Tensor, label: Tensor, *, ignore: int = IGNORE, weights: Tensor | None = None) -> Tensor:
    r"""Mean negative log-probability of the labeled class.

    .. math:: -\frac{1}{|\Omega|} \sum_{i \in \Omega} \log \sigma(z_i)_{y_i},
              \quad \Omega = \{i : y_i \neq \mathrm{ignore}\}

    Parameters
    ----------
    logits : Tensor, (B, C, H, W)
        Half precision is computed in float32.
    label : Tensor, (B, H, W), int64
        Classes 0 to C - 1, or `ignore`.
    ignore : int
        Class value of pixels that do not count.
    weights : Tensor, (C,), positive, or None
        How much a pixel of each class counts. The mean is then divided by the sum of weights, so that only their
        ratios matter.

    Returns
    -------
    Tensor, (), natural log, at least 0
        A zero on the graph, with zero gradient, where every pixel is ignored.

    Examples
    --------
    >>> import torch
    >>> round(cross_entropy(torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 4, dtype=torch.long)).item(), 6)
    0.693147
    """
    values = in_full_precision(logits)
    known = label != ignore
    if weights is not None:
        weights = weights.to(values)
    total = F.cross_entropy(values, label, weight=weights, ignore_index=ignore, reduction="sum")
    if weights is None:
        return total / known.sum().clamp(min=1)
    counted = torch.where(known, weights[torch.where(known, label, 0)], 0).sum()
    return total / torch.where(counted > 0, counted, 1)
