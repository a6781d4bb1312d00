"""The stain as a weak label beside the painted cells: what one click trains, with few labels and with none. Ours.

    L = CE(a(f(x)), y) + w_d Dice(a(f(x)), y)                         over the labeled pixels
      + w_g 1/|K| Σ_{i ∈ K} CE(b(f(s(u)))_i, 1[g_i > h])              over the sure pixels of unlabeled crops

    K = {i : g_i < l or g_i > h},      prediction = (1 - ρ) a + ρ b in logits; b alone where there is no label

f      a network's features; a its classifier, taught by labels; b a second one, taught by the stain
g      how far a pixel lies beyond the threshold on the stain of its surroundings (`postprocess.stain_guide`), in
       standard deviations of its image's density
l, h   below l background, above h nucleus, between them nothing is learned
s(u)   an unlabeled crop in other colors
ρ      how much the second classifier counts (`nn.two_opinions`)

A threshold on the stain segments most nuclei, and errs where shape would tell: dark stroma, pale nuclei, rims. A
network that is taught by many such crops averages the errors out. One that is taught by a few painted cells errs
elsewhere, on slides unlike theirs. Both on the same features, and their mean, err less than either. Between l and h lie
the rims, which a threshold puts too far outside: h is above it.

The parts are known ones: N. Otsu's threshold (1979) on the hematoxylin of A. C. Ruifrok and D. A. Johnston (2001), made
local; a noisy map as label with its doubtful pixels left out; the mean of two classifiers.

With several classes the stain tells nucleus from background only, and the labels alone tell the classes apart.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from napari_semiseg.data.batch import IGNORE, Batch, Views
from napari_semiseg.losses.cross_entropy import cross_entropy
from napari_semiseg.losses.dice import soft_dice
from napari_semiseg.methods._base import Method, MethodConfig, Task, share_of, valid_pixels
from napari_semiseg.nn.ema import ema_decay, ema_update
from napari_semiseg.nn.network import Network
from napari_semiseg.nn.two_opinions import with_second_opinion


class StainGuidedConfig(MethodConfig):
    """Options of `StainGuided`."""

    weight_dice: float = Field(0.0, ge=0, le=10, description="Weight of the soft Dice term of the labels.")
    weight_guide: float = Field(1.0, gt=0, le=100, description="Weight of what the stain says.")
    background_below: float = Field(
        0.0, ge=-4, le=4, description="Background is what lies below this, in standard deviations beyond the threshold."
    )
    nucleus_above: float = Field(0.34, ge=-4, le=4, description="Nucleus is what lies above this, in the same unit.")
    stain_share: float = Field(
        0.35,
        ge=0,
        le=1,
        description="How much the stain's classifier counts beside that of the labels.",
    )
    ema_decay: float = Field(
        0.99, ge=0, lt=1, description="Memory of the averaged weights, per step; 0 keeps no average."
    )


class StainGuided(Method):
    """A network taught by the stain, and by labels where there are some."""

    name: ClassVar[str] = "stain_guided"
    title: ClassVar[str] = "Stain-guided"
    reference: ClassVar[str] = (
        "N. Otsu, A threshold selection method from gray-level histograms, IEEE Trans. Syst. Man Cybern. 9, 1979."
    )
    Config: ClassVar[type[MethodConfig]] = StainGuidedConfig
    views: ClassVar[Views] = Views(labeled=True, weak=True, strong=1, guide=True)
    labels: ClassVar[Literal["needed", "used", "unused"]] = "used"

    labeled: Tensor

    def __init__(self, new_network: Callable[[], Network], task: Task, config: StainGuidedConfig) -> None:
        super().__init__(new_network, task, config)
        self.config = config
        self.net = with_second_opinion(new_network())
        self.net.share.fill_(1.0)
        self.average = deepcopy(self.net).requires_grad_(False) if config.ema_decay else None
        self.register_buffer("labeled", torch.tensor(False))
        self._counters: dict[str, float] = {}
        self._saw_labels = False

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor] | None:
        """Return the terms of the labels, and that of the stain."""
        self._counters, self._saw_labels = {}, batch.image_l is not None
        strong = batch.strong_u[0] if batch.strong_u else None
        images = [image for image in (batch.image_l, strong) if image is not None]
        if not images:
            return None
        own, second = self.net.opinions(torch.cat(images))
        losses: dict[str, Tensor] = {}
        if batch.image_l is not None and batch.label_l is not None:
            own, second = own[: len(batch.image_l)], second[len(batch.image_l) :]
            losses["sup"] = cross_entropy(own, batch.label_l)
            if self.config.weight_dice:
                losses["dice"] = self.config.weight_dice * soft_dice(own, batch.label_l)
        if strong is not None:
            losses["stain"] = self.config.weight_guide * cross_entropy(second, self._guided(batch))
        return losses

    def _guided(self, batch: Batch) -> Tensor:
        """Return what the stain says, (B, H, W): 0, 1, or `IGNORE` where it is in doubt."""
        assert batch.guide_u is not None
        low, high = sorted((self.config.background_below, self.config.nucleus_above))
        label = torch.full_like(batch.guide_u, IGNORE, dtype=torch.int64)
        label[batch.guide_u < low] = 0
        label[batch.guide_u > high] = 1
        valid = valid_pixels(batch)
        self._counters = {
            "sure of stain": share_of(label != IGNORE, valid),
            "stained nuclei": share_of(label == 1, valid),
        }
        label[~valid] = IGNORE
        return label

    def after_step(self, step: int) -> None:
        """Move the averaged weights; let the labels have their say from the first of them on."""
        if self._saw_labels and not self.labeled:
            self.labeled.fill_(True)
            self.net.share.fill_(self.config.stain_share)
        if self.average is not None:
            ema_update(self.average, self.net, ema_decay(step, self.config.ema_decay))
            self.average.share.copy_(self.net.share)

    def predictor(self) -> nn.Module:
        """Return the averaged network."""
        return self.net if self.average is None else self.average

    def counters(self) -> dict[str, float]:
        """Return the shares of pixels that the stain is sure of, and of nuclei among all."""
        return self._counters
