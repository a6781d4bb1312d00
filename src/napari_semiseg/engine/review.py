"""Looking closer at a result: its nuclei by doubt, and what lies in a region. Free of torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from skimage.draw import polygon2mask
from skimage.measure import points_in_poly

from napari_semiseg.blocks import Box, cells
from napari_semiseg.config import Config
from napari_semiseg.engine.control import Control
from napari_semiseg.engine.npy import write_npy
from napari_semiseg.errors import InputError
from napari_semiseg.events import Cancel, Event, Finished, Progressed, Started, Stop, Written
from napari_semiseg.io.images import Image, open_image
from napari_semiseg.io.result import Result
from napari_semiseg.io.stains import OD_PER_UNIT, separated, shows_dab
from napari_semiseg.metrics.entropy import binary_entropy

CELL = 1024
"""Side of what is read at once, in pixels."""
POSITIVE_OD = 0.2
"""Mean optical density of DAB from which a nucleus is positive: the default of QuPath's positive cell detection."""

_ENTROPY = binary_entropy(np.arange(256) / 255)
"""Of each of the 256 confidences, in bits."""
OVERVIEW = 1024
"""Side of the small image in which DAB is looked for, in pixels."""

Values = Callable[[Box], NDArray[np.floating]]


class DoubtfulRequest(Config):
    """The nuclei of a result that are most in doubt."""

    source: str = Field(min_length=1, description="A result (.ome.zarr).")
    out: str = Field(min_length=1, description="File (.npy) for the table.")
    n: int = Field(200, ge=1, le=100_000, description="How many nuclei at most.")


class RegionRequest(Config):
    """What lies in a region of a result."""

    source: str = Field(min_length=1, description="A result (.ome.zarr).")
    polygon: tuple[tuple[float, float], ...] = Field(
        min_length=3, max_length=100_000, description="Corners (y, x), in pixels of the image."
    )
    image: str = Field("", description="The image, for the share of nuclei that DAB stains; without it none is told.")
    positive_od: float = Field(
        POSITIVE_OD, gt=0, le=3, description="Mean optical density of DAB of a positive nucleus."
    )


def doubtful_from_args(args: dict[str, Any], control: Control) -> Iterator[Event]:
    """List doubtful nuclei from untrusted options: what `serve` calls."""
    return doubtful(DoubtfulRequest.checked(args, "the request"), control)


def region_from_args(args: dict[str, Any], control: Control) -> Iterator[Event]:
    """Measure a region from untrusted options: what `serve` calls."""
    return region(RegionRequest.checked(args, "the request"), control)


def doubtful(request: DoubtfulRequest, control: Control | None = None) -> Iterator[Event]:
    """List the nuclei of a result whose pixels are most in doubt, the most doubtful first.

    Doubt is the mean entropy of a nucleus's pixels, in bits.

    Yields
    ------
    Event
        `Started`; `Progressed`; `Written` with what="doubtful": float64 (n, 8), the columns id, doubt, y and x of the
        center, y0, x0, y1, x1 of the rectangle around it, in pixels; `Finished`.

    Raises
    ------
    InputError
        If the result cannot be read, or the table cannot be written.
    """
    yield Started("doubtful")
    result = Result.open(request.source)
    sums = _Sums(result, lambda cell: _ENTROPY[result.nucleus_confidence(cell)])
    yield from sums.over(Box.whole(result.shape), control or Control())
    order = np.argsort(-sums.mean, kind="stable")[: request.n]
    found = [sums.ids, sums.mean, sums.y, sums.x, *sums.sides]
    write_npy(request.out, np.stack([column[order] for column in found], axis=1).astype(np.float64))
    yield Written("doubtful", request.out, {"nuclei": len(order), "of": len(sums.ids)})
    yield Finished("doubtful", request.out, stopped=sums.stopped)


def region(request: RegionRequest, control: Control | None = None) -> Iterator[Event]:
    """Count the nuclei whose center lies in a polygon.

    Yields
    ------
    Event
        `Started`; `Progressed`; `Written` with what="region" and the facts `nuclei`, `area_px`, and where known
        `area_mm2` and `per_mm2`; of an image in color also `dab`, whether it is stained with it, and then `positive`
        and `positive_fraction`; `Finished`.

    Raises
    ------
    InputError
        If the result or the image cannot be read, or nothing of the region lies in it.
    """
    yield Started("region")
    result = Result.open(request.source)
    corners = np.array(request.polygon)
    (y0, x0), (y1, x1) = np.floor(corners.min(axis=0)).astype(int), np.ceil(corners.max(axis=0)).astype(int) + 1
    box = Box(int(y0), int(x0), int(y1), int(x1)).intersect(Box.whole(result.shape))
    if not box.area:
        raise InputError("The region does not lie on the result: draw it on the image.")
    image = open_image(request.image) if request.image else None
    stained = image is not None and not image.gray and shows_dab(image.overview(OVERVIEW))
    values = (lambda cell: _dab(image, cell)) if image is not None and stained else _nothing
    sums = _Sums(result, values)
    yield from sums.over(box.grown(CELL // 8).intersect(Box.whole(result.shape)), control or Control())
    inside = points_in_poly(np.stack([sums.y, sums.x], axis=1), corners)  # type: ignore[no-untyped-call]
    area = sum(_covered(corners, cell.shifted(box.y0, box.x0)) for cell in cells(box.shape, CELL))
    facts: dict[str, Any] = {"nuclei": int(np.count_nonzero(inside)), "area_px": area}
    if result.mpp:
        facts["area_mm2"] = area * (result.mpp / 1000) ** 2
        facts["per_mm2"] = facts["nuclei"] / facts["area_mm2"] if area else 0.0
    if image is not None and not image.gray:
        facts["dab"] = stained
    if stained:
        facts["positive"] = int(np.count_nonzero(sums.mean[inside] >= request.positive_od))
        facts["positive_fraction"] = facts["positive"] / max(1, facts["nuclei"])
    yield Written("region", request.source, facts)
    yield Finished("region", request.source, stopped=sums.stopped)


class _Sums:
    """Adds values up over nuclei, part by part, in memory that grows with their number only.

    Attributes
    ----------
    ids, mean, y, x : array, (n,)
        Label, mean value and center of each nucleus.
    sides : list of array, (n,)
        y0, x0, y1, x1 of the rectangle around each.
    """

    def __init__(self, result: Result, values: Values) -> None:
        self._result, self._values = result, values
        self.ids = self.mean = self.y = self.x = np.zeros(0)
        self.sides = [np.zeros(0)] * 4
        self.stopped = False

    def over(self, box: Box, control: Control) -> Iterator[Event]:
        """Go over a rectangle; Stop and Cancel end it early."""
        parts = [cell.shifted(box.y0, box.x0) for cell in cells(box.shape, CELL)]
        rows = []
        for done, cell in enumerate(parts, start=1):
            rows.append(self._rows(cell))
            if any(isinstance(command, Stop | Cancel) for command in control.take()):
                self.stopped = True
                break
            yield Progressed("looking at nuclei", done, len(parts))
        table = np.concatenate(rows)
        self.ids, which = np.unique(table[:, 0], return_inverse=True)
        count, total, y, x = (np.bincount(which, table[:, column], self.ids.size) for column in range(1, 5))
        self.mean, self.y, self.x = total / count, y / count, x / count
        least = (np.minimum, np.minimum, np.maximum, np.maximum)
        self.sides = [
            _extreme(function, which, table[:, 5 + side], self.ids.size) for side, function in enumerate(least)
        ]

    def _rows(self, cell: Box) -> NDArray[np.float64]:
        """Return id, pixels, sum of values, of rows and of columns, and the rectangle, of the nuclei in a part."""
        labels = self._result.nuclei(cell)
        rows, columns = np.nonzero(labels)
        ids, which = np.unique(labels[rows, columns], return_inverse=True)
        if not ids.size:
            return np.zeros((0, 9))
        values = self._values(cell)[rows, columns]
        rows, columns = rows + cell.y0, columns + cell.x0
        sums = [np.bincount(which, weights, ids.size) for weights in (None, values, rows, columns)]
        ends = ((np.minimum, rows), (np.minimum, columns), (np.maximum, rows + 1), (np.maximum, columns + 1))
        sides = [_extreme(function, which, places, ids.size) for function, places in ends]
        return np.stack([ids, *sums, *sides], axis=1).astype(np.float64)


def _extreme(function: np.ufunc, which: NDArray[Any], values: NDArray[Any], count: int) -> NDArray[np.float64]:
    found = np.full(count, np.inf if function is np.minimum else -np.inf)
    function.at(found, which, values)
    return found


def _covered(corners: NDArray[np.float64], cell: Box) -> int:
    """Count the pixels of a part that lie in a polygon."""
    return int(np.count_nonzero(polygon2mask(cell.shape, corners - (cell.y0, cell.x0))))  # type: ignore[no-untyped-call]


def _dab(image: Image, cell: Box) -> NDArray[np.floating]:
    """Return the optical density of DAB (base 10, by color deconvolution after Ruifrok and Johnston, 2001)."""
    return separated(image.read(cell))[..., 2] * OD_PER_UNIT


def _nothing(cell: Box) -> NDArray[np.floating]:
    return np.zeros(cell.shape)
