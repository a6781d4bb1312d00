"""One look inside a method, over a rectangle of an image at the pixel size that it works with."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from napari_semiseg.blocks import Box
from napari_semiseg.data.batch import IGNORE
from napari_semiseg.data.sources import LabeledRegion
from napari_semiseg.engine.infer import at_image, evaluating
from napari_semiseg.engine.looks import IDEAS, Seen
from napari_semiseg.errors import InputError
from napari_semiseg.io.diagnostics import Look, Place
from napari_semiseg.io.rescale import Readable, Rescaled
from napari_semiseg.methods._base import Method

LARGEST = 1024
"""Side of the largest rectangle that is looked at, in pixels of the network: the middle of what is asked for."""
GRID = 8
"""Sides are multiples of this, and of the network's divisor: pairs of crops are cut on such a grid."""
KEPT = 12
"""Looks kept in a run folder: each is read at once, and can be had again."""


@dataclass(frozen=True)
class Subject:
    """What is looked at.

    Attributes
    ----------
    method : Method
    device : torch.device
    image : Readable
    shape : (int, int)
        Of the image, in its own pixels.
    scale : float
        Network pixels per image pixel.
    truth : iterable of LabeledRegion
        Of this image.
    step : int
        How many steps the method has learned.
    """

    method: Method
    device: torch.device
    image: Readable
    shape: tuple[int, int]
    scale: float = 1.0
    truth: Iterable[LabeledRegion] = ()
    step: int = 0


def look_inside(subject: Subject, show: str, box: Box | None = None, seed: int = 0) -> Look:
    """Look inside.

    Parameters
    ----------
    subject : Subject
    show : str
        Name of an idea (`IDEAS`).
    box : Box, optional
        In pixels of the image; the whole of it by default. Of a large one, the middle.
    seed : int
        Of whatever is drawn. The random state of the process is left as it was.

    Raises
    ------
    InputError
        If there is no such idea, or nothing to see by it here.
    """
    idea = IDEAS.get(show)
    if idea is None:
        raise InputError(f"There is nothing called '{show}' to look at: choose of {', '.join(IDEAS)}.")
    whole = Box.whole(subject.shape)
    area = whole if box is None else box.intersect(whole)
    if not area.area:
        raise InputError("The rectangle to look at lies outside the image: choose one that meets it.")
    shown = _on_grid(area, subject)
    pixels = subject.image if subject.scale == 1.0 else Rescaled(subject.image, subject.scale)
    image = torch.from_numpy(pixels.read(shown)).to(subject.device).permute(2, 0, 1)[None].float() / 255
    truth = _truth(subject, shown)
    with torch.no_grad(), torch.random.fork_rng(devices=[]), evaluating(subject.method):
        torch.manual_seed(seed)
        predictor = at_image(subject.method.predictor(), subject.image, subject.scale)
        found = idea.look(Seen(subject.method, image, truth, predictor))
    pixel = 1 / subject.scale
    place = Place(shown.y0 * pixel, shown.x0 * pixel, shown.height, shown.width, pixel)
    return Look(show, subject.step, place, found.maps, found.numbers)


def make_room(folder: Path) -> None:
    """Remove the oldest looks of a run folder."""
    looks = sorted(folder.glob("*.npz"), key=lambda path: path.stat().st_mtime)
    for path in looks[: max(0, len(looks) - KEPT)]:
        path.unlink(missing_ok=True)


def _on_grid(area: Box, subject: Subject) -> Box:
    """Return what the network is shown, in its pixels: inside the rectangle, or a cell of the grid where that is less.

    It may then reach outside the image, which goes on there as its mirror image.
    """
    unit = math.lcm(GRID, int(getattr(subject.method.predictor(), "divisor", 1)))
    ends = []
    for low, high in ((area.y0, area.y1), (area.x0, area.x1)):
        first, last = round(low * subject.scale), round(high * subject.scale)
        side = max(unit, min(last - first, LARGEST) // unit * unit)
        start = first + max(0, last - first - side) // 2
        ends.append((start, start + side))
    (y0, y1), (x0, x1) = ends
    return Box(y0, x0, y1, x1)


def _truth(subject: Subject, shown: Box) -> NDArray[np.uint8] | None:
    """Return the labels of what is shown, by the pixel that each center lies in; None where there are none."""
    truth = np.full(shown.shape, IGNORE, np.uint8)
    rows, columns = (
        np.floor((np.arange(low, high) + 0.5) / subject.scale).astype(int)
        for low, high in ((shown.y0, shown.y1), (shown.x0, shown.x1))
    )
    for region in subject.truth:
        box = region.box
        here = np.ix_((rows >= box.y0) & (rows < box.y1), (columns >= box.x0) & (columns < box.x1))
        inside = rows[here[0][:, 0]] - box.y0, columns[here[1][0]] - box.x0
        truth[here] = region.label[np.ix_(*inside)]
    return None if bool((truth == IGNORE).all()) else truth
