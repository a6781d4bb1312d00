"""What is known of the image that a person looks at, before anything is done with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MPP_RANGE = (0.01, 100.0)
"""Pixel sizes that a microscope can have, in µm; others are taken for a mistake and asked about."""


@dataclass(frozen=True)
class Slide:
    """An image in view, whether or not it can be used.

    Attributes
    ----------
    name : str
    shape : (int, int)
        Rows and columns of level 0; (0, 0) where there is a problem.
    channels : int
        1, 3 or 4.
    mpp : float or None
        Size of a pixel of level 0, in µm; None where nobody said.
    path : str
        The file it was opened from; "" for one that exists only in memory.
    nbytes : int
        Size of level 0, uncompressed.
    problem : str
        Why it cannot be used, and what to do, in one sentence; "" if it can.
    """

    name: str
    shape: tuple[int, int] = (0, 0)
    channels: int = 1
    mpp: float | None = None
    path: str = ""
    nbytes: int = 0
    problem: str = ""

    @property
    def facts(self) -> str:
        """Name, pixel size and size in one line."""
        if self.problem:
            return self.name
        size = "" if self.mpp is None else f"{self.mpp:.4g} µm/px · "
        return f"{self.name} · {size}{side_text(self.shape[1])} × {side_text(self.shape[0])} px"


def examine(
    name: str,
    shapes: Sequence[tuple[int, ...]],
    dtype: Any,
    *,
    rgb: bool,
    mpp: float | None,
    path: str,
) -> Slide:
    """Say of an image layer whether it can be used.

    Parameters
    ----------
    name : str
    shapes : sequence of tuple of int
        Shape of every level, finest first.
    dtype : numpy dtype
    rgb : bool
        Whether the last axis is color.
    mpp : float or None
        Pixel size that the layer names, in µm.
    path : str
        The file it came from, or "".
    """
    shape = tuple(shapes[0])
    if any(isinstance(side, float) and math.isnan(side) for side in shape):
        return Slide(name, path=path, problem=f"“{name}” does not know its own size yet: compute it first.")
    if 0 in shape:
        return Slide(name, path=path, problem=f"“{name}” is empty: choose another image.")
    problem = _problem(name, shape, rgb)
    if not problem and dtype.kind not in "buif":
        problem = f"“{name}” holds {dtype} values, which are no gray values: convert it to whole or real numbers."
    if problem:
        return Slide(name, path=path, problem=problem)
    channels = shape[2] if rgb else 1
    size = (int(shape[0]), int(shape[1]))
    return Slide(name, size, int(channels), mpp, path, size[0] * size[1] * int(channels) * dtype.itemsize)


def _problem(name: str, shape: tuple[int, ...], rgb: bool) -> str:
    if rgb:
        shape = shape[:-1]
    if len(shape) == 2:
        return ""
    if len(shape) < 2:
        return f"“{name}” is a single line of pixels: choose an image with rows and columns."
    if len(shape) == 3 and (shape[0] <= 16 or shape[-1] <= 16):
        count = shape[0] if shape[0] <= shape[-1] else shape[-1]
        return (
            f"“{name}” has {count} planes or channels in one layer: right-click the layer, choose “Split Stack”, "
            "and select the one that shows the nuclei."
        )
    return f"“{name}” is a volume or a time series ({' × '.join(map(str, shape))}): open one plane of it as an image."


def side_text(pixels: int) -> str:
    """Return a number of pixels as people say it.

    Examples
    --------
    >>> side_text(61_440), side_text(1_024)
    ('61k', '1024')
    """
    return f"{pixels / 1000:.0f}k" if pixels >= 10_000 else str(pixels)


def usual_project_path(slide: Slide, home: Path) -> Path:
    """Return where a project of an image lies unless its user says otherwise: beside the file, or at `home`."""
    if slide.path and "://" not in slide.path:
        path = Path(slide.path)
        return path.with_name(f"{path.name.split('.')[0] or 'image'}.semiseg")
    clean = "".join(c if c.isalnum() or c in " -_()" else "_" for c in slide.name).strip() or "image"
    return home / f"{clean[:80]}.semiseg"
