"""CRCFP: consistency in varying contexts, under feature perturbations, with entropy made small.

R. M. S. Bashir, T. Qaiser, S. E. A. Raza, N. M. Rajpoot, "Consistency regularisation in varying contexts and feature
perturbations for semi-supervised semantic segmentation of histology images", Medical Image Analysis 91, 2024.

    L = w_sup L_sup + w_cont L_cont + w_cross L_cross + w_ent L_ent            Eq. 18

paper               here
xᵤ₁, xᵤ₂            the crops of `batch.pair_u`: one image, two surroundings, each flipped and colored by itself
xᵤ                  `batch.whole_u`: the image of the pair, squashed to the size of a crop and colored by itself
f, C_f, φ           features and classifier of `self.net`; the projector of `self.contrast`
L_cont              `directional_contrast` in both directions (Eqs. 3 to 8), negatives from `self.contrast.bank`
p_k, C_f^k          `self.perturbations` and, K for each of them, `self.auxiliaries`
L_cross             `softmax_mse` to the classifier's opinion of the plain features, mean over all heads (Eq. 9)
L_ent               `softmax_entropy` (Eq. 17)
λ, τ                threshold, temperature

Where paper and released code differ, the paper is followed: five of eighty epochs on labels alone, K = 4, the anchor's
own confidence against λ (Eq. 6), the mean over the overlap (Eq. 3), plain dropout (Eq. 16), an entropy that is
minimized (in the code it has no gradient). Two points of its text cannot be meant, and the code is followed: L_cross
takes cells of which the classifier is sure (`cross_threshold=0` takes all), and feature dropout clears the most active
cells and leaves the others as they are (Eq. 14 keeps the normalized map alone). All of the code's choices together are
the row "released code" of `engine.presets.VARIANTS`, beside every row of the paper's tables 3 to 6.

Ours: L_cross and L_ent are taken on the feature grid; no 1e-8 in the fraction; pseudo-labels of the pairs without
dropout; offsets of the two crops are drawn from all that give the overlap; of an image larger than
`SamplerConfig.field` crops the third view shows a part, since a slide squashed to a crop shows no nucleus; what shows
no image counts nowhere. `ema_decay` lets the running average of the weights predict, as `supervised` does.
After `collapse_patience` steps with one class only in unlabeled crops these count a tenth (`CollapseGuard`; ours).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from napari_semiseg.data.batch import Batch, Pair, Views
from napari_semiseg.io.diagnostics import Diagnostic
from napari_semiseg.losses.cells import whole_cells
from napari_semiseg.losses.consistency import softmax_mse
from napari_semiseg.losses.cross_entropy import cross_entropy
from napari_semiseg.losses.entropy import softmax_entropy
from napari_semiseg.methods._base import (
    MethodConfig,
    PseudoLabelConfig,
    PseudoLabelMethod,
    Task,
    pseudo_label_counters,
    share_of,
    zero_of,
)
from napari_semiseg.nn.context_contrast import ContextContrast
from napari_semiseg.nn.ema import ema_decay, ema_update
from napari_semiseg.nn.groups import encoder_apart
from napari_semiseg.nn.network import Network
from napari_semiseg.nn.perturbations import FeatureDrop, FeatureDropout, FeatureNoise


class CRCFPConfig(PseudoLabelConfig):
    """Options of `CRCFP`; defaults are the paper's unless the description says otherwise."""

    weight_sup: float = Field(1.0, ge=0, le=100, description="Weight of the supervised term.")
    weight_contr: float = Field(0.1, ge=0, le=100, description="Weight of the contrastive term.")
    weight_cross: float = Field(0.01, ge=0, le=100, description="Weight of the consistency under perturbation.")
    weight_ent: float = Field(0.01, ge=0, le=100, description="Weight of the entropy term.")
    warmup_fraction: float = Field(
        5 / 80, ge=0, le=1, description="Share of the run on labels alone (5 of 80 epochs); the code has none."
    )
    temperature: float = Field(0.1, gt=0, le=10, description="Temperature of the contrast.")
    threshold: float = Field(0.75, ge=0, le=1, description="Confidence above which a cell takes part in the contrast.")
    threshold_side: Literal["target", "anchor"] = Field(
        "anchor", description="Whose confidence that is: of the cell that is pulled, or of the one that pulls (code)."
    )
    mean_over: Literal["overlap", "anchors"] = Field(
        "overlap", description="The mean is over all cells of the overlap, or over those that are pulled (code)."
    )
    negatives: int = Field(1_200, ge=1, le=100_000, description="Negatives drawn of each crop of the pairs of a batch.")
    history: int = Field(1, ge=0, le=16, description="Batches before this one whose negatives are remembered.")
    projection: int = Field(128, ge=8, le=1024, description="Length of a projection.")
    pool: Literal[1, 2] = Field(2, description="Pooling before the projection.")
    auxiliaries: int = Field(4, ge=1, le=32, description="K, classifiers for each perturbation; the code has 6.")
    cross_threshold: float = Field(
        0.75, ge=0, le=1, description="Confidence above which a cell is kept consistent (code); 0 takes all (paper)."
    )
    noise: float = Field(0.3, ge=0, le=1, description="Feature noise: largest relative change of an activation.")
    drop_low: float = Field(0.75, ge=0, le=1, description="Feature dropout: lowest share of the highest activity.")
    drop_high: float = Field(0.9, ge=0, le=1, description="Feature dropout: highest share of the highest activity.")
    dropout_p: float = Field(0.5, gt=0, lt=1, description="Dropout: how likely an activation is cleared.")
    dropout: Literal["plain", "spatial"] = Field(
        "plain", description="Dropout of single activations, or of whole channels and scaled (code)."
    )
    entropy_gradient: bool = Field(
        True, description="Whether the entropy is minimized; in the code it is computed and has no gradient."
    )
    encoder_lr_scale: float = Field(
        1.0, gt=0, le=1, description="Learning rate of a pretrained encoder, as a part of the rest's; the code has 0.1."
    )
    ema_decay: float = Field(0.0, ge=0, lt=1, description="Memory of averaged weights that predict; 0 keeps none.")


class CRCFP(PseudoLabelMethod):
    """A network taught by labels, by contrast of two contexts, and by its own opinion under perturbation."""

    name: ClassVar[str] = "crcfp"
    title: ClassVar[str] = "Varying contexts and feature perturbations (CRCFP)"
    does: ClassVar[str] = (
        "The network learned from labels, by contrast of two crops that overlap, by agreeing with itself "
        "under disturbed features, and to be certain."
    )
    references: ClassVar[tuple[str, ...]] = (
        (
            "R. M. S. Bashir, T. Qaiser, S. E. A. Raza, N. M. Rajpoot, Consistency regularisation in varying contexts "
            "and feature perturbations for semi-supervised semantic segmentation of histology images, Medical Image "
            "Analysis 91, 2024."
        ),
    )
    Config: ClassVar[type[MethodConfig]] = CRCFPConfig
    views: ClassVar[Views] = Views(labeled=True, pairs=(0.1, 1.0), whole=True)
    labels: ClassVar[Literal["needed", "used", "unused"]] = "needed"
    shows: ClassVar[str] = "Overlapping crops"

    def __init__(self, new_network: Callable[[], Network], task: Task, config: CRCFPConfig) -> None:
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
        self.perturbations = nn.ModuleList(
            (
                FeatureNoise(config.noise),
                FeatureDrop(config.drop_low, config.drop_high),
                FeatureDropout(config.dropout_p, config.dropout),
            )
        )
        self.auxiliaries = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(self.net.feature_channels, task.classes, 1) for _ in range(config.auxiliaries))
            for _ in self.perturbations
        )

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor] | None:
        """Return the terms of Eq. 18; the unsupervised ones from the end of the warm-up on, if they have weight."""
        c, weight, self._counters = self.config, self.guard.weight, {}
        losses: dict[str, Tensor] = {}
        if batch.image_l is not None and batch.label_l is not None:
            losses["sup"] = c.weight_sup * cross_entropy(self.net(batch.image_l), batch.label_l)
        if step < c.warmup_fraction * self.task.steps:
            return losses or None

        if batch.pair_u is not None and c.weight_contr:
            losses["contr"] = weight * c.weight_contr * self._contrast(batch.pair_u)
        if batch.whole_u is not None and batch.whole_valid_u is not None and (c.weight_cross or c.weight_ent):
            features = self.net.features(batch.whole_u)
            logits = self.net.logits_on_grid(features)
            valid = whole_cells(batch.whole_valid_u, logits.shape[-2:])
            self._counters = pseudo_label_counters(logits, valid) | self._counters  # of the pair, where there is one
            if c.weight_cross:
                losses["cross"] = weight * c.weight_cross * self._cross_consistency(features, logits, valid)
            if c.weight_ent:
                losses["ent"] = weight * c.weight_ent * self._entropy(logits, valid)
        return losses or None

    def _contrast(self, pair: Pair) -> Tensor:
        """Return L_cont, both directions."""
        c = self.config
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
        self._counters |= term.counters
        loss: Tensor = term.loss
        return loss

    def _cross_consistency(self, features: Tensor, logits: Tensor, valid: Tensor) -> Tensor:
        """Return L_cross: every head, each on its own draw of a perturbation, against the classifier."""
        threshold = self.config.cross_threshold
        certainty = logits.detach().float().softmax(1).amax(1)
        self._counters["confident"] = share_of(certainty > threshold, valid)
        return torch.stack(
            [
                softmax_mse(head(perturb(features)), logits, valid=valid, threshold=threshold)
                for perturb, heads in zip(self.perturbations, self.auxiliaries, strict=True)
                for head in heads  # type: ignore[attr-defined]
            ]
        ).mean()

    def _entropy(self, logits: Tensor, valid: Tensor) -> Tensor:
        if self.config.entropy_gradient:
            return softmax_entropy(logits, valid=valid)
        return softmax_entropy(logits.detach(), valid=valid) + zero_of(logits)

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
        """Return the share of nuclei, cells of the overlap, those pulled, negatives of each, and the confident share.

        That is of the third view where this is kept consistent, of the pair otherwise.
        """
        return self._counters

    def parameter_groups(self) -> list[list[dict[str, Any]]]:
        """Return one optimizer's groups: a pretrained encoder may learn more slowly."""
        return [encoder_apart(self, self.net, self.config.encoder_lr_scale)]
