"""Cross-entropy over the pixels that have a label."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from napari_semiseg.losses._reduce import in_full_precision

IGNORE = 255
"""Class value of pixels that no loss may look at."""


def cross_entropy(logits: Tensor, label: Tensor, *, ignore: int = IGNORE) -> Tensor:
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
    total = F.cross_entropy(in_full_precision(logits), label, ignore_index=ignore, reduction="sum")
    return total / (label != ignore).sum().clamp(min=1)
