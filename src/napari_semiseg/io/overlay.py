"""Pictures of an image with the outlines of its nuclei, in colors that people with any color vision tell apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from scipy.ndimage import binary_dilation

from napari_semiseg import atomic
from napari_semiseg.io.ome_metadata import CLASS_COLORS

PALETTE = np.array([[*bytes.fromhex(color)] for color in CLASS_COLORS], np.uint8)
"""RGB of the first class, the second, …; they repeat after the last."""


def outlines(labels: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Return the pixels of nuclei that have a neighbor (of four) with another label. The image's border is none."""
    edge = np.zeros(labels.shape, np.bool_)
    down = labels[1:] != labels[:-1]
    right = labels[:, 1:] != labels[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= right
    edge[:, :-1] |= right
    edge &= labels != 0
    return edge


def draw_outlines(
    rgb: NDArray[np.uint8], labels: NDArray[np.uint32], class_map: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Draw the outlines of nuclei on an image.

    Parameters
    ----------
    rgb : ndarray, uint8, (h, w, 3)
    labels : ndarray, uint32, (h, w)
    class_map : ndarray, uint8, (h, w), optional
        1 for the first class; without it all nuclei have the first color.

    Returns
    -------
    ndarray, uint8, (h, w, 3)
        A new picture. Outlines are one pixel wide and lie on the nuclei, so that touching ones stay apart; the pixels
        around nuclei are half as bright.
    """
    drawn = rgb.copy()
    rim = binary_dilation(labels != 0) & (labels == 0)
    drawn[rim] //= 2  # so that light colors are seen on light tissue
    edge = outlines(labels)
    number = (
        np.zeros(int(edge.sum()), np.intp) if class_map is None else np.maximum(class_map[edge].astype(np.intp) - 1, 0)
    )
    drawn[edge] = PALETTE[number % len(PALETTE)]
    return drawn


def write_png(path: str | Path, picture: NDArray[np.uint8]) -> None:
    """Write a picture as PNG, read it back, and only then give it its name.

    Parameters
    ----------
    path : str or Path
        Replaced if it exists.
    picture : ndarray, uint8, (h, w, 3)

    Raises
    ------
    InputError
        If the disk is full or the place cannot be written.
    """
    with atomic.staged(path) as temporary:
        Pillow.fromarray(picture).save(temporary, format="PNG")
        with Pillow.open(temporary) as written:
            if not np.array_equal(np.asarray(written), picture):
                raise OSError(5, "the disk gave back other pixels")
