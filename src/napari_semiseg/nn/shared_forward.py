"""The features of a batch, each process computing those of its part.

A loss may compare every crop with every other, draw negatives across the batch, or divide by a count of its pixels:
averaging what several processes make of their own crops is then something else than what one process makes of all. So
only the networks are shared out, which is nearly all of the work: each process computes the features of its crops,
all are given those of all, and everything that follows is the same everywhere. Batch normalization takes its
statistics over all crops.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from napari_semiseg.nn.network import Network, computing_features


@contextmanager
def shared_out(module: nn.Module) -> Iterator[None]:
    """Share out the features of every network in `module` among the processes of the default group.

    All processes have to call the same networks on the same batches in the same order. A batch that cannot be parted
    evenly is computed by each of them. Where the loss is the same in all, the mean of their gradients is the gradient
    of one process that has the whole batch. Dropout within the features draws for each part by itself.

    Parameters
    ----------
    module : nn.Module
        Unchanged outside of the context.
    """
    sharing = _Sharing(dist.get_rank(), dist.get_world_size())
    with computing_features(module, sharing.features) as networks:
        norms = [part for network in networks for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
        for norm in norms:
            norm.forward = partial(sharing.normalized, norm)  # type: ignore[method-assign]
        try:
            yield
        finally:
            for norm in norms:
                del norm.forward


class _Sharing:
    """One process's part of the work."""

    def __init__(self, rank: int, processes: int) -> None:
        self.rank, self.processes = rank, processes
        self._parted, self._calls = False, 0

    def features(self, network: Network, image: Tensor) -> Tensor:
        """Return the features of a batch, of which this process computes its part."""
        if len(image) % self.processes:
            return type(network).features(network, image)
        self._parted, self._calls = True, self._calls + 1
        cards = [image.device] if image.device.type == "cuda" else []
        try:
            with torch.random.fork_rng(cards):  # what follows draws the same in every process
                torch.manual_seed(torch.initial_seed() + self._calls * self.processes + self.rank)
                own = type(network).features(network, image.chunk(self.processes)[self.rank])
        finally:
            self._parted = False
        whole: Tensor = _Gathered.apply(own, self.rank, self.processes)
        return whole

    def normalized(self, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
        """Normalize by the statistics of all parts of a batch."""
        if not (self._parted and norm.training):
            return type(norm).forward(norm, x)
        variance, mean = torch.var_mean(x.float(), (0, 2, 3), correction=0)
        variance, mean = variance.double(), mean.double()  # or their squares would cancel
        moments: Tensor = _Summed.apply(torch.stack([mean, variance + mean.square()])) / self.processes
        variance = (moments[1] - moments[0].square()).clamp_min(0)
        _remember(norm, moments[0].detach(), variance.detach(), self.processes * x.numel() // x.shape[1])
        scale = torch.rsqrt(variance + norm.eps).float() * norm.weight
        shift = norm.bias - moments[0].float() * scale
        return (x * scale[:, None, None] + shift[:, None, None]).to(x.dtype)


def _remember(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, count: int) -> None:
    """Move the running statistics as `torch.nn.BatchNorm2d` does."""
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked.add_(1)
    share = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), share)
    norm.running_var.lerp_((variance * count / max(1, count - 1)).to(norm.running_var.dtype), share)


class _Gathered(torch.autograd.Function):
    """The parts of all processes, one after the other.

    What follows is the same in all of them, so each knows the gradient of its part without asking. It is multiplied by
    the number of processes, because their gradients are averaged in the end.
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor, rank: int, processes: int) -> Tensor:
        ctx.place = rank, processes
        parts = [torch.empty_like(own, memory_format=torch.contiguous_format) for _ in range(processes)]
        dist.all_gather(parts, own.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        rank, processes = ctx.place
        return gradient.chunk(processes)[rank] * processes, None, None


class _Summed(torch.autograd.Function):
    """The sum over all processes, whose gradient is that of all that was made of it."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total
