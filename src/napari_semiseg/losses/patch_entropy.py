"""Patches drawn where a confidence map is sure of itself, and contrasted by sign and by class.

N. Boserup, R. Selvan, "Efficient self-supervision using patch-based contrastive learning for histopathology image
segmentation" (CSL), NLDL 2023.

paper            here
C                confidence: a map in [0, 1] for each of K classes
A(R), B(R)       mean confidence and mean binary entropy of C in a window R                          Eqs. 1, 2
W, P, N          `DrawnPatches`: all of a class, those with and those without `positive`
sampling         `draw_patches` (section 2.3), `draw_by_confidence` (B.1), `draw_from_top` (B.2)
F = I·C          the image seen through the map: what two patches are compared by
s(r, p)          `patch_similarity`
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_semiseg.losses._reduce import in_full_precision
from napari_semiseg.losses.patch_similarity import Similarity, gray_values, patch_similarity

_LEAST_WEIGHT = 0.001
"""Weight of a window of full entropy, so that every window can be drawn."""
_TINY = 1e-12
"""Weight of a window without confidence, so that a map without any can be drawn from."""


@dataclass(frozen=True)
class DrawnPatches:
    """Windows drawn from a batch, in one row each; a window drawn twice has two rows.

    Attributes
    ----------
    image, channel : Tensor, (T,), int64
        Image of the batch and class of the confidence map that the window was drawn for.
    top, left : Tensor, (T,), int64
        Corner of the window, in pixels.
    positive : Tensor, (T,), bool
        Sign. From `draw_patches` all rows of one window of one map have the same.
    size : int
        Side of a window, in pixels.
    """

    image: Tensor
    channel: Tensor
    top: Tensor
    left: Tensor
    positive: Tensor
    size: int

    @property
    def boxes(self) -> Tensor:
        """Windows as (T, 4), int64: y0, x0, y1, x1."""
        return torch.stack([self.top, self.left, self.top + self.size, self.left + self.size], 1)

    def rows(self, channel: int, *, positive: bool) -> Tensor:
        """Return the rows of one class and sign, over all images."""
        return ((self.channel == channel) & (self.positive == positive)).nonzero().squeeze(1)


@dataclass(frozen=True)
class PatchEntropyTerms:
    """The two losses of CSL, and what they were made of.

    Attributes
    ----------
    intra, inter : Tensor, ()
        Both may be negative. `inter` is a zero on the graph for a single class.
    positives, negatives : tuple of int
        Patches of each class.
    anchors : tuple of Tensor, each int64
        For each class the rows of the drawn patches that were anchors.
    """

    intra: Tensor
    inter: Tensor
    positives: tuple[int, ...]
    negatives: tuple[int, ...]
    anchors: tuple[Tensor, ...]


def binary_entropy(confidence: Tensor) -> Tensor:
    """Return the entropy of each pixel in bits, in [0, 1]; 0 at 0 and at 1 (Eq. 4, each logarithm at least -100)."""
    other = 1 - confidence
    return -(confidence * confidence.log2().clamp_min(-100) + other * other.log2().clamp_min(-100))


def window_means(maps: Tensor, size: int, stride: int) -> Tensor:
    """Return the mean of maps (M, K, H, W) in each candidate window, (M, K, rows, columns).

    Windows lie whole inside the map, their corners at multiples of `stride`: there are (H - size) // stride + 1 rows.
    """
    return F.avg_pool2d(maps, size, stride)


@torch.no_grad()
def draw_patches(
    confidence: Tensor, *, size: int = 50, stride: int = 20, count: int = 10, shown: Tensor | None = None
) -> DrawnPatches:
    """Draw windows of each map by their certainty, and give each a sign by its confidence.

    A window is drawn with a probability in proportion to max(1 - B, 0.001), with replacement, and is positive with the
    probability A. Sign is drawn once for each candidate, so that a window drawn twice has one sign. Randomness comes
    from torch's global generator.

    Parameters
    ----------
    confidence : Tensor, (M, K, H, W), in [0, 1]
        Sides at least `size`. No gradient flows through drawing. What is not finite counts as entirely uncertain.
    size, stride : int, >= 1
        Side of a window, and the distance of neighboring candidates, in pixels.
    count : int, >= 1
        Windows for each image and class.
    shown : Tensor, (M, H, W), bool, or None
        Pixels that may be looked at; all of them where None. Only windows that lie whole among them are drawn, and none
        of an image that has no such window.

    Returns
    -------
    DrawnPatches
        M x K x `count` rows, by image, then class; fewer where an image has no window to draw.

    References
    ----------
    Boserup and Selvan, NLDL 2023, Eqs. 1 to 4. The stride is that of the released code, which also loses the last row
    of candidates where H - `size` is a multiple of the stride; here it stays.
    """
    candidates = _candidates(confidence, size, stride, shown)
    if not len(candidates.of):
        return candidates.none()
    weights = (1 - candidates.unsure).clamp_min(_LEAST_WEIGHT) * candidates.allowed
    index = torch.multinomial(weights, count, replacement=True)
    sign = torch.bernoulli(candidates.sure)
    return candidates.drawn(index, sign.gather(1, index) == 1)


@torch.no_grad()
def draw_by_confidence(
    confidence: Tensor,
    *,
    size: int = 50,
    stride: int = 20,
    count: int = 10,
    exponent: float = 1.0,
    shown: Tensor | None = None,
) -> DrawnPatches:
    r"""Draw positives of each map in proportion to their confidence, and negatives against it.

    .. math:: P(R) = \frac{A(R)^\alpha}{\sum_{T \in S} A(T)^\alpha}, \qquad N(R) = \frac{1 - P(R)}{|S| - 1}

    Both with replacement. A window may be drawn with either sign.

    Parameters
    ----------
    confidence, size, stride, shown
        As for `draw_patches`.
    count : int, >= 1
        Positives, and as many negatives, for each image and class.
    exponent : float, > 0
        α, which is 1 in the paper.

    Returns
    -------
    DrawnPatches
        M x K x 2 `count` rows, the positives first. A map with a single candidate has no negative.

    References
    ----------
    Boserup and Selvan, NLDL 2023, appendix B.1; the exponent is that of the released code.
    """
    candidates = _candidates(confidence, size, stride, shown)
    if not len(candidates.of):
        return candidates.none()
    weights = candidates.sure.pow(exponent).clamp_min(_TINY) * candidates.allowed
    probability = weights / weights.sum(1, keepdim=True)
    positive = torch.multinomial(probability, count, replacement=True)
    others = candidates.allowed.sum(1) > 1
    against = (1 - probability).clamp_min(_TINY) * candidates.allowed
    negative = torch.multinomial(against, count, replacement=True)
    return candidates.signed(positive, negative, others)


@torch.no_grad()
def draw_from_top(
    confidence: Tensor,
    *,
    size: int = 50,
    stride: int = 20,
    count: int = 10,
    top: int = 50,
    shown: Tensor | None = None,
) -> DrawnPatches:
    """Draw positives evenly among the most confident candidates of each map, and negatives among the others.

    Parameters
    ----------
    confidence, size, stride, shown
        As for `draw_patches`.
    count : int, >= 1
        Positives, and as many negatives, for each image and class, with replacement.
    top : int, >= 1
        k, how many candidates count as most confident. Where a map has no more than k, all but the least confident do.

    Returns
    -------
    DrawnPatches
        M x K x 2 `count` rows, the positives first. A map with a single candidate has no negative.

    References
    ----------
    Boserup and Selvan, NLDL 2023, appendix B.2.
    """
    candidates = _candidates(confidence, size, stride, shown)
    if not len(candidates.of):
        return candidates.none()
    order = candidates.sure.masked_fill(~candidates.allowed, -1.0).argsort(dim=1, descending=True, stable=True)
    total = candidates.allowed.sum(1, keepdim=True)
    best = (total - 1).clamp(1, top)
    places = torch.rand(2, len(order), count, device=order.device)
    positive = (places[0] * best).long().minimum(best - 1)
    negative = best + (places[1] * (total - best)).long().minimum((total - best - 1).clamp_min(0))
    others = total[:, 0] > 1
    last = order.shape[1] - 1
    return candidates.signed(order.gather(1, positive), order.gather(1, negative.clamp_max(last)), others)


@dataclass(frozen=True)
class _Candidates:
    """The windows that may be drawn, a row for each map of an image that has any."""

    of: Tensor
    """(R,), number of the map: image * K + class."""
    sure: Tensor
    """(R, S), mean confidence A, in [0, 1]."""
    unsure: Tensor
    """(R, S), mean entropy B, in bits."""
    allowed: Tensor
    """(R, S), bool."""
    channels: int
    columns: int
    stride: int
    size: int

    def drawn(self, index: Tensor, positive: Tensor) -> DrawnPatches:
        """Return the candidates with the numbers `index`, (R, n), and their signs, (R, n)."""
        of, index = self.of.repeat_interleave(index.shape[1]), index.flatten()
        return DrawnPatches(
            image=of // self.channels,
            channel=of % self.channels,
            top=index // self.columns * self.stride,
            left=index % self.columns * self.stride,
            positive=positive.flatten(),
            size=self.size,
        )

    def signed(self, positive: Tensor, negative: Tensor, others: Tensor) -> DrawnPatches:
        """Return positives and negatives, (R, n) each; the negatives only of the rows with `others`, (R,)."""
        index = torch.cat([positive, negative], 1)
        signs = torch.zeros_like(index, dtype=torch.bool)
        signs[:, : positive.shape[1]] = True
        kept = (signs | others[:, None]).flatten()
        found = self.drawn(index, signs)
        return DrawnPatches(
            found.image[kept], found.channel[kept], found.top[kept], found.left[kept], found.positive[kept], found.size
        )

    def none(self) -> DrawnPatches:
        """Return no window at all."""
        empty = self.of[:0]
        return DrawnPatches(empty, empty, empty, empty, empty.bool(), self.size)


def _candidates(confidence: Tensor, size: int, stride: int, shown: Tensor | None) -> _Candidates:
    confidence = in_full_precision(confidence.detach())
    channels = confidence.shape[1]
    sure = window_means(confidence, size, stride)
    unsure = window_means(binary_entropy(confidence), size, stride).nan_to_num(nan=1.0)
    if shown is None:
        allowed = torch.ones_like(sure[:, :1], dtype=torch.bool)
    else:
        hidden = F.max_pool2d((~shown).float()[:, None], size, stride)
        allowed = hidden == 0
    usable = allowed.flatten(1).any(1).repeat_interleave(channels).nonzero().flatten()
    rows = [maps.flatten(2).flatten(0, 1)[usable] for maps in (sure, unsure, allowed.expand_as(sure))]
    return _Candidates(
        of=usable,
        sure=rows[0].nan_to_num(nan=0.5).clamp(0, 1),
        unsure=rows[1],
        allowed=rows[2],
        channels=channels,
        columns=sure.shape[-1],
        stride=stride,
        size=size,
    )


def patch_entropy_contrast(
    image: Tensor,
    confidence: Tensor,
    drawn: DrawnPatches,
    *,
    similarity: Similarity = "mse",
    normalizer: Literal["code", "paper"] = "code",
    anchors: int = 10,
    featurizer: nn.Module | None = None,
    bandwidth: float = 0.9,
) -> PatchEntropyTerms | None:
    r"""Contrast positives with negatives of their class, and with positives of the other classes.

    .. math:: L_{intra} = \sum_k \frac{1}{Z_k} \sum_{r \in R_k} \sum_{p \in P_k}
              \Big( \log \sum_{n \in N_k} e^{s(r, n)} - s(r, p) \Big)

    and :math:`L_{inter}` with the sum over the positives of all other classes in place of the negatives.

    Parameters
    ----------
    image : Tensor, (M, 3, H, W), in [0, 1]
        The images as the network saw them.
    confidence : Tensor, (M, K, H, W), in [0, 1]
        Gradients flow through it alone.
    drawn : DrawnPatches
        Of these maps; the patches of a class are pooled over all images.
    similarity : {"mse", "ce", "cosine", "kl", "mi"}
        As for `patch_similarity`: "mse" and "ce" compare all colors of F, "kl" and "mi" its gray values, "cosine" what
        the featurizer makes of those.
    normalizer : {"code", "paper"}
        "code": R are `anchors` positives drawn uniformly with replacement from torch's global generator, and
        Z = `anchors`² M. "paper": R are all positives, and Z their number squared.
    anchors : int, >= 1
        Anchors of each class, with "code".
    featurizer : nn.Module or None
        (T, 1, size, size) → (T, L), for "cosine". It sees all drawn patches at once.
    bandwidth : float, > 0
        As for `patch_similarity`.

    Returns
    -------
    PatchEntropyTerms or None
        None where a class has no positive or no negative: such a batch teaches nothing.

    References
    ----------
    Boserup and Selvan, NLDL 2023, Eqs. 5 and 6. Eq. 6 is printed without the logarithm that the released code has.
    """
    classes = range(confidence.shape[1])
    positives = [drawn.rows(k, positive=True) for k in classes]
    negatives = [drawn.rows(k, positive=False) for k in classes]
    if not all(map(len, positives)) or not all(map(len, negatives)):
        return None
    seen = _compared(_seen(image, confidence, drawn), similarity, featurizer)
    intra = inter = seen[:0].sum()  # a zero on the graph
    chosen = []
    for k in classes:
        rows = positives[k]
        if normalizer == "code":
            rows = rows[torch.randint(len(rows), (anchors,), device=rows.device)]
        norm = anchors**2 * len(image) if normalizer == "code" else len(rows) ** 2
        alike = patch_similarity(seen[rows], seen[positives[k]], similarity, bandwidth=bandwidth)
        unlike = patch_similarity(seen[rows], seen[negatives[k]], similarity, bandwidth=bandwidth)
        intra = intra + _contrast(alike, unlike) / norm
        if len(classes) > 1:
            others = torch.cat([positives[i] for i in classes if i != k])
            other = patch_similarity(seen[rows], seen[others], similarity, bandwidth=bandwidth)
            inter = inter + _contrast(alike, other) / norm
        chosen.append(rows)
    return PatchEntropyTerms(intra, inter, _lengths(positives), _lengths(negatives), tuple(chosen))


def _contrast(alike: Tensor, unlike: Tensor) -> Tensor:
    return alike.shape[1] * unlike.logsumexp(1).sum() - alike.sum()


def _compared(seen: Tensor, similarity: Similarity, featurizer: nn.Module | None) -> Tensor:
    """Return what two patches are compared by, (T, D), of F, (T, 3, size²)."""
    if similarity in ("mse", "ce"):
        return seen.flatten(1)
    gray = gray_values(seen)
    if similarity != "cosine":
        return gray
    if featurizer is None:
        raise ValueError("The cosine similarity compares features, and there is no featurizer.")
    side = math.isqrt(gray.shape[1])
    features: Tensor = featurizer(gray.view(-1, 1, side, side))
    return features


def _seen(image: Tensor, confidence: Tensor, drawn: DrawnPatches) -> Tensor:
    """Return F = I·C of each drawn patch, (T, 3, size²), with a gradient no larger than the maps."""
    height, width = confidence.shape[-2:]
    side = torch.arange(drawn.size, device=confidence.device)
    pixel = (drawn.top[:, None, None] + side[:, None]) * width + drawn.left[:, None, None] + side
    maps = (drawn.image * confidence.shape[1] + drawn.channel)[:, None, None] * (height * width) + pixel
    seen = in_full_precision(confidence).flatten().index_select(0, maps.flatten()).view(len(maps), 1, -1)
    colors = torch.arange(image.shape[1], device=confidence.device)
    planes = (drawn.image[:, None] * image.shape[1] + colors)[:, :, None] * (height * width) + pixel.flatten(1)[:, None]
    shown = in_full_precision(image).flatten().index_select(0, planes.flatten()).view(planes.shape)
    return shown * seen


def _lengths(rows: list[Tensor]) -> tuple[int, ...]:
    return tuple(map(len, rows))
