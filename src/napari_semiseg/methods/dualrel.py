"""DualRel-style: a student and its teacher are to find the same prototypes of an image.

H. Mai, R. Sun, T. Zhang, Z. Xiong, F. Wu, "DualRel: Semi-Supervised Mitochondria Segmentation from A Prototype
Perspective", CVPR 2023.

This is no reproduction. Of the paper we know its supplement alone, which describes the parts and defines one of them
(Eq. 5, the references); number of prototypes, losses and weights are not in it. What follows is built from that
description and is ours.

    L  = L_sup + w_rel r(t) L_rel + w_div L_div + w_pixel r(t) L_pixel
    θ' ← α θ' + (1 - α) θ

supplement                                    here
pairwise correlation s, usage u (Eq. 5)       `PrototypeNetwork.read`; s is normalized over pixels: over prototypes, u
                                              would be 1 everywhere
references X^R, referential correlation       the cells of highest usage; both described by how they resemble these
reliable pixel aggregation                    prototypes p_k of an image, gathered by the rectified correlation
reliable prototype selection                  `self.reliability`: a weight for each prototype, learned without labels
consistency of prototypes                     `prototype_consistency` (L_rel), student and teacher on two views
diversity loss                                `prototype_diversity` (L_div)

A prototype's reliability is read from the teacher's prototype and from how uncertain the teacher is where the prototype
looks: those that look at boundaries can be told by it. The supplement's prototypes classify pixels in a way that is not
said; here a pixel's features are joined with the mix of prototypes that it resembles, and the network's own classifier
reads both, so that every network fits. L_pixel, cross-entropy with the teacher's classes, is off.
After `collapse_patience` steps with one class only in unlabeled crops these count a tenth (`CollapseGuard`; ours).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from napari_semiseg.data.batch import Batch, Views
from napari_semiseg.io.diagnostics import Amount, Categories, Diagnostic, Meaning, color_of
from napari_semiseg.losses.consistency import pseudo_label_cross_entropy
from napari_semiseg.losses.cross_entropy import IGNORE, cross_entropy
from napari_semiseg.losses.prototypes import prototype_consistency, prototype_diversity
from napari_semiseg.losses.ramps import sigmoid_rampup
from napari_semiseg.methods._base import MethodConfig, PseudoLabelConfig, PseudoLabelMethod, Task, pseudo_label_counters
from napari_semiseg.nn.ema import ema_decay, ema_update
from napari_semiseg.nn.network import Network
from napari_semiseg.nn.prototypes import PrototypeNetwork, PrototypeReading

SHOWN_PROTOTYPES = 4
"""Of the most reliable prototypes so many are shown each by itself."""


class DualRelConfig(PseudoLabelConfig):
    """Options of `DualRel`; all defaults are ours."""

    weight_rel: float = Field(1.0, ge=0, le=100, description="Weight of the consistency of prototypes, after its ramp.")
    weight_div: float = Field(0.1, ge=0, le=100, description="Weight of the diversity of prototypes.")
    weight_pixel: float = Field(0.0, ge=0, le=100, description="Weight of the teacher's classes, after the ramp.")
    ramp_fraction: float = Field(1.0, ge=0, le=1, description="Share of the run until the weights are reached.")
    ema_decay: float = Field(0.99, ge=0, lt=1, description="Memory of the teacher, per step.")
    prototypes: int = Field(16, ge=1, le=255, description="K, prototypes of an image.")
    references: int = Field(128, ge=1, le=4_096, description="N, pixels that others are described by.")
    channels: int = Field(128, ge=4, le=1_024, description="Length of a prototype.")
    beta: float = Field(1.0, ge=0, le=100, description="Weight of the correlation by references; 0 leaves it out.")
    penalty: float = Field(0.1, ge=0, le=10, description="What keeps the reliability of prototypes from vanishing.")
    margin: float = Field(0.1, ge=0, le=1, description="Overlap of two prototypes that costs nothing.")


class DualRel(PseudoLabelMethod):
    """A student taught by labels, and by the prototypes that the running average of itself finds."""

    name: ClassVar[str] = "dualrel"
    title: ClassVar[str] = "DualRel-style: consistency of prototypes"
    does: ClassVar[str] = (
        "A student learned from labels, and to find the prototypes that the running average of its weights "
        "finds; this follows the supplement of the paper and is no reproduction of it."
    )
    references: ClassVar[tuple[str, ...]] = (
        (
            "H. Mai, R. Sun, T. Zhang, Z. Xiong, F. Wu, DualRel: semi-supervised mitochondria segmentation from a "
            "prototype perspective, CVPR 2023."
        ),
    )
    Config: ClassVar[type[MethodConfig]] = DualRelConfig
    views: ClassVar[Views] = Views(labeled=True, weak=True, strong=1)
    labels: ClassVar[Literal["needed", "used", "unused"]] = "needed"
    shows: ClassVar[str] = "Prototypes and their reliability"

    def __init__(self, new_network: Callable[[], Network], task: Task, config: DualRelConfig) -> None:
        super().__init__(new_network, task, config)
        self.config = config
        self.student = PrototypeNetwork(
            new_network(),
            prototypes=config.prototypes,
            references=config.references,
            channels=config.channels,
            beta=config.beta,
        )
        self.teacher = deepcopy(self.student).requires_grad_(False)
        hidden = max(1, config.channels // 2)
        self.reliability = nn.Sequential(nn.Linear(config.channels + 1, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor] | None:
        """Return the supervised term, and where there are unlabeled crops those of their prototypes."""
        c, self._counters = self.config, {}
        losses: dict[str, Tensor] = {}
        if batch.image_l is not None and batch.label_l is not None:
            features = self.student.features(batch.image_l)
            labeled = _on_grid(batch.label_l != IGNORE, features.shape[-2:])
            reading = self.student.read(features, labeled)
            losses["sup"] = cross_entropy(self.student.upsampled(reading.logits), batch.label_l)
            losses["div"] = c.weight_div * self._diversity(reading, labeled)
        if batch.weak_u is None:
            return losses or None

        features = self.student.features(batch.strong_u[0])
        shown = None if batch.valid_u is None else _on_grid(batch.valid_u, features.shape[-2:])
        student = self.student.read(features, shown)
        with torch.no_grad():
            self.teacher.eval()
            teacher = self.teacher.read(self.teacher.features(batch.weak_u), shown)
        reliability = self._reliability(teacher)
        ramp = self.guard.weight * sigmoid_rampup(step, c.ramp_fraction * self.task.steps)
        losses["rel"] = (
            c.weight_rel
            * ramp
            * prototype_consistency(
                student.prototypes,
                teacher.prototypes,
                reliability,
                penalty=c.penalty,
                counted=self._counted(shown, student),
            )
        )
        diversity = self.guard.weight * c.weight_div * self._diversity(student, shown)
        losses["div"] = (losses["div"] + diversity) / 2 if "div" in losses else diversity
        if c.weight_pixel:
            pixel = pseudo_label_cross_entropy(student.logits, teacher.logits, valid=shown)
            losses["pixel"] = c.weight_pixel * ramp * pixel
        counted = torch.ones_like(teacher.logits[:, 0], dtype=torch.bool) if shown is None else shown
        self._counters = pseudo_label_counters(teacher.logits, counted) | _told(student, reliability)
        return losses

    def diagnostics(self, image: Tensor) -> Mapping[str, Diagnostic]:
        """Show where the teacher's prototypes look, which of them most, and how reliable those are."""
        features = self.teacher.features(image)
        reading = self.teacher.read(features)
        reliable = self._reliability(reading).sigmoid()[0]
        grid = self.teacher.coarse(features).shape[-2:]
        activation = reading.correlation[0].reshape(-1, *grid)  # (K, h, w), of sum 1 over the cells
        share = activation / activation.sum(0).clamp(min=1e-12)
        words = "times the mean of a cell"
        activation = activation * activation[0].numel()
        maps: dict[str, Diagnostic] = {
            "strongest prototype": Categories((share.argmax(0) + 1).to(torch.uint8).cpu().numpy(), _named(reliable)),
            "reliability": Amount((share * reliable[:, None, None]).sum(0).cpu().numpy(), 0.0, 1.0, "reliability"),
        }
        for index in reliable.argsort(descending=True)[:SHOWN_PROTOTYPES].tolist():
            name = f"activation of prototype {index + 1} (reliability {float(reliable[index]):.2f})"
            maps[name] = Amount(activation[index].cpu().numpy(), 0.0, float(activation[index].max()), words)
        return maps

    def _diversity(self, reading: PrototypeReading, shown: Tensor | None) -> Tensor:
        return prototype_diversity(
            reading.correlation, margin=self.config.margin, counted=self._counted(shown, reading)
        )

    def _counted(self, shown: Tensor | None, reading: PrototypeReading) -> Tensor | None:
        """Return which images, (B,), have a cell to gather prototypes from."""
        if shown is None:
            return None
        coarse = self.student.coarse(shown[:, None].to(reading.correlation.dtype))
        return (coarse == 1).flatten(1).any(1)

    def _reliability(self, teacher: PrototypeReading) -> Tensor:
        """Return the logits of each prototype's weight, (B, K)."""
        log_probs = teacher.logits.float().log_softmax(1)
        entropy = self.student.coarse(-(log_probs.exp() * log_probs).sum(1, keepdim=True)).flatten(2)
        doubt = teacher.correlation @ entropy.transpose(1, 2)  # (B, K, 1): where the prototype looks
        weights: Tensor = self.reliability(torch.cat([teacher.prototypes, doubt], 2))
        return weights[..., 0]

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
        """Return the share of nuclei, how reliable prototypes are, and how alike: near 1 they have become one."""
        return self._counters


@torch.no_grad()
def _told(student: PrototypeReading, reliability: Tensor) -> dict[str, float]:
    unit = F.normalize(student.prototypes, dim=2)
    alike = unit @ unit.transpose(1, 2)
    number = alike.shape[1]
    off_diagonal = alike.sum() - alike.diagonal(dim1=1, dim2=2).sum()
    return {
        "reliability": float(reliability.sigmoid().mean()),
        "cosine of prototypes": float(off_diagonal / max(1, len(alike) * number * (number - 1))),
    }


def _named(reliable: Tensor) -> Mapping[int, Meaning]:
    """Return what stands for each prototype: its number, its reliability, and one of colors around the circle."""
    hues = [number / len(reliable) for number in range(len(reliable))]
    return {
        number + 1: Meaning(f"prototype {number + 1}, reliability {float(value):.2f}", color_of(hues[number]))
        for number, value in enumerate(reliable)
    }


def _on_grid(shown: Tensor, shape: tuple[int, int] | torch.Size) -> Tensor:
    """Return the cells, (B, h, w), all of whose pixels are shown."""
    height, width = shape
    return F.adaptive_avg_pool2d(shown.float()[:, None], (height, width))[:, 0] > 0.999
