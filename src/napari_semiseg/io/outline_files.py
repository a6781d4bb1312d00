"""Files of outlines, verified: what is read back is what was written, before a file has its name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_semiseg import atomic
from napari_semiseg.errors import InputError
from napari_semiseg.io import geojson, imagej_roi
from napari_semiseg.io.nucleus import Nucleus, Place
from napari_semiseg.io.ome_metadata import CLASS_COLORS

_Color = tuple[int, int, int]


@dataclass(frozen=True)
class OutlineFormat:
    """How files of a format are written and read, nucleus by nucleus."""

    write: Callable[[Path, Iterable[Nucleus], Place, Mapping[str, _Color]], None]
    read: Callable[[Path], tuple[Place, Iterator[Nucleus]]]


GEOJSON = OutlineFormat(geojson.write_geojson, geojson.read_geojson)
ROIS = OutlineFormat(imagej_roi.write_rois, imagej_roi.read_rois)


def write_outlines(
    path: str | Path,
    form: OutlineFormat,
    nuclei: Iterable[Nucleus],
    place: Place,
    *,
    read_back: Callable[[int, int], None] = lambda count, total: None,
) -> int:
    """Write nuclei as they come, read them back, and only then give the file its name.

    Parameters
    ----------
    path : str or Path
        Replaced if it exists.
    form : OutlineFormat
    nuclei : iterable of Nucleus
    place : Place
        Of the image; its classes are colored in their order.
    read_back : callable
        Is told, now and then, how many nuclei of how many were read back.

    Returns
    -------
    int
        How many nuclei.

    Raises
    ------
    InputError
        If the disk is full or cannot be written, or what is read back differs.
    """
    with atomic.staged(path) as temporary:
        wrote, back = _Seen(), _Seen()
        form.write(temporary, wrote.passing(nuclei), place, _colors(place.classes))
        told, found = form.read(temporary)
        for count, _ in enumerate(back.passing(found), start=1):
            if count % 1000 == 0:
                read_back(count, wrote.count)
        if (back.count, back.digest, told) != (wrote.count, wrote.digest, place):
            raise InputError(f"'{path}' is not what was written when read back: try another disk.")
    return wrote.count


def _colors(names: Sequence[str]) -> dict[str, _Color]:
    colors = [bytes.fromhex(color) for color in CLASS_COLORS]
    return {name: (*colors[number % len(colors)],) for number, name in enumerate(names)}


class _Seen:
    """What went by: how many nuclei, and a hash of their labels, classes and corners."""

    def __init__(self) -> None:
        self.count = 0
        self._digest = hashlib.sha256()

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()

    def passing(self, nuclei: Iterable[Nucleus]) -> Iterator[Nucleus]:
        for nucleus in nuclei:
            self.count += 1
            self._digest.update(f"{nucleus.label} {nucleus.class_name} {len(nucleus.polygons)}".encode())
            # Formats without polygons keep rings only, and give them back in an order of their own.
            for ring in sorted(np.asarray(ring, np.float64).tobytes() for part in nucleus.polygons for ring in part):
                self._digest.update(ring)
            yield nucleus
