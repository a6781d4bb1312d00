"""Integer arithmetic on rectangles: tiles, crops, cells, and the blocks of a prediction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple


class Box(NamedTuple):
    """A half-open rectangle in pixels: rows ``y0 <= y < y1``, columns ``x0 <= x < x1``."""

    y0: int
    x0: int
    y1: int
    x1: int

    @property
    def height(self) -> int:
        """Number of rows."""
        return self.y1 - self.y0

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.x1 - self.x0

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.height, self.width

    @property
    def area(self) -> int:
        """Number of pixels; 0 for an empty or inverted rectangle."""
        return max(0, self.height) * max(0, self.width)

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the rectangle in an array whose first axes are rows and columns."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def shifted(self, dy: int, dx: int) -> Box:
        """Return the rectangle moved by `dy` rows and `dx` columns."""
        return Box(self.y0 + dy, self.x0 + dx, self.y1 + dy, self.x1 + dx)

    def grown(self, margin: int) -> Box:
        """Return the rectangle with `margin` pixels added on every side."""
        return Box(self.y0 - margin, self.x0 - margin, self.y1 + margin, self.x1 + margin)

    def middle(self, most: int) -> Box:
        """Return the middle of the rectangle, at most that many pixels wide and high."""
        height, width = min(self.height, most), min(self.width, most)
        y0, x0 = self.y0 + (self.height - height) // 2, self.x0 + (self.width - width) // 2
        return Box(y0, x0, y0 + height, x0 + width)

    def intersect(self, other: Box) -> Box:
        """Return the common part; its `area` is 0 where there is none."""
        return Box(max(self.y0, other.y0), max(self.x0, other.x0), min(self.y1, other.y1), min(self.x1, other.x1))

    def contains(self, other: Box) -> bool:
        """Whether `other` lies inside."""
        return self.y0 <= other.y0 and self.x0 <= other.x0 and other.y1 <= self.y1 and other.x1 <= self.x1

    @classmethod
    def whole(cls, shape: tuple[int, ...]) -> Box:
        """Return the rectangle of an array of that shape (first two axes)."""
        return cls(0, 0, int(shape[0]), int(shape[1]))


@dataclass(frozen=True)
class Block:
    """A unit of prediction.

    Attributes
    ----------
    index : int
        Number in row-major order, from 0.
    keep : Box
        The part whose result is written. Kept parts cover the image exactly once.
    read : Box
        The part the network sees: `keep` with the halo. It may reach outside the image, where the reader pads.
    """

    index: int
    keep: Box
    read: Box


def cells(shape: tuple[int, int], size: int) -> list[Box]:
    """Cut an image row-major into cells.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of the image, in pixels.
    size : int
        Side of a cell, in pixels, at least 1. The last row and column of cells hold what is left and may be smaller;
        an image smaller than `size` is one cell.

    Returns
    -------
    list of Box
        They cover the image exactly once.
    """
    height, width = shape
    return [
        Box(y, x, min(y + size, height), min(x + size, width))
        for y in range(0, height, size)
        for x in range(0, width, size)
    ]


def plan_blocks(shape: tuple[int, int], *, size: int, halo: int, stride: int = 1) -> Iterator[Block]:
    """Plan the blocks of a prediction.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of the image, in pixels.
    size : int
        Side of the kept part, in pixels; a multiple of `stride`.
    halo : int
        Pixels read beyond the kept part on every side; rounded up to a multiple of `stride`.
    stride : int
        The network's stride: all read origins, and the sides of all read parts, are multiples of it, so that every
        block samples the same grid as the whole image would.

    Yields
    ------
    Block
        In row-major order. All read parts have the same alignment; those at the image's border reach outside.

    Raises
    ------
    ValueError
        If `size` is not a positive multiple of `stride`.
    """
    if size <= 0 or size % stride:
        raise ValueError(f"block size {size} is not a positive multiple of the network's stride {stride}")
    margin = -(-halo // stride) * stride
    for index, keep in enumerate(cells(shape, size)):
        bottom = -(-keep.y1 // stride) * stride
        right = -(-keep.x1 // stride) * stride
        yield Block(index, keep, Box(keep.y0 - margin, keep.x0 - margin, bottom + margin, right + margin))
