"""Rules about sets of tiles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from napari_semiseg.blocks import Box
from napari_semiseg.project.schema import Tile

ONE_IN = 4
"""From this many complete tiles on, one in this many is set aside for validation."""


def validation_tiles(tiles: Iterable[Tile]) -> list[Tile]:
    """Choose the tiles that a run judges itself by and does not learn from.

    A complete tile whose role is `validation` is one, and one whose role is `training` is none: that is the user's
    word. Of the others, those that were chosen before (`settled`) stay, and going through all complete tiles in the
    order of their ids every fourth is taken (or, where one in four is set aside already, none). A tile that overlaps
    another one in use is passed over for the next: its pixels may have been learned from.

    Parameters
    ----------
    tiles : iterable of Tile
        In any order; only complete ones count.

    Returns
    -------
    list of Tile
        In the order of their ids. Empty with fewer than four complete tiles, unless some were chosen: such a run
        cannot judge itself, and should say so.
    """
    every = sorted(tiles, key=_in_order)
    complete = [tile for tile in every if tile.status == "complete"]
    in_use = [tile for tile in every if tile.used]
    taken = sum(_is_set_aside(tile) for tile in complete)
    chosen: list[Tile] = []
    for count, tile in enumerate(complete, start=1):
        if _is_set_aside(tile):
            chosen.append(tile)
        elif tile.role == "auto" and taken < count // ONE_IN and not _overlaps_any(tile, in_use):
            chosen.append(tile)
            taken += 1
    return chosen


def settled(tiles: Sequence[Tile]) -> tuple[Tile, ...]:
    """Write down in the tiles which of them the rule has chosen, so that it stays so whatever is labeled later.

    A chosen tile that is no longer complete keeps its place until the rule chooses another one.

    Parameters
    ----------
    tiles : sequence of Tile

    Returns
    -------
    tuple of Tile
        In the same order.
    """
    new = {tile.id for tile in validation_tiles(tiles) if not _is_set_aside(tile)}
    if not new:
        return tuple(tiles)
    judging = {tile.id for tile in tiles if tile.judges and tile.status == "complete"} | new
    return tuple(tile.model_copy(update={"judges": tile.id in judging}) for tile in tiles)


def judge_at(tiles: Iterable[Tile], image: int, box: Box) -> Tile | None:
    """Return a tile that is set aside for validation and shares pixels with a rectangle; None where there is none."""
    judges = validation_tiles(tiles)
    return next((tile for tile in judges if tile.image == image and tile.box.intersect(box).area), None)


def overlapping(first: Tile, second: Tile) -> bool:
    """Whether two tiles share pixels."""
    return first.image == second.image and first.box.intersect(second.box).area > 0


def _is_set_aside(tile: Tile) -> bool:
    """Whether the user or the rule has chosen a complete tile, and the user has not taken it back."""
    return tile.role == "validation" or (tile.role == "auto" and tile.judges)


def _overlaps_any(tile: Tile, others: Sequence[Tile]) -> bool:
    return any(other.id != tile.id and overlapping(tile, other) for other in others)


def _in_order(tile: Tile) -> tuple[int, str]:
    """Order t9999 before t10000."""
    return len(tile.id), tile.id
