"""Rules about sets of tiles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from napari_semiseg.project.schema import Tile

ONE_IN = 4
"""From this many complete tiles on, one in this many is set aside for validation."""


def validation_tiles(tiles: Iterable[Tile]) -> list[Tile]:
    """Choose the tiles that a run judges itself by and does not learn from.

    A complete tile whose role is `validation` is one, and one whose role is `training` is none: that is the user's
    word. Of the others, going through all complete tiles in the order of their ids, every fourth is taken (or, where
    the user's own choice already makes one in four, none). So a tile that is added later never changes what was
    chosen before, and a tile is set aside before anything has learned from it. A tile that overlaps another one in
    use is passed over for the next: its pixels would be learned from.

    Parameters
    ----------
    tiles : iterable of Tile
        In any order; only complete ones count.

    Returns
    -------
    list of Tile
        In the order of their ids. Empty with fewer than four complete tiles, unless the user chose some: such a run
        cannot judge itself, and should say so.
    """
    every = sorted(tiles, key=_in_order)
    complete = [tile for tile in every if tile.status == "complete"]
    in_use = [tile for tile in every if tile.used]
    taken = sum(tile.role == "validation" for tile in complete)
    chosen: list[Tile] = []
    for count, tile in enumerate(complete, start=1):
        if tile.role == "validation":
            chosen.append(tile)
        elif tile.role == "auto" and taken < count // ONE_IN and not _overlaps_any(tile, in_use):
            chosen.append(tile)
            taken += 1
    return chosen


def overlapping(first: Tile, second: Tile) -> bool:
    """Whether two tiles share pixels."""
    return first.image == second.image and first.box.intersect(second.box).area > 0


def _overlaps_any(tile: Tile, others: Sequence[Tile]) -> bool:
    return any(other.id != tile.id and overlapping(tile, other) for other in others)


def _in_order(tile: Tile) -> tuple[int, str]:
    """Order t9999 before t10000."""
    return len(tile.id), tile.id
