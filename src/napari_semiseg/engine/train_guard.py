"""What a training keeps beside its method: mishaps, scores, and by which labels they were found."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from napari_semiseg.config import Config
from napari_semiseg.data.sampler import SamplerConfig
from napari_semiseg.engine.kept_step import is_kept

_SCORES = ("best_dice", "highest_dice")
"""Minus infinity before anything was judged, which JSON does not know."""


@dataclass
class Guard:
    """What the loop keeps beside the method: written into every checkpoint."""

    bad: int = 0
    rollbacks: int = 0
    rate: float = 1.0
    skipped: int = 0
    """Batches that taught nothing."""
    best_step: int = -1
    """Step of the network that is kept (`kept_step`); -1 before any was judged."""
    best_dice: float = -math.inf
    highest_dice: float = -math.inf
    """Of any step, kept or not."""
    sampler: SamplerConfig | None = None
    """How crops are drawn, where that had to be changed."""
    labels: str = ""
    """Hash of all labels in use."""
    judges: str = ""
    """Hash of those that judge: a Dice is compared with those of the same."""
    homes: dict[str, float] = field(default_factory=dict)
    """What the predictor knows of the images of its labels (`TwoOpinions.homes`), which is none of its tensors."""

    def keeps(self, step: int, dice: float, tiles: float) -> bool:
        """Take note of a score on so many tiles (`full_tiles`); say whether its network is kept from now on."""
        kept = is_kept(dice, self.highest_dice, tiles)
        if kept:
            self.best_step, self.best_dice = step, dice
        self.highest_dice = max(self.highest_dice, dice)
        return kept

    def forget_scores(self) -> None:
        """Judge anew: by other labels, scores are others."""
        self.best_step, self.best_dice, self.highest_dice = -1, -math.inf, -math.inf

    def state(self) -> dict[str, Any]:
        """Return it as JSON knows it."""
        scores = {name: None if math.isinf(value := getattr(self, name)) else value for name in _SCORES}
        return {**vars(self), **scores, "sampler": self.sampler and self.sampler.model_dump(mode="json")}

    @classmethod
    def of(cls, state: dict[str, Any]) -> Guard:
        """Return what `state` came of.

        Raises
        ------
        InputError
            If it did not come of any.
        """
        kept = dict(_GuardState.checked(state, "the checkpoint"))
        scores = {name: -math.inf if kept[name] is None else kept[name] for name in _SCORES}
        return cls(**{**kept, **scores})


class _GuardState(Config):
    """A guard in the form that checkpoints hold."""

    bad: int = Field(ge=0)
    rollbacks: int = Field(ge=0)
    rate: float = Field(gt=0, le=1)
    skipped: int = Field(0, ge=0)
    best_step: int = Field(ge=-1)
    best_dice: float | None = Field(ge=0, le=1)
    highest_dice: float | None = Field(None, ge=0, le=1)
    sampler: SamplerConfig | None = None
    labels: str = ""
    judges: str = ""
    homes: dict[str, float] = Field(default_factory=dict)
