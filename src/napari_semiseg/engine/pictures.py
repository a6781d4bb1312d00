"""Pictures for a report, in colors that the color-blind tell apart (Okabe and Ito, 2008)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray

from napari_semiseg.blocks import Box
from napari_semiseg.io.overlay import outlines

RGB = NDArray[np.uint8]
Color = tuple[int, int, int]

YELLOW: Color = (240, 228, 66)
GREEN: Color = (0, 158, 115)
RED: Color = (222, 20, 35)
BLUE: Color = (0, 114, 178)
WHITE: Color = (255, 255, 255)

AGREEMENT: dict[str, Color] = {"both": YELLOW, "prediction only": GREEN, "labels only": RED}
"""What the colors of `agreement` mean: those of the papers' figures."""


def with_frames(image: RGB, boxes: Iterable[Box], color: Color, width: int = 3) -> RGB:
    """Draw the frames of rectangles, `width` pixels wide and inside them, on a copy of an (h, w, 3) image."""
    drawn = image.copy()
    for box in boxes:
        inner = box.grown(-width)
        frame = np.zeros(image.shape[:2], bool)
        frame[box.slices] = True
        if inner.height > 0 and inner.width > 0:
            frame[inner.slices] = False
        drawn[frame] = color
    return drawn


def in_colors(confidence: NDArray[np.uint8]) -> RGB:
    """Show confidence, (h, w) uint8, in a map of perceptually even steps: dark is 0, bright is 1."""
    colored: RGB = colormaps["viridis"](confidence, bytes=True)[..., :3]
    return colored


def with_contours(image: RGB, labels: NDArray[np.uint32]) -> RGB:
    """Draw the outlines of nuclei in yellow on a copy of an (h, w, 3) image."""
    drawn = image.copy()
    drawn[outlines(labels)] = YELLOW
    return drawn


def agreement(predicted: NDArray[np.bool_], truth: NDArray[np.bool_], image: RGB, opacity: float = 0.65) -> RGB:
    """Color a copy of an image by how a prediction compares with the truth: see `AGREEMENT`.

    Parameters
    ----------
    predicted, truth : ndarray, (h, w), bool
    image : ndarray, (h, w, 3), uint8
    opacity : float, in [0, 1]
        Of the colors.
    """
    drawn = image.astype(np.float32)
    for mask, color in ((predicted & truth, YELLOW), (predicted & ~truth, GREEN), (~predicted & truth, RED)):
        drawn[mask] += opacity * (np.array(color, np.float32) - drawn[mask])
    return drawn.round().astype(np.uint8)


def side_by_side(pictures: Sequence[RGB], gap: int = 8) -> RGB:
    """Put pictures in a row, top-aligned, with white between and below them."""
    height = max(picture.shape[0] for picture in pictures)
    width = sum(picture.shape[1] for picture in pictures) + gap * (len(pictures) - 1)
    row: RGB = np.full((height, width, 3), WHITE, np.uint8)
    x = 0
    for picture in pictures:
        row[: picture.shape[0], x : x + picture.shape[1]] = picture
        x += picture.shape[1] + gap
    return row


def enlarged(picture: RGB, factor: int) -> RGB:
    """Repeat every pixel `factor` times in both directions, so that single pixels can be seen."""
    return picture.repeat(factor, 0).repeat(factor, 1)
