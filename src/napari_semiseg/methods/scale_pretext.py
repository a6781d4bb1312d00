"""Scale pretext: attention to what tells one magnification from another. No label is used anywhere.

M. Sahasrabudhe et al., "Self-supervised nuclei segmentation in histopathological images using attention", MICCAI 2020.

    a = σ(20 (F(x) - τ)),     s = softmax(g(x · a))
    L = CE(s, magnification) + w_1 mean |∇a| + w_2 MSE(a, T⁻¹ a(T x)) + w_3 ½ Σ_{m = 40, 20} MSE(↓a_m, a(↓x_m))

paper                          here
F, a                           `AttentionNetwork`: where to look, at full resolution
τ                              mean over the batch of each image's 93 % quantile of F: 7 % of the pixels are looked at
g                              ResNet, mean over the patch, linear: which of three magnifications it is
T                              one of two flips, the transpose, three quarter turns, drawn for each step
↓                              half the resolution, mean of 2 x 2

Deviations. The paper has slides at 40x, 20x and 10x; here the three are made of one crop: a patch of a quarter of its
side, one of half its side at half the resolution, and all of it at a quarter. The level of the step is a constant in
its gradient. In place of stain normalization the crops' colors are varied. The rate falls smoothly (``schedule``), not
at epochs 300 and 600. Nuclei are split by the same rule for all methods, where the paper has an opening, a closing and
a watershed. The optimizer, the averaging over transformations and the threshold of one half are the paper's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from napari_semiseg.data.batch import Batch, Views
from napari_semiseg.losses._reduce import mean_where
from napari_semiseg.methods._base import Method, MethodConfig, Task, share_of, zero_of
from napari_semiseg.nn.attention import WARPS, AttentionNetwork, level_of
from napari_semiseg.nn.encoders import build_encoder
from napari_semiseg.nn.network import Network

MAGNIFICATIONS = 3


class ScalePretextConfig(MethodConfig):
    """Options of `ScalePretext`; defaults are those of the paper's code."""

    width: int = Field(64, ge=2, le=256, description="Channels of the attention network.")
    encoder: Literal["resnet18", "resnet34"] = Field("resnet34", description="What tells the magnification.")
    pretrained: bool = Field(True, description="Whether the encoder starts from ImageNet.")
    sparsity: float = Field(0.07, gt=0, lt=1, description="Share of the pixels that is looked at.")
    weight_smooth: float = Field(1.0, ge=0, le=100, description="Weight of the smoothness of the attention.")
    weight_turned: float = Field(1.0, ge=0, le=100, description="Weight of the agreement under flips and turns.")
    weight_scales: float = Field(1.0, ge=0, le=100, description="Weight of the agreement between resolutions.")
    average: bool = Field(True, description="Whether a prediction is the mean over eight transformations.")


class ScalePretext(Method):
    """A map of what tells the magnification of an image, learned from images alone."""

    name: ClassVar[str] = "scale_pretext"
    title: ClassVar[str] = "No labels: attention to scale"
    reference: ClassVar[str] = (
        "M. Sahasrabudhe et al., Self-supervised nuclei segmentation in histopathological images using attention, "
        "MICCAI 2020."
    )
    Config: ClassVar[type[MethodConfig]] = ScalePretextConfig
    views: ClassVar[Views] = Views(labeled=False, weak=True, strong=1)
    labels: ClassVar[Literal["needed", "used", "unused"]] = "unused"
    classes: ClassVar[Literal["two", "any"]] = "two"
    network: ClassVar[str | None] = "scale_attention"

    def __init__(self, new_network: Callable[[], Network], task: Task, config: ScalePretextConfig) -> None:
        super().__init__(new_network, task, config)
        self.config = config
        self.net = AttentionNetwork(config.width, average=config.average)
        # A run that is only read again has no crops to look at, and its weights replace whatever would be fetched.
        built = build_encoder(config.encoder, pretrained=config.pretrained and task.probe is not None)
        self.color, self.encoder = built.color, built.module
        self.tell = nn.Linear(built.channels[-1], MAGNIFICATIONS)
        self.net.notes = built.notes
        self._counters: dict[str, float] = {}

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor] | None:
        """Return the four terms; None where there is no image."""
        if batch.weak_u is None:
            return None
        c = self.config
        image = batch.strong_u[0] if batch.strong_u else batch.weak_u
        valid = image.new_ones(image[:, :1].shape) if batch.valid_u is None else batch.valid_u[:, None].to(image)
        patches, seen = magnifications(torch.cat([image, valid], 1))
        shown = seen.flatten(1).amax(1) > 0  # a patch of which nothing is seen tells no magnification
        scores = self.net.scores(patches)
        level = self.net.level.clone()
        if bool(shown.any()):
            level = level_of(scores[shown], c.sparsity).detach()
            self.net.remember(level)
        attention = self.net.attention(scores, level)
        told = self.tell(self.encoder(self.color(patches * attention * seen))[-1].mean((2, 3)))
        truth = torch.arange(MAGNIFICATIONS, device=image.device).repeat_interleave(len(image))
        self._counters = {
            "attention": float(attention.detach().mean()),
            "magnification told": share_of(told.detach().argmax(1) == truth, shown),
        }
        return {
            "scale": mean_where(F.cross_entropy(told, truth, reduction="none"), shown),
            "smooth": c.weight_smooth * roughness(attention, seen),
            "turned": c.weight_turned * mean_square(attention, self._turned(patches), seen),
            "scales": c.weight_scales * self._across(patches, attention, seen, level, len(image)),
        }

    def predictor(self) -> nn.Module:
        """Return the attention network."""
        return self.net

    @property
    def least_crop(self) -> int:
        """Return the side of a crop whose patches have 16 pixels."""
        return 64

    def ready_to_predict(self, step: int) -> bool:
        """Whether the running level has come near that of the batches."""
        return step >= min(20, self.task.steps - 1)

    def counters(self) -> dict[str, float]:
        """Return the mean attention and how often the magnification was told."""
        return self._counters

    @torch.no_grad()
    def _turned(self, patches: Tensor) -> Tensor:
        """Return the attention of turned patches, turned back, above the running level: a target without gradient."""
        warp, back = WARPS[int(torch.randint(len(WARPS), ()))]
        return back(self.net.attention(self.net.scores(warp(patches))))

    def _across(self, patches: Tensor, attention: Tensor, seen: Tensor, level: Tensor, size: int) -> Tensor:
        """Return half the sum over the two higher magnifications of what half the resolution changes."""
        fine = slice(0, 2 * size)
        coarse = self.net.attention(self.net.scores(F.avg_pool2d(patches[fine], 2)), level)
        known = (F.avg_pool2d(seen[fine], 2) == 1).to(seen)
        # The mean over both magnifications is half the sum of their means.
        return mean_square(F.avg_pool2d(attention[fine], 2), coarse, known)


def magnifications(crops: Tensor) -> tuple[Tensor, Tensor]:
    """Make patches of one size at three magnifications.

    Parameters
    ----------
    crops : Tensor, (B, 4, H, W)
        Images, and as their last channel 1 where they show the image. H and W are at least 64.

    Returns
    -------
    patches : Tensor, (3 B, 3, S, S), with S even and 4 S at most H
        First a window at full resolution drawn anywhere, then one twice as wide at half of it, then one four times as
        wide at a quarter.
    seen : Tensor, (3 B, 1, S, S)
        1 where every pixel behind a patch's pixel shows the image, else 0.
    """
    side = min(crops.shape[2:]) // 8 * 2
    found = []
    for factor in (1, 2, 4):
        wide = factor * side
        y, x = (int(torch.randint(length - wide + 1, ())) for length in crops.shape[2:])
        window = crops[:, :, y : y + wide, x : x + wide]
        found.append(F.avg_pool2d(window, factor) if factor > 1 else window)
    patches = torch.cat(found)
    return patches[:, :-1], (patches[:, -1:] > 1 - 1e-6).to(patches)


def roughness(attention: Tensor, seen: Tensor) -> Tensor:
    """Return the mean absolute difference of neighbors, down plus across, where both are seen."""
    total = zero_of(attention)
    for axis in (2, 3):
        known = seen.narrow(axis, 1, seen.shape[axis] - 1) * seen.narrow(axis, 0, seen.shape[axis] - 1)
        total = total + (attention.diff(dim=axis).abs() * known).sum() / known.sum().clamp_min(1)
    return total


def mean_square(one: Tensor, other: Tensor, seen: Tensor) -> Tensor:
    """Return the mean squared difference where it is seen; zero where nothing is."""
    return ((one - other).square() * seen).sum() / seen.sum().clamp_min(1)
