"""FixMatch for dense prediction: confident pseudo-labels of the weak view, learned on the strong one.

K. Sohn et al., "FixMatch: simplifying semi-supervised learning with consistency and confidence", NeurIPS 2020; for
every pixel as in L. Yang et al., "Revisiting weak-to-strong consistency in semi-supervised semantic segmentation",
CVPR 2023 (there the baseline of UniMatch).

    L = ½ L_x + ½ L_u
    L_u = 1/|Ω| Σ_{i ∈ Ω} 1[max p_i^w ≥ τ] · CE(p_i^s, argmax p_i^w)              Eqs. 1 and 2

paper    here
p^w      the labeler's logits of the weak view
p^s      the network's logits of the strong view, into which CutMix may have pasted a box of another crop
τ        threshold
Ω        all pixels that show the image, and not the confident ones among them (`mean_over="kept"` takes these)

Who labels is an option. Yang et al. label with the network itself in train mode, weak views and labeled crops in one
batch (`labeler="train"`), so that its batch statistics know views without strong colors; in eval mode it is `"eval"`;
UniMatch V2 labels, and predicts, with an averaged teacher (`"teacher"`: α_i = min(1 - 1 / (i + 1), 0.996)). Ours: what
CutMix pastes comes from the next crop of the same batch and not from a second batch, as in V2; the strong view is that
of the sampler; weak views are also rotated. Nothing is confident: the term is zero, and the labels teach alone.
After `collapse_patience` steps with one class only in unlabeled crops these count a tenth (`CollapseGuard`; ours).
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from napari_semiseg.data.batch import Batch, Views
from napari_semiseg.data.cutmix import mixed, random_boxes
from napari_semiseg.losses.consistency import pseudo_label_cross_entropy
from napari_semiseg.losses.cross_entropy import cross_entropy
from napari_semiseg.methods._base import (
    MethodConfig,
    PseudoLabelConfig,
    PseudoLabelMethod,
    Task,
    pseudo_label_counters,
    valid_pixels,
)
from napari_semiseg.nn.ema import ema_decay, ema_update
from napari_semiseg.nn.groups import encoder_apart
from napari_semiseg.nn.modes import predicted
from napari_semiseg.nn.network import Network
from napari_semiseg.works import YANG, YUN


class FixMatchConfig(PseudoLabelConfig):
    """Options of `FixMatch`."""

    weight_sup: float = Field(0.5, ge=0, le=100, description="Weight of the supervised term.")
    weight_u: float = Field(0.5, ge=0, le=100, description="Weight of the pseudo-labels.")
    threshold: float = Field(0.95, ge=0, le=1, description="Lowest probability of a pseudo-label that is learned.")
    mean_over: Literal["valid", "kept"] = Field(
        "valid", description="What the sum is divided by: all pixels, or those that are confident."
    )
    labeler: Literal["train", "eval", "teacher"] = Field(
        "train", description="Who labels: the network in train or in eval mode, or its running average."
    )
    ema_decay: float = Field(0.996, ge=0, lt=1, description="Memory of the teacher, per step, where there is one.")
    cutmix_probability: float = Field(0.5, ge=0, le=1, description="How often a box of another crop is pasted in.")
    cutmix_smallest: float = Field(0.02, gt=0, le=0.5, description="Smallest share of a crop that a box covers.")
    cutmix_largest: float = Field(0.4, gt=0, le=0.5, description="Largest share of a crop that a box covers.")
    encoder_lr_scale: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Learning rate of a pretrained encoder, as a part of the rest's; the paper has 0.1.",
    )


class FixMatch(PseudoLabelMethod):
    """A network taught by labels, and on strong views by what it is sure of on weak ones."""

    name: ClassVar[str] = "fixmatch"
    title: ClassVar[str] = "FixMatch"
    does: ClassVar[str] = (
        "The network learned from labels, and on unlabeled crops in other colors from what is found with "
        "confidence in the same crops as they are."
    )
    references: ClassVar[tuple[str, ...]] = (
        (
            "K. Sohn, D. Berthelot, C.-L. Li, Z. Zhang, N. Carlini, E. D. Cubuk, A. Kurakin, H. Zhang, C. Raffel, "
            "FixMatch: simplifying semi-supervised learning with consistency and confidence, NeurIPS 2020."
        ),
        YANG,
        YUN,
    )
    Config: ClassVar[type[MethodConfig]] = FixMatchConfig
    views: ClassVar[Views] = Views(labeled=True, weak=True, strong=1)
    labels: ClassVar[Literal["needed", "used", "unused"]] = "needed"

    def __init__(self, new_network: Callable[[], Network], task: Task, config: FixMatchConfig) -> None:
        super().__init__(new_network, task, config)
        self.config = config
        self.net = new_network()
        self.teacher = deepcopy(self.net).requires_grad_(False) if config.labeler == "teacher" else None

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor] | None:
        """Return the supervised term, and the cross-entropy with confident pseudo-labels."""
        c, self._counters = self.config, {}
        labeled, pseudo = self._plain_views(batch)
        losses: dict[str, Tensor] = {}
        if labeled is not None and batch.label_l is not None:
            losses["sup"] = c.weight_sup * cross_entropy(labeled, batch.label_l)
        if pseudo is not None:
            losses["strong"] = self.guard.weight * c.weight_u * self._strong(batch, pseudo)
        return losses or None

    def _plain_views(self, batch: Batch) -> tuple[Tensor | None, Tensor | None]:
        """Return the logits of the labeled crops, and those that pseudo-labels are made of."""
        image, weak = batch.image_l, batch.weak_u
        if image is None or weak is None:
            return None if image is None else self.net(image), None if weak is None else self._labeled(weak)
        if self.config.labeler != "train":
            return self.net(image), self._labeled(weak)
        both = self.net(torch.cat([image, weak]))
        return both[: len(image)], both[len(image) :].detach()

    def _labeled(self, weak: Tensor) -> Tensor:
        if self.config.labeler == "train":
            with torch.no_grad():
                return self.net(weak)  # type: ignore[no-any-return]
        return predicted(self.net if self.teacher is None else self.teacher, weak)

    def _strong(self, batch: Batch, pseudo: Tensor) -> Tensor:
        c, strong, valid = self.config, batch.strong_u[0], valid_pixels(batch)
        self._counters = pseudo_label_counters(pseudo, valid, c.threshold)
        area = min(c.cutmix_smallest, c.cutmix_largest), c.cutmix_largest
        boxes = random_boxes(valid.shape, probability=c.cutmix_probability, area=area)
        return pseudo_label_cross_entropy(
            self.net(mixed(boxes, strong)),
            mixed(boxes, pseudo),
            valid=mixed(boxes, valid),
            threshold=c.threshold,
            mean_over=c.mean_over,
        )

    def after_step(self, step: int) -> None:
        """Move the teacher, if there is one."""
        super().after_step(step)
        if self.teacher is not None:
            ema_update(self.teacher, self.net, ema_decay(step, self.config.ema_decay))

    def predictor(self) -> nn.Module:
        """Return the teacher, or without one the network."""
        return self.net if self.teacher is None else self.teacher

    def second_opinion(self) -> nn.Module | None:
        """Return the network that the teacher is the average of."""
        return None if self.teacher is None else self.net

    def parameter_groups(self) -> list[list[dict[str, Any]]]:
        """Return one optimizer's groups: a pretrained encoder may learn more slowly."""
        return [encoder_apart(self, self.net, self.config.encoder_lr_scale)]

    def counters(self) -> dict[str, float]:
        """Return the shares of confident pixels and of nuclei among the pseudo-labels."""
        return self._counters
