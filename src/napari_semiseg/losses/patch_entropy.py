"""Patches drawn where a confidence map is sure of itself, and contrasted by sign and by class.

N. Boserup, R. Selvan, "Efficient self-supervision using patch-based contrastive learning for histopathology image
segmentation" (CSL), NLDL 2023.

paper            here
C                confidence: a map in [0, 1] for each of K classes
A(R), B(R)       mean confidence and mean binary entropy of C in a window R                          Eqs. 1, 2
W, P, N          `DrawnPatches`: all of a class, those with and those without `positive`
F = I·C          the image seen through the map: what two patches are compared by
s(r, p)          `patch_similarity`
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_semiseg.losses._reduce import in_full_precision

Similarity = Literal["mse", "ce"]

_LEAST_WEIGHT = 0.001
"""Weight of a window of full entropy, so that every window can be drawn."""
_EDGE = 1e-6
"""How near to 0 and 1 the cross-entropy is evaluated: log2 stays above -20."""


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
        Sign. All rows of one window of one map have the same.
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
def draw_patches(confidence: Tensor, *, size: int = 50, stride: int = 20, count: int = 10) -> DrawnPatches:
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

    Returns
    -------
    DrawnPatches
        M x K x `count` rows, by image, then class.

    References
    ----------
    Boserup and Selvan, NLDL 2023, Eqs. 1 to 4. The stride is that of the released code, which also loses the last row
    of candidates where H - `size` is a multiple of the stride; here it stays.
    """
    confidence = in_full_precision(confidence.detach())
    images, channels = confidence.shape[:2]
    sure = window_means(confidence, size, stride)
    weights = 1 - window_means(binary_entropy(confidence), size, stride)
    columns = sure.shape[-1]
    weights = weights.nan_to_num(nan=0.0).clamp_min(_LEAST_WEIGHT).flatten(2)
    index = torch.multinomial(weights.flatten(0, 1), count, replacement=True)
    sign = torch.bernoulli(sure.nan_to_num(nan=0.5).clamp(0, 1).flatten(2)).flatten(0, 1)
    index, positive = index.flatten(), sign.gather(1, index).flatten() == 1
    of = torch.arange(images * channels, device=confidence.device).repeat_interleave(count)
    return DrawnPatches(
        image=of // channels,
        channel=of % channels,
        top=index // columns * stride,
        left=index % columns * stride,
        positive=positive,
        size=size,
    )


def patch_similarity(anchors: Tensor, patches: Tensor, kind: Similarity) -> Tensor:
    r"""Return the similarity of each anchor to each patch.

    .. math:: s_{mse}(r, p) = -\frac{1}{D} \sum_d (r_d - p_d)^2, \qquad
              s_{ce}(r, p) = \frac{1}{D} \sum_d r_d \log_2 p_d + (1 - r_d) \log_2 (1 - p_d)

    Parameters
    ----------
    anchors : Tensor, (R, D), in [0, 1]
    patches : Tensor, (N, D), in [0, 1]
    kind : {"mse", "ce"}
        For "ce" all values are first brought into [1e-6, 1 - 1e-6]: at 0 and 1 the released code gives NaN.

    Returns
    -------
    Tensor, (R, N)
        At most 0. Not symmetric for "ce". Computed in float32 (float64 stays), whatever autocast says.
    """
    anchors, patches = in_full_precision(anchors), in_full_precision(patches)
    with torch.autocast(anchors.device.type, enabled=False):
        if kind == "mse":
            squares = anchors.square().sum(1, keepdim=True) + patches.square().sum(1)
            return (2 * anchors @ patches.T - squares) / anchors.shape[1]
        anchors, patches = anchors.clamp(_EDGE, 1 - _EDGE), patches.clamp(_EDGE, 1 - _EDGE)
        return (anchors @ patches.log2().T + (1 - anchors) @ (1 - patches).log2().T) / anchors.shape[1]


def patch_entropy_contrast(
    image: Tensor,
    confidence: Tensor,
    drawn: DrawnPatches,
    *,
    similarity: Similarity = "mse",
    normalizer: Literal["code", "paper"] = "code",
    anchors: int = 10,
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
    similarity : {"mse", "ce"}
        As for `patch_similarity`.
    normalizer : {"code", "paper"}
        "code": R are `anchors` positives drawn uniformly with replacement from torch's global generator, and
        Z = `anchors`² M. "paper": R are all positives, and Z their number squared.
    anchors : int, >= 1
        Anchors of each class, with "code".

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
    seen = _seen(image, confidence, drawn)
    intra = inter = seen[:0].sum()  # a zero on the graph
    chosen = []
    for k in classes:
        rows = positives[k]
        if normalizer == "code":
            rows = rows[torch.randint(len(rows), (anchors,), device=rows.device)]
        norm = anchors**2 * len(image) if normalizer == "code" else len(rows) ** 2
        alike = patch_similarity(seen[rows], seen[positives[k]], similarity)
        unlike = patch_similarity(seen[rows], seen[negatives[k]], similarity)
        intra = intra + _contrast(alike, unlike) / norm
        if len(classes) > 1:
            others = torch.cat([positives[i] for i in classes if i != k])
            inter = inter + _contrast(alike, patch_similarity(seen[rows], seen[others], similarity)) / norm
        chosen.append(rows)
    return PatchEntropyTerms(intra, inter, _lengths(positives), _lengths(negatives), tuple(chosen))


def _contrast(alike: Tensor, unlike: Tensor) -> Tensor:
    return alike.shape[1] * unlike.logsumexp(1).sum() - alike.sum()


def _seen(image: Tensor, confidence: Tensor, drawn: DrawnPatches) -> Tensor:
    """Return F = I·C of each drawn patch, (T, 3 size²), with a gradient no larger than the maps."""
    height, width = confidence.shape[-2:]
    side = torch.arange(drawn.size, device=confidence.device)
    pixel = (drawn.top[:, None, None] + side[:, None]) * width + drawn.left[:, None, None] + side
    maps = (drawn.image * confidence.shape[1] + drawn.channel)[:, None, None] * (height * width) + pixel
    seen = in_full_precision(confidence).flatten().index_select(0, maps.flatten()).view(len(maps), 1, -1)
    colors = torch.arange(image.shape[1], device=confidence.device)
    planes = (drawn.image[:, None] * image.shape[1] + colors)[:, :, None] * (height * width) + pixel.flatten(1)[:, None]
    shown = in_full_precision(image).flatten().index_select(0, planes.flatten()).view(planes.shape)
    return (shown * seen).flatten(1)


def _lengths(rows: list[Tensor]) -> tuple[int, ...]:
    return tuple(map(len, rows))
