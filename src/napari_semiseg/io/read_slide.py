"""Whole-slide files, read by OpenSlide, which is an extra."""

from __future__ import annotations

import threading
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semiseg.blocks import Box
from napari_semiseg.errors import InputError
from napari_semiseg.io import limits
from napari_semiseg.io.locate import Location, check_file

SLIDES = (".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".svslide", ".vms", ".vmu")


class SlideSource:
    """A slide that OpenSlide reads. It is opened at the first read and may then be read from several threads.

    Parameters
    ----------
    location : Location
        ``c`` may choose one of the three color channels.

    Raises
    ------
    InputError
        If OpenSlide is not installed, or cannot read the file.
    """

    def __init__(self, location: Location) -> None:
        self._path = str(check_file(location.path))
        self._lock = threading.Lock()
        self._slide: Any = None
        self._channel = location.chosen.get("c")
        if set(location.chosen) - {"c", "s"} or (self._channel or 0) > 2:
            raise InputError(f"'{self._path}' has no such plane: a slide is one image of three colors, c=0 to c=2.")
        slide = self._opened()
        try:
            self.levels: list[tuple[int, int]] = [(height, width) for width, height in slide.level_dimensions]
            self._downsamples = [float(factor) for factor in slide.level_downsamples]
            self.mpp = _mpp(slide.properties)
        finally:
            self.close()  # so that a folder of slides does not hold a file each
        self.channels = 4 if self._channel is None else 1
        self.dtype = np.dtype(np.uint8)
        self.translation = (0.0, 0.0)
        for shape in self.levels:
            limits.check_shape(shape, self._path)

    def read(self, box: Box, level: int) -> NDArray[Any]:
        """Return the pixels of `box` as (h, w, 4); what the scanner left out is transparent."""
        corner = (round(box.x0 * self._downsamples[level]), round(box.y0 * self._downsamples[level]))
        with self._lock:
            self._slide = self._slide or self._opened()
            slide = self._slide
        try:
            pixels = np.asarray(slide.read_region(corner, level, (box.width, box.height)))
        except _openslide().OpenSlideError as error:
            self.close()  # OpenSlide answers nothing more after an error
            raise InputError(f"A part of '{self._path}' is damaged ({error}): copy it again from its source.") from None
        return pixels if self._channel is None else pixels[..., self._channel, None]

    def close(self) -> None:
        """Close the file; a later `read` opens it again."""
        with self._lock:
            if self._slide is not None:
                self._slide.close()
            self._slide = None

    def _opened(self) -> Any:
        openslide = _openslide()
        try:
            return openslide.OpenSlide(self._path)
        except openslide.OpenSlideError as error:
            raise InputError(
                f"'{self._path}' cannot be read as a slide ({str(error)[:80]}): copy it again from its source."
            ) from None


def _openslide() -> ModuleType:
    try:
        import openslide
    except (ImportError, OSError):
        raise InputError(
            "Slides (SVS, NDPI, MRXS, SCN) need OpenSlide, which is not installed: run pip install "
            "'napari-semiseg[wsi]'."
        ) from None
    return openslide


def _mpp(properties: Any) -> float | None:
    sides = []
    for axis in "xy":
        try:
            side = float(properties.get(f"openslide.mpp-{axis}", ""))
        except ValueError:
            continue
        if np.isfinite(side) and side > 0:
            sides.append(side)
    return sum(sides) / len(sides) if sides else None
