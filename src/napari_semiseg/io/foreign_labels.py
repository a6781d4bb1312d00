"""Labels that others made or corrected, in any format that we write: read back rectangle by rectangle.

Files of outlines are gone through once for all rectangles that are asked for, and label images are read where they are
asked for, so that neither has to fit into memory.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from skimage.measure import label

from napari_semiseg.blocks import Box, cells
from napari_semiseg.errors import InputError
from napari_semiseg.io import geojson, imagej_roi
from napari_semiseg.io.images import TIFFS, open_source
from napari_semiseg.io.labels import as_labels, labels_of
from napari_semiseg.io.locate import Location, is_folder, locate
from napari_semiseg.io.nucleus import Nucleus, Place
from napari_semiseg.io.outlines import fill, holds
from napari_semiseg.io.read_tiff import class_map_of
from napari_semiseg.io.result import Result
from napari_semiseg.io.result_card import result_state

MAX_CLASSES = 124
"""Most names of classes that are taken from a file."""

_MASK = "All labels have the same number, as in a mask: each part of it was taken for a nucleus."

_LOOK = 2048
"""Side of what is looked at together, in pixels, to see whether a label image is a mask."""

REGION_HOLDS = 4
"""An annotation around the middles of so many other outlines is a region in which nuclei were looked for, and none."""


@dataclass(frozen=True)
class Painted:
    """What a file says of a rectangle.

    Attributes
    ----------
    instance : ndarray, uint32, (h, w)
        Nuclei, numbered from 1 in this rectangle; 0 none.
    classes : ndarray, uint8, (h, w)
        1 for the first name of `ForeignLabels.class_names`; 0 where no class is said.
    known : ndarray, bool, (h, w), or None
        Where nuclei were looked for, as in regions of QuPath; None where nobody says.
    """

    instance: NDArray[np.uint32]
    classes: NDArray[np.uint8]
    known: NDArray[np.bool_] | None = None


class ForeignLabels(Protocol):
    """Labels of one image. Made by `open_labels`, or by `of_array`.

    Attributes
    ----------
    name : str
        File or layer, for messages.
    place : Place
        What is known of the image; `shape` is None where a file does not say it.
    class_names : tuple of str
        Names of the classes of nuclei that it holds.
    note : str
        What the user should know of how it was read, in a sentence; "" for nothing.
    """

    name: str
    place: Place
    class_names: tuple[str, ...]
    note: str

    def occupied(self, shape: tuple[int, int], side: int) -> list[tuple[Box, int]]:
        """Cut an image of that shape into cells, and return those that hold nuclei, with how many begin there."""
        ...

    def read(self, boxes: Sequence[Box]) -> list[Painted]:
        """Read rectangles, in pixels of level 0 of the image."""
        ...


def open_labels(source: str | Path) -> ForeignLabels:
    """Open labels in any format that results are exported to, and that keeps nuclei.

    Parameters
    ----------
    source : str or Path
        GeoJSON (ours, QuPath's or another), ImageJ regions (``.zip``, ``.roi``), or a label image: TIFF, OME-TIFF,
        OME-Zarr, PNG.

    Raises
    ------
    InputError
        If it is missing, broken, or of a kind that holds no nuclei.
    """
    location = locate(source)
    name = location.path.lower().rstrip("/\\")
    if name.endswith(geojson.ENDINGS):
        return _Outlines(str(source), geojson.read_geojson)
    if name.endswith(imagej_roi.ENDINGS):
        return _Outlines(str(source), imagej_roi.read_rois)
    if name.endswith((".csv", ".parquet", ".jpg", ".jpeg")):
        raise InputError(f"'{source}' holds no outlines of nuclei: give GeoJSON, ImageJ regions or a label image.")
    if is_folder(location.path) and result_state(location.path) in ("complete", "unfinished"):
        return _OurResult(location.path)
    if name.endswith(TIFFS) and "s" not in location.chosen and (classes := class_map_of(location.path)):
        return _ClassedTiff(location, *classes)
    return _Raster(labels_of(location))


def of_array(labels: Any, name: str, origin: tuple[int, int] = (0, 0)) -> ForeignLabels:
    """Take an array, as of a label layer.

    Parameters
    ----------
    labels : ndarray, (h, w), whole numbers
    name : str
    origin : (int, int)
        Where its first pixel (y, x) lies in the image, in pixels of level 0.
    """
    return _Array(as_labels(np.asarray(labels), name), name, origin)


class _Outlines:
    """Polygons in a file, gone through from its beginning each time."""

    def __init__(self, name: str, reader: Any) -> None:
        self.name, self._reader = name, reader
        self.place, nuclei = reader(name)
        boxes, names, drawn = [], [], {}
        for number, nucleus in enumerate(nuclei):
            boxes.append(_around(nucleus))
            names.append(nucleus.class_name)
            if nucleus.annotation:
                drawn[number] = nucleus.polygons
        self._boxes = np.array(boxes, np.int64).reshape(-1, 4)
        regions = _regions(drawn, self._boxes)
        self._looked = [polygon for number in regions for polygon in drawn[number]]
        self._boxes[regions] = 0  # which lies in no rectangle
        self.note = _note(len(regions))
        for number in regions:
            names[number] = ""
        found: dict[str, None] = dict.fromkeys((*self.place.classes, *filter(None, names)))
        if len(found) > MAX_CLASSES:
            raise InputError(
                f"'{name}' names {len(found)} classes and {MAX_CLASSES} are the most: keep the ones you need."
            )
        self.class_names = tuple(found)

    def occupied(self, shape: tuple[int, int], side: int) -> list[tuple[Box, int]]:
        return _by_cell(self._boxes, shape, side)

    def read(self, boxes: Sequence[Box]) -> list[Painted]:
        painted = [
            Painted(
                np.zeros(box.shape, np.uint32),
                np.zeros(box.shape, np.uint8),
                fill(self._looked, box) if self._looked else None,
            )
            for box in boxes
        ]
        counts = [0] * len(boxes)
        for number, nucleus in enumerate(self._reader(self.name)[1]):
            seen = Box(*self._boxes[number].tolist())
            for index, box in enumerate(boxes):
                common = seen.intersect(box)
                if common.height > 0 and common.width > 0:
                    counts[index] += 1
                    self._paint(painted[index], nucleus, common, box, counts[index])
        return painted

    def _paint(self, painted: Painted, nucleus: Nucleus, common: Box, box: Box, number: int) -> None:
        inside = fill(nucleus.polygons, common)
        place = common.shifted(-box.y0, -box.x0).slices
        painted.instance[place][inside] = number
        kind = self.class_names.index(nucleus.class_name) + 1 if nucleus.class_name else 0
        painted.classes[place][inside] = kind


class _LabelImage(ABC):
    """One number for each pixel: that of the nucleus, or in a mask the same for all."""

    note = ""
    _mask: bool | None = None  # nobody has looked yet
    _shape: tuple[int, int]
    """Rows and columns that hold all of it."""

    def occupied(self, shape: tuple[int, int], side: int) -> list[tuple[Box, int]]:
        ids: set[int] = set()
        found: list[tuple[Box, int, int]] = []
        for cell in cells(shape, side):
            instance = self._instance(cell)
            here = np.unique(instance[instance > 0])
            ids.update(here[:2].tolist())
            parts = int(_parts(instance).max(initial=0)) if len(ids) == 1 else 0
            if here.size:
                found.append((cell, here.size, parts))
        self._found_mask(len(ids) == 1 and sum(parts for *_, parts in found) > 1)
        return [(cell, parts if self._mask else count) for cell, count, parts in found]

    def read(self, boxes: Sequence[Box]) -> list[Painted]:
        if self._mask is None:
            self._found_mask(self._is_mask())
        number = _parts if self._mask else _numbered
        return [Painted(number(self._instance(box)), self._classes(box)) for box in boxes]

    def _found_mask(self, mask: bool) -> None:
        self._mask, self.note = mask, _MASK if mask else ""

    def _is_mask(self) -> bool:
        """Look at all of it until there is a second number: a rectangle does not tell a mask from one nucleus."""
        ids: set[int] = set()
        parts = 0
        for cell in cells(self._shape, _LOOK):
            instance = self._instance(cell)
            ids.update(np.unique(instance[instance > 0])[:2].tolist())
            if len(ids) > 1:
                return False
            parts += int(_parts(instance).max(initial=0))
        return parts > 1

    @abstractmethod
    def _instance(self, box: Box) -> NDArray[np.uint32]: ...

    def _classes(self, box: Box) -> NDArray[np.uint8]:
        return np.zeros(box.shape, np.uint8)


class _Raster(_LabelImage):
    """A label image in a file."""

    def __init__(self, location: Location) -> None:
        self.name = location.path
        self._source = open_source(location, raw=True)
        if self._source.channels != 1 or self._source.dtype.kind not in "bui":
            raise InputError(
                f"'{self.name}' is no label image but one of colors or measured values: give one whole number for each "
                "nucleus."
            )
        self._shape = self._source.levels[0]
        self.place = Place(shape=self._shape, mpp=self._source.mpp, translation=self._source.translation)
        self.class_names: tuple[str, ...] = ()

    def _instance(self, box: Box) -> NDArray[np.uint32]:
        return as_labels(self._source.read(box, 0)[..., 0], self.name)


class _ClassedTiff(_Raster):
    """An OME-TIFF whose first series are nuclei, and another their classes."""

    def __init__(self, location: Location, series: int, names: Mapping[int, str]) -> None:
        super().__init__(location)
        self._kinds = open_source(location, series=series, raw=True)
        if self._kinds.levels[0] != self._source.levels[0] or self._kinds.channels != 1:
            raise InputError(f"The nuclei and the classes of '{self.name}' differ in size: export it again.")
        named = {value: title for value, title in names.items() if 0 < value < 255}
        self.class_names = tuple(dict.fromkeys(named.values()))
        self._numbers = np.zeros(256, np.uint8)
        for value, title in named.items():
            self._numbers[value] = self.class_names.index(title) + 1

    def _classes(self, box: Box) -> NDArray[np.uint8]:
        kinds = np.minimum(self._kinds.read(box, 0)[..., 0], 255).astype(np.uint8)
        return np.where(self._instance(box) > 0, self._numbers[kinds], 0).astype(np.uint8)


class _OurResult(_LabelImage):
    """A result of ours, with its classes."""

    def __init__(self, path: str) -> None:
        self._result = Result.open(path)
        card = self._result.card
        self.name, self._shape = path, card.shape
        self.place = Place(name=card.name, shape=card.shape, mpp=card.mpp, translation=card.translation)
        self.class_names = card.classes if "classes" in self._result.kinds else ()

    def _instance(self, box: Box) -> NDArray[np.uint32]:
        return self._result.nuclei(box)

    def _classes(self, box: Box) -> NDArray[np.uint8]:
        if not self.class_names:
            return super()._classes(box)
        return np.where(self._result.nuclei(box) > 0, self._result.pixel_classes(box), 0).astype(np.uint8)


class _Array(_LabelImage):
    """Labels in memory, which may cover a part of the image only."""

    def __init__(self, labels: NDArray[np.uint32], name: str, origin: tuple[int, int]) -> None:
        self._labels, self.name, self._origin = labels, name, origin
        self._shape = max(1, origin[0] + labels.shape[0]), max(1, origin[1] + labels.shape[1])
        self.place = Place()
        self.class_names: tuple[str, ...] = ()

    def _instance(self, box: Box) -> NDArray[np.uint32]:
        y, x = self._origin
        wanted = box.shifted(-y, -x)
        there = wanted.intersect(Box.whole(self._labels.shape))
        found = np.zeros(box.shape, np.uint32)
        if there.height > 0 and there.width > 0:
            found[there.shifted(-wanted.y0, -wanted.x0).slices] = self._labels[there.slices]
        return found


def _regions(drawn: Mapping[int, Any], boxes: NDArray[np.int64]) -> list[int]:
    """Return which of some annotations, polygons by number, are regions; `boxes` are those of all outlines, (n, 4)."""
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    order = np.argsort(middles[:, 0], kind="stable")
    rows = middles[order, 0]
    found = []
    for number, polygons in drawn.items():
        first, last = np.searchsorted(rows, boxes[number, [0, 2]])  # few, unless it is large
        near = order[first:last]
        near = near[near != number]
        if len(near) >= REGION_HOLDS and np.count_nonzero(holds(polygons, middles[near])) >= REGION_HOLDS:
            found.append(number)
    return found


def _note(regions: int) -> str:
    if not regions:
        return ""
    what = "An outline around others is" if regions == 1 else f"{regions} outlines around others are"
    return f"{what} taken for a region in which nuclei were looked for: outside of it nothing is known."


def _around(nucleus: Nucleus) -> tuple[int, int, int, int]:
    corners = np.concatenate([ring for polygon in nucleus.polygons for ring in polygon])
    (y0, x0), (y1, x1) = np.floor(corners.min(0)), np.ceil(corners.max(0))
    return int(y0), int(x0), int(y1), int(x1)


def _by_cell(boxes: NDArray[np.int64], shape: tuple[int, int], side: int) -> list[tuple[Box, int]]:
    """Count each rectangle in the cell that holds the middle of what lies in the image of it."""
    start, stop = np.maximum(boxes[:, :2], 0), np.minimum(boxes[:, 2:], shape)
    middles = ((start + stop) // 2)[(start < stop).all(1)]
    found, counts = np.unique(middles // side, axis=0, return_counts=True)
    places = (Box(y * side, x * side, (y + 1) * side, (x + 1) * side) for y, x in found.tolist())
    return [(place.intersect(Box.whole(shape)), count) for place, count in zip(places, counts.tolist(), strict=True)]


def _parts(labels: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Give a number, from 1 on, to each part of a mask that hangs together by the sides of pixels; 0 stays."""
    return np.asarray(label(labels > 0, connectivity=1), np.uint32)  # type: ignore[no-untyped-call]


def _numbered(labels: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Give nuclei the numbers from 1 on, in the order of their ids; 0 stays."""
    ids, which = np.unique(labels, return_inverse=True)
    first = 0 if ids.size and ids[0] == 0 else 1
    return (which.reshape(labels.shape) + first).astype(np.uint32)
