"""PNG and JPEG, which have to be decoded whole."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from napari_semiseg.blocks import Box
from napari_semiseg.errors import InputError
from napari_semiseg.io import limits
from napari_semiseg.io.locate import Location, check_file
from napari_semiseg.io.source import DecodedCache

FORMATS = ("PNG", "JPEG")
_MODES = {"1": ("1", 1, bool), "L": ("L", 1, np.uint8), "RGB": ("RGB", 3, np.uint8), "RGBA": ("RGBA", 4, np.uint8)}
_GRAY_16 = ("I;16", "I;16B", "I;16L", "I;16N", "I")


class RasterSource:
    """A PNG or JPEG file, decoded at the first read.

    Parameters
    ----------
    location : Location
        ``c`` may choose a channel.
    cache : DecodedCache
        Holds the decoded image.
    raw : bool
        Whether palette images give their indices (labels) instead of their colors.

    Raises
    ------
    InputError
        If the file is no PNG or JPEG, is animated, claims too much, or has a color space other than gray or RGB.
    """

    def __init__(self, location: Location, cache: DecodedCache, *, raw: bool = False) -> None:
        self._path = check_file(location.path)
        self._cache = cache
        with _opened(self._path) as picture:
            width, height = picture.size
            limits.check_shape((height, width), location.path)
            self._mode, self.channels, self.dtype = _target(picture, location.path, raw)
            frames = getattr(picture, "n_frames", 1)
            if frames > 1:
                raise InputError(
                    f"'{location.path}' has {frames} frames: save the one you mean as an image of its own."
                )
        self.levels = [(height, width)]
        self.mpp: float | None = None
        self.translation = (0.0, 0.0)
        decoded = limits.bytes_of((height, width, self.channels), self.dtype)
        limits.check_bytes(decoded, location.path)
        limits.check_ratio(decoded, self._path.stat().st_size, location.path)
        self._channel = location.chosen.get("c")
        if self._channel is not None:
            if self._channel >= self.channels:
                raise InputError(f"'{location.path}' has no c={self._channel}: it can be 0 to {self.channels - 1}.")
            self.channels = 1
        unknown = set(location.chosen) - {"c", "s"}
        if unknown:
            raise InputError(f"'{location.path}' has no axis '{min(unknown)}': leave that choice out.")

    def read(self, box: Box, level: int) -> NDArray[Any]:
        """Return the pixels of `box` as (h, w, channels)."""
        pixels = self._cache.get((self, level), self._decode)[box.slices]
        return pixels if self._channel is None else pixels[..., self._channel, None]

    def close(self) -> None:
        """Drop the decoded image."""
        self._cache.drop(self)

    def _decode(self) -> NDArray[Any]:
        with _opened(self._path) as picture:
            try:
                picture.load()
            except (OSError, ValueError, SyntaxError, EOFError) as error:
                raise InputError(f"'{self._path}' is damaged ({error}): copy it again from its source.") from None
            pixels = np.array(picture if picture.mode == self._mode else picture.convert(self._mode))
        return pixels.astype(self.dtype, copy=False).reshape(*self.levels[0], -1)


def _opened(path: Path) -> Pillow.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own limit is lower than ours and is checked after this
            return Pillow.open(path, formats=FORMATS)
    except Pillow.DecompressionBombError:
        raise InputError(
            f"'{path}' claims more pixels than a PNG or JPEG may have: save it as a tiled TIFF or OME-Zarr."
        ) from None
    except (OSError, ValueError, SyntaxError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise InputError(f"'{path}' is not a PNG or JPEG image: check the file, or its extension.") from None


def _target(picture: Pillow.Image, where: str, raw: bool) -> tuple[str, int, np.dtype]:
    """Return Pillow's mode to decode to, the channels and the type."""
    mode = picture.mode
    if mode == "P" and raw:
        return "P", 1, np.dtype(np.uint8)
    if mode == "P":
        mode = "RGBA" if "transparency" in picture.info else "RGB"
    if mode == "LA" and not raw:
        mode = "RGBA"
    if mode in _GRAY_16:
        return picture.mode, 1, np.dtype(np.int32 if mode == "I" else np.uint16)
    if mode in _MODES:
        target, channels, dtype = _MODES[mode]
        return target, channels, np.dtype(dtype)
    raise InputError(f"'{where}' has the color space {mode} and gray and RGB are read: convert it to RGB.")
