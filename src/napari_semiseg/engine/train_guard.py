"""What a training keeps beside its method: mishaps, the best score, and by which labels it was found."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from napari_semiseg.config import Config
from napari_semiseg.data.sampler import SamplerConfig


@dataclass
class Guard:
    """What the loop keeps beside the method: written into every checkpoint."""

    bad: int = 0
    rollbacks: int = 0
    rate: float = 1.0
    skipped: int = 0
    """Batches that taught nothing."""
    best_step: int = -1
    best_dice: float = -math.inf
    sampler: SamplerConfig | None = None
    """How crops are drawn, where that had to be changed."""
    labels: str = ""
    """Hash of all labels in use."""
    judges: str = ""
    """Hash of those that judge: a Dice is compared with those of the same."""

    def state(self) -> dict[str, Any]:
        """Return it as JSON knows it."""
        best = None if math.isinf(self.best_dice) else self.best_dice
        return {**vars(self), "best_dice": best, "sampler": self.sampler and self.sampler.model_dump(mode="json")}

    @classmethod
    def of(cls, state: dict[str, Any]) -> Guard:
        """Return what `state` came of.

        Raises
        ------
        InputError
            If it did not come of any.
        """
        kept = dict(_GuardState.checked(state, "the checkpoint"))
        return cls(**{**kept, "best_dice": -math.inf if kept["best_dice"] is None else kept["best_dice"]})


class _GuardState(Config):
    """A guard in the form that checkpoints hold."""

    bad: int = Field(ge=0)
    rollbacks: int = Field(ge=0)
    rate: float = Field(gt=0, le=1)
    skipped: int = Field(0, ge=0)
    best_step: int = Field(ge=-1)
    best_dice: float | None = Field(ge=0, le=1)
    sampler: SamplerConfig | None = None
    labels: str = ""
    judges: str = ""
