"""What all losses share: arithmetic that is precise enough, and means over the pixels that count."""

from __future__ import annotations

import torch
from torch import Tensor


def in_full_precision(values: Tensor) -> Tensor:
    """Return `values` in at least float32: half precision comes back as float32, float64 stays."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def mean_where(values: Tensor, counted: Tensor | None, total: Tensor | None = None) -> Tensor:
    """Return the mean of `values` over the positions where `counted` holds.

    Parameters
    ----------
    values : Tensor, any shape
    counted : Tensor, the same shape, bool, or None
        Positions that enter the sum; all of them where None.
    total : Tensor, (), or None
        What to divide by; the number of counted positions where None.

    Returns
    -------
    Tensor, ()
        A zero on the graph of `values`, with zero gradient, where nothing counts. What lies at positions that do not
        count never matters, not even if it is NaN.
    """
    if counted is None:
        counted = torch.ones_like(values, dtype=torch.bool)
    if total is None:
        total = counted.sum()
    kept = torch.where(counted, values, values.new_zeros(()))
    return kept.sum() / total.clamp(min=1)
