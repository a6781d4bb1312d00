"""What a method is given at each step, and what it may ask for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import overload

import torch
from torch import Tensor

from napari_semiseg.losses.cross_entropy import IGNORE

__all__ = ["IGNORE", "Batch", "Views"]


@dataclass(frozen=True)
class Views:
    """The views of a batch that a method needs; the sampler makes no others.

    A *weak* view is a draw of geometry (crop, scale, rotation, flip); a *strong* view is a draw of color, stain and
    blur on top of the same weak view, so that both show the same tissue at the same pixel and nothing has to be
    warped back.

    Attributes
    ----------
    labeled : bool
        Whether crops with labels are wanted.
    weak : bool
        Whether the weak view of unlabeled crops is wanted.
    strong : int
        How many independent strong views of it.
    augment : bool
        Whether geometry and color are drawn at all. Without it a crop is what lies in the image.
    """

    labeled: bool = True
    weak: bool = False
    strong: int = 0
    augment: bool = True


@dataclass(frozen=True)
class Batch:
    """Crops of one step. Fields that the method's `Views` did not ask for are None.

    Attributes
    ----------
    image_l : Tensor, (B, 3, H, W), in [0, 1]
        Labeled crops, augmented. None also where a run has no label at all.
    label_l : Tensor, (B, H, W), int64
        Classes: 0 background, 1 and up the classes of nuclei, `IGNORE` where nothing is known.
    weak_u : Tensor, (B, 3, H, W), in [0, 1]
        Unlabeled crops, geometry only. None also where there is nothing unlabeled.
    strong_u : tuple of Tensor, each (B, 3, H, W), in [0, 1]
        The same crops in other colors.
    valid_u : Tensor, (B, H, W), bool
        Pixels of `weak_u` and `strong_u` that show the image: a rotation leaves corners that do not.
    """

    image_l: Tensor | None = None
    label_l: Tensor | None = None
    weak_u: Tensor | None = None
    strong_u: tuple[Tensor, ...] = ()
    valid_u: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """Return the batch on `device`, where bytes become what the attributes say: images in [0, 1], labels int64."""
        return Batch(
            image_l=_image(self.image_l, device),
            label_l=None if self.label_l is None else self.label_l.to(device, non_blocking=True).long(),
            weak_u=_image(self.weak_u, device),
            strong_u=tuple(_image(view, device) for view in self.strong_u),
            valid_u=None if self.valid_u is None else self.valid_u.to(device, non_blocking=True),
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
