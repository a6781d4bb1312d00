"""Mean Teacher for dense prediction.

A. Tarvainen, H. Valpola, "Mean teachers are better role models: weight-averaged consistency targets improve
semi-supervised deep learning results", NeurIPS 2017.

    L  = L_sup + λ(t) L_con          L_con = mean over pixels and classes of (p - p')²        Eq. 1, at every pixel
    θ' ← α_i θ' + (1 - α_i) θ                                                                 Eq. 2

paper       here
θ, θ'       self.student, self.teacher
η, η'       the student sees a recolored view, the teacher the plain view with Gaussian noise
L_con       `softmax_mse`, or `logit_mse` with `distance="logits"`
λ(t)        weight_con * sigmoid_rampup over `ramp_fraction` of the run; 0 before `warmup_fraction` of it
α_i         `ema_decay(i, α)` = min(1 - 1 / (i + 1), α), or α itself with `ema_warmup=False`

The paper classifies images. What its released ports to segmentation made of it differs, and `SOURCES` holds the options
of each; the defaults are those of SSL4MIS, whose images are medical and whose network is a U-Net: L_sup is half
cross-entropy and half Dice, λ grows to 0.1 over the run and is 0 for its first thirtieth. Ours: the student sees other
colors, since that is what differs between slides (`student_view="weak"` shows it what the teacher sees, without the
noise, as SSL4MIS does); the ramp moves with every step and not every 150; Dice is that of the nuclei, not of the
background; the teacher predicts with averaged batch statistics (`teacher_statistics="own"` lets it gather its own in
train mode, as all three do); pixels that show no image, and those of labeled crops without a label, count nowhere.
Labeled and unlabeled crops pass the student in one batch, as in SSL4MIS.
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

from napari_semiseg.data.batch import IGNORE, Batch, Views
from napari_semiseg.losses._reduce import most_likely
from napari_semiseg.losses.consistency import logit_mse, softmax_mse
from napari_semiseg.losses.cross_entropy import cross_entropy
from napari_semiseg.losses.dice import soft_dice
from napari_semiseg.losses.ramps import sigmoid_rampup
from napari_semiseg.methods._base import (
    MethodConfig,
    PseudoLabelConfig,
    PseudoLabelMethod,
    Task,
    pseudo_label_counters,
    share_of,
    valid_pixels,
)
from napari_semiseg.nn.ema import ema_decay, ema_update
from napari_semiseg.nn.network import Network
from napari_semiseg.nn.noise import gaussian_noise
from napari_semiseg.works import TARVAINEN

SOURCES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "SSL4MIS": {"student_view": "weak", "teacher_statistics": "own"},
        "TorchSemiSeg": {
            "weight_sup": 1.0,
            "weight_dice": 0.0,
            "weight_con": 100.0,
            "warmup_fraction": 0.0,
            "ramp_fraction": 0.0,
            "consistency_on": "both",
            "ema_warmup": False,
            "student_view": "weak",
            "noise": 0.0,
            "teacher_statistics": "own",
        },
        "PixelSSL": {
            "weight_sup": 1.0,
            "weight_dice": 0.0,
            "weight_con": 1.0,
            "warmup_fraction": 0.0,
            "ramp_fraction": 5 / 40,
            "distance": "logits",
            "student_view": "weak",
            "teacher_statistics": "own",
        },
    }
)
"""What the released codes do, as options that differ from the defaults."""


class MeanTeacherConfig(PseudoLabelConfig):
    """Options of `MeanTeacher`."""

    weight_sup: float = Field(0.5, ge=0, le=100, description="Weight of the cross-entropy.")
    weight_dice: float = Field(0.5, ge=0, le=100, description="Weight of the soft Dice term.")
    weight_con: float = Field(0.1, ge=0, le=1_000, description="Weight of the consistency term at the end of its ramp.")
    warmup_fraction: float = Field(1 / 30, ge=0, le=1, description="Share of the run on labels alone.")
    ramp_fraction: float = Field(
        1.0, ge=0, le=1, description="Share of the run until weight_con is reached; 0 has it from the start."
    )
    distance: Literal["probs", "logits"] = Field("probs", description="What student and teacher should agree in.")
    over_classes: Literal["mean", "sum"] = Field("mean", description="How squares are put together over classes.")
    consistency_on: Literal["unlabeled", "both"] = Field("unlabeled", description="Crops that the consistency takes.")
    student_view: Literal["strong", "weak"] = Field(
        "strong", description="What the student sees of unlabeled crops: other colors, or the plain view."
    )
    noise: float = Field(
        0.1, ge=0, le=1, description="Standard deviation of the noise that the teacher sees; cut off at twice that."
    )
    ema_decay: float = Field(0.99, ge=0, lt=1, description="Memory of the teacher, per step.")
    ema_warmup: bool = Field(True, description="Whether the teacher's memory is short at first.")
    teacher_statistics: Literal["averaged", "own"] = Field(
        "averaged", description="Batch statistics of the teacher: averages of the student's, or gathered by itself."
    )


class MeanTeacher(PseudoLabelMethod):
    """A student taught by labels and by the running average of itself."""

    name: ClassVar[str] = "mean_teacher"
    title: ClassVar[str] = "Mean Teacher"
    does: ClassVar[str] = (
        "A student learned from labels, and on unlabeled crops to find what the running average of its weights finds; "
        "that average predicts."
    )
    references: ClassVar[tuple[str, ...]] = (TARVAINEN,)
    Config: ClassVar[type[MethodConfig]] = MeanTeacherConfig
    views: ClassVar[Views] = Views(labeled=True, weak=True, strong=1)
    labels: ClassVar[Literal["needed", "used", "unused"]] = "needed"

    def __init__(self, new_network: Callable[[], Network], task: Task, config: MeanTeacherConfig) -> None:
        super().__init__(new_network, task, config)
        self.config = config
        self.student = new_network()
        self.teacher = deepcopy(self.student).requires_grad_(False)
        self._gathers = False  # whether the teacher has gathered batch statistics in this step

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor] | None:
        """Return the supervised terms and, from the end of the warm-up on, the consistency."""
        c, self._gathers, self._counters = self.config, False, {}
        consistent = batch.weak_u is not None and step >= c.warmup_fraction * self.task.steps
        seen = [] if batch.image_l is None else [batch.image_l]
        if consistent:
            seen.append(batch.strong_u[0] if c.student_view == "strong" else batch.weak_u)  # type: ignore[arg-type]
        if not seen:
            return None

        logits = self.student(torch.cat(seen))
        losses: dict[str, Tensor] = {}
        if batch.image_l is not None and batch.label_l is not None:
            labeled = logits[: len(batch.image_l)]
            losses["sup"] = c.weight_sup * cross_entropy(labeled, batch.label_l)
            if c.weight_dice:
                losses["dice"] = c.weight_dice * soft_dice(labeled, batch.label_l)
        if consistent:
            weight = c.weight_con * sigmoid_rampup(step, c.ramp_fraction * self.task.steps)
            losses["con"] = self.guard.weight * weight * self._consistency(logits, batch)
        return losses

    def _consistency(self, student: Tensor, batch: Batch) -> Tensor:
        """Compare the last rows of the student's logits, those of unlabeled crops or of all, with the teacher's."""
        assert batch.weak_u is not None
        image, valid = batch.weak_u, valid_pixels(batch)
        if self.config.consistency_on == "both" and batch.image_l is not None and batch.label_l is not None:
            image, valid = torch.cat([batch.image_l, image]), torch.cat([batch.label_l != IGNORE, valid])
        self._gathers = self.config.teacher_statistics == "own"
        with torch.no_grad():
            self.teacher.train(self._gathers)
            teacher = self.teacher(self._with_noise(image))
        student = student[-len(image) :]
        same = most_likely(student) == most_likely(teacher)
        self._counters = {**pseudo_label_counters(teacher, valid), "agreement": share_of(same, valid)}
        distance = softmax_mse if self.config.distance == "probs" else logit_mse
        return distance(student, teacher, valid=valid, over_classes=self.config.over_classes)

    def _with_noise(self, image: Tensor) -> Tensor:
        deviation = self.config.noise
        if not deviation:
            return image
        return image + (deviation * gaussian_noise(image)).clamp(-2 * deviation, 2 * deviation)

    def after_step(self, step: int) -> None:
        """Move the teacher."""
        super().after_step(step)
        c = self.config
        alpha = ema_decay(step, c.ema_decay) if c.ema_warmup else c.ema_decay
        ema_update(self.teacher, self.student, alpha, buffers=not self._gathers)

    def predictor(self) -> nn.Module:
        """Return the teacher."""
        return self.teacher

    def second_opinion(self) -> nn.Module:
        """Return the student."""
        return self.student

    def counters(self) -> dict[str, float]:
        """Return the teacher's share of nuclei, and the share of pixels where both find the same class."""
        return self._counters
