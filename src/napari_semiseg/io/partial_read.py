"""Looks at an image as a whole that go without the parts that cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from numpy.typing import NDArray

from napari_semiseg.blocks import Box, cells
from napari_semiseg.errors import ReadError

FINEST = 256
"""Side, in pixels, down to which parts that cannot be read are tried in quarters."""
GONE = 32
"""Smallest parts one after the other that cannot be read: then the disk is gone, rather than a part damaged."""


def readable_parts(
    boxes: Iterable[Box],
    read: Callable[[Box], NDArray[Any]],
    leave_out: Callable[[Box], None],
    *,
    finest: float = FINEST,
    step: int = 1,
) -> Iterator[tuple[Box, NDArray[Any]]]:
    """Read parts that together stand for the whole image, and go without what cannot be read.

    A part that cannot be read is tried in quarters.

    Parameters
    ----------
    boxes : iterable of Box
    read : function
        Reads one, and raises `ReadError` where it cannot be read.
    leave_out : function
        Is told what cannot be read at last.
    finest : float
        Side of the smallest quarters.
    step : int
        Corners of quarters are multiples of this.

    Yields
    ------
    box : Box
    pixels : ndarray
        What `read` returns.

    Raises
    ------
    ReadError
        If no part can be read, or so many in a row cannot that the file itself must be gone.
    """
    in_a_row, any_read = 0, False
    failure: ReadError | None = None
    left = list(boxes)[::-1]
    while left:
        box = left.pop()
        try:
            pixels = read(box)
        except ReadError as error:
            failure = error
            if quarters := _quarters(box, step, finest):
                left += quarters[::-1]
                continue
            leave_out(box)
            in_a_row += 1
            if in_a_row == GONE:
                raise
        else:
            in_a_row, any_read = 0, True
            yield box, pixels
    if failure is not None and not any_read:
        raise failure


def _quarters(box: Box, step: int, finest: float) -> list[Box]:
    """Return the quarters of a rectangle, or nothing where it is at most `finest` pixels wide and high."""
    if max(box.shape) <= max(finest, step):
        return []
    half = -(-max(box.shape) // (2 * step)) * step
    return [cell.shifted(box.y0, box.x0) for cell in cells(box.shape, half)]
