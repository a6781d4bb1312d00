"""Labels of others into a project, as annotations in tiles: what the command line, the dock and Python call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from napari_semiseg.app.import_plan import holds_nothing, require_same_image
from napari_semiseg.blocks import Box
from napari_semiseg.errors import InputError
from napari_semiseg.io.foreign_labels import ForeignLabels, Painted
from napari_semiseg.project.folder import ProjectFolder
from napari_semiseg.project.schema import Status, Tile, with_class
from napari_semiseg.project.tile_annotation import BACKGROUND, TileAnnotation


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


def import_labels(
    folder: ProjectFolder,
    image: int,
    labels: ForeignLabels,
    boxes: Sequence[Box],
    *,
    fill: Sequence[str] = (),
    complete: bool = True,
) -> Iterator[Imported]:
    """Bring labels into new tiles and empty ones, one after the other; each is on the disk when it is yielded.

    Nothing that is painted is changed. Classes that the project has not are added to it.

    Parameters
    ----------
    folder : ProjectFolder
        Open for writing.
    image : int
        Index of the image that they belong to.
    labels : ForeignLabels
    boxes : sequence of Box
        Tiles to make, in pixels of level 0; see `plan_tiles`.
    fill : sequence of str
        Empty tiles of that image to bring labels into, after the new ones.
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
        If the labels are of another image, a tile cannot be made or is not empty, or a file is broken.
    """
    require_same_image(folder, image, labels)
    values = _values_of(folder, labels.class_names)
    for box, painted in zip(boxes, labels.read(boxes), strict=True):
        tile = folder.add_tile(image, box)
        yield _write(folder, tile, *_annotation(_inside(painted, box, tile.box), values, complete))
    for tile_id, (annotation, status) in zip(
        fill, read_annotations(folder, labels, fill, complete=complete), strict=True
    ):
        tile = folder.tile(tile_id)
        if not holds_nothing(folder, tile):
            raise InputError(f"Tile {tile_id} is not empty any more: nothing was brought into it.")
        yield _write(folder, tile, annotation, status)


def read_annotations(
    folder: ProjectFolder, labels: ForeignLabels, tiles: Sequence[str], *, complete: bool = True
) -> Iterator[tuple[TileAnnotation, Status]]:
    """Read what labels say of tiles that are there, and the status that makes a tile of each; nothing is painted.

    Classes that the project has not are added to it.

    Raises
    ------
    InputError
        If there is no such tile, or a file is broken.
    """
    values = _values_of(folder, labels.class_names)
    for painted in labels.read([folder.tile(tile_id).box for tile_id in tiles]):
        yield _annotation(painted, values, complete)


def _annotation(painted: Painted, values: Any, complete: bool) -> tuple[TileAnnotation, Status]:
    classes = values[painted.classes]
    if complete and painted.known is not None:
        classes[painted.known & (painted.instance == 0)] = BACKGROUND
    everywhere = complete and (painted.known is None or bool(painted.known.all()))
    return TileAnnotation(painted.instance, classes), "complete" if everywhere else "sparse"


def _write(folder: ProjectFolder, tile: Tile, annotation: TileAnnotation, status: Status) -> Imported:
    folder.write_annotation(tile.id, annotation.instance, annotation.classes)
    return Imported(folder.set_status(tile.id, status), int(np.count_nonzero(np.unique(annotation.instance))))


def _inside(painted: Painted, box: Box, kept: Box) -> Painted:
    """Return the part of a rectangle that lies in the image."""
    part = kept.shifted(-box.y0, -box.x0).slices
    known = None if painted.known is None else painted.known[part]
    return Painted(painted.instance[part], painted.classes[part], known)


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
