"""Where labels of others are brought in, and which of their nuclei are left out, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from napari_semiseg.app.words import count
from napari_semiseg.blocks import Box
from napari_semiseg.errors import InputError
from napari_semiseg.io.foreign_labels import ForeignLabels, Painted
from napari_semiseg.project.folder import ProjectFolder
from napari_semiseg.project.schema import Tile

SIDE = 512
"""Side of a tile that labels are brought into, in pixels, where none is there yet."""

MOST = 64
"""Most tiles that one import makes, unless more are asked for: those with most nuclei."""

LEAST = 64
"""Least side of what is left of a cell beside tiles that are there: a smaller one holds nuclei that are cut."""

LABELED, EXCLUDED, COVERED, NARROW = "labeled", "excluded", "covered", "narrow"
"""Why a nucleus is left out."""

_REASONS = {
    LABELED: "in tiles that are labeled already and {were} left out: remove those tiles first to bring {them} in.",
    EXCLUDED: "in excluded tiles and {were} left out.",
    COVERED: "in empty tiles that overlap labeled ones and {were} left out: remove those empty tiles first to bring "
    "{them} in.",
    NARROW: f"where less than {LEAST} pixels are free beside tiles and {{were}} left out: a tile there is yours to "
    "paint.",
}
_MARGIN = 64  # pixels around a rectangle, so that nuclei at its border are seen whole
_AT_ONCE = 64  # rectangles that are read together
_SAME_SIZE = 0.02  # part by which two pixel sizes may differ and mean the same


@dataclass(frozen=True)
class Plan:
    """Where labels are to be brought in.

    Attributes
    ----------
    boxes : list of Box
        Tiles to make, in pixels of level 0.
    left_out : int
        Further places that hold nuclei, beyond the most that were asked for.
    fill : list of str
        Empty tiles that are there and lie on nuclei.
    nuclei_left_out : mapping of str to int
        Nuclei that lie in neither, nor in those further places, by the reason: `LABELED`, `EXCLUDED`, `COVERED` or
        `NARROW`.
    """

    boxes: list[Box]
    left_out: int
    fill: list[str] = field(default_factory=list)
    nuclei_left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        """Whether nothing is to be brought in."""
        return not self.boxes and not self.fill

    @property
    def words(self) -> str:
        """What was left out, in sentences; "" for nothing."""
        said = []
        if self.left_out:
            there = len(self.boxes) + self.left_out
            said += [
                f"These are the {len(self.boxes)} fullest of {there} places with nuclei, the others were left out."
            ]
        return " ".join([*said, *(_lie(self.nuclei_left_out[why], _REASONS[why]) for why in self.nuclei_left_out)])


def plan_tiles(folder: ProjectFolder, image: int, labels: ForeignLabels, *, side: int = SIDE, most: int = MOST) -> Plan:
    """Choose where labels are to be brought in: empty tiles on them, and cells that hold nuclei, the fullest first.

    Of a cell that a tile covers in part the rest is taken, as rectangles. An empty tile that overlaps a labeled one,
    which may be kept for validation, stays empty: otherwise the two could contradict each other.

    Parameters
    ----------
    folder : ProjectFolder
    image : int
        Index of the image, whose shape is known.
    labels : ForeignLabels
    side : int
        Side of a new tile, in pixels.
    most : int
        New tiles, at most.

    Raises
    ------
    InputError
        If the labels are of another image, or hold no nuclei.
    """
    shape = require_same_image(folder, image, labels)
    found = sorted(labels.occupied(shape, side), key=lambda item: -item[1])
    if not found:
        raise InputError(f"The labels '{labels.name}' hold no nuclei: give a number for each, or outlines.")
    whole = {cell for cell, _ in found}
    there = _tiles_by_use(folder, image)
    pieces = [piece for cell, _ in found for piece in _cut(cell, [(tile.box, why) for tile, why in there])]
    parts = [part for part, why in pieces if not why]
    rests = [part for part in parts if part not in whole]
    with_nuclei = set(_with_nuclei(labels, rests))
    free = [part for part in parts if part in whole or part in with_nuclei]
    to_fill = [tile for tile, why in there if why == _FILLED]
    seen = set(_with_nuclei(labels, [tile.box for tile in to_fill]))
    return Plan(
        boxes=sorted(free[:most]),
        left_out=len(free[most:]),
        fill=[tile.id for tile in to_fill if tile.box in seen],
        nuclei_left_out=_count(labels, [(part, why) for part, why in pieces if why in _REASONS], shape),
    )


def holds_nothing(folder: ProjectFolder, tile: Tile) -> bool:
    """Whether a tile is empty, and nothing is painted or proposed in it. One that cannot be read may hold anything."""
    if tile.status != "empty":
        return False
    try:
        annotation = folder.newest_annotation(tile.id)
    except InputError:
        return False
    return not (annotation.instance.any() or annotation.classes.any())


def require_same_image(folder: ProjectFolder, image: int, labels: ForeignLabels) -> tuple[int, int]:
    """Return rows and columns of an image.

    Raises
    ------
    InputError
        If they are not known, or the labels are of another image.
    """
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


# ---- cutting cells ----

_FILLED = "filled"  # the place of an empty tile: what lies there is brought in


def _tiles_by_use(folder: ProjectFolder, image: int) -> list[tuple[Tile, str]]:
    """Return the tiles of an image, each with what becomes of nuclei in it; those that are filled come first."""
    tiles = [tile for tile in folder.tiles if tile.image == image]
    empty = {tile.id for tile in tiles if holds_nothing(folder, tile)}
    labeled = [tile.box for tile in tiles if tile.id not in empty and tile.status != "excluded"]

    def use(tile: Tile) -> str:
        if tile.id in empty:
            return COVERED if any(_overlap(tile.box, box) for box in labeled) else _FILLED
        return EXCLUDED if tile.status == "excluded" else LABELED

    order = (_FILLED, LABELED, EXCLUDED, COVERED)
    return sorted(((tile, use(tile)) for tile in tiles), key=lambda item: order.index(item[1]))


def _cut(cell: Box, tiles: Sequence[tuple[Box, str]]) -> list[tuple[Box, str]]:
    """Cut a cell into rectangles that do not overlap, each with what becomes of nuclei in it; "" where it is free."""
    free, pieces = [cell], []
    for tile, use in tiles:
        pieces += [(part.intersect(tile), use) for part in free if _overlap(part, tile)]
        free = [rest for part in free for rest in (_beside(part, tile) if _overlap(part, tile) else [part])]
    return pieces + [(part, "" if part == cell or min(part.shape) >= LEAST else NARROW) for part in free]


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


def _overlap(first: Box, second: Box) -> bool:
    common = first.intersect(second)
    return common.height > 0 and common.width > 0


# ---- counting nuclei ----


def _with_nuclei(labels: ForeignLabels, boxes: Sequence[Box]) -> Iterator[Box]:
    """Return the rectangles in which any pixel is a nucleus."""
    return (box for box, painted in _read(labels, boxes) if painted.instance.any())


def _count(labels: ForeignLabels, pieces: Sequence[tuple[Box, str]], shape: tuple[int, int]) -> dict[str, int]:
    """Count nuclei by what becomes of them. Each counts where its middle lies, so that none counts twice."""
    counts: Counter[str] = Counter()
    around = [piece.grown(_MARGIN).intersect(Box.whole(shape)) for piece, _ in pieces]
    for (piece, why), (seen, painted) in zip(pieces, _read(labels, around), strict=True):
        counts[why] += _middles_in(painted.instance, piece.shifted(-seen.y0, -seen.x0))
    return {why: counts[why] for why in _REASONS if counts[why]}


def _middles_in(instance: NDArray[np.uint32], box: Box) -> int:
    around = filter(None, find_objects(instance.astype(np.int64)))
    middles = ((side.start + side.stop) // 2 for sides in around for side in sides)
    return sum(box.y0 <= y < box.y1 and box.x0 <= x < box.x1 for y, x in zip(middles, middles, strict=True))


def _read(labels: ForeignLabels, boxes: Sequence[Box]) -> Iterator[tuple[Box, Painted]]:
    """Read rectangles, some at a time: all of a slide with many tiles would not fit into memory."""
    for first in range(0, len(boxes), _AT_ONCE):
        some = boxes[first : first + _AT_ONCE]
        yield from zip(some, labels.read(some), strict=True)


def _lie(number: int, where: str) -> str:
    one = number == 1
    rest = where.format(were="was" if one else "were", them="it" if one else "them")
    return f"{count(number, 'nucleus', 'nuclei')} {'lies' if one else 'lie'} {rest}"
