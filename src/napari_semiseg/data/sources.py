"""What a run learns from: images, the regions of them that carry labels, and the regions kept for judging."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from napari_semiseg.blocks import Box
from napari_semiseg.data.batch import IGNORE
from napari_semiseg.data.learned import Learned
from napari_semiseg.io.images import Image

SCRIBBLE_TELLS = 10
"""Pixels that a labeled pixel speaks for where few are labeled: neighbors are alike, and who scribbles chooses well."""


@dataclass(frozen=True)
class LabeledRegion:
    """A rectangle of an image whose classes are known, wholly or in part.

    Attributes
    ----------
    name : str
        What a person would call it: ``stem#cell`` or the tile's id.
    image : int
        Index of the image in `TrainingData.images`.
    box : Box
        Level-0 pixels.
    label : ndarray, (h, w), uint8
        0 background, 1 and up the classes, `IGNORE` where nothing is known.
    nuclei : int
        How many nuclei were labeled in it.
    """

    name: str
    image: int
    box: Box
    label: NDArray[np.uint8]
    nuclei: int

    @cached_property
    def told(self) -> int:
        """How many of its pixels its labels speak for: all where it is painted, some times their own in scribbles."""
        return min(self.label.size, SCRIBBLE_TELLS * int(np.count_nonzero(self.label != IGNORE)))


@dataclass
class TrainingData:
    """Everything that the sampler draws from.

    Attributes
    ----------
    images : sequence of Image
        All of them may be seen unlabeled.
    labeled, validation : list of LabeledRegion
        Regions that teach, and regions that only judge.
    classes : tuple of str
        Names, background first.
    excluded : list of (int, Box)
        Regions (image index, rectangle) that nothing may learn from.
    mpp : float or None
        Size of the pixels that the run works with, in µm, where it is known.
    scales : sequence of float
        For each image: network pixels per image pixel (`scale_of`); 1 where either size is unknown.
    notes : list of str
        What the user should know, one plain sentence each.
    seen : dict of str to str, or None
        Each tile of a project that was read, and the hash of what it held (`project.annotations.tile_digest`).
    learned : Learned
        Of a project: what a run has learned from once it goes on with this, before and now.
    """

    images: Sequence[Image]
    labeled: list[LabeledRegion] = field(default_factory=list)
    validation: list[LabeledRegion] = field(default_factory=list)
    classes: tuple[str, ...] = ("background", "nucleus")
    excluded: list[tuple[int, Box]] = field(default_factory=list)
    mpp: float | None = None
    scales: Sequence[float] = ()
    notes: list[str] = field(default_factory=list)
    seen: dict[str, str] | None = None
    learned: Learned = field(default_factory=Learned)

    def __post_init__(self) -> None:
        if not self.scales:
            self.scales = [1.0] * len(self.images)

    def digest(self) -> str:
        """Return a hash of all labels (sha256, hexadecimal): it changes where any labeled pixel changes."""
        return regions_digest([*self.labeled, *self.validation])


def regions_digest(regions: Iterable[LabeledRegion]) -> str:
    """Return a hash of the labels of some regions, whatever their order."""
    sums = hashlib.sha256()
    for region in sorted(regions, key=lambda region: region.name):
        sums.update(f"{region.name} {region.box}".encode())
        sums.update(np.ascontiguousarray(region.label).tobytes())
    return sums.hexdigest()


def class_labels(instances: NDArray[np.integer], classes: NDArray[np.integer] | None = None) -> NDArray[np.uint8]:
    """Turn instance labels, and a class map where there is one, into the classes that a network learns.

    Parameters
    ----------
    instances : ndarray, (h, w), integer
        0 background, positive the nuclei.
    classes : ndarray, (h, w), integer, optional
        0 background, 1 and up the classes. A nucleus without a class is ignored, and so is a class outside every
        nucleus.

    Returns
    -------
    ndarray, (h, w), uint8
    """
    nuclei = instances > 0
    if classes is None:
        return nuclei.astype(np.uint8)
    label = classes.astype(np.uint8)
    label[nuclei != (classes > 0)] = IGNORE
    return label
