"""Labels of others into a project, as annotations in tiles: what the command line, the dock and Python call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from napari_semiseg.blocks import Box
from napari_semiseg.errors import InputError
from napari_semiseg.io.foreign_labels import ForeignLabels, Painted
from napari_semiseg.project.folder import ProjectFolder
from napari_semiseg.project.schema import Tile, with_class
from napari_semiseg.project.tile_annotation import BACKGROUND

SIDE = 512
"""Side of a tile that labels are brought into, in pixels, where none is there yet."""

MOST = 64
"""Most tiles that one import makes, unless more are asked for: those with most nuclei."""

LEAST = 64
"""Least side of what is left of a cell beside tiles that are there: a smaller one holds nuclei that are cut."""

_SAME_SIZE = 0.02  # part by which two pixel sizes may differ and mean the same


@dataclass(frozen=True)
class Imported:
    """A tile that labels were brought into.

    Attributes
    ----------
    tile : Tile
        As it is now.
    nuclei : int
    """

    tile: Tile
    nuclei: int


@dataclass(frozen=True)
class Plan:
    """Where labels are to be brought in.

    Attributes
    ----------
    boxes : list of Box
        Tiles to make, in pixels of level 0.
    left_out : int
        Further places that hold nuclei, beyond the most that were asked for.
    """

    boxes: list[Box]
    left_out: int

    @property
    def words(self) -> str:
        """What was left out, in a sentence; "" for nothing."""
        if not self.left_out:
            return ""
        there = len(self.boxes) + self.left_out
        return f"These are the {len(self.boxes)} fullest of {there} places with nuclei, the others were left out."


def plan_tiles(folder: ProjectFolder, image: int, labels: ForeignLabels, *, side: int = SIDE, most: int = MOST) -> Plan:
    """Choose where labels are to be brought in: cells that hold nuclei, the fullest first.

    Of a cell that a tile covers in part the rest is taken, as rectangles.

    Parameters
    ----------
    folder : ProjectFolder
    image : int
        Index of the image, whose shape is known.
    labels : ForeignLabels
    side : int
        Side of a tile, in pixels.
    most : int

    Raises
    ------
    InputError
        If the labels are of another image, or hold no nuclei.
    """
    shape = _checked_shape(folder, image, labels)
    there = [tile.box for tile in folder.tiles if tile.image == image]
    found = sorted(labels.occupied(shape, side), key=lambda item: -item[1])
    if not found:
        raise InputError(f"The labels '{labels.name}' hold no nuclei: give a number for each, or outlines.")
    parts = [part for cell, _ in found for part in _free_parts(cell, there)]
    whole = {cell for cell, _ in found}
    rests = [part for part in parts if part not in whole][:most]
    with_nuclei = {rest for rest, seen in zip(rests, labels.read(rests), strict=True) if seen.instance.any()}
    free = [part for part in parts if part in whole or part in with_nuclei]
    return Plan(sorted(free[:most]), len(free[most:]))


def _free_parts(cell: Box, tiles: Sequence[Box]) -> list[Box]:
    """Cut a cell into rectangles that no tile covers, without those that are too small."""
    parts = [cell]
    for tile in tiles:
        parts = [rest for part in parts for rest in (_beside(part, tile) if _overlap(part, tile) else [part])]
    return [part for part in parts if part == cell or min(part.shape) >= LEAST]


def _beside(part: Box, tile: Box) -> list[Box]:
    """Return what is above, below, left and right of a tile."""
    common = part.intersect(tile)
    rests = [
        Box(part.y0, part.x0, common.y0, part.x1),
        Box(common.y1, part.x0, part.y1, part.x1),
        Box(common.y0, part.x0, common.y1, common.x0),
        Box(common.y0, common.x1, common.y1, part.x1),
    ]
    return [rest for rest in rests if rest.area]


def import_labels(
    folder: ProjectFolder, image: int, labels: ForeignLabels, boxes: Sequence[Box], *, complete: bool = True
) -> Iterator[Imported]:
    """Bring labels into new tiles, one after the other; each is on the disk when it is yielded.

    Nothing that is there is changed, but for classes that the project has not, which are added to it.

    Parameters
    ----------
    folder : ProjectFolder
        Open for writing.
    image : int
        Index of the image that they belong to.
    labels : ForeignLabels
    boxes : sequence of Box
        Tiles to make, in pixels of level 0; see `plan_tiles`.
    complete : bool
        Whether every nucleus of a tile is labeled, so that the rest is background; otherwise only what is labeled
        counts. Where the labels say in which regions nuclei were looked for, the rest of these is background, and a
        tile that reaches out of them is sparse.

    Yields
    ------
    Imported

    Raises
    ------
    InputError
        If the labels are of another image, a tile cannot be made, or a file is broken.
    """
    _checked_shape(folder, image, labels)
    values = _values_of(folder, labels.class_names)
    for box, painted in zip(boxes, labels.read(boxes), strict=True):
        tile = folder.add_tile(image, box)
        seen = _inside(painted, box, tile.box)
        classes = values[seen.classes]
        if complete and seen.known is not None:
            classes[seen.known & (seen.instance == 0)] = BACKGROUND
        folder.write_annotation(tile.id, seen.instance, classes)
        everywhere = complete and (seen.known is None or bool(seen.known.all()))
        tile = folder.set_status(tile.id, "complete" if everywhere else "sparse")
        yield Imported(tile, int(np.count_nonzero(np.unique(seen.instance))))


def _inside(painted: Painted, box: Box, kept: Box) -> Painted:
    """Return the part of a rectangle that lies in the image."""
    part = kept.shifted(-box.y0, -box.x0).slices
    known = None if painted.known is None else painted.known[part]
    return Painted(painted.instance[part], painted.classes[part], known)


def _checked_shape(folder: ProjectFolder, image: int, labels: ForeignLabels) -> tuple[int, int]:
    folder.source_path(image)
    source, place = folder.images[image], labels.place
    if source.shape is None:
        raise InputError(f"The size of the image '{source.name}' is not known yet: open it in the project first.")
    if place.shape is not None and tuple(place.shape) != tuple(source.shape):
        raise InputError(
            f"The labels '{labels.name}' are of {place.shape[0]} x {place.shape[1]} pixels and the image "
            f"'{source.name}' has {source.shape[0]} x {source.shape[1]}: give the labels of that image."
        )
    if place.mpp and source.mpp and abs(place.mpp / source.mpp - 1) > _SAME_SIZE:
        raise InputError(
            f"The labels '{labels.name}' are of pixels of {place.mpp:g} µm and those of the image '{source.name}' have "
            f"{source.mpp:g} µm: give the labels of that image."
        )
    return source.shape


def _values_of(folder: ProjectFolder, names: Sequence[str]) -> Any:
    """Return what is painted for "no class" and for each name, which become classes of the project where they are new.

    Names are compared without regard to case. A class by the name of the only one there is no other class.
    """
    known = [spec.name.casefold() for spec in folder.classes]
    new = {name.casefold(): name for name in reversed(names) if name.casefold() not in known}
    if new:
        folder.set_classes(reduce(with_class, reversed(new.values()), folder.classes))
        known += reversed(new)
    return np.array([0, *(known.index(name.casefold()) + BACKGROUND + 1 for name in names)], np.uint8)


def _overlap(first: Box, second: Box) -> bool:
    common = first.intersect(second)
    return common.height > 0 and common.width > 0
