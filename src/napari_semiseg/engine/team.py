"""Several processes that train one model together: the same verb under ``torchrun``."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from napari_semiseg.nn.shared_forward import shared_out

PATIENCE = timedelta(days=7)
"""How long a process waits to be told what to do: the first one may validate, write, or hold."""

Order = tuple[Literal["begin", "state", "step", "end"], Any]
"""What the first process tells the others to do, and with what."""


class Team:
    """The processes of one training, each with a device of its own.

    The first one leads: it does all that a training in one process does, and tells the others which steps to make.
    They learn with it (`nn.shared_forward`), and write nothing.

    Attributes
    ----------
    leads : bool
        Whether this process is the first.
    size : int
        Number of processes.
    """

    def __init__(self, rank: int, size: int, place: int) -> None:
        self.leads, self.size = rank == 0, size
        self._place = place
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
        self._orders = dist.new_group(backend="gloo", timeout=PATIENCE)  # of all: NCCL would need a card for words

    @classmethod
    def joined(cls) -> Team | None:
        """Join those that ``torchrun`` has started; None where it has started no more than this process, or nothing."""
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size < 2 or not dist.is_torchelastic_launched():
            return None
        return cls(int(os.environ["RANK"]), size, int(os.environ["LOCAL_RANK"]))

    def device(self, asked: str) -> str:
        """Return the name of this process's own device, where any graphics card will do."""
        return f"cuda:{self._place}" if asked in ("auto", "cuda") and torch.cuda.is_available() else asked

    def tell(self, order: Order) -> None:
        """Tell the others what to do."""
        dist.broadcast_object_list([order], src=0, group=self._orders)  # type: ignore[arg-type]

    def told(self) -> Order:
        """Wait until the first process says what to do; where it has ended, it has said why itself."""
        orders: list[Any] = [("end", None)]
        with contextlib.suppress(RuntimeError):  # the connection is closed
            dist.broadcast_object_list(orders, src=0, group=self._orders)  # type: ignore[arg-type]
        order: Order = orders[0]
        return order

    def sharing(self, method: nn.Module) -> AbstractContextManager[None]:
        """Share out the work of the method's networks for as long as a step takes."""
        return shared_out(method)

    def average(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by the mean of that of all processes."""
        kinds: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
        for parameter in parameters:
            if (gradient := parameter.grad) is not None:
                kinds.setdefault((gradient.device, gradient.dtype), []).append(gradient)
        for gradients in kinds.values():
            flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
            dist.all_reduce(flat)
            parts = torch.split(flat / self.size, [gradient.numel() for gradient in gradients])
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.view_as(gradient))

    def leave(self) -> None:
        """Part from the others; a process that leads ends their work too."""
        if self.leads:
            self.tell(("end", None))
        dist.destroy_process_group()
