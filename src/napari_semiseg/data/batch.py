"""What a method is given at each step, and what it may ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import overload

import torch
from torch import Tensor

from napari_semiseg.losses.cross_entropy import IGNORE

__all__ = ["IGNORE", "PAIR_STEP", "Batch", "Pair", "Views"]

PAIR_STEP = 8
"""Offsets between the two crops of a pair are multiples of this, in pixels: that of the coarsest grid of features."""


@dataclass(frozen=True)
class Views:
    """The views of a batch that a method needs; the sampler makes no others.

    A *weak* view is a draw of geometry (crop, scale, rotation, flip); a *strong* view is a draw of color, stain and
    blur on top of the same weak view, so that both show the same tissue at the same pixel and nothing has to be
    warped back.

    A *pair* is two crops of one image that overlap: the same tissue in two surroundings.

    Attributes
    ----------
    labeled : bool
        Whether crops with labels are wanted.
    weak : bool
        Whether the weak view of unlabeled crops is wanted.
    strong : int
        How many independent strong views of it.
    pairs : (float, float) or None
        Least and greatest overlap of the pairs that are wanted: the intersection of the two crops over their union,
        in (0, 1]. None where no pair is wanted.
    whole : bool
        Whether the image that a pair was cut from is wanted too, as a whole. Only together with `pairs`.
    guide : bool
        Whether the map of the stain's threshold at unlabeled crops is wanted. Only together with `weak` or `strong`.
    augment : bool
        Whether geometry and color are drawn at all. Without it a crop is what lies in the image.
    """

    labeled: bool = True
    weak: bool = False
    strong: int = 0
    pairs: tuple[float, float] | None = None
    whole: bool = False
    guide: bool = False
    augment: bool = True

    def __post_init__(self) -> None:
        if self.pairs is not None and not 0 < self.pairs[0] <= self.pairs[1] <= 1:
            raise ValueError("The overlap of a pair lies between two numbers in (0, 1], the least first.")
        if self.whole and self.pairs is None:
            raise ValueError("A whole image is that of a pair: ask for pairs too.")
        if self.guide and not (self.weak or self.strong):
            raise ValueError("A guide is that of unlabeled crops: ask for a view of them too.")


@dataclass(frozen=True)
class Pair:
    """Two overlapping crops of each of B images, every crop flipped and colored by itself.

    Attributes
    ----------
    images : two Tensors, each (B, C, H, W), in [0, 1]
        The crops as a network is to see them; C as in `Batch`.
    valid : two Tensors, each (B, H, W), bool
        Pixels of each crop, flipped as it is, that show the image.
    offset : Tensor, (B, 2), int64
        How far the second crop lies below and to the right of the first, in pixels, before any flip. Multiples of
        `PAIR_STEP`.
    flipped : Tensor, (B, 2), bool
        Whether the first and the second crop were flipped left to right.
    """

    images: tuple[Tensor, Tensor]
    valid: tuple[Tensor, Tensor]
    offset: Tensor
    flipped: Tensor

    def overlap(self, shape: tuple[int, int] | torch.Size) -> tuple[Tensor, Tensor]:
        """Return the cells that both crops show, on the grid of a feature map.

        Parameters
        ----------
        shape : (int, int)
            Rows and columns of the feature maps, h and w. A cell's side divides `PAIR_STEP` and the crops.

        Returns
        -------
        first, second : Tensor, (N,), int64
            Where each common cell lies in the map of either crop, flattened as (B, h, w): row by row of the first crop
            as it was before its flip.

        Examples
        --------
        Of maps (B, D, h, w), the features of the same tissue in the same order:

        >>> maps = torch.rand(1, 16, 4, 4), torch.rand(1, 16, 4, 4)
        >>> crops = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32)
        >>> shown = torch.ones(1, 32, 32, dtype=torch.bool)
        >>> pair = Pair(crops, (shown, shown), torch.tensor([[8, -16]]), torch.tensor([[True, False]]))
        >>> rows = pair.overlap((4, 4))
        >>> one, other = (map.movedim(1, -1).flatten(0, 2)[row] for map, row in zip(maps, rows, strict=True))
        >>> one.shape
        torch.Size([6, 16])
        """
        height, width = shape
        side = self.images[0].shape[-2]
        cell = side // height
        if cell * height != side or PAIR_STEP % cell:
            raise ValueError(f"A crop of {side} pixels has no grid of {height} rows that offsets of {PAIR_STEP} fit.")
        device = self.offset.device
        image = torch.arange(len(self.offset), device=device)[:, None, None]
        y, x = torch.arange(height, device=device)[:, None], torch.arange(width, device=device)
        dy, dx = (self.offset // cell).unbind(1)
        rows, columns = (y - dy[:, None, None]).broadcast_to(len(dy), height, width), x - dx[:, None, None]
        common = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        in_first = (image * height + y) * width + _as_seen(x, width, self.flipped[:, 0])
        in_second = (image * height + rows) * width + _as_seen(columns, width, self.flipped[:, 1])
        return in_first[common], in_second[common]

    def to(self, device: torch.device) -> Pair:
        """Return the pair on `device`, where bytes become fractions."""
        return Pair(
            images=(_image(self.images[0], device), _image(self.images[1], device)),
            valid=(self.valid[0].to(device, non_blocking=True), self.valid[1].to(device, non_blocking=True)),
            offset=self.offset.to(device),
            flipped=self.flipped.to(device),
        )


def _as_seen(columns: Tensor, width: int, flipped: Tensor) -> Tensor:
    """Return where columns of crops lie after the flip of those that were flipped, (B,)."""
    return torch.where(flipped[:, None, None], width - 1 - columns, columns)


@dataclass(frozen=True)
class Batch:
    """Crops of one step. Fields that the method's `Views` did not ask for are None.

    C, the channels of an image, is 3, or 4 where the network is shown the stain on the image's own scale as well.

    Attributes
    ----------
    image_l : Tensor, (B, C, H, W), in [0, 1]
        Labeled crops, augmented. None also where a run has no label at all.
    label_l : Tensor, (B, H, W), int64
        Classes: 0 background, 1 and up the classes of nuclei, `IGNORE` where nothing is known.
    labeled_pixels : mapping of str to int
        How many pixels of the run's size the labels speak for, in all regions that such crops come from: by the image
        that they lie in, which is named by its fingerprint.
    weak_u : Tensor, (B, C, H, W), in [0, 1]
        Unlabeled crops, geometry only. None also where there is nothing unlabeled.
    strong_u : tuple of Tensor, each (B, C, H, W), in [0, 1]
        The same crops in other colors.
    valid_u : Tensor, (B, H, W), bool
        Pixels of `weak_u` and `strong_u` that show the image: a rotation leaves corners that do not.
    guide_u : Tensor, (B, H, W), float32
        How far each pixel of `weak_u` lies beyond the threshold on its stain, in standard deviations of its image.
    pair_u : Pair
        Pairs of overlapping unlabeled crops. None also where there is nothing unlabeled.
    whole_u : Tensor, (B, C, H, W), in [0, 1]
        The images that the pairs were cut from, each squashed to the size of a crop (`SamplerConfig.field`) and colored
        by itself.
    whole_valid_u : Tensor, (B, H, W), bool
        Pixels of `whole_u` that count: an excluded region does not.
    """

    image_l: Tensor | None = None
    label_l: Tensor | None = None
    labeled_pixels: Mapping[str, int] = field(default_factory=dict)
    weak_u: Tensor | None = None
    strong_u: tuple[Tensor, ...] = ()
    valid_u: Tensor | None = None
    guide_u: Tensor | None = None
    pair_u: Pair | None = None
    whole_u: Tensor | None = None
    whole_valid_u: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """Return the batch on `device`, where bytes become what the attributes say: images in [0, 1], labels int64."""
        return Batch(
            image_l=_image(self.image_l, device),
            label_l=None if self.label_l is None else self.label_l.to(device, non_blocking=True).long(),
            labeled_pixels=self.labeled_pixels,
            weak_u=_image(self.weak_u, device),
            strong_u=tuple(_image(view, device) for view in self.strong_u),
            valid_u=None if self.valid_u is None else self.valid_u.to(device, non_blocking=True),
            guide_u=None if self.guide_u is None else self.guide_u.to(device, non_blocking=True),
            pair_u=None if self.pair_u is None else self.pair_u.to(device),
            whole_u=_image(self.whole_u, device),
            whole_valid_u=None if self.whole_valid_u is None else self.whole_valid_u.to(device, non_blocking=True),
        )


@overload
def _image(image: Tensor, device: torch.device) -> Tensor: ...
@overload
def _image(image: None, device: torch.device) -> None: ...
def _image(image: Tensor | None, device: torch.device) -> Tensor | None:
    if image is None:
        return None
    moved = image.to(device, non_blocking=True)
    if moved.dtype == torch.uint8:
        moved = moved.float().div_(255)
    return moved.contiguous(memory_format=torch.channels_last)
