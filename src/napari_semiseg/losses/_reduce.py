"""What all losses share: precise enough arithmetic, means over the pixels that count, and the likeliest class."""

from __future__ import annotations

import torch
from torch import Tensor


def in_full_precision(values: Tensor) -> Tensor:
    """Return `values` in at least float32: half precision comes back as float32, float64 stays."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def most_likely(maps: Tensor) -> Tensor:
    """Return the class with the highest value at each position, the lowest of equal ones.

    `max` and not `argmax`, which on a CPU takes 17 times as long where channels do not lie next to each other (torch
    2.15): a twentieth of a step of `mean_teacher`.

    Parameters
    ----------
    maps : Tensor, (B, C, ...), logits or probabilities

    Returns
    -------
    Tensor, (B, ...), int64
    """
    return maps.max(1).indices


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
