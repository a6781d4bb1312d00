"""Which step's network a run keeps: the newest that is not worse than the best one by more than chance.

A few validation tiles cannot tell steps apart: with one tile, the highest of thirty scores was that of a network that
had hardly begun to learn. See `docs/decisions/which-step-is-kept.md`.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import sqrt

CHANCE = 0.1
"""By how much two networks of one run may differ in Dice on a full tile though they are equally good."""
FULL = 30
"""Nuclei of a full tile: about as many as a field of 250 x 250 holds at 40x. The fewer a tile holds, the more
a score on it is chance."""


def full_tiles(nuclei: Iterable[int]) -> float:
    """Return how many full tiles some tiles are worth as judges, by how many nuclei each holds.

    Examples
    --------
    >>> full_tiles([30, 80, 15])
    2.5
    """
    return sum(min(max(count, 1), FULL) / FULL for count in nuclei)


def is_kept(dice: float, highest: float, tiles: float) -> bool:
    """Say whether a network takes the place of the one that was kept before.

    Parameters
    ----------
    dice : float, in [0, 1]
        Its mean Dice on the validation tiles.
    highest : float
        The highest mean so far on the same tiles, of whatever step; -inf before the first.
    tiles : float, > 0
        Chance shrinks with the root of their number, as `full_tiles` counts them.

    Examples
    --------
    >>> is_kept(0.75, 0.8, tiles=1), is_kept(0.75, 0.8, tiles=9)
    (True, False)
    """
    return dice >= highest - chance(tiles)


def chance(tiles: float) -> float:
    """Return by how much the mean Dice on so many tiles may differ by chance: `CHANCE` with one, 0.05 with four."""
    return CHANCE / sqrt(tiles)
