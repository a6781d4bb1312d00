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

The running τ is that of small patches at three magnifications, normalized by the batch. What predicts sees one
magnification and wide surroundings, is normalized by running statistics, and is a mean over transformations: it may lie
below τ everywhere, or above. So every `LOOK` steps a whole crop is predicted. Where that has found one class for
`collapse_patience` steps, the τ of the prediction is from then on the level above which the share `sparsity` of such
crops lies, the three terms that an attention of one value fulfills count a tenth until both classes are found, and the
user is told (ours).
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
from napari_semiseg.nn.collapse import CollapseGuard
from napari_semiseg.nn.encoders import build_encoder
from napari_semiseg.nn.network import Network
from napari_semiseg.works import SAHASRABUDHE

MAGNIFICATIONS = 3
MEMORY = 0.9
"""Memory of the running level, per step."""
LOOK = 10
"""Steps between two predictions of a crop, each of which takes somewhat longer than half a step."""
HALF = 0.5
"""How much of the level of predictions is that of the last one."""
COLLAPSED = (
    "was found in crops, so the level above which a pixel is one now follows what is predicted: look whether the map "
    "shows nuclei, and if it does not, train longer or use --method stain_guided."
)


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
    collapse_patience: int = Field(
        30,
        ge=0,
        le=100_000,
        description="Steps with one class only predicted, until the prediction gets a level of its own, and a warning; "
        "0: never.",
    )


class ScalePretext(Method):
    """A map of what tells the magnification of an image, learned from images alone."""

    name: ClassVar[str] = "scale_pretext"
    title: ClassVar[str] = "No labels: attention to scale"
    does: ClassVar[str] = (
        "Without any label, it learned where to look to tell one magnification of an image from another, and "
        "where it looks is nucleus."
    )
    references: ClassVar[tuple[str, ...]] = (SAHASRABUDHE,)
    Config: ClassVar[type[MethodConfig]] = ScalePretextConfig
    views: ClassVar[Views] = Views(labeled=False, weak=True, strong=1)
    labels: ClassVar[Literal["needed", "used", "unused"]] = "unused"
    classes: ClassVar[Literal["two", "any"]] = "two"
    network: ClassVar[str | None] = "scale_attention"

    level: Tensor
    level_of_predictions: Tensor
    looks: Tensor
    follows_predictions: Tensor

    def __init__(self, new_network: Callable[[], Network], task: Task, config: ScalePretextConfig) -> None:
        super().__init__(new_network, task, config)
        self.config = config
        self.net = AttentionNetwork(config.width, average=config.average)
        # A run that is only read again has no crops to look at, and its weights replace whatever would be fetched.
        built = build_encoder(config.encoder, pretrained=config.pretrained and task.probe is not None)
        self.color, self.encoder = built.color, built.module
        self.tell = nn.Linear(built.channels[-1], MAGNIFICATIONS)
        self.net.notes = built.notes
        self.register_buffer("level", torch.tensor(0.0))
        self.register_buffer("level_of_predictions", torch.tensor(0.0))
        self.register_buffer("looks", torch.tensor(0))
        self.register_buffer("follows_predictions", torch.tensor(False))
        self.guard = CollapseGuard(config.collapse_patience, COLLAPSED, stride=LOOK)
        self._found: float | None = None
        self._counters: dict[str, float] = {}

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor] | None:
        """Return the four terms; None where there is no image."""
        if batch.weak_u is None:
            return None
        c, weight = self.config, self.guard.weight
        image = batch.strong_u[0] if batch.strong_u else batch.weak_u
        valid = image.new_ones(image[:, :1].shape) if batch.valid_u is None else batch.valid_u[:, None].to(image)
        patches, seen = magnifications(torch.cat([image, valid], 1))
        shown = seen.flatten(1).amax(1) > 0  # a patch of which nothing is seen tells no magnification
        scores = self.net.scores(patches)
        level = self.level.clone()
        if bool(shown.any()):
            level = level_of(scores[shown], c.sparsity).detach()
            self.level.lerp_(level, 1 - MEMORY)
        attention = self.net.attention(scores, level)
        told = self.tell(self.encoder(self.color(patches * attention * seen))[-1].mean((2, 3)))
        truth = torch.arange(MAGNIFICATIONS, device=image.device).repeat_interleave(len(image))
        self._counters = {
            "attention": float(attention.detach().mean()),
            "magnification told": share_of(told.detach().argmax(1) == truth, shown),
        }
        losses = {
            "scale": mean_where(F.cross_entropy(told, truth, reduction="none"), shown),
            "smooth": weight * c.weight_smooth * roughness(attention, seen),
            "turned": weight * c.weight_turned * mean_square(attention, self._turned(patches), seen),
            "scales": weight * c.weight_scales * self._across(patches, attention, seen, level, len(image)),
        }
        self._found = None
        if step % LOOK == LOOK - 1:
            which = step // LOOK % len(image)
            self._look(batch.weak_u[which, None], valid[which, None] > 0)
        self.net.level.copy_(self.level_of_predictions if self.follows_predictions else self.level)
        return losses

    @torch.no_grad()
    def _look(self, image: Tensor, valid: Tensor) -> None:
        """Count what is found in a crop, and remember the level above which the share `sparsity` of it lies."""
        if not bool(valid.any()):
            return
        was_training = self.net.training
        self.net.eval()
        scores = self.net.predicted_scores(image)
        self.net.train(was_training)
        own = level_of(scores[valid][None], self.config.sparsity)
        self.level_of_predictions.lerp_(own, HALF if self.looks else 1.0)
        self.looks += 1
        self._found = share_of(scores > self.net.level, valid)
        self._counters["found nuclei"] = self._found

    def after_step(self, step: int) -> None:
        """Give what predicts a level of its own, once it has found one class for long."""
        self.guard.watch(self._found)
        if self.guard.weight < 1:
            self.follows_predictions.fill_(True)

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

    def warnings(self) -> list[str]:
        """Say that one class is predicted everywhere."""
        return self.guard.warnings(self._found)

    def counters(self) -> dict[str, float]:
        """Return the mean attention, how often the magnification was told, and the share of nuclei in a prediction."""
        return self._counters

    @torch.no_grad()
    def _turned(self, patches: Tensor) -> Tensor:
        """Return the attention of turned patches, turned back, above the running level: a target without gradient."""
        warp, back = WARPS[int(torch.randint(len(WARPS), ()))]
        return back(self.net.attention(self.net.scores(warp(patches)), self.level))

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
