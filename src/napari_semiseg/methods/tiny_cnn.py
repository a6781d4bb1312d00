"""The network of CSL, taught by labels: a baseline of its paper.

N. Boserup, R. Selvan, "Efficient Self-Supervision using Patch-based Contrastive Learning for Histopathology Image
Segmentation", NLDL 2023, Table 1 ("supervised CNN").

    L = BCE(f_θ(I), y) + w (1 - Dice(f_θ(I), y))        over the labeled pixels, K = 1

paper    here
f_θ      `ConfidenceNetwork`, 7,345 parameters at K = 1; its logit and 0 are the logits of two classes, whose
         cross-entropy is the binary one of the sigmoid
L        unpublished, as are rate and epochs: binary cross-entropy and soft Dice are ours

Which step a run keeps is judged on the validation cells, which stands for the paper's early stop.
Where one class is found everywhere in crops that hold two, for `collapse_patience` steps in a row, the user is told
what to do (ours): all that is learned comes from labels, so nothing could count less.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from napari_semiseg.data.batch import Batch, Views
from napari_semiseg.losses.cross_entropy import cross_entropy
from napari_semiseg.losses.dice import soft_dice
from napari_semiseg.methods._base import Method, MethodConfig, Task, found_where_both
from napari_semiseg.nn.collapse import LOOK_AT_LABELS, CollapseGuard
from napari_semiseg.nn.confidence import ConfidenceNetwork
from napari_semiseg.nn.network import Network
from napari_semiseg.works import BOSERUP


class TinyCNNConfig(MethodConfig):
    """Options of `TinyCNN`."""

    weight_dice: float = Field(1.0, ge=0, le=10, description="Weight of the soft Dice term; the paper names no loss.")
    collapse_patience: int = Field(
        50,
        ge=0,
        le=100_000,
        description="Steps with one class only found where labels have two, until a warning; 0: never.",
    )


class TinyCNN(Method):
    """Seven thousand weights, every pixel seen at full resolution, taught by labels only."""

    name: ClassVar[str] = "tiny_cnn"
    title: ClassVar[str] = "Labels only, tiny network"
    does: ClassVar[str] = "A network of seven thousand weights learned from labeled pixels alone."
    references: ClassVar[tuple[str, ...]] = (BOSERUP,)
    Config: ClassVar[type[MethodConfig]] = TinyCNNConfig
    views: ClassVar[Views] = Views(labeled=True)
    labels: ClassVar[Literal["needed", "used", "unused"]] = "needed"
    classes: ClassVar[Literal["two", "any"]] = "two"
    network: ClassVar[str | None] = "csl"

    def __init__(self, new_network: Callable[[], Network], task: Task, config: TinyCNNConfig) -> None:
        super().__init__(new_network, task, config)
        self.config = config
        self.net = ConfidenceNetwork(channels=1)
        self.guard = CollapseGuard(config.collapse_patience, LOOK_AT_LABELS)
        self._found: float | None = None

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor] | None:
        """Return both terms; None for a batch without labels."""
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
        """Count the step if one class was found everywhere."""
        self.guard.watch(self._found)

    def predictor(self) -> nn.Module:
        """Return the network."""
        return self.net

    def warnings(self) -> list[str]:
        """Say that one class is found everywhere."""
        return self.guard.warnings(self._found)

    def counters(self) -> dict[str, float]:
        """Return the share of nuclei that is found in labeled crops that hold both classes."""
        return {} if self._found is None else {"found nuclei": self._found}
