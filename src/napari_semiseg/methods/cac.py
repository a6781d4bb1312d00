"""CAC: directional context-aware consistency.

X. Lai, Z. Tian, L. Jiang, S. Liu, H. Zhao, L. Wang, J. Jia, "Semi-supervised Semantic Segmentation with Directional
Context-aware Consistency", CVPR 2021.

    L = w_sup L_sup + w_contr (ℓ(1→2) + ℓ(2→1))

paper           here
xᵤ₁, xᵤ₂        the crops of `batch.pair_u`: one image, two surroundings, each crop flipped and colored by itself
Φ               the projector of `self.contrast`, after a 2 x 2 pooling
ŷ, max C        pseudo-labels and confidence: the classifier on the pooled features
ℓ(1→2)          `directional_contrast`: only the less sure of two cells is pulled, toward the surer one
γ               threshold: the surer one is at least that sure
memory bank     negatives of this batch and of `history` before

Follows the released code, whose formulas are those of the paper as far as both tell: the mean is over the cells that
are pulled (`mean_over="overlap"` takes all cells of the overlap). Deviations: no 1e-8 in the fraction; pseudo-labels
without dropout; offsets of the two crops are drawn from all that give the overlap and not by trial and error; a crop
may be turned and reach over the border of the image, and what shows no image counts nowhere. `ema_decay` lets the
running average of the weights predict, as `supervised` does; 0, as in the paper, the weights as they are.
After `collapse_patience` steps with one class only in unlabeled crops these count a tenth (`CollapseGuard`; ours).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from napari_semiseg.data.batch import Batch, Views
from napari_semiseg.io.diagnostics import Diagnostic
from napari_semiseg.losses.cross_entropy import cross_entropy
from napari_semiseg.methods._base import MethodConfig, PseudoLabelConfig, PseudoLabelMethod, Task
from napari_semiseg.nn.context_contrast import ContextContrast
from napari_semiseg.nn.ema import ema_decay, ema_update
from napari_semiseg.nn.groups import encoder_apart
from napari_semiseg.nn.network import Network


class CACConfig(PseudoLabelConfig):
    """Options of `CAC`; defaults are the paper's unless the description says otherwise."""

    weight_sup: float = Field(1.0, ge=0, le=100, description="Weight of the supervised term.")
    weight_contr: float = Field(0.1, ge=0, le=100, description="Weight of the contrastive term.")
    warmup_fraction: float = Field(5 / 80, ge=0, le=1, description="Share of the run on labels alone (5 of 80 epochs).")
    temperature: float = Field(0.1, gt=0, le=10, description="Temperature of the contrast.")
    threshold: float = Field(0.75, ge=0, le=1, description="Confidence above which a cell may pull its counterpart.")
    threshold_side: Literal["target", "anchor"] = Field(
        "target", description="Whose confidence that is: of the cell that pulls, or of the one that is pulled."
    )
    mean_over: Literal["overlap", "anchors"] = Field(
        "anchors", description="The mean is over all cells of the overlap, or over those that are pulled."
    )
    negatives: int = Field(6_400, ge=1, le=100_000, description="Negatives drawn of each crop of the pairs of a batch.")
    history: int = Field(1, ge=0, le=16, description="Batches before this one whose negatives are remembered.")
    projection: int = Field(128, ge=8, le=1024, description="Length of a projection.")
    pool: Literal[1, 2] = Field(2, description="Pooling before the projection.")
    encoder_lr_scale: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Learning rate of a pretrained encoder, as a part of the rest's; the paper has 0.1.",
    )
    ema_decay: float = Field(0.0, ge=0, lt=1, description="Memory of averaged weights that predict; 0 keeps none.")


class CAC(PseudoLabelMethod):
    """A network taught by labels, and to see the same in the same tissue whatever surrounds it."""

    name: ClassVar[str] = "cac"
    title: ClassVar[str] = "Context-aware consistency (CAC)"
    does: ClassVar[str] = (
        "The network learned from labels, and to find the same features in the overlap of two crops of an "
        "unlabeled image, whatever surrounds it."
    )
    references: ClassVar[tuple[str, ...]] = (
        (
            "X. Lai, Z. Tian, L. Jiang, S. Liu, H. Zhao, L. Wang, J. Jia, Semi-supervised semantic segmentation with "
            "directional context-aware consistency, CVPR 2021."
        ),
    )
    Config: ClassVar[type[MethodConfig]] = CACConfig
    views: ClassVar[Views] = Views(labeled=True, pairs=(0.1, 1.0))
    labels: ClassVar[Literal["needed", "used", "unused"]] = "needed"
    shows: ClassVar[str] = "Overlapping crops"

    def __init__(self, new_network: Callable[[], Network], task: Task, config: CACConfig) -> None:
        super().__init__(new_network, task, config)
        self.config = config
        self.net = new_network()
        self.average = deepcopy(self.net).requires_grad_(False) if config.ema_decay else None
        self.contrast = ContextContrast(
            self.net.feature_channels,
            projection=config.projection,
            pool=config.pool,
            negatives=config.negatives,
            history=config.history,
        )

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor] | None:
        """Return the supervised term and, from the end of the warm-up on, the contrast."""
        c, self._counters = self.config, {}
        losses: dict[str, Tensor] = {}
        if batch.image_l is not None and batch.label_l is not None:
            losses["sup"] = c.weight_sup * cross_entropy(self.net(batch.image_l), batch.label_l)
        pair = batch.pair_u
        if pair is None or step < c.warmup_fraction * self.task.steps:
            return losses or None

        features = [self.net.features(crop) for crop in pair.images]
        term = self.contrast(
            self.net,
            features,
            pair.overlap(self.contrast.grid(features[0])),
            pair.valid,
            temperature=c.temperature,
            threshold=c.threshold,
            side=c.threshold_side,
            mean_over=c.mean_over,
        )
        losses["contr"] = self.guard.weight * c.weight_contr * term.loss
        self._counters = term.counters
        return losses

    def after_step(self, step: int) -> None:
        """Remember the negatives of this step, and move the averaged weights."""
        super().after_step(step)
        self.contrast.remember()
        if self.average is not None:
            ema_update(self.average, self.net, ema_decay(step, self.config.ema_decay))

    def predictor(self) -> nn.Module:
        """Return the network, or the average of its weights where one is kept."""
        return self.net if self.average is None else self.average

    def diagnostics(self, image: Tensor) -> Mapping[str, Diagnostic]:
        """Cut a pair of crops out of the image, and show which cells are pulled."""
        c = self.config
        return self.contrast.shown(self.net, image, self.task.crop, threshold=c.threshold, side=c.threshold_side)

    def counters(self) -> dict[str, float]:
        """Return shares of nuclei and of confident cells, the cells of the overlap, those pulled, negatives of each."""
        return self._counters

    def parameter_groups(self) -> list[list[dict[str, Any]]]:
        """Return one optimizer's groups: a pretrained encoder learns more slowly."""
        return [encoder_apart(self, self.net, self.config.encoder_lr_scale)]
