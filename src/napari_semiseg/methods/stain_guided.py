"""The stain as a weak label beside the painted cells: what one click trains, with few labels and with none. Ours.

    L = CE(f(x), y) + w_d Dice(f(x), y)                         over the labeled pixels
      + w_g 1/|K| Σ_{i ∈ K} CE(h(s(u))_i, 1[g_i > t])           over the sure pixels of unlabeled crops

    K = {i : g_i < l or g_i > t}

What is predicted is in logits h - c where there is no label, and else

    (1 - ρ) (1 + γ) (f - f̄) + ρ (h - h̄)         what stands out from its neighborhood
    + (1 - λ) f̄ + λ h̄ - c                       the neighborhood,       λ / (1 - λ) = k ρ / (1 - ρ)

f      a network taught by labels
h      another of the same kind, taught by the stain
g      how far a pixel lies beyond the threshold on the stain of its surroundings (`postprocess.stain_guide`), in
       standard deviations of its image's density
l, t   below l background, above t nucleus, between them nothing is learned
s(u)   an unlabeled crop in other colors
ρ      how much the second network counts (`nn.two_opinions`): m² / (m² + n²) of n labeled pixels, where m says how
       many are worth as much as the stain. n counts pixels eight times on the image that they lie in, and on another
       no more of each image than m: how slides differ is not learned from one of them
c      caution: a network finds too much on slides unlike those that it has learned from
f̄, h̄   means over the neighborhood of a pixel (`nn.neighborhood`)
k      how many times as much the stain counts there: few cells teach what a nucleus looks like sooner than how many a
       slide has that looks like none of theirs
γ      contrast: nuclei that touch come apart

A threshold on the stain segments most nuclei, and errs where shape would tell: dark stroma, pale nuclei, rims. A
network that is taught by many such crops averages the errors out. One that is taught by a few painted cells errs
elsewhere, on slides unlike theirs. Their mean errs less than either, and less than that of two classifiers on the same
features. Each network sees half of the batch, so that a step costs what one network costs; a prediction costs twice
that. Between l and t lie the rims, which a threshold puts too far outside: t is above it.

The parts are known ones: N. Otsu's threshold (1979) on the hematoxylin of A. C. Ruifrok and D. A. Johnston (2001), made
local; a noisy map as label with its doubtful pixels left out; the mean of two networks.

Where one of the two has found a single class for `collapse_patience` steps in crops that hold both, the other answers
alone until that changes, and the user is told.

With several classes the stain tells nucleus from background only, and the labels alone tell the classes apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from napari_semiseg.data.batch import IGNORE, Batch, Views
from napari_semiseg.losses.cross_entropy import cross_entropy
from napari_semiseg.losses.dice import soft_dice
from napari_semiseg.methods._base import Method, MethodConfig, Task, found_where_both, share_of, valid_pixels
from napari_semiseg.nn.collapse import CollapseGuard
from napari_semiseg.nn.ema import ema_decay, ema_update
from napari_semiseg.nn.network import Network
from napari_semiseg.nn.two_opinions import nucleus_logit, two_opinions
from napari_semiseg.works import OTSU, RUIFROK

LABELS_COLLAPSED = (
    "was found in labeled crops that hold nuclei and background, so that the stain alone answers until that changes: "
    "look whether the labels lie where the nuclei are."
)
STAIN_COLLAPSED = (
    "was found in crops whose stain shows nuclei and background, so that labels alone answer until that changes, where "
    "there are any: label a tile."
)


class StainGuidedConfig(MethodConfig):
    """Options of `StainGuided`."""

    weight_dice: float = Field(0.0, ge=0, le=10, description="Weight of the soft Dice term of the labels.")
    weight_guide: float = Field(1.0, gt=0, le=100, description="Weight of what the stain says.")
    background_below: float = Field(
        0.0, ge=-4, le=4, description="Background is what lies below this, in standard deviations beyond the threshold."
    )
    nucleus_above: float = Field(0.34, ge=-4, le=4, description="Nucleus is what lies above this, in the same unit.")
    stain_worth: float = Field(
        0.2,
        ge=0,
        le=1e6,
        description="How many million labeled pixels count as much as the stain for what stands out from its "
        "neighborhood; twice as many count four times as much as it. Those of one image count on others as so many at "
        "most.",
    )
    labels_at_home: float = Field(
        8.0, ge=1, le=100, description="How many times labeled pixels count on the image that they lie in."
    )
    labels_full_at: int = Field(
        50,
        ge=1,
        le=100_000,
        description="Steps with labels after which they count in full: their network is too young before. Until then "
        "labeled pixels count as the square of the part of the steps that is done.",
    )
    stain_around: float = Field(
        9.0,
        gt=0,
        le=1e6,
        description="How many times as much the stain counts for the mean of a neighborhood, against the labels.",
    )
    caution: float = Field(
        0.25,
        ge=-4,
        le=4,
        description="In logits, how much surer than even a prediction has to be of a nucleus: on slides that a network "
        "has not seen it finds too much.",
    )
    contrast: float = Field(
        0.25,
        ge=0,
        le=4,
        description="How much more it counts what the labels' network is surer of than around: nuclei that touch come "
        "apart.",
    )
    ema_decay: float = Field(
        0.99, ge=0, lt=1, description="Memory of the averaged weights, per step; 0 keeps no average."
    )
    collapse_patience: int = Field(
        50,
        ge=0,
        le=100_000,
        description="Steps in which one network finds a single class where there are both, until the other answers "
        "alone, and a warning; 0: never.",
    )


def counted(labeled_pixels: Mapping[str, float], worth: float, at_home: float, image: str = "") -> float:
    """Return as how many labeled pixels those of some images count on one of them, or on another.

    Parameters
    ----------
    labeled_pixels : mapping of str to float
        Of each image that has some.
    worth : float
        As in `stain_share`: those of one image never count for more than the stain on another.
    at_home : float
        How many times they count on their own.
    image : str
        On which; "" for one without labels.
    """
    others = sum(min(pixels, 1e6 * worth) for name, pixels in labeled_pixels.items() if name != image)
    return at_home * labeled_pixels.get(image, 0) + others


def stain_share(labeled_pixels: float, worth: float, labels: float = 1.0, stain: float = 1.0) -> float:
    """Return ρ, how much the stain counts beside the labels.

    Parameters
    ----------
    labeled_pixels : float
    worth : float
        How many million labeled pixels count as much as the stain.
    labels, stain : float
        How far either was taught, in [0, 1].
    """
    first, second = labels * (labeled_pixels / 1e6) ** 2, stain * worth**2
    return second / (first + second) if first else 1.0


class StainGuided(Method):
    """A network taught by labels where there are some, and one taught by the stain."""

    name: ClassVar[str] = "stain_guided"
    title: ClassVar[str] = "Stain-guided"
    does: ClassVar[str] = (
        "Of two such networks one learned from the labels, where there were any, and one from the map of the "
        "stain as weak labels: Otsu's threshold, made local, on the hematoxylin that color deconvolution "
        "separates, without the pixels in doubt; their maps were weighed by how much is labeled, once for "
        "what stands out from its neighborhood and once for the neighborhood."
    )
    references: ClassVar[tuple[str, ...]] = (OTSU, RUIFROK)
    Config: ClassVar[type[MethodConfig]] = StainGuidedConfig
    views: ClassVar[Views] = Views(labeled=True, weak=True, strong=1, guide=True)
    labels: ClassVar[Literal["needed", "used", "unused"]] = "used"

    lessons: Tensor

    def __init__(self, new_network: Callable[[], Network], task: Task, config: StainGuidedConfig) -> None:
        super().__init__(new_network, task, config)
        self.config = config
        self.net = two_opinions(
            new_network(),
            new_network(),
            caution=config.caution,
            contrast=config.contrast,
            around=config.stain_around,
        )
        self.net.share.fill_(1.0)
        self.average = deepcopy(self.net).requires_grad_(False) if config.ema_decay else None
        self.register_buffer("lessons", torch.zeros(2, dtype=torch.int64))
        self.guards = nn.ModuleList(
            CollapseGuard(config.collapse_patience, words) for words in (LABELS_COLLAPSED, STAIN_COLLAPSED)
        )
        self._found: list[float | None] = [None, None]
        self._counters: dict[str, float] = {}
        self._labeled_pixels: Mapping[str, int] = {}
        self._said: tuple[Mapping[str, int], tuple[float, ...], tuple[bool, ...]] | None = None
        self._taught = (False, False)

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor] | None:
        """Return the terms of the labels, and that of the stain."""
        self._counters, self._labeled_pixels = {}, batch.labeled_pixels
        self._taught = batch.image_l is not None, bool(batch.strong_u)
        self._found = [None, None]
        losses: dict[str, Tensor] = {}
        if batch.image_l is not None and batch.label_l is not None:
            logits = self.net.first(batch.image_l)
            self._found[0] = found_where_both(logits, batch.label_l)
            losses["sup"] = cross_entropy(logits, batch.label_l)
            if self.config.weight_dice:
                losses["dice"] = self.config.weight_dice * soft_dice(logits, batch.label_l)
        if batch.strong_u:
            logit = nucleus_logit(self.net.second(batch.strong_u[0]))
            logits = torch.cat([torch.zeros_like(logit), logit], 1)
            label = self._guided(batch)
            self._found[1] = found_where_both(logits, label)
            losses["stain"] = self.config.weight_guide * cross_entropy(logits, label)
        names = ("found nuclei", "found stained nuclei")
        self._counters |= {name: found for name, found in zip(names, self._found, strict=True) if found is not None}
        return losses or None

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
        """Move the averaged weights of what was taught, and say anew how much either network counts."""
        for guard, found in zip(self._guards(), self._found, strict=True):
            guard.watch(found)
        for place, taught in enumerate(self._taught):
            if not taught:
                continue
            if self.average is not None:
                network, average = self.net.both[place], self.average.both[place]
                ema_update(average, network, ema_decay(int(self.lessons[place]), self.config.ema_decay))
            self.lessons[place] += 1
        self._weigh()

    def _weigh(self) -> None:
        """Say how much the stain counts on any image, and where that may have changed, on those of the labels."""
        most = max(1, int(self.lessons.max()))
        labels, stain = (min(1.0, 2 * count / most) for count in self.lessons.tolist())
        grown = min(1.0, int(self.lessons[0]) / self.config.labels_full_at)
        taught = labels * grown**4, stain  # the square of the pixels is weighed, and they count as that of the part
        blind = tuple(guard.weight < 1 for guard in self._guards())
        said = self._labeled_pixels, taught, blind
        share = self._share("", *said)
        known = said == self._said  # there may be hundreds of images; the share on others lies in checkpoints
        homes = {} if known else {image: self._share(image, *said) for image in self._labeled_pixels}
        for network in (self.net,) if self.average is None else (self.net, self.average):
            network.share.fill_(share)
            if not known:
                network.weigh_at_homes(homes)
        self._said = said

    def _share(self, image: str, told: Mapping[str, int], taught: tuple[float, ...], blind: tuple[bool, ...]) -> float:
        """Return how much the stain counts: its worth against that of the labels, each as far as it was taught."""
        worth, (labels, stain) = self.config.stain_worth, taught
        pixels = counted(told, worth, self.config.labels_at_home, image)
        if labels * pixels and stain * worth and blind[0] != blind[1]:
            return 1.0 if blind[0] else 0.0
        return stain_share(pixels, worth, labels, stain)

    def predictor(self) -> nn.Module:
        """Return the averaged networks."""
        return self.net if self.average is None else self.average

    def _guards(self) -> list[CollapseGuard]:
        return [guard for guard in self.guards if isinstance(guard, CollapseGuard)]

    def warnings(self) -> list[str]:
        """Say that a network finds one class everywhere."""
        told = zip(self._guards(), self._found, strict=True)
        return [sentence for guard, found in told for sentence in guard.warnings(found)]

    def counters(self) -> dict[str, float]:
        """Return the shares of pixels that the stain is sure of, of nuclei among all, and of those that were found."""
        return self._counters
