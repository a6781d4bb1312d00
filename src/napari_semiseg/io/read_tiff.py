"""TIFF and OME-TIFF, lazily: only the tiles or strips that a rectangle needs are read and decoded.

tifffile understands the file; `tiff_gate` looks at it first. No file stays open between reads, so that a folder of
thousands of images needs no thousands of handles, and reads from several threads do not wait for each other.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image as Pillow

from napari_semiseg.blocks import Box
from napari_semiseg.errors import InputError
from napari_semiseg.io import limits
from napari_semiseg.io.locate import Location, check_file
from napari_semiseg.io.ome_xml import check_xml, ome_class_map, ome_pixel_size, ome_position
from napari_semiseg.io.source import DecodedCache, Layout, choose_plane
from napari_semiseg.io.tiff_gate import check_tiff

_JPEG = (6, 7, 34892, 33007)
_PICTURES = (*_JPEG, 33003, 33004, 33005, 34712, 50001)  # each segment is a picture file with a size of its own
_SUPPORTED = {1, 2, 3, 4, 5, 8, 32773, 32946, 34925, 34926, 50000, *_PICTURES}
_MIN_IS_WHITE, _RGB, _PALETTE, _YCBCR = 0, 2, 3, 6
_PLAUSIBLE_MPP = (0.005, 20.0)
_MICRONS = {
    "µm": 1.0,
    "\u03bcm": 1.0,
    "um": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "nm": 1e-3,
    "mm": 1e3,
    "cm": 1e4,
}


class TiffSource:
    """One two-dimensional image of a TIFF file, with its pyramid.

    Parameters
    ----------
    location : Location
        ``s`` chooses a series, ``c``, ``z`` and ``t`` a plane of it.
    cache : DecodedCache
        Holds decoded tiles and strips.
    series : int
        The series where `location` chooses none.
    raw : bool
        Whether palette images give their indices (labels) instead of their colors.

    Raises
    ------
    InputError
        If the file is broken, claims too much, or holds no two-dimensional gray, RGB or RGBA image.
    """

    def __init__(self, location: Location, cache: DecodedCache, *, series: int = 0, raw: bool = False) -> None:
        path = check_file(location.path)
        check_tiff(path)
        where = location.path
        with _opened(path) as tif:
            _check_descriptions(tif, where)
            chosen = _series(tif, location.chosen.get("s", series), where)
            first = chosen.keyframe
            alpha = "S" in chosen.axes and first.photometric in (_RGB, _YCBCR)
            layout = choose_plane(chosen.axes, chosen.shape, location, alpha=alpha)
            levels = [level for level in chosen.levels if level.axes == chosen.axes] or [chosen]
            self._planes = [_plane(level, layout, path, cache) for level in levels]
            self.mpp = _mpp(tif, location.chosen.get("s", series), first)
            self.translation = _position(tif, location.chosen.get("s", series), in_pixels=self.mpp is None)
            self._colors = None if raw or first.photometric != _PALETTE else _palette(first)
            if layout.channels > 1 and first.photometric not in (_MIN_IS_WHITE, 1, _RGB, _PALETTE, _YCBCR):
                raise InputError(
                    f"'{where}' has the color space {first.photometric} and gray and RGB are read: convert it to RGB."
                )
        self._inverted = first.photometric == _MIN_IS_WHITE and not raw
        self.levels = [plane.shape for plane in self._planes]
        self.channels = 3 if self._colors is not None else layout.channels
        self.dtype = np.dtype(np.uint8) if self._colors is not None else np.dtype(chosen.dtype).newbyteorder("=")
        self._cache = cache
        for shape in self.levels:
            limits.check_shape(shape, where)

    def read(self, box: Box, level: int) -> NDArray[Any]:
        """Return the pixels of `box` as (h, w, channels)."""
        pixels = self._planes[level].read(box)
        if self._colors is not None:
            return np.asarray(self._colors[pixels[..., 0]])
        if self._inverted:
            return np.asarray(np.bitwise_not(pixels) if pixels.dtype.kind in "bu" else -pixels)
        return pixels

    def close(self) -> None:
        """Drop decoded tiles."""
        for plane in self._planes:
            self._cache.drop(plane)


def class_map_of(path: str) -> tuple[int, dict[int, str]] | None:
    """Return which series of an OME-TIFF of ours is a map of classes, and the names of its values; else None.

    Raises
    ------
    InputError
        If the file is broken.
    """
    check_tiff(check_file(path))
    with _opened(Path(path)) as tif:
        _check_descriptions(tif, path)
        return ome_class_map(tif.pages.first.description) if tif.is_ome else None


class _MappedPlane:
    """Pixels that lie in the file as they are."""

    def __init__(self, level: tifffile.TiffPageSeries, layout: Layout, path: Path) -> None:
        self._path, self._layout = path, layout
        self._offset, self._shape = int(level.dataoffset or 0), level.shape
        self._dtype = np.dtype(level.keyframe.parent.byteorder + level.dtype.char)
        needed = self._offset + limits.bytes_of(self._shape, self._dtype)
        if needed > path.stat().st_size:
            raise InputError(f"'{path}' ends before its pixels do: copy it again from its source.")
        self.shape = _rows_columns(layout.axes, level.shape)

    def read(self, box: Box) -> NDArray[Any]:
        pixels = np.memmap(self._path, self._dtype, "r", self._offset, self._shape)
        return np.array(self._layout.cut(pixels, box), dtype=self._dtype.newbyteorder("="))


class _PagedPlane:
    """Pixels in the tiles or strips of one page, or of one page per channel."""

    def __init__(self, level: tifffile.TiffPageSeries, layout: Layout, path: Path, cache: DecodedCache) -> None:
        self._path, self._cache = path, cache
        self._key = level.keyframe
        self.shape = _rows_columns(layout.axes, level.shape)
        if self._key.compression not in _SUPPORTED:
            raise InputError(
                f"'{path}' is compressed by {getattr(self._key.compression, 'name', self._key.compression)}, which is "
                "not read here: save it with "
                "Deflate, LZW or JPEG."
            )
        if self._key.imagedepth > 1 or (self._key.imagelength, self._key.imagewidth) != self.shape:
            raise InputError(
                f"'{path}' is laid out in a way that is not read here: save it as a plain TIFF or OME-TIFF."
            )
        self._pages = [_segments(page, path) for page in _pages(level, layout, path)]
        self._samples = self._sample_index(layout)
        self._dtype = np.dtype(level.dtype).newbyteorder("=")
        self._tables, self._header = self._key.jpegtables, self._key.jpegheader
        self._key.init_decode()

    def _sample_index(self, layout: Layout) -> list[int]:
        if "S" not in layout.axes:
            return [0]
        return [layout.index["S"]] if "S" in layout.index else list(range(layout.channels))

    def read(self, box: Box) -> NDArray[Any]:
        parts = [self._read_page(number, box) for number in range(len(self._pages))]
        pixels = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
        if len(parts) > 1 or self._samples == list(range(pixels.shape[-1])):
            return pixels
        return pixels[..., self._samples]

    def _read_page(self, number: int, box: Box) -> NDArray[Any]:
        key = self._key
        separate = key.planarconfig == 2 and key.samplesperpixel > 1
        rows, columns = (key.tilelength, key.tilewidth) if key.is_tiled else (key.rowsperstrip, key.imagewidth)
        rows = min(rows, max(key.imagelength, 1)) if not key.is_tiled else rows
        across, down = math.ceil(key.imagewidth / columns), math.ceil(key.imagelength / rows)
        out = np.zeros((box.height, box.width, key.samplesperpixel), self._dtype)
        for plane in range(key.samplesperpixel) if separate else [0]:
            samples = slice(plane, plane + 1) if separate else slice(None)
            for ty in range(box.y0 // rows, (box.y1 - 1) // rows + 1):
                for tx in range(box.x0 // columns, (box.x1 - 1) // columns + 1):
                    segment = self._segment(number, (plane * down + ty) * across + tx)
                    if segment is None:
                        continue
                    area = Box(ty * rows, tx * columns, ty * rows + segment.shape[0], tx * columns + segment.shape[1])
                    common = area.intersect(box)
                    if common.area:
                        out[(*common.shifted(-box.y0, -box.x0).slices, samples)] = segment[
                            common.shifted(-area.y0, -area.x0).slices
                        ]
        return out

    def _segment(self, number: int, index: int) -> NDArray[Any] | None:
        """Decode a tile or strip as (h, w, samples); None where the file leaves it out, which means 0."""
        if self._pages[number][1][index] == 0:
            return None
        return self._cache.get((self, number, index), lambda: self._decode(number, index))

    def _decode(self, number: int, index: int) -> NDArray[Any]:
        offsets, counts = self._pages[number]
        with self._path.open("rb") as file:
            file.seek(offsets[index])
            data = file.read(counts[index])
        if len(data) < counts[index]:
            raise InputError(f"'{self._path}' ends before its pixels do: copy it again from its source.")
        key = self._key
        rows, columns = (key.tilelength, key.tilewidth) if key.is_tiled else (key.rowsperstrip, key.imagewidth)
        decoded = rows * columns * key.samplesperpixel * self._dtype.itemsize
        limits.check_ratio(decoded, len(data), str(self._path))
        if key.compression in _PICTURES:
            _check_picture(data, rows, columns, self._path)
        options = {"jpegtables": self._tables, "jpegheader": self._header} if key.compression in _JPEG else {}
        try:
            segment: Any = key.decode(data, index, **options)[0]
        except Exception as error:  # codecs raise types of their own
            raise InputError(
                f"A part of '{self._path}' is damaged ({str(error)[:80]}): copy it again from its source."
            ) from error
        return np.array(segment[0])


def _rows_columns(axes: str, shape: Sequence[int]) -> tuple[int, int]:
    return int(shape[axes.index("Y")]), int(shape[axes.index("X")])


def _segments(page: Any, path: Path) -> tuple[tuple[int, ...], tuple[int, ...]]:
    offsets, counts = tuple(page.dataoffsets), tuple(page.databytecounts)
    if len(offsets) != len(counts) or not offsets:
        raise InputError(f"A page of '{path}' does not say where its pixels are: the file is broken, export it again.")
    return offsets, counts


def _pages(level: tifffile.TiffPageSeries, layout: Layout, path: Path) -> list[Any]:
    """Return the pages that hold the plane: one, or one per channel."""
    inner = level.keyframe.axes
    if not layout.axes.endswith(inner):
        raise InputError(
            f"'{path}' has the axes {layout.axes} in a way that is not read here: save it as a plain OME-TIFF."
        )
    outer = layout.axes[: len(layout.axes) - len(inner)]
    sizes = level.shape[: len(outer)]
    free = layout.channel_axis if layout.channel_axis and layout.channel_axis in outer else ""
    pages = []
    for channel in range(layout.channels if free else 1):
        where = tuple(channel if axis == free else layout.index[axis] for axis in outer)
        page = level.pages[int(np.ravel_multi_index(where, sizes)) if outer else 0]
        if page is None:
            raise InputError(f"A page of '{path}' is missing: export the file again with all its planes.")
        pages.append(page)
    return pages


def _plane(
    level: tifffile.TiffPageSeries, layout: Layout, path: Path, cache: DecodedCache
) -> _MappedPlane | _PagedPlane:
    if level.dataoffset is not None and level.dtype.itemsize * 8 == level.keyframe.bitspersample:
        return _MappedPlane(level, layout, path)
    return _PagedPlane(level, layout, path, cache)


def _check_picture(data: bytes, rows: int, columns: int, path: Path) -> None:
    """Refuse a tile whose own header claims much more than the TIFF says."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            width, height = Pillow.open(io.BytesIO(data)).size
    except Pillow.DecompressionBombError:
        raise InputError(
            f"A tile of '{path}' claims far more than {rows} x {columns} pixels: the file is broken."
        ) from None
    except (OSError, ValueError, SyntaxError):
        return  # not a picture that Pillow knows: the decoder will say what is wrong with it
    if width * height > 4 * max(rows * columns, 65_536):
        raise InputError(
            f"A tile of '{path}' claims {height:,} x {width:,} pixels and should have {rows} x {columns}: the file is "
            "broken."
        )


def _opened(path: Path) -> tifffile.TiffFile:
    try:
        return tifffile.TiffFile(path, _multifile=False)
    except InputError:
        raise
    except Exception as error:  # a parser of hostile bytes: whatever it raises means the same here
        raise InputError(
            f"'{path}' cannot be read as a TIFF ({str(error)[:80]}): export it again from its source."
        ) from error


def _series(tif: tifffile.TiffFile, number: int, where: str) -> tifffile.TiffPageSeries:
    try:
        found = [series for series in tif.series if len(series.shape) >= 2 and series.dtype is not None]
    except Exception as error:
        raise InputError(
            f"The pages of '{where}' cannot be understood ({str(error)[:80]}): export it again from its source."
        ) from error
    if not found:
        raise InputError(f"'{where}' holds no image that can be read: export it again from its source.")
    if not 0 <= number < len(found):
        raise InputError(f"'{where}' has no series {number}: it can be 0 to {len(found) - 1}.")
    return found[number]


def _check_descriptions(tif: tifffile.TiffFile, where: str) -> None:
    text = tif.pages.first.description
    if text.lstrip("\ufeff \r\n\t").startswith("<"):
        check_xml(text, where)


def _mpp(tif: tifffile.TiffFile, number: int, page: tifffile.TiffPage) -> float | None:
    """Return the size of a pixel in µm, from OME-XML, ImageJ's or the resolution tags, in that order."""
    if tif.is_ome:
        size = ome_pixel_size(tif.pages.first.description, number)
        if size is not None:
            return size
    across, down = page.resolution
    unit = {2: 25_400.0, 3: 10_000.0, 4: 1_000.0, 5: 1.0}.get(page.resolutionunit, 0.0)
    if tif.is_imagej and tif.imagej_metadata:
        unit = _MICRONS.get(str(tif.imagej_metadata.get("unit", "")).replace("\\u00B5", "µ").lower(), 0.0)
    if not (unit and across > 0 and down > 0):
        return None
    size = unit * (1 / across + 1 / down) / 2
    return size if _PLAUSIBLE_MPP[0] <= size <= _PLAUSIBLE_MPP[1] else None  # 72 dpi says nothing of tissue


def _position(tif: tifffile.TiffFile, number: int, *, in_pixels: bool) -> tuple[float, float]:
    """Return where the first pixel lies (y, x), as OME-XML says it."""
    said = ome_position(tif.pages.first.description, number, in_pixels=in_pixels) if tif.is_ome else None
    return said or (0.0, 0.0)


def _palette(page: tifffile.TiffPage) -> NDArray[np.uint8] | None:
    return None if page.colormap is None else (np.asarray(page.colormap).T >> 8).astype(np.uint8)
