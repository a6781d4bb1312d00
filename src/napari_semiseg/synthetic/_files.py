"""A synthetic slide as files, written tile by tile, so that memory does not grow with the slide."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_semiseg.atomic import staged

TILE = 512  # pixels; the side of the pieces that are rendered, so that each is rendered once
FACTOR = 4  # between two levels of the pyramid
SMALLEST = 1024  # a level no longer than this has none below it

Scalar = TypeVar("Scalar", bound=np.generic)


class Readable(Protocol):
    """What is asked of a slide."""

    shape: tuple[int, int]
    mpp: float

    def read(self, y0: int, x0: int, h: int, w: int) -> tuple[NDArray[np.uint8], NDArray[np.uint32], NDArray[np.uint8]]:
        """Render a rectangle."""
        ...


def write_image(slide: Readable, path: str | Path) -> None:
    """Write the image as an OME-TIFF with tiles of 512 pixels, JPEG, and levels reduced 4, 16, … times by the mean.

    Parameters
    ----------
    slide : SyntheticSlide
        The slide.
    path : str or Path
        The file to write, usually ending in ``.ome.tif``; one that is there is replaced when the new one is complete.

    Raises
    ------
    InputError
        If it cannot be written there.
    """
    shapes = _pyramid(slide.shape)
    size = {"PhysicalSizeX": slide.mpp, "PhysicalSizeY": slide.mpp}
    metadata = {"axes": "YXS", **size, "PhysicalSizeXUnit": "µm", "PhysicalSizeYUnit": "µm"}
    common: dict[str, Any] = {
        "dtype": np.uint8,
        "photometric": "rgb",
        "tile": (TILE, TILE),
        "compression": "jpeg",
        "compressionargs": {"level": 90},
    }
    with staged(path) as temporary, tempfile.TemporaryDirectory(dir=temporary.parent) as folder:
        reduced = [
            np.lib.format.open_memmap(Path(folder) / f"{level}.npy", mode="w+", dtype=np.uint8, shape=(*shape, 3))
            for level, shape in enumerate(shapes[1:])
        ]
        with tifffile.TiffWriter(temporary, bigtiff=_is_big(slide.shape), ome=True) as file:
            tiles = _rendered(slide, reduced[0] if reduced else None)
            file.write(tiles, shape=(*shapes[0], 3), subifds=len(reduced), metadata=metadata, **common)
            for level, source in enumerate(reduced):
                tiles = _stored(source, reduced[level + 1] if level + 1 < len(reduced) else None)
                file.write(tiles, shape=source.shape, subfiletype=1, **common)


def write_instances(slide: Readable, path: str | Path) -> None:
    """Write the instances as a TIFF with tiles of 512 pixels, uint32, zlib.

    Parameters
    ----------
    slide : SyntheticSlide
        The slide.
    path : str or Path
        The file to write; one that is there is replaced when the new one is complete.

    Raises
    ------
    InputError
        If it cannot be written there.
    """
    tiles = (_padded(slide.read(*corner)[1]) for corner in _corners(slide.shape))
    with staged(path) as temporary:
        tifffile.imwrite(
            temporary,
            tiles,
            shape=slide.shape,
            dtype=np.uint32,
            tile=(TILE, TILE),
            compression="zlib",
            bigtiff=_is_big(slide.shape),
        )


def _pyramid(shape: tuple[int, int]) -> list[tuple[int, int]]:
    shapes = [shape]
    while max(shapes[-1]) > SMALLEST:
        height, width = shapes[-1]
        shapes.append((-(-height // FACTOR), -(-width // FACTOR)))
    return shapes


def _is_big(shape: tuple[int, int]) -> bool:
    return shape[0] * shape[1] * 4 > 2**31  # what may come near the 4 GB of a classic TIFF


def _corners(shape: tuple[int, int]) -> Iterator[tuple[int, int, int, int]]:
    for y in range(0, shape[0], TILE):
        for x in range(0, shape[1], TILE):
            yield y, x, min(TILE, shape[0] - y), min(TILE, shape[1] - x)


def _rendered(slide: Readable, reduced: NDArray[np.uint8] | None) -> Iterator[NDArray[np.uint8]]:
    for y, x, height, width in _corners(slide.shape):
        tile = slide.read(y, x, height, width)[0]
        _reduce(tile, y, x, reduced)
        yield _padded(tile)


def _stored(source: NDArray[np.uint8], reduced: NDArray[np.uint8] | None) -> Iterator[NDArray[np.uint8]]:
    for y, x, height, width in _corners((source.shape[0], source.shape[1])):
        tile = np.asarray(source[y : y + height, x : x + width])
        _reduce(tile, y, x, reduced)
        yield _padded(tile)


def _reduce(tile: NDArray[np.uint8], y: int, x: int, target: NDArray[np.uint8] | None) -> None:
    """Write the means of squares of FACTOR pixels to where they belong in the next level."""
    if target is None:
        return
    short = [-side % FACTOR for side in tile.shape[:2]]
    tile = np.pad(tile, ((0, short[0]), (0, short[1]), (0, 0)), mode="edge")
    squares = tile.reshape(tile.shape[0] // FACTOR, FACTOR, tile.shape[1] // FACTOR, FACTOR, 3)
    mean = np.round(squares.mean(axis=(1, 3), dtype=np.float32)).astype(np.uint8)
    top, left = y // FACTOR, x // FACTOR
    target[top : top + mean.shape[0], left : left + mean.shape[1]] = mean


def _padded(tile: NDArray[Scalar]) -> NDArray[Scalar]:
    """Fill a tile at the border up to full size, as TIFF wants it."""
    rest = [(0, TILE - side) for side in tile.shape[:2]] + [(0, 0)] * (tile.ndim - 2)
    return np.pad(tile, rest)
