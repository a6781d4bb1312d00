"""What an export is asked for, and what its formats are given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from napari_semiseg.blocks import Box, cells
from napari_semiseg.config import Config
from napari_semiseg.engine.watched import Report
from napari_semiseg.io import table
from napari_semiseg.io.columns import Columns
from napari_semiseg.io.images import Image
from napari_semiseg.io.neighbors import Neighbors
from napari_semiseg.io.nucleus import Place
from napari_semiseg.io.result import Result

_BEYOND_ONE = slice(table.MARGIN - 1, 1 - table.MARGIN)
BLOCK = 2048
"""Side of what is worked on at once, in pixels."""
ANOTHER = "choose another folder or name, or allow to replace it (“Replace earlier exports”, --overwrite)"
"""The way on where something is in the way, in the words of the window and of the command line."""


class ExportRequest(Config):
    """What to export, as what, and where to."""

    source: str = Field(
        description="The result, a folder ending in .ome.zarr that a prediction has written; or for a model its run."
    )
    to: Literal[
        "ome-zarr",
        "ome-tiff",
        "tiff",
        "geojson",
        "csv",
        "parquet",
        "imagej-roi",
        "png",
        "report",
        "safetensors",
        "onnx",
        "bioimageio",
    ] = Field(description="The format.")
    out: str = Field(
        min_length=1,
        description="The file to write, or a folder: one that exists or ends in /, where it is named after the image.",
    )
    image: str = Field("", description="The image, for outlines and stain; empty for the one that was predicted.")
    version: Literal["0.5", "0.4"] = Field("0.5", description="Version of OME-Zarr.")
    max_side: int = Field(
        4096, ge=64, le=16_384, description="Longest side of a PNG, in pixels; larger images are reduced."
    )
    author: str = Field("", description="Who made the model, for its card.")
    license: str = Field("", description="License of the model, an SPDX identifier such as CC-BY-4.0, for its card.")
    overwrite: bool = Field(False, description="Whether an earlier export of that name may be replaced.")


@dataclass(frozen=True)
class Job:
    """An export that was checked: `image` is there where the format wants it and it was found."""

    request: ExportRequest
    result: Result
    image: Image | None
    target: Path


def with_margin(result: Result, cell: Box, margin: int) -> NDArray[np.uint32]:
    """Read labels of a cell with a margin of pixels around it, 0 outside of the image."""
    wanted = cell.grown(margin)
    there = wanted.intersect(Box.whole(result.shape))
    labels = np.zeros(wanted.shape, np.uint32)
    labels[there.shifted(-wanted.y0, -wanted.x0).slices] = result.nuclei(there)
    return labels


def measured_in_bands(
    job: Job, report: Report, see: Callable[[Box, NDArray[np.uint32]], None] = lambda cell, labels: None
) -> Iterator[Columns]:
    """Measure every nucleus of a result, and yield rows as soon as they are whole, from top to bottom.

    Memory holds the nuclei of two rows of cells, however tall the slide is. One band at least is yielded, if need be
    without rows.

    Parameters
    ----------
    job : Job
    report : Report
    see : callable
        Is shown the labels of each cell that has nuclei, with a margin of one pixel, before those are yielded.
    """
    result, image = job.result, job.image
    sums = table.Measurements(
        mpp=result.mpp,
        translation=result.translation if result.mpp else (0.0, 0.0),
        classes=result.classes if "classes" in result.kinds else (),
    )
    neighbors = Neighbors(result.mpp)
    blocks = cells(result.shape, BLOCK)
    some = False
    for done, cell in enumerate(blocks, start=1):
        labels = with_margin(result, cell, table.MARGIN)
        if found := bool(labels.any()):
            see(cell, labels[_BEYOND_ONE, _BEYOND_ONE])
        if found or (done == len(blocks) and not some):  # a table without rows has the columns of all others
            sums.add(
                cell, labels, confidence=result.nucleus_confidence(cell),
                rgb=None if image is None else image.read(cell), gray=image is not None and image.gray,
                class_map=result.pixel_classes(cell) if "classes" in result.kinds else None,
            )  # fmt: skip
        report(done, len(blocks))
        if cell.x1 == result.shape[1]:  # a row of cells is whole
            at_end = cell.y1 == result.shape[0]
            rows, known = sums.take(np.inf if at_end else cell.y1)
            if not at_end and not some and not len(rows["label"]):
                continue  # what columns there are is known with the first nucleus
            band = neighbors.add(rows, known)
            if len(band["label"]) or (at_end and not some):
                some = True
                yield band


def part_of(report: Report, share: int, shares: int) -> Report:
    """Return what reports one of several parts of the work, each of a thousand: the one with the index `share`."""

    def report_part(done: int, total: int) -> None:
        report(1000 * share + 1000 * done // total, 1000 * shares)

    return report_part


def place_of(result: Result) -> Place:
    """Return what outlines and tables say of the image they belong to."""
    return Place(
        name=result.card.name, shape=result.shape, mpp=result.mpp, translation=result.translation,
        classes=result.classes,
    )  # fmt: skip
