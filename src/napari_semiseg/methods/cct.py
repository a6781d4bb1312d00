"""CCT: cross-consistency training.

Y. Ouali, C. Hudelot, M. Tami, "Semi-supervised Semantic Segmentation with Cross-Consistency Training", CVPR 2020.

    L = L_sup + w(t) 1/K Σ_k mean (softmax(g_k(p_k(z))) − softmax(g(z)))²

paper               here
h, z                the features of `self.net`, and what they are of an unlabeled crop
g                   its classifier; no gradient of the second term reaches what it says of z
g_k, p_k            `self.decoders`, one for each draw of a perturbation of `nn.perturbations`
F-Noise, F-Drop     `FeatureNoise`, `FeatureDrop`
Con-Msk, Obj-Msk    `GuidedMask`: what is predicted to be an object is all that is kept, or all that is cleared
G-Cutout            `Cutout`, in boxes of `large_objects`
I-VAT               `adversarial`
DropOut             `FeatureDropout`, whole channels
w(t)                weight_cons * `RAMPS["gaussian"]` over `ramp_fraction` of the run

The paper perturbs the output of an encoder, 512 channels of a pyramid at an eighth of the size; here it is the feature
map of whichever network is trained, which is the output of that network's decoder: finer, with fewer channels, and
nearer to the classes. So the auxiliary decoders are light: a 1x1 convolution and as many doubling stages as the
features are coarse. The main decoder is the network's own classifier with its bilinear upsampling.

Other deviations: large objects for the cutout are connected components and not outlines; the adversarial direction is
found for each image with a probe that rounding leaves intact (the released code's leaves none of it); pixels that show
no image count nowhere. The annealed cross-entropy that the paper offers against overfitting to few labels is left out.
`ema_decay` lets the running average of the weights predict, as `supervised` does.
After `collapse_patience` steps with one class only in unlabeled crops these count a tenth (`CollapseGuard`; ours).
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from napari_semiseg.blocks import Box
from napari_semiseg.data.batch import Batch, Views
from napari_semiseg.losses._reduce import most_likely
from napari_semiseg.losses.consistency import softmax_mse
from napari_semiseg.losses.cross_entropy import cross_entropy
from napari_semiseg.losses.ramps import RAMPS, Ramp
from napari_semiseg.methods._base import (
    MethodConfig,
    PseudoLabelConfig,
    PseudoLabelMethod,
    Task,
    share_of,
    valid_pixels,
    zero_of,
)
from napari_semiseg.nn.collapse import NUCLEI
from napari_semiseg.nn.ema import ema_decay, ema_update
from napari_semiseg.nn.groups import encoder_apart
from napari_semiseg.nn.network import Network
from napari_semiseg.nn.perturbations import (
    Cutout,
    FeatureDrop,
    FeatureDropout,
    FeatureNoise,
    GuidedMask,
    adversarial,
    large_objects,
)
from napari_semiseg.nn.pixel_shuffle import PixelShuffleDecoder


class CCTConfig(PseudoLabelConfig):
    """Options of `CCT`; defaults are those of the paper's code unless the description says otherwise."""

    weight_sup: float = Field(1.0, ge=0, le=100, description="Weight of the supervised term.")
    weight_cons: float = Field(30.0, ge=0, le=1_000, description="Weight of the consistency at the end of its ramp.")
    ramp_fraction: float = Field(0.1, ge=0, le=1, description="Share of the run until weight_cons is reached.")
    ramp: Ramp = Field("gaussian", description="How it rises until then.")
    threshold: float = Field(
        0.0, ge=0, le=1, description="Confidence above which a pixel is kept consistent; 0 takes all."
    )
    adversarial: int = Field(2, ge=0, le=32, description="Decoders of adversarially moved features.")
    dropout: int = Field(6, ge=0, le=32, description="Decoders of features without some channels.")
    cutout: int = Field(6, ge=0, le=32, description="Decoders of features without parts of large objects.")
    context_mask: int = Field(2, ge=0, le=32, description="Decoders of the features of objects only.")
    object_mask: int = Field(2, ge=0, le=32, description="Decoders of the features of background only.")
    drop: int = Field(6, ge=0, le=32, description="Decoders of features without the most active cells.")
    noise: int = Field(6, ge=0, le=32, description="Decoders of noisy features.")
    adversarial_length: float = Field(2.0, ge=0, le=100, description="How far features of an image are moved.")
    adversarial_step: float = Field(
        0.1, gt=0, le=10, description="Probe with which the direction is found; the code's 1e-6 finds none."
    )
    dropout_p: float = Field(0.5, gt=0, lt=1, description="How likely a channel is cleared.")
    cutout_erase: float = Field(0.4, gt=0, le=1, description="Height and width cleared, as a part of an object's box.")
    cutout_least: int = Field(50, ge=0, le=100_000, description="Pixels on its border above which an object is large.")
    drop_low: float = Field(0.7, ge=0, le=1, description="Lowest share of the highest activity from which on it drops.")
    drop_high: float = Field(0.9, ge=0, le=1, description="Highest such share.")
    noise_width: float = Field(0.3, ge=0, le=1, description="Largest relative change of an activation.")
    encoder_lr_scale: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Learning rate of a pretrained encoder, as a part of the rest's; the paper has 0.1.",
    )
    ema_decay: float = Field(0.0, ge=0, lt=1, description="Memory of averaged weights that predict; 0 keeps none.")


PERTURBATIONS = ("adversarial", "dropout", "cutout", "context_mask", "object_mask", "drop", "noise")
"""Names of the perturbations, which are also those of the options that count their decoders."""


@dataclass(frozen=True)
class _Seen:
    """What is perturbed: features, the classes (B, H, W) that were predicted from them, and where large objects lie."""

    features: Tensor
    label: Tensor
    objects: list[list[Box]]


class CCT(PseudoLabelMethod):
    """A network taught by labels, whose classifier teaches others that see less."""

    name: ClassVar[str] = "cct"
    title: ClassVar[str] = "Cross-consistency training (CCT)"
    does: ClassVar[str] = (
        "The network learned from labels, and on unlabeled crops to find from disturbed features, with "
        "classifiers of their own, what its own classifier finds from the plain ones."
    )
    references: ClassVar[tuple[str, ...]] = (
        (
            "Y. Ouali, C. Hudelot, M. Tami, Semi-supervised semantic segmentation with cross-consistency training, "
            "CVPR 2020."
        ),
    )
    Config: ClassVar[type[MethodConfig]] = CCTConfig
    views: ClassVar[Views] = Views(labeled=True, weak=True)
    labels: ClassVar[Literal["needed", "used", "unused"]] = "needed"

    def __init__(self, new_network: Callable[[], Network], task: Task, config: CCTConfig) -> None:
        super().__init__(new_network, task, config)
        self.config = config
        self.net = new_network()
        self.average = deepcopy(self.net).requires_grad_(False) if config.ema_decay else None
        self.decoders = nn.ModuleDict(
            {
                name: nn.ModuleList(
                    PixelShuffleDecoder(self.net.feature_channels, task.classes, self.net.stride)
                    for _ in range(getattr(config, name))
                )
                for name in PERTURBATIONS
            }
        )
        self.feature_dropout = FeatureDropout(config.dropout_p, "spatial")
        self.feature_drop = FeatureDrop(config.drop_low, config.drop_high)
        self.feature_noise = FeatureNoise(config.noise_width)
        self.guided_cutout = Cutout(config.cutout_erase)
        self.only_objects, self.only_background = GuidedMask("objects"), GuidedMask("background")

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor] | None:
        """Return the supervised term and the consistency."""
        c, self._counters = self.config, {}
        losses: dict[str, Tensor] = {}
        if batch.image_l is not None and batch.label_l is not None:
            losses["sup"] = c.weight_sup * cross_entropy(self.net(batch.image_l), batch.label_l)
        if batch.weak_u is not None:
            weight = c.weight_cons * RAMPS[c.ramp](step, c.ramp_fraction * self.task.steps)
            losses["cons"] = self.guard.weight * weight * self._consistency(batch.weak_u, valid_pixels(batch))
        return losses or None

    def _consistency(self, image: Tensor, valid: Tensor) -> Tensor:
        """Return the mean over all auxiliary decoders of their distance to the classifier."""
        features = self.net.features(image)
        target = self.net.classify(features).detach()
        label = most_likely(target)
        sure = (target.float().softmax(1).amax(1) > self.config.threshold) & valid
        self._counters = {"confident": share_of(sure, valid), NUCLEI: share_of(label > 0, valid)}
        seen = _Seen(features, label, large_objects(label, self.config.cutout_least) if self.config.cutout else [])
        terms = [
            softmax_mse(decoder(self._perturbed(name, seen, decoder)), target, valid=sure)
            for name in PERTURBATIONS
            for decoder in self.decoders[name]  # type: ignore[attr-defined]
        ]
        return torch.stack(terms).mean() if terms else zero_of(features)

    def _perturbed(self, name: str, seen: _Seen, decoder: nn.Module) -> Tensor:
        c, features, label = self.config, seen.features, seen.label
        match name:
            case "adversarial":
                return adversarial(features, decoder, step=c.adversarial_step, length=c.adversarial_length)
            case "cutout":
                disturbed = self.guided_cutout(features, seen.objects, (label.shape[1], label.shape[2]))
            case "context_mask":
                disturbed = self.only_objects(features, label)
            case "object_mask":
                disturbed = self.only_background(features, label)
            case "dropout":
                disturbed = self.feature_dropout(features)
            case "drop":
                disturbed = self.feature_drop(features)
            case _:
                disturbed = self.feature_noise(features)
        found: Tensor = disturbed
        return found

    def after_step(self, step: int) -> None:
        """Move the averaged weights."""
        super().after_step(step)
        if self.average is not None:
            ema_update(self.average, self.net, ema_decay(step, self.config.ema_decay))

    def predictor(self) -> nn.Module:
        """Return the network, or the average of its weights where one is kept."""
        return self.net if self.average is None else self.average

    def counters(self) -> dict[str, float]:
        """Return the confident share of the unlabeled crops, and that of what is predicted to be a nucleus."""
        return self._counters

    def parameter_groups(self) -> list[list[dict[str, Any]]]:
        """Return one optimizer's groups: a pretrained encoder may learn more slowly."""
        return [encoder_apart(self, self.net, self.config.encoder_lr_scale)]
