"""CDCL: cross-patch dense contrastive learning.

H. Wu, Z. Wang, Y. Song, L. Yang, J. Qin, "Cross-patch Dense Contrastive Learning for Semi-supervised Segmentation of
Cellular Nuclei in Histopathologic Images", CVPR 2022.

    L  = w_sup L_sup + w_contr L_contr + w_cons(e) L_cons + w_ent L_ent            Eq. 1
    θᵗ ← α θᵗ + (1 - α) θˢ                                                         Eq. 2

paper              here
θˢ, θᵗ             self.student, self.teacher: network and projector
ỹᵘ                 argmax of the probabilities, pooled to the grid of the projections (Eqs. 3, 4)
FS, FDP, BDP, MP   `patch_categories` (Eqs. 5, 6): FS ≥ 0.7, FS ≤ 0.3, between
FDB, BDB           the cells of `keys`: student and teacher, this batch and the ones that `self.bank` remembers
L_contr            `cross_patch_contrast` (Eqs. 7 to 12)
L_cons             `pseudo_label_cross_entropy` (Eqs. 13, 14), on the feature grid
L_ent              `softmax_entropy` (Eq. 15), on the feature grid
w_cons(e)          weight_cons * `RAMPS["gaussian"]` over the run: the paper counts 80 epochs, we count steps

Where paper and released code differ, the paper is followed: negatives come from the bank of the opposite category
(`rule="paper"`; the code's sum of scores is `rule="sum"`), and L_cons takes every pixel (`consistency_mask="none"`;
the code keeps the unconfident ones: `"unconfident"`). The code cuts patches of labels and of projections from
different grids; here both lie on the grid of the projections, as the text has it. Ours: keys carry no gradient
(`detach="all"`), pixels that show no image count nowhere, labeled and unlabeled crops pass the network one after the
other, and a short run may take a random part of the anchors (`max_anchors`).
After `collapse_patience` steps with one class only in unlabeled crops these count a tenth (`CollapseGuard`; ours).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from napari_semiseg.data.batch import Batch, Views
from napari_semiseg.io.diagnostics import Amount, Categories, Diagnostic, Meaning
from napari_semiseg.losses._reduce import most_likely
from napari_semiseg.losses.cells import whole_cells
from napari_semiseg.losses.consistency import pseudo_label_cross_entropy
from napari_semiseg.losses.cross_entropy import cross_entropy
from napari_semiseg.losses.entropy import softmax_entropy
from napari_semiseg.losses.patch_contrast import (
    BACKGROUND,
    FOREGROUND,
    OUTSIDE,
    PatchCells,
    cross_patch_contrast,
    foreground_scores,
    patch_categories,
)
from napari_semiseg.losses.ramps import RAMPS, Ramp
from napari_semiseg.methods._base import MethodConfig, PseudoLabelConfig, PseudoLabelMethod, Task, pseudo_label_counters
from napari_semiseg.nn.ema import ema_decay, ema_update
from napari_semiseg.nn.memory_bank import MemoryBank
from napari_semiseg.nn.network import Network
from napari_semiseg.nn.projector import Projector

PATCHES: Mapping[int, Meaning] = {
    1: Meaning("foreground-dominated patch", (230, 159, 0)),
    2: Meaning("background-dominated patch", (0, 114, 178)),
    3: Meaning("mixed patch", (204, 121, 167)),
}


class CDCLConfig(PseudoLabelConfig):
    """Options of `CDCL`; defaults are the paper's unless the description says otherwise."""

    weight_sup: float = Field(1.0, ge=0, le=100, description="Weight of the supervised term.")
    weight_contr: float = Field(0.1, ge=0, le=100, description="Weight of the contrastive term.")
    weight_cons: float = Field(1.0, ge=0, le=100, description="Weight of the consistency term at the end of its ramp.")
    weight_ent: float = Field(0.01, ge=0, le=100, description="Weight of the entropy term.")
    warmup_fraction: float = Field(5 / 80, ge=0, le=1, description="Share of the run on labels alone (5 of 80 epochs).")
    ramp_fraction: float = Field(1.0, ge=0, le=1, description="Share of the run until weight_cons is reached.")
    ramp: Ramp = Field("gaussian", description="How it rises until then.")
    ema_decay: float = Field(0.999, ge=0, lt=1, description="Memory of the teacher, per step.")
    temperature: float = Field(0.1, gt=0, le=10, description="Temperature of the contrast; the code's default.")
    low: float = Field(0.3, ge=0, le=1, description="Highest foreground score of a background-dominated patch.")
    high: float = Field(0.7, ge=0, le=1, description="Lowest foreground score of a foreground-dominated patch.")
    patches_per_side: int = Field(8, ge=1, le=64, description="Patches along a side of a crop.")
    rule: Literal["paper", "sum", "pixel", "random"] = Field("paper", description="Which keys are negatives.")
    consistency_mask: Literal["none", "confident", "unconfident"] = Field(
        "none", description="Pixels that L_cons takes."
    )
    consistency_threshold: float = Field(
        0.75, ge=0, le=1, description="Teacher confidence that divides them; unpublished."
    )
    detach: Literal["all", "history"] = Field(
        "all", description="Keys without gradient: all, or only those of batches before."
    )
    history: int = Field(1, ge=0, le=16, description="Batches before this one whose keys are remembered.")
    bank_capacity: int = Field(25_600, ge=1, description="Keys remembered of one batch; the paper's size is 25,600.")
    max_anchors: int = Field(
        0, ge=0, description="Anchors taken at random from a batch; 0 takes all, as the paper does."
    )
    projection: int = Field(128, ge=8, le=1024, description="Length of a projection.")
    pool: Literal[1, 2, 4] = Field(
        2, description="Pooling before the projection: 2 gives the paper's network 5 x 5 cells a patch, 4 a U-Net."
    )


class _Model(nn.Module):
    """Network and projector, which the teacher has too."""

    def __init__(self, net: Network, projector: Projector) -> None:
        super().__init__()
        self.net, self.projector = net, projector


class CDCL(PseudoLabelMethod):
    """A student taught by labels, by the running average of itself, and by contrast between patches."""

    name: ClassVar[str] = "cdcl"
    title: ClassVar[str] = "Cross-patch dense contrastive learning (CDCL)"
    does: ClassVar[str] = (
        "A student learned from labels, from what the running average of its weights finds in unlabeled "
        "crops, and by contrast between patches of nuclei and of background."
    )
    references: ClassVar[tuple[str, ...]] = (
        (
            "H. Wu, Z. Wang, Y. Song, L. Yang, J. Qin, Cross-patch dense contrastive learning for semi-supervised "
            "segmentation of cellular nuclei in histopathologic images, CVPR 2022."
        ),
    )
    Config: ClassVar[type[MethodConfig]] = CDCLConfig
    views: ClassVar[Views] = Views(labeled=True, weak=True, strong=1)
    labels: ClassVar[Literal["needed", "used", "unused"]] = "needed"
    classes: ClassVar[Literal["two", "any"]] = "two"
    shows: ClassVar[str] = "Foreground, background and mixed patches"

    def __init__(self, new_network: Callable[[], Network], task: Task, config: CDCLConfig) -> None:
        super().__init__(new_network, task, config)
        self.config = config
        net = new_network()
        self.student = _Model(net, Projector(net.feature_channels, config.projection, config.pool))
        self.teacher = deepcopy(self.student).requires_grad_(False)
        self.bank = MemoryBank(
            batches=max(1, config.history),
            capacity=config.bank_capacity,
            fields={
                "features": ((config.projection,), torch.float32),
                "labels": ((), torch.int64),
                "category": ((), torch.int8),
                "foreground": ((), torch.int32),
            },
        )
        self._seen: list[PatchCells] = []

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor] | None:
        """Return the terms of Eq. 1; the unsupervised ones from the end of the warm-up on, if they have weight."""
        c, self._counters = self.config, {}
        losses: dict[str, Tensor] = {}
        if batch.image_l is not None and batch.label_l is not None:
            losses["sup"] = c.weight_sup * cross_entropy(self.student.net(batch.image_l), batch.label_l)
        if batch.weak_u is None or step < c.warmup_fraction * self.task.steps:
            return losses or None

        features_s = self.student.net.features(batch.strong_u[0])
        logits_s = self.student.net.logits_on_grid(features_s)
        with torch.no_grad():
            self.teacher.eval()
            features_t = self.teacher.net.features(batch.weak_u)
            logits_t = self.teacher.net.logits_on_grid(features_t)
        valid = None if batch.valid_u is None else whole_cells(batch.valid_u, logits_s.shape[-2:])
        counted = torch.ones_like(logits_t[:, 0], dtype=torch.bool) if valid is None else valid
        self._counters = pseudo_label_counters(logits_t, counted)

        ramp = RAMPS[c.ramp](step, c.ramp_fraction * self.task.steps)
        masked = (
            {} if c.consistency_mask == "none" else {"threshold": c.consistency_threshold, "keep": c.consistency_mask}
        )
        weight = self.guard.weight
        if c.weight_cons:
            cons = pseudo_label_cross_entropy(logits_s, logits_t, valid=valid, **masked)  # type: ignore[arg-type]
            losses["cons"] = weight * c.weight_cons * ramp * cons
        if c.weight_ent:
            losses["ent"] = weight * c.weight_ent * softmax_entropy(logits_s, valid=valid)
        if c.weight_contr:
            contrast = self._contrast(features_s, logits_s, features_t, logits_t, valid)
            losses["contr"] = weight * c.weight_contr * contrast
        return losses or None

    def _contrast(
        self, features_s: Tensor, logits_s: Tensor, features_t: Tensor, logits_t: Tensor, valid: Tensor | None
    ) -> Tensor:
        c = self.config
        anchors = self._cells(self.student.projector(features_s), logits_s, valid)
        with torch.no_grad():
            positives = self._cells(self.teacher.projector(features_t), logits_t, valid)
        keys = [anchors.detached() if c.detach == "all" else anchors, positives]
        self._seen = [part.as_history() for part in keys]
        if c.history and len(self.bank):
            keys.extend(self._remembered(anchors.size))
        if c.max_anchors:
            rows = self._choose(anchors)
            anchors, positives = anchors.select(rows), positives.select(rows)
        term = cross_patch_contrast(
            anchors,
            positives.features,
            keys,
            temperature=c.temperature,
            rule=c.rule,
            score_limit=c.low + c.high,
        )
        self._counters |= {
            "foreground anchors": term.foreground_anchors,
            "background anchors": term.background_anchors,
            "negatives per anchor": term.mean_negatives,
        }
        return term.loss

    def diagnostics(self, image: Tensor) -> Mapping[str, Diagnostic]:
        """Sort the patches of an image by the teacher's pseudo-labels, as a step does; patches are those of a crop."""
        c, net = self.config, self.teacher.net
        probs = net.logits_on_grid(net.features(image)).float().softmax(1)
        labels = most_likely(F.avg_pool2d(probs, c.pool) if c.pool > 1 else probs)
        cell = image.shape[-1] // labels.shape[-1]
        patch = max(1, self.task.crop // cell // c.patches_per_side)
        category, _ = patch_categories(labels, patch, low=c.low, high=c.high)
        kinds = torch.zeros_like(category)
        kinds[category == FOREGROUND], kinds[category == BACKGROUND] = 1, 2
        kinds[(category != FOREGROUND) & (category != BACKGROUND) & (category != OUTSIDE)] = 3
        whole = torch.full(labels.shape, torch.nan, device=labels.device)  # what lies behind the last patch
        scores = foreground_scores(labels, patch).repeat_interleave(patch, 1).repeat_interleave(patch, 2)
        whole[:, : scores.shape[1], : scores.shape[2]] = scores
        return {
            "patches": Categories(kinds[0].to(torch.uint8).cpu().numpy(), PATCHES),
            "foreground score": Amount(whole[0].cpu().numpy(), 0.0, 1.0, "share of a patch that is labeled nucleus"),
        }

    def _cells(self, projected: Tensor, logits: Tensor, valid: Tensor | None) -> PatchCells:
        """Return the cells of every patch, with pseudo-labels on the grid of the projections."""
        c = self.config
        probs = logits.detach().float().softmax(1)
        labels = most_likely(F.avg_pool2d(probs, c.pool) if c.pool > 1 else probs)
        patch = max(1, labels.shape[-1] // c.patches_per_side)
        shown = None if valid is None else whole_cells(valid, labels.shape[-2:])
        return PatchCells.from_maps(projected, labels, patch, low=c.low, high=c.high, valid=shown)

    def _remembered(self, size: int) -> Iterator[PatchCells]:
        for rows in self.bank.by_batch():
            yield PatchCells(**rows, size=size, position=torch.full_like(rows["labels"], -1))

    def _choose(self, anchors: PatchCells) -> Tensor:
        """Return the rows of the anchors to contrast: a random part of the cells of FDPs and BDPs."""
        rows = ((anchors.category == FOREGROUND) | (anchors.category == BACKGROUND)).nonzero().flatten()
        if len(rows) <= self.config.max_anchors:
            return rows
        return rows[torch.randperm(len(rows), device=rows.device)[: self.config.max_anchors]]

    def after_step(self, step: int) -> None:
        """Move the teacher, and remember the keys of this step."""
        super().after_step(step)
        ema_update(self.teacher, self.student, ema_decay(step, self.config.ema_decay))
        if self._seen and self.config.history:
            fields = ("features", "labels", "category", "foreground")
            self.bank.push(**{name: torch.cat([getattr(part, name) for part in self._seen]) for name in fields})
        self._seen = []

    def predictor(self) -> nn.Module:
        """Return the teacher's network."""
        return self.teacher.net

    def second_opinion(self) -> nn.Module:
        """Return the student's network."""
        return self.student.net

    def counters(self) -> dict[str, float]:
        """Return the share of nuclei among the pseudo-labels, anchors per category and negatives per anchor."""
        return self._counters
