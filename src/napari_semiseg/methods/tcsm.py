"""TCSM: a mean teacher that has to find in a turned crop what its student finds in the crop as it is.

X. Li, L. Yu, H. Chen, C.-W. Fu, L. Xing, P.-A. Heng, "Transformation-consistent self-ensembling model for
semisupervised medical image segmentation", IEEE TNNLS 2021 (TCSMv2).

    L  = Σ_labeled CE(f(x_i), y_i) + λ(t) Σ_all ‖ π_i(f(x_i; θ, ξ)) - f(π_i(x_i); θ', ξ') ‖²
    θ' ← α_i θ' + (1 - α_i) θ

paper    here
θ, θ'    self.student, self.teacher; predicts the teacher
π_i      `Turns`, drawn for each crop: a flip, k quarter turns, a scale within 0.9 to 1.1
ξ, ξ'    Gaussian noise on the input
f        probabilities; the square is the mean over pixels and classes
λ(t)     weight_con * sigmoid_rampup over 3/4 of the run: 600 of 800 epochs
α_i      `ema_decay(i, 0.999)` = min(1 - 1 / (i + 1), 0.999)

In the released code the outputs of the student are computed without gradient too, so that the consistency teaches
nothing; here the student has its gradient, as the text wants it. The code scales twice and undoes it once, and compares
what lies outside the frame; here π is applied once on each side, and the border that it brings in counts nowhere. Its
noise, 0.5 of 255 gray levels, is practically none; ours is 0.02 of [0, 1], about a tenth of the spread of a stained
image. Ours besides: bilinear in place of bicubic resizing; a teacher in eval mode with averaged batch statistics;
labeled crops and unlabeled ones pass in one batch; weights of classes (the paper's 1.93 and 8.06 are those of skin
lesions) are 1 unless `weight_nuclei` is set; pixels of labeled crops without a label count nowhere.
After `collapse_patience` steps with one class only in unlabeled crops these count a tenth (`CollapseGuard`; ours).
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from napari_semiseg.data.batch import IGNORE, Batch, Views
from napari_semiseg.losses._reduce import most_likely
from napari_semiseg.losses.consistency import probability_mse
from napari_semiseg.losses.cross_entropy import cross_entropy
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
from napari_semiseg.nn.turns import Turns


class TCSMConfig(PseudoLabelConfig):
    """Options of `TCSM`."""

    weight_sup: float = Field(1.0, ge=0, le=100, description="Weight of the supervised term.")
    weight_nuclei: float = Field(
        1.0, gt=0, le=100, description="How much a pixel of a nucleus counts beside one of background, among labels."
    )
    weight_con: float = Field(
        1.0, ge=0, le=1_000, description="Weight of the consistency at the end of its ramp; the code's default is 10."
    )
    ramp_fraction: float = Field(600 / 800, ge=0, le=1, description="Share of the run until weight_con is reached.")
    consistency_on: Literal["both", "unlabeled"] = Field("both", description="Crops that the consistency takes.")
    scale: float = Field(0.1, ge=0, le=0.5, description="Crops are magnified by 1 ± this; 0 interpolates nothing.")
    noise: float = Field(0.02, ge=0, le=1, description="Standard deviation of the noise on what both networks see.")
    ema_decay: float = Field(0.999, ge=0, lt=1, description="Memory of the teacher, per step.")


class TCSM(PseudoLabelMethod):
    """A student whose map turns as its crop is turned."""

    name: ClassVar[str] = "tcsm"
    title: ClassVar[str] = "Transformation consistency (TCSMv2)"
    does: ClassVar[str] = (
        "A student learned from labels, and to find in a crop what the running average of its weights finds "
        "in the same crop turned, flipped and scaled."
    )
    references: ClassVar[tuple[str, ...]] = (
        (
            "X. Li, L. Yu, H. Chen, C.-W. Fu, L. Xing, P.-A. Heng, Transformation-consistent self-ensembling model for "
            "semisupervised medical image segmentation, IEEE Transactions on Neural Networks and Learning Systems "
            "2021."
        ),
    )
    Config: ClassVar[type[MethodConfig]] = TCSMConfig
    views: ClassVar[Views] = Views(labeled=True, weak=True)
    labels: ClassVar[Literal["needed", "used", "unused"]] = "needed"

    def __init__(self, new_network: Callable[[], Network], task: Task, config: TCSMConfig) -> None:
        super().__init__(new_network, task, config)
        self.config = config
        self.student = new_network()
        self.teacher = deepcopy(self.student).requires_grad_(False)

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor] | None:
        """Return the supervised term and the consistency under turning."""
        c, self._counters = self.config, {}
        images = [image for image in (batch.image_l, batch.weak_u) if image is not None]
        if not images:
            return None
        logits = self.student(self._with_noise(torch.cat(images)))
        losses: dict[str, Tensor] = {}
        if batch.image_l is not None and batch.label_l is not None:
            weights = torch.full((logits.shape[1],), c.weight_nuclei, device=logits.device)
            weights[0] = 1.0
            labeled = logits[: len(batch.image_l)]
            losses["sup"] = c.weight_sup * cross_entropy(labeled, batch.label_l, weights=weights)
        if batch.weak_u is not None:
            ramp = sigmoid_rampup(step, c.ramp_fraction * self.task.steps)
            losses["con"] = self.guard.weight * c.weight_con * ramp * self._consistency(logits, batch)
        return losses

    def _consistency(self, student: Tensor, batch: Batch) -> Tensor:
        """Compare the last rows of the student's logits, turned, with what the teacher says of turned crops."""
        assert batch.weak_u is not None
        image, valid = batch.weak_u, valid_pixels(batch)
        if self.config.consistency_on == "both" and batch.image_l is not None and batch.label_l is not None:
            image, valid = torch.cat([batch.image_l, image]), torch.cat([batch.label_l != IGNORE, valid])
        turns = Turns.draw(len(image), self.config.scale)
        with torch.no_grad():
            self.teacher.eval()
            teacher = self.teacher(self._with_noise(turns.apply(image)))
        probs = turns.apply(student[-len(image) :].softmax(1))
        shown = turns.apply_mask(valid)
        self._counters = {
            **pseudo_label_counters(teacher, shown),
            "agreement": share_of(most_likely(probs) == most_likely(teacher), shown),
        }
        return probability_mse(probs, teacher.softmax(1), valid=shown)

    def _with_noise(self, image: Tensor) -> Tensor:
        return image + self.config.noise * gaussian_noise(image) if self.config.noise else image

    def after_step(self, step: int) -> None:
        """Move the teacher."""
        super().after_step(step)
        ema_update(self.teacher, self.student, ema_decay(step, self.config.ema_decay))

    def predictor(self) -> nn.Module:
        """Return the teacher."""
        return self.teacher

    def second_opinion(self) -> nn.Module:
        """Return the student."""
        return self.student

    def counters(self) -> dict[str, float]:
        """Return the teacher's share of nuclei, and the share of pixels where both find the same class."""
        return self._counters
