"""Writing TIFF and OME-TIFF: pyramidal, tiled, with the size of a pixel, as BigTIFF where it may get large.

Pixels are asked for tile by tile, so that memory does not grow with the slide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_semiseg import atomic
from napari_semiseg.blocks import Box, cells
from napari_semiseg.errors import InputError
from napari_semiseg.io import limits
from napari_semiseg.io.locate import Location
from napari_semiseg.io.ome_xml import CLASSES
from napari_semiseg.io.read_tiff import TiffSource
from napari_semiseg.io.source import DecodedCache

TILE = 512
"""Side of a tile, in pixels."""

_BIG = 2**32 - 2**26  # classic TIFF ends at 4 GiB; compressed size is not known before
_CHECKED = 2048

Report = Callable[[int, int], None]
"""Called with how many parts of how many are done. What it raises breaks the writing off."""


@dataclass(frozen=True)
class Pixels:
    """An image to be written, asked for part by part.

    Attributes
    ----------
    name : str
    dtype : numpy.dtype
    levels : sequence of (int, int)
        Rows and columns, finest first.
    read : callable (Box, int) -> ndarray
        Returns a rectangle of a level, (h, w), or (channels, h, w) where there are `channels`.
    channels : sequence of str
        Names of the channels; empty for an image without a channel axis.
    mpp : float or None
        Size of a pixel in µm.
    translation : (float, float)
        Place of the first pixel (y, x): in µm, or in pixels where `mpp` is None.
    values : sequence of str
        Names of the values 1, 2, … of a map of classes; OME-TIFF keeps them as a map annotation.
    """

    name: str
    dtype: np.dtype
    levels: Sequence[tuple[int, int]]
    read: Callable[[Box, int], NDArray[Any]]
    channels: Sequence[str] = ()
    mpp: float | None = None
    translation: tuple[float, float] = (0.0, 0.0)
    values: Sequence[str] = ()

    @property
    def parts(self) -> int:
        """Tiles of all levels."""
        return sum(len(cells(shape, TILE)) for shape in self.levels) * max(1, len(self.channels))


def write_ome_tiff(path: str | Path, images: Sequence[Pixels], report: Report = lambda done, total: None) -> None:
    """Write images into one OME-TIFF, read it back, and only then give it its name.

    Parameters
    ----------
    path : str or Path
        Replaced if it exists.
    images : sequence of Pixels
        The series of the file, in this order.
    report : callable

    Raises
    ------
    InputError
        If the disk is full or cannot be written, or what is read back differs.
    """
    _write(Path(path), images, report, ome=True)


def write_tiff(path: str | Path, image: Pixels, report: Report = lambda done, total: None) -> None:
    """Write one image as a plain TIFF, whose resolution tags say the size of a pixel; see `write_ome_tiff`."""
    _write(Path(path), [image], report, ome=False)


def _write(path: Path, images: Sequence[Pixels], report: Report, *, ome: bool) -> None:
    for image in images:
        limits.check_shape(image.levels[0], str(path))
    raw = (
        sum(limits.bytes_of((*image.levels[0], max(1, len(image.channels))), image.dtype) for image in images) * 4 // 3
    )
    checks = sum(len(cells(image.levels[0], _CHECKED)) for image in images)
    counter = _Counter(report, sum(image.parts for image in images) + checks)
    with atomic.staged(path) as temporary:
        with tifffile.TiffWriter(temporary, bigtiff=raw > _BIG, ome=ome) as tif:
            for image in images:
                _write_levels(tif, image, counter, ome)
        _check(temporary, images, counter, path)


def _write_levels(tif: tifffile.TiffWriter, image: Pixels, counter: _Counter, ome: bool) -> None:
    lead = (len(image.channels),) if image.channels else ()
    for level, shape in enumerate(image.levels):
        options: dict[str, Any] = {"subfiletype": 1} if level else {"subifds": len(image.levels) - 1}
        if image.mpp is not None:
            factors = (image.levels[0][1] / shape[1], image.levels[0][0] / shape[0])
            options["resolution"] = tuple(10_000 / (image.mpp * factor) for factor in factors)
            options["resolutionunit"] = "CENTIMETER"
        metadata = _ome_metadata(image) if ome and not level else None
        tif.write(
            _tiles(image, level, counter), shape=(*lead, *shape), dtype=image.dtype, tile=(TILE, TILE),
            compression="zlib", photometric="minisblack", metadata=metadata, software=False, maxworkers=1, **options,
        )  # fmt: skip


def _tiles(image: Pixels, level: int, counter: _Counter) -> Iterator[NDArray[Any]]:
    """Yield the tiles of a level in the order of the file, those at the border filled up with 0."""
    for channel in range(max(1, len(image.channels))):
        for cell in cells(image.levels[level], TILE):
            values = image.read(cell, level)
            if image.channels:
                values = values[channel]
            tile = np.zeros((TILE, TILE), image.dtype)
            tile[: cell.height, : cell.width] = values
            counter.step()  # before: nobody asks for more after the last tile
            yield tile


def _ome_metadata(image: Pixels) -> dict[str, Any]:
    planes = max(1, len(image.channels))
    unit = "pixel" if image.mpp is None else "µm"
    metadata: dict[str, Any] = {
        "axes": "CYX" if image.channels else "YX",
        "Name": image.name,
        "Plane": {
            "PositionX": [image.translation[1]] * planes, "PositionXUnit": [unit] * planes,
            "PositionY": [image.translation[0]] * planes, "PositionYUnit": [unit] * planes,
        },
    }  # fmt: skip
    if image.channels:
        metadata["Channel"] = {"Name": list(image.channels)}
    if image.values:
        named = {str(value): name for value, name in enumerate(image.values, start=1)}
        metadata["MapAnnotation"] = {"Namespace": CLASSES, **named}
    if image.mpp is not None:
        metadata |= {f"PhysicalSize{axis}": image.mpp for axis in "XY"}
        metadata |= {f"PhysicalSize{axis}Unit": "µm" for axis in "XY"}
    return metadata


def _check(written: Path, images: Sequence[Pixels], counter: _Counter, path: Path) -> None:
    """Compare what lies on the disk with what was asked to be written, every pixel of the finest level."""
    for series, image in enumerate(images):
        for channel in range(max(1, len(image.channels))):
            chosen = {"s": series} | ({"c": channel} if len(image.channels) > 1 else {})
            source = TiffSource(Location(str(written), chosen), DecodedCache())
            if source.levels != list(image.levels) or source.dtype != image.dtype:
                raise InputError(
                    f"'{path}' was not written, because its levels were wrong when read back: try another disk."
                )
            for cell in cells(image.levels[0], _CHECKED):
                wanted = image.read(cell, 0)
                if not np.array_equal(source.read(cell, 0)[..., 0], wanted[channel] if image.channels else wanted):
                    raise InputError(
                        f"'{path}' was not written, because its pixels were wrong when read back: try another disk."
                    )
                if not channel:
                    counter.step()


class _Counter:
    def __init__(self, report: Report, total: int) -> None:
        self._report, self._total, self._done = report, total, 0

    def step(self) -> None:
        self._done += 1
        self._report(self._done, self._total)
