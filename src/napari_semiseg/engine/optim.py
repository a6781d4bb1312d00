"""The optimizer's step: rates, schedules, and the guard against what is not finite."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from napari_semiseg.config import Config
from napari_semiseg.losses.ramps import poly

FUSED = ("cpu", "cuda")
"""Kinds of device whose Adam changes all weights in one kernel."""


class OptimConfig(Config):
    """How weights are changed."""

    optimizer: Literal["adam", "adamw", "sgd"] = Field("adamw", description="The optimizer.")
    lr: float = Field(1e-3, gt=0, le=1, description="Learning rate at the start.")
    weight_decay: float = Field(1e-4, ge=0, le=1, description="Weight decay.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD.")
    beta2: float = Field(0.999, ge=0, lt=1, description="How long Adam remembers the squares of gradients.")
    schedule: Literal["poly", "constant"] = Field(
        "poly", description="How the rate falls: (1 - t/T)^0.9, or not at all."
    )
    warmup: int = Field(0, ge=0, description="Steps over which the rate first rises in a straight line.")
    clip: float = Field(0.0, ge=0, description="Largest norm of the gradient; 0 sets no limit.")

    def build(self, groups: Sequence[dict[str, Any]]) -> Optimizer:
        """Return an optimizer over parameter groups, each with ``params`` and optionally ``lr_scale``.

        The first may have ``optim``: options by name that this optimizer has in place of the run's.
        """
        if own := groups[0].get("optim"):
            plain = [{key: value for key, value in group.items() if key != "optim"} for group in groups]
            return OptimConfig.model_validate({**self.model_dump(), **own}).build(plain)
        scaled = [
            {
                "params": list(group["params"]),
                "lr": self.lr * group.get("lr_scale", 1.0),
                "base_lr": self.lr * group.get("lr_scale", 1.0),
            }
            for group in groups
        ]
        if self.optimizer == "sgd":  # never fused: that fails once a weight has had a gradient later than the others
            return SGD(scaled, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)
        # One kernel over all weights where there is one; elsewhere torch's own choice.
        fused = True if all(p.device.type in FUSED for group in scaled for p in group["params"]) else None
        kind = Adam if self.optimizer == "adam" else AdamW
        return kind(scaled, lr=self.lr, betas=(0.9, self.beta2), weight_decay=self.weight_decay, fused=fused)

    def factor(self, step: int, steps: int) -> float:
        """Return what the rate is multiplied by at a step."""
        if self.schedule == "poly":
            return poly(step, steps, warmup=self.warmup)
        return min(1.0, step / self.warmup) if self.warmup else 1.0


def descend(
    optimizers: Sequence[Optimizer],
    total: Tensor,
    rate_factor: float,
    clip: float,
    average: Callable[[Sequence[nn.Parameter]], None] | None = None,
) -> bool:
    """Make one step down the gradient of `total`, made the same in all processes by `average` where there are several.

    Returns
    -------
    bool
        Whether the step was made: it is not where the loss or its gradient is not finite.
    """
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * rate_factor
    total.backward()  # type: ignore[no-untyped-call]
    parameters = [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
    if average is not None:
        average(parameters)
    norm = torch.nn.utils.clip_grad_norm_(parameters, clip if clip else math.inf)
    if not math.isfinite(float(norm) + float(total.detach())):
        return False
    for optimizer in optimizers:
        optimizer.step()
    return True


def forget(optimizers: Iterable[Optimizer], parameters: Iterable[nn.Parameter]) -> None:
    """Let optimizers forget the moments of some parameters, as if these had never been trained."""
    for parameter in parameters:
        for optimizer in optimizers:
            optimizer.state.pop(parameter, None)
