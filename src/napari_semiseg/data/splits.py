"""Which cells of a labeled data set a run may see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from napari_semiseg.blocks import Box, cells
from napari_semiseg.errors import InputError


@dataclass(frozen=True)
class Cell:
    """A rectangle cut from an image; `number` counts row-major from 0 within the image."""

    image: int
    stem: str
    number: int
    box: Box

    @property
    def name(self) -> str:
        """``stem#number``, as a list of cells writes it."""
        return f"{self.stem}#{self.number}"


def cut_cells(images: Sequence[tuple[int, str, tuple[int, int]]], size: int) -> list[Cell]:
    """Cut images into cells, image by image and row-major.

    Parameters
    ----------
    images : sequence of (index, stem, shape)
    size : int
        Side of a cell in pixels.
    """
    return [
        Cell(index, stem, number, box) for index, stem, shape in images for number, box in enumerate(cells(shape, size))
    ]


def choose_cells(every: Sequence[Cell], labeled: str | None, seed: int) -> list[Cell]:
    """Draw the cells whose labels a run may see.

    Parameters
    ----------
    every : sequence of Cell
        All cells that have labels.
    labeled : str or None
        A count ("15"), a fraction ("1/32", rounded to the nearest count, at least 1), the path of a text file that
        lists cells (``stem#number``) or whole images (``stem``), one a line; None takes all.
    seed : int
        Fixes the draw.

    Returns
    -------
    list of Cell
        In the order drawn; in the file's order for a file.

    Raises
    ------
    InputError
        If more cells are asked for than there are, or a listed one does not exist.
    """
    if labeled is None:
        return list(every)
    count = count_of(labeled, len(every))
    if count is None:
        return _listed(every, Path(labeled))
    if count > len(every):
        raise InputError(
            f"--labeled {labeled} asks for {count} cells, but the labels hold only {len(every)}: "
            f"ask for at most {len(every)}."
        )
    order = np.random.default_rng([seed, 0xCE11]).permutation(len(every))[:count]
    return [every[index] for index in order]


def set_aside(count: int, share: float) -> int:
    """Return how many of `count` labeled regions are kept for validation: that share from four on, rounded down."""
    return int(count * share) if count >= 4 else 0


def count_of(labeled: str, total: int) -> int | None:
    """Return how many of `total` a count ("15") or a fraction ("1/32") means; None if it is neither.

    Raises
    ------
    InputError
        If it is negative, not whole, or more than all.
    """
    try:
        amount = Fraction(labeled)
    except (ValueError, ZeroDivisionError):
        return None
    if amount < 0 or (amount.denominator == 1 and "." in labeled):
        raise InputError(f"--labeled takes a count, a fraction such as 1/32, or a file, not '{labeled}'.")
    if amount.denominator == 1 and "/" not in labeled:
        return int(amount)
    if amount > 1:
        raise InputError(f"--labeled {labeled} is more than the whole: give a fraction of at most 1.")
    return max(1, round(amount * total)) if amount else 0


def _listed(every: Sequence[Cell], path: Path) -> list[Cell]:
    if not path.is_file():
        raise InputError(
            f"--labeled '{path}' is neither a number, a fraction nor a file: write for example --labeled 15."
        )
    by_name: dict[str, list[Cell]] = {}
    for cell in every:
        by_name.setdefault(cell.stem, []).append(cell)
        by_name.setdefault(cell.name, []).append(cell)
    chosen: dict[Cell, None] = {}
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{path} cannot be read as text: write one stem or stem#number a line, in UTF-8.") from None
    for line in lines:
        name = line.strip()
        if not name or name.startswith("# "):
            continue
        if name not in by_name:
            raise InputError(
                f"'{name}' in {path} is no labeled image or cell: list stems or stem#number, as in {every[0].name}."
            )
        chosen.update(dict.fromkeys(by_name[name]))
    if not chosen:
        raise InputError(f"{path} lists no cell: write one stem or stem#number a line.")
    return list(chosen)
