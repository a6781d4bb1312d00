"""Images as everything above sees them: named, lazy, multiscale, uint8 RGB.

>>> import numpy as np
>>> image = from_array(np.zeros((40, 60, 3), np.uint8), "field", mpp=0.25)
>>> image.read(Box(-8, 0, 32, 60)).shape
(40, 60, 3)

One plane of a stack is named in brackets after the path, with ``c`` for the channel, ``z`` for the plane, ``t`` for the
time point and ``s`` for the series: ``two-channels.tif[c=1]``, ``stack.ome.tif[z=4,c=0]``.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semiseg import atomic
from napari_semiseg.blocks import Box, cells
from napari_semiseg.errors import InputError, ReadError
from napari_semiseg.io import limits, scaling
from napari_semiseg.io.fingerprint import hash_path
from napari_semiseg.io.locate import Location, is_folder, locate
from napari_semiseg.io.partial_read import FINEST, readable_parts
from napari_semiseg.io.raster import RasterSource
from napari_semiseg.io.read_slide import SLIDES, SlideSource
from napari_semiseg.io.read_tiff import TiffSource
from napari_semiseg.io.read_zarr import array_axes, open_zarr
from napari_semiseg.io.source import ArraySource, DecodedCache, Source, choose_plane

RASTERS = (".png", ".jpg", ".jpeg")
TIFFS = (".tif", ".tiff", ".btf", ".tf2", ".tf8")
_RETRY_DELAYS_S = (0.05, 0.5)
_SAMPLE_SIDE = 64
_SAMPLE_GRID = 16
_OVERVIEW_CELL = 1024  # pixels that are read at once for an overview


class Image:
    """A two-dimensional image of which any rectangle can be read.

    Made by `open_image` or `from_array`. Reading is safe from several threads.

    Attributes
    ----------
    name : str
        Its file name without extension.
    source : str
        What it was opened from; ``""`` for arrays.
    shape : (int, int)
        Rows and columns of level 0.
    levels : list of (int, int)
        Rows and columns of every level, finest first.
    mpp : float or None
        Size of a level-0 pixel, in µm.
    translation : (float, float)
        Where the first pixel lies (y, x): in µm, or in pixels where `mpp` is None.
    gray : bool
        Whether the file has one channel.
    gaps : bool
        Whether parts that cannot be read are white instead of an error. No, unless somebody sets it.
    """

    def __init__(self, pixels: Source, name: str, source: str, mpp: float | None) -> None:
        where = source or name
        scaling.check_dtype(pixels.dtype, where)
        for shape in pixels.levels:
            limits.check_shape(shape, where)
        if mpp is not None and not (np.isfinite(mpp) and mpp > 0):
            raise InputError(
                f"The pixel size of '{where}' cannot be {mpp:g} µm: give a positive number, for example 0.25."
            )
        self._pixels = pixels
        self.name, self.source = name, source
        self.levels = [(int(height), int(width)) for height, width in pixels.levels]
        self.shape = self.levels[0]
        self.mpp = pixels.mpp if mpp is None else float(mpp)
        y, x = pixels.translation
        unit = 1.0 if mpp is None or pixels.mpp is not None else mpp  # a place in pixels, now that they have a size
        self.translation = (y * unit, x * unit)
        self.gray = pixels.channels == 1
        self.dtype = pixels.dtype
        self._overview: tuple[int, NDArray[np.uint8]] | None = None
        self._unread: set[Box] = set()
        self.gaps = False

    def __repr__(self) -> str:
        size = "?" if self.mpp is None else f"{self.mpp:g}"
        return f"<Image '{self.name}' {self.shape[0]} x {self.shape[1]}, {size} µm/px, {len(self.levels)} levels>"

    @functools.cached_property
    def scaling(self) -> scaling.Scaling:
        """How the file's values become 0 to 255: found at the first read and then fixed, so that blocks look alike."""
        exact = scaling.exact_scaling(self.dtype)
        if exact is not None:
            return exact
        level, boxes = self._sample()
        return scaling.robust_scaling(
            np.concatenate([values for _, values in self.readable(boxes, partial(self._values, level), level)])
        )

    @property
    def downsamples(self) -> list[tuple[float, float]]:
        """Level-0 pixels per pixel of each level (y, x)."""
        return [(self.shape[0] / height, self.shape[1] / width) for height, width in self.levels]

    @property
    def unread(self) -> tuple[Box, ...]:
        """Parts that looks at the whole image have gone without, since they cannot be read; level-0 pixels."""
        return tuple(sorted(self._unread))

    def read(self, box: Box, level: int = 0) -> NDArray[np.uint8]:
        """Read a rectangle.

        Parameters
        ----------
        box : Box
            In pixels of that level. What lies outside the image is its reflection at the border pixel (``numpy.pad``'s
            "reflect", as if the whole image had been padded), the border itself where an image is one pixel wide.
        level : int

        Returns
        -------
        ndarray, uint8, (h, w, 3)
            RGB. Gray is repeated, RGBA laid on white, other types scaled by `scaling`. The caller's own.

        Raises
        ------
        ReadError
            If the file does not give its pixels.
        """
        box = Box(*(int(value) for value in box))
        if box.area < 1:
            return np.zeros((max(0, box.height), max(0, box.width), 3), np.uint8)
        try:
            return self._rgb(box, level)
        except ReadError:
            if not self.gaps:
                raise
        out = np.full((*box.shape, 3), 255, np.uint8)
        with contextlib.suppress(ReadError):  # nothing of it can be read
            for part, pixels in self.readable([box], partial(self._rgb, level=level), level):
                out[part.shifted(-box.y0, -box.x0).slices] = pixels
        return out

    def _rgb(self, box: Box, level: int) -> NDArray[np.uint8]:
        limits.check_bytes(box.area * 3, self.source or self.name, "The part that was asked for")
        height, width = self.levels[level]
        rows, columns = _reflected(box.y0, box.y1, height), _reflected(box.x0, box.x1, width)
        inner = Box(int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1)
        rgb = scaling.to_rgb(self._raw(inner, level), self.scaling)
        if inner == box:
            return rgb if rgb.flags.writeable and rgb.flags.owndata else rgb.copy()
        rgb = rgb[rows - inner.y0]  # whole rows first, as they lie in memory
        inside = box.x0 >= 0 and box.x1 <= width
        return rgb if inside else rgb[:, columns - inner.x0]

    def overview(self, max_side: int = 2048) -> NDArray[np.uint8]:
        """Read the whole image, small: the mean over squares of pixels.

        Parameters
        ----------
        max_side : int
            The longer side of the result is at most this, in pixels. Images are never enlarged.

        Returns
        -------
        ndarray, uint8, (h, w, 3)
            The caller's own. The last one is kept: a mask of tissue, a stain and a threshold all begin with it. Parts
            that cannot be read have the color of the brightest ones, and are named in `unread`.

        Raises
        ------
        ReadError
            If no part can be read, or many next to each other cannot.
        """
        kept = self._overview
        if kept is None or kept[0] != max_side:
            kept = self._overview = max_side, self._reduced(max_side)
        return kept[1].copy()

    def _reduced(self, max_side: int) -> NDArray[np.uint8]:
        fine = [level for level, shape in enumerate(self.levels) if max(shape) >= max_side]
        level = fine[-1] if fine else 0
        height, width = self.levels[level]
        step = -(-max(height, width) // max_side)
        out = np.empty((-(-height // step), -(-width // step), 3), np.uint8)
        unread = np.ones(out.shape[:2], bool)
        boxes = [
            Box(*(value * step for value in cell)) for cell in cells(out.shape[:2], max(1, _OVERVIEW_CELL // step))
        ]
        for box, pixels in self.readable(boxes, partial(self.read, level=level), level, step):
            part = Box(*(value // step for value in box))
            out[part.slices], unread[part.slices] = _means(pixels, step), False
        if unread.any():
            out[unread] = _light(out[~unread])
        return out

    def readable(
        self, boxes: Iterable[Box], read: Callable[[Box], NDArray[Any]], level: int = 0, step: int = 1
    ) -> Iterator[tuple[Box, NDArray[Any]]]:
        """Read parts of a level by `read`, as `readable_parts` does; what is left out is remembered in `unread`."""
        finest = FINEST / max(self.downsamples[level])
        return readable_parts(boxes, read, partial(self._leave_out, level), finest=finest, step=step)

    def fingerprint(self) -> str:
        """Return a hash that changes when the image does.

        It covers the size and samples of a file's bytes, or of an array's pixels. Cheap for any size: at most some
        megabytes are read.
        """
        digest = hashlib.sha256(repr((self.levels[0], str(self.dtype), self._pixels.channels)).encode())
        location = locate(self.source)
        if self.source and not location.is_url and Path(location.path).exists():
            digest.update(repr(sorted(location.chosen.items())).encode())
            hash_path(Path(location.path), digest)
        else:
            level, boxes = self._sample()
            for box in boxes:
                digest.update(np.ascontiguousarray(self._values(level, box)).tobytes())
        return digest.hexdigest()

    @functools.cached_property
    def identity(self) -> str:
        """Its fingerprint when it was first asked for: what tells it from other images, wherever it lies."""
        return self.fingerprint()

    def close(self) -> None:
        """Let go of files and cached pixels; a later `read` opens them again."""
        self._pixels.close()

    def _leave_out(self, level: int, box: Box) -> None:
        y, x = self.downsamples[level]
        corners = int(box.y0 * y), int(box.x0 * x), math.ceil(box.y1 * y), math.ceil(box.x1 * x)
        self._unread.add(Box(*corners).intersect(Box.whole(self.shape)))

    def _values(self, level: int, box: Box) -> NDArray[Any]:
        return self._raw(box, level).reshape(-1, self._pixels.channels)

    def _raw(self, box: Box, level: int) -> NDArray[Any]:
        for delay in (*_RETRY_DELAYS_S, None):
            try:
                return self._pixels.read(box, level)
            except InputError as error:
                raise ReadError(str(error)) from error
            except OSError as error:
                if delay is None:
                    raise ReadError(
                        f"'{self.source or self.name}' cannot be read any more ({error.strerror or error}): check that "
                        "its disk or network is there."
                    ) from error
                time.sleep(delay)
            except MemoryError:
                raise InputError(
                    f"There is no memory left for {box.height} x {box.width} pixels of '{self.source or self.name}': "
                    "close something."
                ) from None
            except Exception as error:  # lazy arrays and codecs raise types of their own
                raise ReadError(
                    f"A part of '{self.source or self.name}' cannot be read "
                    f"({str(error)[:80] or type(error).__name__}): check the file or layer."
                ) from error
        raise AssertionError("the last attempt returns or raises")

    def _sample(self) -> tuple[int, list[Box]]:
        """Return a level and parts from all over it: the whole of a small one, a grid of squares of a large one."""
        level = max((number for number, shape in enumerate(self.levels) if min(shape) >= 256), default=0)
        whole = Box.whole(self.levels[level])
        side, grid = _SAMPLE_SIDE, _SAMPLE_GRID
        if whole.area <= (side * grid) ** 2:
            return level, cells(whole.shape, FINEST)
        ys, xs = (np.linspace(0, max(0, end - side), grid).astype(int) for end in whole.shape)
        return level, [Box(y, x, y + side, x + side).intersect(whole) for y in ys for x in xs]


def open_image(
    source: str | Path, *, series: int = 0, mpp: float | None = None, cache: DecodedCache | None = None
) -> Image:
    """Open an image lazily: PNG, JPEG, TIFF, OME-TIFF, OME-Zarr (folder or URL), or a slide.

    Parameters
    ----------
    source : str or Path
        A path or URL, with the choice of a plane in brackets where there is one to make (``two.tif[c=1]``).
    series : int
        Image of a file that holds several; ``[s=…]`` comes before it. What is not the first is named in `Image.source`.
    mpp : float, optional
        Size of a pixel in µm, instead of what the file says.
    cache : DecodedCache, optional
        Memory shared with other images; without it every image has 256 MiB of its own, filled as it is read.

    Raises
    ------
    InputError
        If there is no such file, it is broken, its kind is not read, or it holds no gray, RGB or RGBA image.
    """
    location = locate(source)
    if series and "s" not in location.chosen:
        location = location.in_series(series)
        source = location.text
    return Image(open_source(location, cache=cache), location.name, str(source), mpp)


def open_source(location: Location, *, series: int = 0, cache: DecodedCache | None = None, raw: bool = False) -> Source:
    """Open the pixels of a file as they are; see `open_image`. `raw` gives the indices of palette images."""
    try:
        return _opened(location, series, cache or DecodedCache(), raw)
    except InputError:
        raise
    except OSError as error:
        raise atomic.said(error, f"'{location.path}' cannot be read") from error
    except Exception as error:  # a parser of foreign bytes: whatever it raises means the same here
        raise InputError(
            f"'{location.path}' cannot be understood ({str(error)[:80] or type(error).__name__}): export it again "
            "from its source."
        ) from error


def _opened(location: Location, series: int, cache: DecodedCache, raw: bool) -> Source:
    path = location.path.lower().rstrip("/\\")
    if location.is_url or path.endswith((".zarr", ".zip", ".ozx")) or is_folder(location.path):
        if location.is_url and not path.endswith(".zarr"):
            _refuse_remote_file(location, path)
        return open_zarr(location, series=series)
    if path.endswith(RASTERS):
        return RasterSource(location, cache, raw=raw)
    if path.endswith(TIFFS):
        return TiffSource(location, cache, series=series, raw=raw)
    if path.endswith(SLIDES):
        return SlideSource(location)
    raise InputError(f"'{location.path}' is of a kind that is not read: convert it to TIFF, PNG or OME-Zarr.")


def from_array(
    array: Any, name: str, *, mpp: float | None = None, translation: tuple[float, float] = (0.0, 0.0)
) -> Image:
    """Make an image of an array, or of a list of arrays of falling size (a pyramid).

    Parameters
    ----------
    array : array or list of arrays, (h, w), (h, w, 1 | 3 | 4) or (1 | 3 | 4, h, w)
        NumPy, Dask, Zarr: anything with `shape`, `dtype` and slicing. It is read when asked for and never changed.
    name : str
        Name of the layer.
    mpp : float, optional
        Size of a pixel in µm.
    translation : (float, float)
        Where the first pixel lies (y, x), in µm, or in pixels without `mpp`.

    Raises
    ------
    InputError
        For volumes, other numbers of channels, types that are no numbers, and arrays of unknown size.
    """
    arrays = list(array) if isinstance(array, Sequence) else [array]  # napari's multiscale data are a Sequence
    if not arrays or not all(hasattr(level, "shape") and hasattr(level, "dtype") for level in arrays):
        raise InputError(f"'{name}' holds no array: choose an image layer.")
    if any(isinstance(side, float) for level in arrays for side in level.shape):  # NaN, in Dask's arrays
        raise InputError(f"'{name}' does not know its own size yet: compute it first (in Dask, compute_chunk_sizes).")
    axes = array_axes(arrays[0].shape, name)
    if any(len(level.shape) != len(axes) for level in arrays):
        raise InputError(
            f"The levels of '{name}' have different numbers of axes: choose an image layer with equal ones."
        )
    layout = choose_plane(axes, arrays[0].shape, Location(name))
    return Image(ArraySource(arrays, layout, mpp, translation), name, "", mpp)


def _refuse_remote_file(location: Location, path: str) -> None:
    if path.endswith((*RASTERS, *TIFFS, *SLIDES)):
        raise InputError(
            f"'{location.path}' is a file on the network and only OME-Zarr is read from there: download it first."
        )


def _means(pixels: NDArray[np.uint8], step: int) -> NDArray[np.float32]:
    """Return the rounded means of squares of `step` pixels: row by row first, which is how they lie in memory."""
    if step == 1:
        return pixels.astype(np.float32)
    height, width = pixels.shape[0] // step, pixels.shape[1] // step
    rows = pixels.reshape(height, step, width * step * 3).sum(1, dtype=np.uint32)
    sums = rows.reshape(height, width, step, 3).sum(2, dtype=np.uint32)
    return np.asarray(np.rint(sums.astype(np.float32) / step**2), np.float32)


def _light(seen: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the color of the brightest twentieth: what stands for parts that nobody can see misleads no stain."""
    luminance = seen.mean(axis=-1)
    light: NDArray[np.uint8] = np.median(seen[luminance >= np.percentile(luminance, 95)], axis=0).astype(np.uint8)
    return light


def _reflected(start: int, stop: int, size: int) -> NDArray[np.intp]:
    """Return the pixels that stand for ``start <= i < stop`` in a row of `size` that is reflected at both ends."""
    if size == 1:
        return np.zeros(stop - start, np.intp)
    period = 2 * (size - 1)
    index = np.abs(np.arange(start, stop)) % period
    return np.asarray(np.minimum(index, period - index))
