"""Rows of similarities that are never written down: how alike each anchor is to all keys at once.

Contrastive losses need, for each anchor, the logarithm of a sum over tens of thousands of keys. The matrix of all
similarities would be gigabytes; it is made in blocks that fit the processor's cache, and each block is thrown away.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from napari_semiseg.losses._reduce import in_full_precision

_SAFE_EXPONENT = 60.0
"""Up to here exp neither overflows nor vanishes in float32, even summed over 10^11 keys."""


def log_sum_exp_similarity(
    anchors: Tensor,
    keys: Tensor,
    temperature: float,
    *,
    chunk: int = 2048,
    skip: Tensor | None = None,
) -> Tensor:
    r"""Return :math:`\log \sum_k \exp(q \cdot k / \tau)` for each anchor q.

    Differentiable once in `anchors` and in `keys`, each where it requires a gradient. Needs memory for the gradients
    and for one block of similarities. Computed in float32 (float64 stays), whatever autocast says.

    Parameters
    ----------
    anchors : Tensor, (A, D)
        Unit vectors make the similarity a cosine.
    keys : Tensor, (K, D)
    temperature : float, > 0
        τ.
    chunk : int, >= 1
        Anchors at a time.
    skip : Tensor, (K,), int64, or None
        For each key the row of an anchor that it is not compared with, or -1.

    Returns
    -------
    Tensor, (A,)
        -inf for an anchor with no key to compare with. The gradient with respect to it must then be 0, as
        `softplus` makes it.

    Notes
    -----
    The gradient for the anchors is the softmax-weighted mean of the keys. It is known up to one factor per row
    before any loss is, so it is made in the forward pass, and no similarity is computed twice unless `keys` want
    a gradient too.
    """
    if temperature <= 0 or chunk < 1:
        message = f"temperature ({temperature}) and chunk ({chunk}) must be positive"
        raise ValueError(message)
    with torch.autocast(anchors.device.type, enabled=False):
        anchors, keys = in_full_precision(anchors), in_full_precision(keys)
        found: Tensor = _LogSumExp.apply(anchors, keys, temperature, chunk, skip)
        return found


@torch.no_grad()
def most_similar(anchors: Tensor, keys: Tensor, *, chunk: int = 2048) -> Tensor:
    """Return the row of the key with the largest product for each anchor, (A,), int64; the first of equals.

    `anchors` is (A, D) and `keys` is (K, D) with K at least 1.
    """
    best = anchors.new_full((len(anchors),), -torch.inf)
    at = torch.zeros(len(anchors), dtype=torch.int64, device=anchors.device)
    with torch.autocast(anchors.device.type, enabled=False):
        for rows, columns, block in _blocks(anchors, keys, chunk):
            value, index = block.max(1)
            better = value > best[rows]
            at[rows] = torch.where(better, index + columns.start, at[rows])
            best[rows] = torch.where(better, value, best[rows])
    return at


class _LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, anchors: Tensor, keys: Tensor, temperature: float, chunk: int, skip: Tensor | None) -> Tensor:
        scaled = anchors / temperature
        lse, mean = _rows(scaled, keys, chunk, skip, want_mean=ctx.needs_input_grad[0])
        ctx.temperature, ctx.chunk = temperature, chunk
        ctx.save_for_backward(*((scaled, keys, skip) if ctx.needs_input_grad[1] else (None, None, None)), lse, mean)
        return lse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        scaled, keys, skip, lse, mean = ctx.saved_tensors
        of_anchors = of_keys = None
        if mean is not None:
            of_anchors = mean * (grad / ctx.temperature).unsqueeze(1)
        if keys is not None:
            with torch.autocast(grad.device.type, enabled=False):
                of_keys = _gradient_of_keys(scaled, keys, ctx.chunk, skip, lse, grad)
        return of_anchors, of_keys, None, None, None


def _rows(
    scaled: Tensor, keys: Tensor, chunk: int, skip: Tensor | None, *, want_mean: bool
) -> tuple[Tensor, Tensor | None]:
    """Return the log-sum-exp of each row, (A,), and the softmax-weighted mean of the keys, (A, D)."""
    bounded = _bound(scaled, keys) <= _SAFE_EXPONENT
    top = scaled.new_full((len(scaled),), 0.0 if bounded else torch.finfo(scaled.dtype).min)
    total = torch.zeros_like(top)
    weighted = torch.zeros_like(scaled) if want_mean else None
    for rows, columns, block in _blocks(scaled, keys, chunk, skip):
        if not bounded:
            _rescale(block, rows, top, total, weighted)
        block.exp_()
        total[rows] += block.sum(1)
        if weighted is not None:
            weighted[rows].addmm_(block, keys[columns])
    if weighted is not None:
        weighted /= total.clamp_min(torch.finfo(total.dtype).tiny).unsqueeze(1)
    return top + total.log(), weighted


def _rescale(block: Tensor, rows: slice, top: Tensor, total: Tensor, weighted: Tensor | None) -> None:
    """Bring a block, and what was summed before it, under their common maximum."""
    new = torch.maximum(top[rows], block.amax(1))
    factor = torch.exp(top[rows] - new)
    total[rows] *= factor
    if weighted is not None:
        weighted[rows] *= factor.unsqueeze(1)
    top[rows] = new
    block -= new.unsqueeze(1)


def _gradient_of_keys(
    scaled: Tensor, keys: Tensor, chunk: int, skip: Tensor | None, lse: Tensor, grad: Tensor
) -> Tensor:
    gradient = torch.zeros_like(keys)
    compared = lse != -torch.inf
    lse, grad = torch.where(compared, lse, 0), torch.where(compared, grad, 0)
    for rows, columns, block in _blocks(scaled, keys, chunk, skip):
        softmax = block.sub_(lse[rows].unsqueeze(1)).exp_().mul_(grad[rows].unsqueeze(1))
        gradient[columns].addmm_(softmax.T, scaled[rows])
    return gradient


def _bound(scaled: Tensor, keys: Tensor) -> float:
    """Return what no similarity can exceed in magnitude (Cauchy and Schwarz)."""
    if not len(scaled) or not len(keys):
        return 0.0
    return float(scaled.norm(dim=1).amax() * keys.norm(dim=1).amax())


def _blocks(
    anchors: Tensor, keys: Tensor, chunk: int, skip: Tensor | None = None
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield the matrix of products block by block; a block is overwritten by the next one."""
    width = 512 if anchors.device.type == "cpu" else 8192  # 2048 x 512 floats stay in the cache of a processor
    store = anchors.new_empty(min(chunk, len(anchors)) * min(width, len(keys)))
    for row in range(0, len(anchors), chunk):
        rows = slice(row, min(row + chunk, len(anchors)))
        for column in range(0, len(keys), width):
            columns = slice(column, min(column + width, len(keys)))
            shape = rows.stop - rows.start, columns.stop - columns.start
            block = torch.mm(anchors[rows], keys[columns].T, out=store[: shape[0] * shape[1]].view(shape))
            if skip is not None:
                at = skip[columns]
                here = ((at >= rows.start) & (at < rows.stop)).nonzero().squeeze(1)
                block[at[here] - rows.start, here] = -torch.inf
            yield rows, columns, block
