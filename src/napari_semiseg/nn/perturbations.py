"""Disturbances of feature maps under which a prediction should stay what it is.

Y. Ouali, C. Hudelot, M. Tami, "Semi-supervised semantic segmentation with cross-consistency training" (CCT), CVPR 2020,
has all of them; CRCFP takes the first three. Each draws from torch's global generator, whatever mode it is in: who
wants no disturbance does not call it. Gradients pass through the features, never through the choice of what is
disturbed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from napari_semiseg.blocks import Box


class FeatureNoise(nn.Module):
    """Multiply every activation by 1 + N, with N uniform in ± `width`: the same draw for all images of a batch.

    References
    ----------
    CRCFP, Eqs. 10 and 11; one draw for the batch is that of the released codes.
    """

    def __init__(self, width: float = 0.3) -> None:
        super().__init__()
        self.width = width

    def forward(self, features: Tensor) -> Tensor:
        """Return disturbed features, (B, D, h, w)."""
        noise = torch.empty_like(features[0]).uniform_(-self.width, self.width)
        return features * (1 + noise)


class FeatureDrop(nn.Module):
    """Clear the most active cells of each image: those whose mean over channels is at least γ times the highest.

    γ is drawn once for the batch, uniform from `low` to `high`. An image whose cells are all 0 is cleared, one whose
    means are all negative is kept.

    References
    ----------
    CRCFP, Eqs. 12 to 14, as the released codes have them: the text drops what is below γ, and its mask what is above.
    """

    def __init__(self, low: float = 0.75, high: float = 0.9) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, features: Tensor) -> Tensor:
        """Return features, (B, D, h, w), with cells set to 0."""
        gamma = self.low + (self.high - self.low) * torch.rand((), device=features.device)
        attention = features.detach().mean(1, keepdim=True)
        return features * (attention < gamma * attention.amax((2, 3), keepdim=True))


class FeatureDropout(nn.Module):
    """Clear a part of the activations.

    Parameters
    ----------
    p : float, in (0, 1)
        How likely an activation is cleared.
    kind : {"plain", "spatial"}
        "plain": each by itself, the others left as they are (CRCFP, Eqs. 15 and 16). "spatial": whole channels of an
        image, and the others divided by 1 - p (the released codes).
    """

    def __init__(self, p: float = 0.5, kind: Literal["plain", "spatial"] = "plain") -> None:
        super().__init__()
        self.p, self.kind = p, kind

    def forward(self, features: Tensor) -> Tensor:
        """Return features, (B, D, h, w), with activations set to 0."""
        if self.kind == "spatial":
            return F.dropout2d(features, self.p)
        return features * (torch.rand_like(features) >= self.p)


def large_objects(label: Tensor, least: int = 50) -> list[list[Box]]:
    """Return the bounding boxes of the large objects that are predicted in each image.

    Parameters
    ----------
    label : Tensor, (B, H, W), integer
        Predicted classes, 0 background. What touches, also at a corner, is one object.
    least : int
        Objects with at most so many pixels on their border are left out.

    References
    ----------
    CCT, guided cutout: objects are outlines of more than 50 points there, connected components with more than that many
    border pixels here.
    """
    return [_boxes(mask, least) for mask in (label > 0).cpu().numpy()]


def _boxes(mask: NDArray[np.bool_], least: int) -> list[Box]:
    objects, count = ndimage.label(mask, np.ones((3, 3)))
    border = mask & ~ndimage.binary_erosion(mask)
    lengths = np.bincount(objects[border], minlength=count + 1)
    return [
        Box(rows.start, columns.start, rows.stop, columns.stop)
        for number, (rows, columns) in enumerate(ndimage.find_objects(objects), start=1)
        if lengths[number] > least
    ]


class Cutout(nn.Module):
    """Clear a random part of the bounding box of every large object that is predicted (CCT, guided cutout).

    Parameters
    ----------
    erase : float, in (0, 1]
        Height and width of what is cleared, as a part of those of the box.
    """

    def __init__(self, erase: float = 0.4) -> None:
        super().__init__()
        self.erase = erase

    def forward(self, features: Tensor, objects: Sequence[Sequence[Box]], shape: tuple[int, int]) -> Tensor:
        """Return features with rectangles set to 0.

        Parameters
        ----------
        features : Tensor, (B, D, h, w)
        objects : for each image the boxes of its `large_objects`
        shape : (int, int)
            Rows and columns of the images, in which the boxes are told.
        """
        kept = torch.ones(len(features), *shape, dtype=features.dtype)
        for image, boxes in enumerate(objects):
            for box in boxes:
                height, width = int(box.height * self.erase), int(box.width * self.erase)
                y = box.y0 + int(torch.randint(box.height - height + 1, ()))
                x = box.x0 + int(torch.randint(box.width - width + 1, ()))
                kept[image, y : y + height, x : x + width] = 0
        return features * _resized(kept.to(features.device), features)


class GuidedMask(nn.Module):
    """Keep the features of what is predicted to be an object, or of what surrounds it, and clear the rest.

    Parameters
    ----------
    keep : {"objects", "background"}
        CCT calls keeping objects the context mask, and keeping the background the object mask.
    """

    def __init__(self, keep: Literal["objects", "background"]) -> None:
        super().__init__()
        self.keep = keep

    def forward(self, features: Tensor, label: Tensor) -> Tensor:
        """Return features, (B, D, h, w), with cells set to 0; `label`, (B, H, W), holds predicted classes."""
        kept = label > 0 if self.keep == "objects" else label == 0
        return features * _resized(kept.to(features.dtype), features)


def adversarial(features: Tensor, decoder: nn.Module, *, step: float = 0.1, length: float = 2.0) -> Tensor:
    """Move each image's features a little in the direction that changes what a decoder says most (VAT).

    Parameters
    ----------
    features : Tensor, (B, D, h, w)
        Gradients pass to them, but not through the direction.
    decoder : nn.Module
        Features to logits, (B, C, H, W). Its gradients are left as they are.
    step : float, > 0
        ξ, the length of the probe with which the direction is found. The released code of CCT has 1e-6, at which
        the direction is lost to rounding and nothing is disturbed.
    length : float, >= 0
        ε, how far an image's features are moved, in the Euclidean norm over all of them.

    Returns
    -------
    Tensor, (B, D, h, w)
        The features as they are where the decoder does not depend on them.

    References
    ----------
    T. Miyato et al., "Virtual adversarial training", TPAMI 2019, one power iteration.
    """
    still = features.detach()
    with torch.no_grad():
        target = decoder(still).softmax(1)
    with torch.enable_grad():
        probe = _unit(torch.rand_like(still) - 0.5).requires_grad_()
        divergence = F.kl_div(decoder(still + step * probe).log_softmax(1), target, reduction="batchmean")
        (direction,) = torch.autograd.grad(divergence, probe)
    return features + length * _unit(direction)


def _unit(vectors: Tensor) -> Tensor:
    """Scale each image's values, (B, ...), to length 1; zeros stay zeros."""
    flat = vectors.flatten(1)
    largest = flat.abs().amax(1, keepdim=True)
    scaled = flat / torch.where(largest > 0, largest, 1)  # squares of very small numbers would vanish
    norm = scaled.norm(dim=1, keepdim=True)
    return (scaled / torch.where(norm > 0, norm, 1)).view_as(vectors)


def _resized(mask: Tensor, features: Tensor) -> Tensor:
    """Bring a mask, (B, H, W), to the grid of features, as (B, 1, h, w): the nearest pixel of each cell."""
    return F.interpolate(mask[:, None], features.shape[-2:], mode="nearest")
