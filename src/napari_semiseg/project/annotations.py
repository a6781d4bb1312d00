"""Annotations as the rest of the program asks for them: read, turned into training labels, hashed, compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from napari_semiseg.blocks import Box
from napari_semiseg.errors import InputError
from napari_semiseg.project.schema import ImageSource, Tile
from napari_semiseg.project.tile_annotation import BACKGROUND, PROPOSED_AS, UNPAINTED, TileAnnotation
from napari_semiseg.project.tile_files import load
from napari_semiseg.project.tiles import overlapping, validation_tiles

__all__ = [
    "Annotated",
    "Conflict",
    "TileAnnotation",
    "conflicts",
    "digests",
    "leave_out",
    "load_annotation",
    "tile_digest",
    "training_labels",
]

IGNORE = 255
"""A pixel of which nothing is known, as in tensors (`data` is above this layer)."""


class Annotated(Protocol):
    """What is needed of a project folder here."""

    @property
    def tiles(self) -> Sequence[Tile]:
        """All tiles."""
        ...

    @property
    def images(self) -> Sequence[ImageSource]:
        """All images."""
        ...

    def tile(self, tile_id: str) -> Tile:
        """Return a tile."""
        ...

    def tile_folder(self, tile_id: str) -> Path:
        """Return where a tile's files lie."""
        ...


def load_annotation(folder: Annotated, tile_id: str) -> TileAnnotation:
    """Read what is painted in a tile now: the newest snapshot and the strokes since.

    May be called from any process, also while another one paints. What that one painted within the last second may be
    missing, never a part of a stroke.

    Parameters
    ----------
    folder : ProjectFolder
    tile_id : str

    Returns
    -------
    TileAnnotation
        The caller's own.

    Raises
    ------
    InputError
        If there is no such tile or its files cannot be read.
    """
    return load(folder.tile_folder(tile_id), folder.tile(tile_id).box.shape).annotation


def training_labels(tile: Tile, annotation: TileAnnotation, *, classes: int | None = None) -> NDArray[np.uint8]:
    """Turn an annotation into what a loss is given.

    Parameters
    ----------
    tile : Tile
        Its status says what unpainted pixels are: ignored in a sparse tile, background in a complete one. In an empty
        or excluded one everything is ignored.
    annotation : TileAnnotation, (h, w)
        Where a pixel has a class, the class counts; a nucleus without one is of the first class. What is proposed
        and was not accepted is ignored, also in a complete tile.
    classes : int, optional
        Number of classes of nuclei, to check against.

    Returns
    -------
    array, (h, w), uint8
        0 background, 1 and up the classes of nuclei, 255 to be ignored.

    Raises
    ------
    InputError
        If the annotation has another size than the tile, or a class that the project lacks.
    """
    if annotation.shape != tile.box.shape:
        raise InputError(f"The annotation of tile {tile.id} has another size than the tile: draw the tile again.")
    largest = PROPOSED_AS if classes is None else classes + 1
    found = int(annotation.classes.max(initial=0, where=~annotation.undecided))
    if found > largest:
        raise InputError(
            f"Tile {tile.id} holds class {found}, which the project does not have: add the class or paint it over."
        )
    if not tile.used:
        return np.full(tile.box.shape, IGNORE, np.uint8)
    unpainted = IGNORE if tile.status == "sparse" else 0
    of_class = np.arange(256, dtype=np.int16) - BACKGROUND
    of_class[UNPAINTED] = unpainted
    of_class[PROPOSED_AS:] = IGNORE
    labels = of_class.astype(np.uint8)[annotation.classes]
    labels[(annotation.classes == UNPAINTED) & (annotation.instance > 0)] = 1
    return labels


def leave_out(label: NDArray[np.uint8], tile: Tile, others: Sequence[Tile]) -> bool:
    """Ignore what of a tile lies on other tiles, as on excluded ones.

    Parameters
    ----------
    label : array, (h, w), uint8
        What `training_labels` returned for the tile; changed in place.
    tile : Tile
    others : sequence of Tile
        Of any image.

    Returns
    -------
    bool
        Whether anything was known there.
    """
    known = False
    for other in others:
        if overlapping(tile, other):
            part = _part(label, tile, tile.box.intersect(other.box))
            known = known or bool((part != IGNORE).any())
            part[...] = IGNORE
    return known


def tile_digest(tile: Tile, annotation: TileAnnotation | None = None, *, judges: bool = False) -> str:
    """Hash what a run may learn from a tile, or judge itself by.

    Parameters
    ----------
    tile : Tile
    annotation : TileAnnotation, (h, w), optional
        Left out for an excluded tile, of which its place alone counts.
    judges : bool
        Whether the tile is one of the `validation_tiles`.

    Returns
    -------
    str
        BLAKE2b of 16 bytes in hexadecimal, of its place, its status, its part in validation and every painted pixel. It
        does not depend on how the annotation is stored, nor on the order in which it was painted.
    """
    facts = [tile.image, list(tile.box), tile.status, judges]
    total = hashlib.blake2b(json.dumps(facts).encode("ascii"), digest_size=16)
    if annotation is not None:
        total.update(np.ascontiguousarray(annotation.instance, "<u4").tobytes())
        total.update(np.ascontiguousarray(annotation.classes).tobytes())
    return total.hexdigest()


def digests(folder: Annotated) -> dict[str, str]:
    """Hash each tile in use, or excluded, as it is on the disk now: the id of the tile → `tile_digest`."""
    judges = {tile.id for tile in validation_tiles(folder.tiles)}
    used = {
        tile.id: tile_digest(tile, load_annotation(folder, tile.id), judges=tile.id in judges)
        for tile in folder.tiles
        if tile.used
    }
    return used | {tile.id: tile_digest(tile) for tile in folder.tiles if tile.status == "excluded"}


@dataclass(frozen=True)
class Conflict:
    """Two tiles that say different things of the same pixels.

    Attributes
    ----------
    first, second : str
        Ids of the tiles.
    image : int
        Index of their image.
    box : Box
        The smallest rectangle around the pixels, in pixels of level 0.
    pixels : int
        How many.
    """

    first: str
    second: str
    image: int
    box: Box
    pixels: int

    def __str__(self) -> str:
        box = self.box
        return (
            f"Tiles {self.first} and {self.second} disagree on {self.pixels} pixels at rows {box.y0} to {box.y1 - 1}, "
            f"columns {box.x0} to {box.x1 - 1}: correct one of them."
        )


def conflicts(folder: Annotated) -> list[Conflict]:
    """List the overlapping tiles in use whose classes contradict each other.

    Ignored pixels contradict nothing, also those that an excluded tile covers, and neither do different ids of nuclei.

    Returns
    -------
    list of Conflict
        In the order of the tiles.
    """
    used = [tile for tile in folder.tiles if tile.used]
    excluded = [tile for tile in folder.tiles if tile.status == "excluded"]
    pairs = [(first, second) for first, second in combinations(used, 2) if overlapping(first, second)]
    labels: dict[str, NDArray[np.uint8]] = {}
    for tile in {tile.id: tile for pair in pairs for tile in pair}.values():
        labels[tile.id] = training_labels(tile, load_annotation(folder, tile.id))
        leave_out(labels[tile.id], tile, excluded)
    found = (_conflict(first, second, labels) for first, second in pairs)
    return [conflict for conflict in found if conflict is not None]


def _conflict(first: Tile, second: Tile, labels: dict[str, NDArray[np.uint8]]) -> Conflict | None:
    common = first.box.intersect(second.box)
    a, b = (_part(labels[tile.id], tile, common) for tile in (first, second))
    differs = (a != b) & (a != IGNORE) & (b != IGNORE)
    rows, columns = np.nonzero(differs)
    if rows.size == 0:
        return None
    box = Box(int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1).shifted(
        common.y0, common.x0
    )
    return Conflict(first.id, second.id, first.image, box, int(rows.size))


def _part(array: NDArray[Any], tile: Tile, box: Box) -> NDArray[Any]:
    return array[box.shifted(-tile.box.y0, -tile.box.x0).slices]
