"""CutMix-Seg: a mean teacher whose student sees crops with a box of another crop in them.

G. French, S. Laine, T. Aila, M. Mackiewicz, G. Finlayson, "Semi-supervised semantic segmentation needs strong, varied
perturbations", BMVC 2020.

    L_con = λ r · 1/|Ω| Σ_{i ∈ Ω} Σ_c (p_ic - p'_ic)²
    p     = f_θ(mix(x0, x1, M)),   p' = mix(f_θ'(x0), f_θ'(x1), M),   mix(a, b, M) = (1 - M) ⊙ a + M ⊙ b
    θ'    ← α θ' + (1 - α) θ

paper     here
θ, θ'     self.student, self.teacher; predicts the teacher
x0, x1    a crop and the next of the same batch
M         `boxes_of_area`: one box of half the area, its height between half the crop and all of it
r         share of pixels of which the teacher is sure, max_c p'_c ≥ 0.97 (`confidence`)
λ, α      weight_con 1, ema_decay 0.99

Paper and released code: the text weighs the whole batch by its share of sure pixels, as the code does unless told to
do so pixel by pixel (`confidence="pixels"`). Logits of the teacher are mixed, then made probabilities. Squares are
summed over classes, so that a λ of 1 is one of 2 for codes that average them (`over_classes`). PixelSSL's port has
averages, λ = 20 and a teacher whose memory is short at first: `SOURCES`. The student sees strong colors where the
teacher sees none, as in the configuration for dermoscopy (ISIC), which is the nearest to nuclei. Ours: x0 and x1 are of
one batch; the teacher labels in eval mode with averaged batch statistics; the mean is over the pixels that show an
image.
After `collapse_patience` steps with one class only in unlabeled crops these count a tenth (`CollapseGuard`; ours).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from napari_semiseg.data.batch import Batch, Views
from napari_semiseg.data.cutmix import boxes_of_area, mixed
from napari_semiseg.losses.confidence import confident_mse
from napari_semiseg.losses.consistency import softmax_mse
from napari_semiseg.losses.cross_entropy import cross_entropy
from napari_semiseg.losses.ramps import sigmoid_rampup
from napari_semiseg.methods._base import (
    MethodConfig,
    PseudoLabelConfig,
    PseudoLabelMethod,
    Task,
    pseudo_label_counters,
    valid_pixels,
)
from napari_semiseg.nn.ema import ema_decay, ema_update
from napari_semiseg.nn.network import Network
from napari_semiseg.works import TARVAINEN, YUN

SOURCES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "CutMix-Seg": {},
        "PixelSSL": {"weight_con": 20.0, "over_classes": "mean", "ema_warmup": True, "student_view": "weak"},
    }
)
"""What the released codes do, as options that differ from the defaults."""


class CutMixSegConfig(PseudoLabelConfig):
    """Options of `CutMixSeg`."""

    weight_sup: float = Field(1.0, ge=0, le=100, description="Weight of the supervised term.")
    weight_con: float = Field(1.0, ge=0, le=1_000, description="Weight of the consistency term.")
    ramp_fraction: float = Field(
        0.0, ge=0, le=1, description="Share of the run until weight_con is reached; 0 has it from the start."
    )
    confidence: Literal["batch", "pixels", "none"] = Field(
        "batch", description="What weighs the consistency: the share of sure pixels, each pixel's own, or nothing."
    )
    threshold: float = Field(0.97, ge=0, le=1, description="Probability from which on the teacher is sure.")
    over_classes: Literal["sum", "mean"] = Field("sum", description="How squares are put together over classes.")
    area: float = Field(0.5, gt=0, le=1, description="Share of a crop that the pasted box covers.")
    student_view: Literal["strong", "weak"] = Field(
        "strong", description="What is mixed for the student: crops in other colors, or as the teacher sees them."
    )
    ema_decay: float = Field(0.99, ge=0, lt=1, description="Memory of the teacher, per step.")
    ema_warmup: bool = Field(False, description="Whether the teacher's memory is short at first.")


class CutMixSeg(PseudoLabelMethod):
    """A student that finds the same nuclei where crops were mixed as its average does where they were not."""

    name: ClassVar[str] = "cutmix_seg"
    title: ClassVar[str] = "CutMix-Seg"
    does: ClassVar[str] = (
        "A student learned from labels, and to find in crops with a box of another crop in them what the "
        "running average of its weights finds in either crop."
    )
    references: ClassVar[tuple[str, ...]] = (
        (
            "G. French, S. Laine, T. Aila, M. Mackiewicz, G. Finlayson, Semi-supervised semantic segmentation needs "
            "strong, varied perturbations, BMVC 2020."
        ),
        YUN,
        TARVAINEN,
    )
    Config: ClassVar[type[MethodConfig]] = CutMixSegConfig
    views: ClassVar[Views] = Views(labeled=True, weak=True, strong=1)
    labels: ClassVar[Literal["needed", "used", "unused"]] = "needed"

    def __init__(self, new_network: Callable[[], Network], task: Task, config: CutMixSegConfig) -> None:
        super().__init__(new_network, task, config)
        self.config = config
        self.student = new_network()
        self.teacher = deepcopy(self.student).requires_grad_(False)

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor] | None:
        """Return the supervised term and the consistency under mixing."""
        c, self._counters = self.config, {}
        losses: dict[str, Tensor] = {}
        if batch.image_l is not None and batch.label_l is not None:
            losses["sup"] = c.weight_sup * cross_entropy(self.student(batch.image_l), batch.label_l)
        if batch.weak_u is not None:
            ramp = sigmoid_rampup(step, c.ramp_fraction * self.task.steps)
            losses["con"] = self.guard.weight * c.weight_con * ramp * self._consistency(batch.weak_u, batch)
        return losses or None

    def _consistency(self, weak: Tensor, batch: Batch) -> Tensor:
        c, valid = self.config, valid_pixels(batch)
        boxes = boxes_of_area(valid.shape, c.area)
        with torch.no_grad():
            self.teacher.eval()
            teacher = mixed(boxes, self.teacher(weak))
        student = self.student(mixed(boxes, batch.strong_u[0] if c.student_view == "strong" else weak))
        valid = mixed(boxes, valid)
        self._counters = pseudo_label_counters(teacher, valid, c.threshold)
        if c.confidence == "none":
            return softmax_mse(student, teacher, valid=valid, over_classes=c.over_classes)
        return confident_mse(
            student, teacher, threshold=c.threshold, valid=valid, weigh=c.confidence, over_classes=c.over_classes
        )

    def after_step(self, step: int) -> None:
        """Move the teacher."""
        super().after_step(step)
        c = self.config
        ema_update(self.teacher, self.student, ema_decay(step, c.ema_decay) if c.ema_warmup else c.ema_decay)

    def predictor(self) -> nn.Module:
        """Return the teacher."""
        return self.teacher

    def second_opinion(self) -> nn.Module:
        """Return the student."""
        return self.student

    def counters(self) -> dict[str, float]:
        """Return the teacher's shares of sure pixels and of nuclei."""
        return self._counters
