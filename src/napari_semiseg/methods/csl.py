"""CSL: contrastive self-supervision by the entropy of patches. No label is used anywhere.

N. Boserup, R. Selvan, "Efficient Self-Supervision using Patch-based Contrastive Learning for Histopathology Image
Segmentation", NLDL 2023.

    F_k = I · C_k,   C = f_θ(I)                          the image, seen through the confidence of class k
    L   = Σ_k L_intra,k + L_inter,k                      Eqs. 5 to 7

paper               here
f_θ                 `ConfidenceNetwork`, 7,372 parameters at K = 4
P_k, N_k            positive and negative patches of class k: `sampler` "entropy" (section 2.3), "confidence" (B.1) or
                    "top-k" (B.2)
s(r, p)             `similarity` "mse" (Eq. 8), "ce" (Eq. 9), "cosine" of a featurizer (Eq. 10), "kl" or "mi"
L_intra, L_inter    `patch_entropy_contrast`
Table 1             `TABLE_1`

Released code and paper differ; the code is followed where the paper is silent: candidate windows every 20 pixels, one
draw of parity per candidate, 10 anchors a class, normalization by anchors and images (`normalizer="paper"` takes the
paper's), and what "kl" and "mi" are. Ours: windows with pixels that show no image, or that are set aside for judging,
are no candidates; and the featurizer sees the drawn patches of all classes and signs at once, where the code gives it
one set after the other, whose batch normalization then takes away what the sets differ by.

Restarts and the choice among them. The paper trains ten times and chooses run, epoch and channel by the Dice with the
training labels. Here nothing may be looked at but images: `restarts` networks are trained one after the other over
the first `explore` of the run, the best of them over the rest; run, step, channel and polarity are those whose
thresholded confidence agrees best (mean Dice over `Task.probe`) with Otsu's threshold on the stain. That threshold is
no label, but it is what nuclei look like, and it tells them from the background that CSL just as often finds. A
network that draws nothing but positive or nothing but negative patches for `patience` steps in a row has stopped
learning and begins anew, and the optimizer forgets what it knew of it. That is how one class everywhere shows here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor, nn

from napari_semiseg import metrics
from napari_semiseg.data.batch import Batch, Views
from napari_semiseg.errors import InputError
from napari_semiseg.io.diagnostics import Boxes, Diagnostic, Meaning
from napari_semiseg.losses.patch_entropy import (
    DrawnPatches,
    draw_by_confidence,
    draw_from_top,
    draw_patches,
    patch_entropy_contrast,
)
from napari_semiseg.losses.patch_similarity import Similarity
from napari_semiseg.methods._base import Method, MethodConfig, Task
from napari_semiseg.nn.confidence import ConfidenceNetwork
from napari_semiseg.nn.featurizer import SMALLEST, PatchFeaturizer
from napari_semiseg.nn.network import Network
from napari_semiseg.postprocess.proposal import propose
from napari_semiseg.works import BOSERUP, OTSU

JUDGMENTS = 40
"""How often channel and polarity are judged in a run."""
FIRST_JUDGMENT = 20
"""Steps after which a network is judged for the first time, so that there soon is a map to look at."""
POSITIVE, NEGATIVE = 1, 2
"""Kinds of patches in `CSL.diagnostics`."""
TABLE_1: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {f"patches {count}": {"patches": count} for count in (5, 10, 15, 20, 25)}
    | {f"patch size {side}": {"patch": side} for side in (20, 30, 50, 80, 120)}
)
"""Rows of the paper's Table 1, median validation Dice of three runs on MoNuSeg: options by name."""


class CSLConfig(MethodConfig):
    """Options of `CSL`; defaults are those of the paper and its code unless the description says otherwise."""

    channels: int = Field(4, ge=1, le=16, description="K, confidences learned side by side.")
    similarity: Similarity = Field("mse", description="How two patches are compared: mse for MoNuSeg, ce for CoNSeP.")
    sampler: Literal["entropy", "confidence", "top-k"] = Field("entropy", description="How patches are drawn.")
    exponent: float = Field(
        1.0, gt=0, le=10, description="Power of the confidence that sampler=confidence draws by; the code's option."
    )
    top: int = Field(50, ge=1, le=10_000, description="Candidates that sampler=top-k draws positives from.")
    bandwidth: float = Field(
        0.9, ge=0.01, le=10, description="Width of a gray level in similarity=mi; the code's. Smaller tells more apart."
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

    @model_validator(mode="after")
    def _leaves_features(self) -> Self:
        if self.similarity == "cosine" and self.patch < SMALLEST:
            raise InputError(
                f"similarity=cosine compares patches of at least {SMALLEST} pixels: --set patch={SMALLEST}."
            )
        return self


class CSL(Method):
    """A small network that learns from images alone to be sure of what looks alike."""

    name: ClassVar[str] = "csl"
    title: ClassVar[str] = "No labels: patch-entropy contrast (CSL)"
    does: ClassVar[str] = (
        "Without any label, it learned maps in which drawn patches of one class are alike and those of two "
        "differ; the map that agrees best with Otsu's threshold on the stain was taken."
    )
    references: ClassVar[tuple[str, ...]] = (BOSERUP, OTSU)
    Config: ClassVar[type[MethodConfig]] = CSLConfig
    views: ClassVar[Views] = Views(labeled=False, weak=True, augment=False)
    labels: ClassVar[Literal["needed", "used", "unused"]] = "unused"
    counts_steps: ClassVar[bool] = True  # restarts
    classes: ClassVar[Literal["two", "any"]] = "two"
    network: ClassVar[str | None] = "csl"
    shows: ClassVar[str] = "Drawn patches"

    best_restart: Tensor
    best_agreement: Tensor
    idle: Tensor

    def __init__(self, new_network: Callable[[], Network], task: Task, config: CSLConfig) -> None:
        super().__init__(new_network, task, config)
        self.config = config
        self.nets = nn.ModuleList(ConfidenceNetwork(config.channels) for _ in range(config.restarts))
        featurizers = config.restarts if config.similarity == "cosine" else 0
        self.featurizers = nn.ModuleList(PatchFeaturizer(config.patch) for _ in range(featurizers))
        self.best = ConfidenceNetwork(config.channels).requires_grad_(False)
        self.register_buffer("best_restart", torch.tensor(0))
        self.register_buffer("best_agreement", torch.tensor(-1.0))
        self.register_buffer("idle", torch.tensor(0))
        self._begun_anew: list[nn.Parameter] = []
        self._told: set[int] = set()  # turns of which the user knows
        self._warnings: list[str] = []
        self._proposals: list[NDArray[np.bool_]] = []
        self._counters: dict[str, float] = {}

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor] | None:
        """Return both contrasts; None where a channel has no positive or no negative patch."""
        if batch.weak_u is None:
            return None
        c, net = self.config, self._net(step)
        image = net.scaled(batch.weak_u)
        confidence = net.confidences(batch.weak_u)
        drawn = self._drawn(confidence, batch.valid_u)
        self._counters = {"drawn patches": float(len(drawn.positive)), "network": float(self._turn(step))}
        if not len(drawn.positive):  # nothing of the image is whole: that is not the network's fault
            return None
        self._counters["positive patches"] = float(drawn.positive.float().mean())
        terms = patch_entropy_contrast(
            image,
            confidence,
            drawn,
            similarity=c.similarity,
            normalizer=c.normalizer,
            anchors=c.anchors,
            featurizer=self.featurizers[self._turn(step)] if self.featurizers else None,
            bandwidth=c.bandwidth,
        )
        if terms is None:
            self.idle += 1
            return None
        self.idle.zero_()
        return {"intra": terms.intra, "inter": c.weight_inter * terms.inter}

    def after_step(self, step: int) -> None:
        """Begin a network anew that has stopped learning; judge the others from time to time."""
        self._begun_anew, self._warnings = [], []
        if int(self.idle) >= self.config.patience:
            self._begin_anew(step)
        elif self._is_judged(step):
            self._judge(step)
        if self._turn(step + 1) != self._turn(step):
            self.idle.zero_()  # the next network has not been idle

    def begun_anew(self) -> list[nn.Parameter]:
        """Return the weights of the network that began anew in this step."""
        return self._begun_anew

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

    def warnings(self) -> list[str]:
        """Say that a network saw one class everywhere and has begun anew; of each network once."""
        return self._warnings

    def counters(self) -> dict[str, float]:
        """Return how many patches were drawn, the share of positives, which network, and the best agreement."""
        judged = {"agreement": float(self.best_agreement)} if float(self.best_agreement) >= 0 else {}
        return self._counters | judged

    def diagnostics(self, image: Tensor) -> Mapping[str, Diagnostic]:
        """Draw patches of the chosen confidence as a step does, as many for each area as of a crop."""
        chosen = self.best.chosen.view(1)
        confidence = self.best.confidences(image).index_select(1, chosen)
        crops = max(1, round(image.shape[2] * image.shape[3] / self.task.crop**2))
        drawn = self._drawn(confidence, None, count=self.config.patches * crops)
        of = ", the confidence of background" if bool(self.best.inverted) else ""
        meanings = {
            POSITIVE: Meaning(f"positive patch{of}", (255, 255, 255)),
            NEGATIVE: Meaning("negative patch", (222, 20, 35)),
        }
        kinds = torch.where(drawn.positive, POSITIVE, NEGATIVE).byte().cpu().numpy()
        return {"drawn patches": Boxes(drawn.boxes.float().cpu().numpy(), kinds, meanings)}

    def _drawn(self, confidence: Tensor, shown: Tensor | None, count: int | None = None) -> DrawnPatches:
        c = self.config
        windows: dict[str, Any] = {"size": c.patch, "stride": c.candidate_stride, "shown": shown}
        windows["count"] = count or c.patches
        match c.sampler:
            case "entropy":
                return draw_patches(confidence, **windows)
            case "confidence":
                return draw_by_confidence(confidence, exponent=c.exponent, **windows)
            case "top-k":
                return draw_from_top(confidence, top=c.top, **windows)

    def _begin_anew(self, step: int) -> None:
        """Give the network of a step, and its featurizer, the weights of a fresh one, and say so once."""
        if (turn := self._turn(step)) not in self._told:
            self._told.add(turn)
            sentence = (
                f"For {self.config.patience} steps network {turn + 1} of {self.config.restarts} saw one class "
                "everywhere, so it has begun anew with fresh weights: where that goes on, add images or more restarts."
            )
            self._warnings = [sentence]
        fresh: list[tuple[nn.Module, nn.Module]] = [(self._net(step), ConfidenceNetwork(self.config.channels))]
        if self.featurizers:
            fresh.append((self.featurizers[self._turn(step)], PatchFeaturizer(self.config.patch)))
        for stale, other in fresh:
            stale.load_state_dict(other.state_dict())
            self._begun_anew += stale.parameters()
        self.idle.zero_()

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
