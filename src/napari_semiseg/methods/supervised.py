"""Learning from labels alone: the row that every other method is compared with.

    L = CE(f(x), y) + w Dice(f(x), y)       over the labeled pixels

The papers' SupOnly and FullSup are the first term alone (`weight_dice` 0): CDCL, CVPR 2022, Table 1; CRCFP, Medical
Image Analysis 2024, Table 1. What predicts is the running average of the weights, which is free and never worse by
more than noise; `ema_decay` 0 predicts with the weights as they are, as the papers do.

Where one class is found everywhere in crops that hold two, for `collapse_patience` steps in a row, the user is told.
Nothing is changed then: few pixels of nuclei take their time, and a fresh start would take it from them (ours).
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from napari_semiseg.data.batch import Batch, Views
from napari_semiseg.losses.cross_entropy import cross_entropy
from napari_semiseg.losses.dice import soft_dice
from napari_semiseg.methods._base import Method, MethodConfig, Task, found_where_both
from napari_semiseg.nn.collapse import LOOK_AT_LABELS, CollapseGuard
from napari_semiseg.nn.ema import ema_decay, ema_update
from napari_semiseg.nn.network import Network


class SupervisedConfig(MethodConfig):
    """Options of `Supervised`."""

    weight_dice: float = Field(0.5, ge=0, le=10, description="Weight of the soft Dice term; the papers have none.")
    ema_decay: float = Field(
        0.99, ge=0, lt=1, description="Memory of the averaged weights, per step; 0 keeps no average."
    )
    collapse_patience: int = Field(
        50,
        ge=0,
        le=100_000,
        description="Steps with one class only found where labels have two, until a warning; 0: never.",
    )


class Supervised(Method):
    """A network taught by labels only."""

    name: ClassVar[str] = "supervised"
    title: ClassVar[str] = "Labels only"
    does: ClassVar[str] = "The network learned from labeled pixels alone."
    Config: ClassVar[type[MethodConfig]] = SupervisedConfig
    views: ClassVar[Views] = Views(labeled=True)
    labels: ClassVar[Literal["needed", "used", "unused"]] = "needed"

    def __init__(self, new_network: Callable[[], Network], task: Task, config: SupervisedConfig) -> None:
        super().__init__(new_network, task, config)
        self.config = config
        self.net = new_network()
        self.average = deepcopy(self.net).requires_grad_(False) if config.ema_decay else None
        self.guard = CollapseGuard(config.collapse_patience, LOOK_AT_LABELS)
        self._found: float | None = None

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor] | None:
        """Return the supervised terms; None for a batch without labels."""
        self._found = None
        if batch.image_l is None or batch.label_l is None:
            return None
        logits = self.net(batch.image_l)
        self._found = found_where_both(logits, batch.label_l)
        losses = {"sup": cross_entropy(logits, batch.label_l)}
        if self.config.weight_dice:
            losses["dice"] = self.config.weight_dice * soft_dice(logits, batch.label_l)
        return losses

    def after_step(self, step: int) -> None:
        """Move the averaged weights."""
        self.guard.watch(self._found)
        if self.average is not None:
            ema_update(self.average, self.net, ema_decay(step, self.config.ema_decay))

    def predictor(self) -> nn.Module:
        """Return the averaged network."""
        return self.net if self.average is None else self.average

    def warnings(self) -> list[str]:
        """Say that one class is found everywhere."""
        return self.guard.warnings(self._found)

    def counters(self) -> dict[str, float]:
        """Return the share of nuclei that is found in labeled crops that hold both classes."""
        return {} if self._found is None else {"found nuclei": self._found}
