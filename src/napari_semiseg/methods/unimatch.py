"""UniMatch: FixMatch with a second strong view, and with a view whose features are disturbed.

L. Yang, L. Qi, L. Feng, W. Zhang, Y. Shi, "Revisiting weak-to-strong consistency in semi-supervised semantic
segmentation", CVPR 2023.
V2: L. Yang, Z. Zhao, H. Zhao, "UniMatch V2: pushing the limit of semi-supervised semantic segmentation", TPAMI 2025.

    L = ½ [ L_x + ¼ L_s1 + ¼ L_s2 + ½ L_fp ]
    L_v = 1/|Ω| Σ_{i ∈ Ω} 1[max p_i^w ≥ τ] · CE(p_i^v, argmax p_i^w)               for v = s1, s2, fp

paper      here
p^w        the labeler's logits of the weak view
p^s1, s2   the network's logits of two strong views, each with its own CutMix boxes, in one batch
p^fp       the network's logits of the weak view, half of the channels of its features left out
τ, Ω       threshold; all pixels that show the image
½, ¼, ½    weight_sup 0.5, weight_strong 0.25 (both views together), weight_fp 0.25

V2 (`SOURCES["UniMatch V2"]`) has an averaged teacher that labels and predicts, no third stream, and leaves out
channels in the strong views instead, those of one where the other keeps them: L = ½ [L_x + ½ L_s1 + ½ L_s2].

The paper disturbs what the encoder gives to the decoder, at two scales. Here it is what the decoder gives to the
classifier, `Network.features`, which every network has. Otherwise as for FixMatch: boxes are pasted from the next crop
of the same batch, strong views are those of the sampler, and labeled crops and weak views pass in one batch where the
network labels in train mode.
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
from napari_semiseg.nn.channel_dropout import channel_dropout, complementary_dropout
from napari_semiseg.nn.ema import ema_decay, ema_update
from napari_semiseg.nn.groups import encoder_apart
from napari_semiseg.nn.modes import predicted
from napari_semiseg.nn.network import Network
from napari_semiseg.works import YANG, YANG_V2, YUN

SOURCES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "UniMatch": {},
        "UniMatch V2": {"labeler": "teacher", "weight_strong": 0.5, "weight_fp": 0.0, "complementary": True},
    }
)
"""What the two papers do, as options that differ from the defaults."""


class UniMatchConfig(PseudoLabelConfig):
    """Options of `UniMatch`."""

    weight_sup: float = Field(0.5, ge=0, le=100, description="Weight of the supervised term.")
    weight_strong: float = Field(0.25, ge=0, le=100, description="Weight of both strong views together.")
    weight_fp: float = Field(0.25, ge=0, le=100, description="Weight of the view with disturbed features.")
    threshold: float = Field(0.95, ge=0, le=1, description="Lowest probability of a pseudo-label that is learned.")
    mean_over: Literal["valid", "kept"] = Field(
        "valid", description="What the sum is divided by: all pixels, or those that are confident."
    )
    labeler: Literal["train", "eval", "teacher"] = Field(
        "train", description="Who labels: the network in train or in eval mode, or its running average (V2)."
    )
    ema_decay: float = Field(0.996, ge=0, lt=1, description="Memory of the teacher, per step, where there is one.")
    dropout: float = Field(0.5, ge=0, lt=1, description="Share of channels left out of the disturbed features.")
    complementary: bool = Field(False, description="Whether the strong views divide the channels between them (V2).")
    cutmix_probability: float = Field(0.5, ge=0, le=1, description="How often a box of another crop is pasted in.")
    cutmix_smallest: float = Field(0.02, gt=0, le=0.5, description="Smallest share of a crop that a box covers.")
    cutmix_largest: float = Field(0.4, gt=0, le=0.5, description="Largest share of a crop that a box covers.")
    encoder_lr_scale: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Learning rate of a pretrained encoder, as a part of the rest's; the paper has 0.1.",
    )


class UniMatch(PseudoLabelMethod):
    """A network taught by labels, and on three disturbed views by what it is sure of on weak ones."""

    name: ClassVar[str] = "unimatch"
    title: ClassVar[str] = "UniMatch"
    does: ClassVar[str] = (
        "The network learned from labels, and on several views of unlabeled crops, disturbed as images or as "
        "features, from what is found with confidence in the crops as they are."
    )
    references: ClassVar[tuple[str, ...]] = (YANG, YANG_V2, YUN)
    Config: ClassVar[type[MethodConfig]] = UniMatchConfig
    views: ClassVar[Views] = Views(labeled=True, weak=True, strong=2)
    labels: ClassVar[Literal["needed", "used", "unused"]] = "needed"

    def __init__(self, new_network: Callable[[], Network], task: Task, config: UniMatchConfig) -> None:
        super().__init__(new_network, task, config)
        self.config = config
        self.net = new_network()
        self.teacher = deepcopy(self.net).requires_grad_(False) if config.labeler == "teacher" else None

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor] | None:
        """Return the supervised term, that of the strong views, and that of the disturbed features."""
        c, self._counters = self.config, {}
        labeled, weak = self._features(batch)
        losses: dict[str, Tensor] = {}
        if labeled is not None and batch.label_l is not None:
            losses["sup"] = c.weight_sup * cross_entropy(self.net.classify(labeled), batch.label_l)
        if batch.weak_u is None:
            return losses or None

        pseudo, valid = self._pseudo_labels(batch.weak_u, weak), valid_pixels(batch)
        self._counters = pseudo_label_counters(pseudo, valid, c.threshold)
        losses["strong"] = self.guard.weight * c.weight_strong * self._strong(batch.strong_u, pseudo, valid)
        if c.weight_fp:
            assert weak is not None
            disturbed = self.net.classify(channel_dropout(weak, c.dropout))
            losses["fp"] = self.guard.weight * c.weight_fp * self._learned(disturbed, pseudo, valid)
        return losses

    def _features(self, batch: Batch) -> tuple[Tensor | None, Tensor | None]:
        """Return the features of labeled crops and of weak views, of one batch; of the latter only where needed."""
        c = self.config
        weak = batch.weak_u if c.weight_fp or c.labeler == "train" else None
        images = [image for image in (batch.image_l, weak) if image is not None]
        if not images:
            return None, None
        features = self.net.features(torch.cat(images))
        labeled = 0 if batch.image_l is None else len(batch.image_l)
        return features[:labeled] if labeled else None, None if weak is None else features[labeled:]

    def _pseudo_labels(self, image: Tensor, features: Tensor | None) -> Tensor:
        if self.config.labeler == "train":
            assert features is not None
            return self.net.classify(features.detach()).detach()
        return predicted(self.net if self.teacher is None else self.teacher, image)

    def _strong(self, views: tuple[Tensor, ...], pseudo: Tensor, valid: Tensor) -> Tensor:
        """Return the mean over both strong views."""
        c = self.config
        area = min(c.cutmix_smallest, c.cutmix_largest), c.cutmix_largest
        boxes = [random_boxes(valid.shape, probability=c.cutmix_probability, area=area) for _ in views]
        features = self.net.features(torch.cat([mixed(box, view) for box, view in zip(boxes, views, strict=True)]))
        if c.complementary:
            features = torch.cat(complementary_dropout(*features.chunk(2)))
        logits = self.net.classify(features).chunk(len(views))
        terms = [
            self._learned(said, mixed(box, pseudo), mixed(box, valid)) for box, said in zip(boxes, logits, strict=True)
        ]
        return torch.stack(terms).mean()

    def _learned(self, logits: Tensor, pseudo: Tensor, valid: Tensor) -> Tensor:
        return pseudo_label_cross_entropy(
            logits, pseudo, valid=valid, threshold=self.config.threshold, mean_over=self.config.mean_over
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
