"""Rows of the last batches, of fixed capacity and part of the weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

import torch
from torch import Tensor, nn


class MemoryBank(nn.Module):
    """Keep what the last batches brought: one row per pixel or patch, several fields per row.

    All of it lives in buffers, so that a resumed run finds the same keys. What is stored carries no gradient.

    Parameters
    ----------
    batches : int
        How many batches are remembered, at least 1. Pushing one more forgets the oldest.
    capacity : int
        Rows kept of one batch, at least 1. Of more, a random part is kept, drawn from torch's global generator.
    fields : mapping of str to (shape of one row, dtype)
        For example ``{"features": ((128,), torch.float32), "labels": ((), torch.int64)}``.

    Examples
    --------
    >>> bank = MemoryBank(batches=1, capacity=4, fields={"labels": ((), torch.int64)})
    >>> bank.push(labels=torch.tensor([3, 1]))
    >>> bank.rows()["labels"]
    tensor([3, 1])
    """

    counts: Tensor
    newest: Tensor

    def __init__(self, batches: int, capacity: int, fields: Mapping[str, tuple[tuple[int, ...], torch.dtype]]) -> None:
        super().__init__()
        if batches < 1 or capacity < 1:
            raise ValueError("A memory bank holds at least one row of at least one batch.")
        self.batches, self.capacity, self.fields = batches, capacity, tuple(fields)
        self.register_buffer("counts", torch.zeros(batches, dtype=torch.int64))
        self.register_buffer("newest", torch.zeros((), dtype=torch.int64))
        for name, (shape, dtype) in fields.items():
            self.register_buffer(f"stored_{name}", torch.zeros(batches, capacity, *shape, dtype=dtype))

    def __len__(self) -> int:
        """Return the number of rows held."""
        return int(self.counts.sum())

    @torch.no_grad()
    def push(self, **rows: Tensor) -> None:
        """Remember a batch and forget the oldest.

        Parameters
        ----------
        **rows : Tensor, (N, *shape)
            Every field, each with the same N; N may be 0.
        """
        lengths = {len(values) for values in rows.values()}
        if rows.keys() != set(self.fields) or len(lengths) != 1:
            raise ValueError(f"A batch brings {', '.join(self.fields)}, as many rows of each.")
        total = lengths.pop()
        kept = min(total, self.capacity)
        self.newest.copy_((self.newest + 1) % self.batches)
        slot = int(self.newest)
        self.counts[slot] = kept
        chosen = torch.randperm(total)[:kept] if total > kept else None
        for name, values in rows.items():
            self._stored(name)[slot, :kept] = values if chosen is None else values[chosen.to(values.device)]

    def rows(self) -> dict[str, Tensor]:
        """Return every row held, field by field: (N, *shape), the newest batch first. The tensors are copies."""
        held = list(self.by_batch())
        return {name: torch.cat([rows[name] for rows in held]) for name in self.fields}

    def by_batch(self) -> Iterator[dict[str, Tensor]]:
        """Yield the rows of each batch, the newest first: views, which the next `push` may overwrite."""
        counts, newest = self.counts.tolist(), int(self.newest)
        for age in range(self.batches):
            slot = (newest - age) % self.batches
            yield {name: self._stored(name)[slot, : counts[slot]] for name in self.fields}

    def clear(self) -> None:
        """Forget everything."""
        self.counts.zero_()

    def _stored(self, name: str) -> Tensor:
        return cast("Tensor", getattr(self, f"stored_{name}"))
