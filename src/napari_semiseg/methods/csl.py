"""CSL: contrastive self-supervision by the entropy of patches. No label is used anywhere.

N. Boserup, R. Selvan, "Efficient Self-Supervision using Patch-based Contrastive Learning for Histopathology Image
Segmentation", NLDL 2023.

    F_k = I · C_k,   C = f_θ(I)                          the image, seen through the confidence of class k
    L   = Σ_k L_intra,k + L_inter,k                      Eqs. 5 to 7

paper               here
f_θ                 `ConfidenceNetwork`, 7,372 parameters at K = 4
P_k, N_k            positive and negative patches of class k, drawn by `draw_patches`
s(r, p)             similarity "mse" or "ce"
L_intra, L_inter    `patch_entropy_contrast`

Released code and paper differ; the code is followed where the paper is silent: candidate windows every 20 pixels, one
draw of parity per candidate, 10 anchors a class, normalization by anchors and images (`normalizer="paper"` takes the
paper's).

Restarts and the choice among them. The paper trains ten times and chooses run, epoch and channel by the Dice with the
training labels. Here nothing may be looked at but images: `restarts` networks are trained one after the other over
the first `explore` of the run, the best of them over the rest; run, step, channel and polarity are those whose
thresholded confidence agrees best (mean Dice over `Task.probe`) with Otsu's threshold on the stain. That threshold is
no label, but it is what nuclei look like, and it tells them from the background that CSL just as often finds. A
network that draws nothing but positive or nothing but negative patches for `patience` steps in a row has stopped
learning and begins anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from napari_semiseg import metrics
from napari_semiseg.data.batch import Batch, Views
from napari_semiseg.losses.patch_entropy import draw_patches, patch_entropy_contrast
from napari_semiseg.methods._base import Method, MethodConfig, Task
from napari_semiseg.nn.confidence import ConfidenceNetwork
from napari_semiseg.nn.network import Network
from napari_semiseg.postprocess.threshold import propose

JUDGMENTS = 40
"""How often channel and polarity are judged in a run."""
FIRST_JUDGMENT = 20
"""Steps after which a network is judged for the first time, so that there soon is a map to look at."""


class CSLConfig(MethodConfig):
    """Options of `CSL`; defaults are those of the paper and its code unless the description says otherwise."""

    channels: int = Field(4, ge=1, le=16, description="K, confidences learned side by side.")
    similarity: Literal["mse", "ce"] = Field(
        "mse", description="How two patches are compared: mse for MoNuSeg, ce for CoNSeP."
    )
    normalizer: Literal["code", "paper"] = Field("code", description="What the losses are divided by.")
    patch: int = Field(50, ge=4, le=256, description="Side of a patch, in pixels.")
    patches: int = Field(10, ge=2, le=100, description="Patches drawn of each image and channel.")
    anchors: int = Field(10, ge=1, le=1_000, description="Anchors drawn of each channel.")
    candidate_stride: int = Field(20, ge=1, le=256, description="Distance of neighboring candidates, in pixels.")
    weight_inter: float = Field(1.0, ge=0, le=100, description="Weight of the contrast between channels.")
    restarts: int = Field(3, ge=1, le=20, description="Networks tried; the paper trains ten and picks by labels.")
    explore: float = Field(0.6, gt=0, lt=1, description="Share of the run in which they are tried; ours.")
    patience: int = Field(
        20, ge=2, le=1_000, description="Batches in a row without both signs until a network begins anew; ours."
    )


class CSL(Method):
    """A small network that learns from images alone to be sure of what looks alike."""

    name: ClassVar[str] = "csl"
    title: ClassVar[str] = "No labels: patch-entropy contrast (CSL)"
    reference: ClassVar[str] = (
        "N. Boserup, R. Selvan, Efficient self-supervision using patch-based contrastive learning for histopathology "
        "image segmentation, NLDL 2023."
    )
    Config: ClassVar[type[MethodConfig]] = CSLConfig
    views: ClassVar[Views] = Views(labeled=False, weak=True, augment=False)
    labels: ClassVar[Literal["needed", "used", "unused"]] = "unused"
    classes: ClassVar[Literal["two", "any"]] = "two"
    network: ClassVar[str | None] = "csl"

    best_restart: Tensor
    best_agreement: Tensor
    idle: Tensor

    def __init__(self, new_network: Callable[[], Network], task: Task, config: CSLConfig) -> None:
        super().__init__(new_network, task, config)
        self.config = config
        self.nets = nn.ModuleList(ConfidenceNetwork(config.channels) for _ in range(config.restarts))
        self.best = ConfidenceNetwork(config.channels).requires_grad_(False)
        self.register_buffer("best_restart", torch.tensor(0))
        self.register_buffer("best_agreement", torch.tensor(-1.0))
        self.register_buffer("idle", torch.tensor(0))
        self._proposals: list[NDArray[np.bool_]] = []
        self._counters: dict[str, float] = {}

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor] | None:
        """Return both contrasts; None where a channel has no positive or no negative patch."""
        if batch.weak_u is None:
            return None
        c, net = self.config, self._net(step)
        image = net.scaled(batch.weak_u)
        confidence = net.confidences(batch.weak_u)
        drawn = draw_patches(confidence, size=c.patch, stride=c.candidate_stride, count=c.patches)
        terms = patch_entropy_contrast(
            image, confidence, drawn, similarity=c.similarity, normalizer=c.normalizer, anchors=c.anchors
        )
        self._counters = {"positive patches": float(drawn.positive.float().mean()), "network": float(self._turn(step))}
        if terms is None:
            self.idle += 1
            return None
        self.idle.zero_()
        return {"intra": terms.intra, "inter": c.weight_inter * terms.inter}

    def after_step(self, step: int) -> None:
        """Begin a network anew that has stopped learning; judge the others from time to time."""
        if int(self.idle) >= self.config.patience:
            self._net(step).load_state_dict(ConfidenceNetwork(self.config.channels).to(self.idle.device).state_dict())
            self.idle.zero_()
        elif self._is_judged(step):
            self._judge(step)
        if self._turn(step + 1) != self._turn(step):
            self.idle.zero_()  # the next network has not been idle

    def predictor(self) -> nn.Module:
        """Return the best network so far, its channel and polarity chosen."""
        return self.best

    @property
    def least_crop(self) -> int:
        """Return the side of a patch: a crop holds at least one."""
        return self.config.patch

    def ready_to_predict(self, step: int) -> bool:
        """Whether a network has been judged yet."""
        return float(self.best_agreement) >= 0

    def counters(self) -> dict[str, float]:
        """Return the share of positive patches, which network is trained, and the best agreement."""
        return {**self._counters, "agreement": float(self.best_agreement)}

    def _turn(self, step: int) -> int:
        """Return which network is trained at a step: each in turn, then the best."""
        explored = self.config.explore * self.task.steps
        if self.config.restarts == 1 or step >= explored:
            return int(self.best_restart)
        return min(int(step * self.config.restarts // explored), self.config.restarts - 1)

    def _net(self, step: int) -> ConfidenceNetwork:
        net = self.nets[self._turn(step)]
        assert isinstance(net, ConfidenceNetwork)
        return net

    def _is_judged(self, step: int) -> bool:
        done = step + 1
        turn_ends = done == self.task.steps or self._turn(done) != self._turn(step)
        return turn_ends or done == FIRST_JUDGMENT or done % max(1, self.task.steps // JUDGMENTS) == 0

    @torch.no_grad()
    def _judge(self, step: int) -> None:
        """Keep the network if a channel, as it is or inverted, agrees better with the threshold than any before."""
        if self.task.probe is None:
            return
        net = self._net(step)
        was_training = net.training
        net.eval()
        above = np.stack([(net.confidences(crop[None])[0] > 0.5).cpu().numpy() for crop in self.task.probe])
        net.train(was_training)
        agreement, channel, inverted = max(
            (self._agreement(above[:, k] != inverted), k, inverted)
            for k in range(self.config.channels)
            for inverted in (False, True)
        )
        if agreement > float(self.best_agreement):
            net.choose(channel, inverted=inverted)
            self.best.load_state_dict(net.state_dict())
            self.best_agreement.fill_(agreement)
            self.best_restart.fill_(self._turn(step))

    def _agreement(self, masks: NDArray[np.bool_]) -> float:
        """Return the mean Dice of masks, (P, H, W), with the threshold's on the same crops."""
        if not self._proposals:
            assert self.task.probe is not None
            crops = (self.task.probe.movedim(1, -1) * 255).round().byte().cpu().numpy()
            self._proposals = [propose(crop)[0] for crop in crops]
        pairs = zip(masks, self._proposals, strict=True)
        return float(np.mean([metrics.dice(metrics.confusion(mask, proposal)) for mask, proposal in pairs]))
