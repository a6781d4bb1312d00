"""GeoJSON as QuPath writes and reads it: nuclei as detections, in pixels of level 0, on lines of any length.

Reference: RFC 7946, and QuPath's `GsonTools` (0.4 and newer). A nucleus is a feature whose geometry is a Polygon, or a
MultiPolygon where it has several parts; points are (x, y) here and nowhere else. What QuPath has no word for (size of a
pixel, place, shape) stands beside the features under ``napari-semiseg``, which others pass over.

Files are written and read feature by feature: memory does not grow with their number.
"""

from __future__ import annotations

import gzip
import json
import math
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from napari_semiseg import atomic
from napari_semiseg.errors import InputError
from napari_semiseg.io.locate import check_file
from napari_semiseg.io.nucleus import Nucleus, Place

ENDINGS = (".geojson", ".json", ".geojson.gz", ".json.gz")
"""Of what is read: QuPath compresses files on request."""
LABEL = "label"
"""Name of the measurement that carries the label: QuPath keeps measurements, whatever else it drops."""

_NO_NUCLEI = ("tile", "tmaCore", "root")
"""Objects of QuPath that are no nuclei; nuclei may lie within them."""

_FORMER_TYPES = {
    "tma_core": "tmaCore",
    "PathTileObject": "tile",
    "TMACoreObject": "tmaCore",
    "PathRootObject": "root",
    "PathAnnotationObject": "annotation",
}
"""Types of objects as QuPath wrote them up to 0.3, which differ from today's and matter here."""

MAX_FEATURE = 2**26
"""Longest feature that is read, in characters: some four million corners."""

MAX_NAME = 200
"""Longest name of a class that is read, in characters."""

FARTHEST = 2.0**31
"""No corner lies as far out, in pixels: numbers of pixels are whole."""

_OURS = "napari-semiseg"
_IDS = uuid.UUID("6e617061-7269-4e75-8c65-692066726f6d")
_PIECE = 2**20
_BLANKS = " \t\r\n"


def write_geojson(
    path: str | Path, nuclei: Iterable[Nucleus], place: Place, colors: Mapping[str, tuple[int, int, int]]
) -> None:
    """Write nuclei as they come.

    Parameters
    ----------
    path : str or Path
        Written over. Readers may see it half-written: give a name that is not yet its own.
    nuclei : iterable of Nucleus
    place : Place
        Of the image.
    colors : mapping of str to (int, int, int)
        Red, green and blue of each class, 0 to 255.

    Raises
    ------
    OSError
        If the disk is full.
    """
    with Path(path).open("w", encoding="utf-8", newline="\n") as file:
        file.write(f'{{"type": "FeatureCollection",\n"{_OURS}": {_text(place.as_json())},\n"features": [')
        for number, nucleus in enumerate(nuclei):
            file.write(f"{',' if number else ''}\n{_text(_feature(nucleus, place, colors))}")
        file.write("\n]}\n")


def read_geojson(path: str | Path) -> tuple[Place, Iterator[Nucleus]]:
    """Read features of our own, of QuPath, or of any other program.

    Parameters
    ----------
    path : str or Path
        A FeatureCollection, a list of features, or one feature.

    Returns
    -------
    place : Place
        Of the image; empty where the file does not say it before its features.
    nuclei : iterator of Nucleus
        Those of the features that are polygons, in the order of the file; others (points, lines, and QuPath's tiles and
        cores) are passed over. Of QuPath's cells the nucleus is read, where there is one; what lies within an object,
        where QuPath wrote the whole hierarchy, follows it. Reading goes on as they are asked for, and may raise
        InputError then.

    Raises
    ------
    InputError
        If the file is missing, holds no GeoJSON, or a feature that is too long or has no finite corners.
    """
    check_file(path)
    found = _features(Path(path))
    first = next(found)
    place = first if isinstance(first, Place) else Place()
    features = (feature for item in found if not isinstance(item, Place) for feature in _with_children(item))
    return place, (nucleus for feature in features if (nucleus := _nucleus(feature, path)))


# ---- writing


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _feature(nucleus: Nucleus, place: Place, colors: Mapping[str, tuple[int, int, int]]) -> dict[str, Any]:
    rings = [[_closed(ring) for ring in polygon] for polygon in nucleus.polygons]
    geometry: dict[str, Any] = {"type": "MultiPolygon", "coordinates": rings}
    if len(rings) == 1:
        geometry = {"type": "Polygon", "coordinates": rings[0]}
    properties: dict[str, Any] = {"objectType": "detection"}
    if nucleus.class_name:
        color = colors.get(nucleus.class_name, (240, 228, 66))
        properties["classification"] = {"name": nucleus.class_name, "color": list(color)}
    measured = {name: value for name, value in nucleus.measurements.items() if math.isfinite(value)}
    properties["measurements"] = {LABEL: nucleus.label, **measured}
    # The same nucleus of the same image has the same id each time it is written: QuPath then replaces it.
    identity = uuid.uuid5(_IDS, f"{place.name}/{nucleus.label}")
    return {"type": "Feature", "id": str(identity), "geometry": geometry, "properties": properties}


def _closed(ring: NDArray[Any]) -> list[list[float]]:
    points: list[list[float]] = ring[:, ::-1].tolist()
    return [*points, points[0]]


# ---- reading


def _with_children(feature: Any) -> Iterator[Any]:
    """Yield a feature, and then what lies within it, however deep."""
    waiting = [feature]
    while waiting:
        yield (one := waiting.pop())
        properties = _mapping(_mapping(one).get("properties"))
        children = properties.get("childObjects", properties.get("children"))
        waiting += reversed(children) if isinstance(children, list) else ()


def _type(feature: Mapping[str, Any], properties: Mapping[str, Any]) -> str:
    """Return the type of an object of QuPath, whichever version wrote it; "" of other programs."""
    given = properties.get("objectType", properties.get("object_type", feature.get("id")))
    return _FORMER_TYPES.get(given, given) if isinstance(given, str) else ""


def _nucleus(feature: Any, path: str | Path) -> Nucleus | None:
    """Return what a feature says; None where it is no polygon."""
    if not isinstance(feature, dict):
        raise InputError(f"'{path}' holds something that is no GeoJSON feature: export it again.")
    properties = _mapping(feature.get("properties"))
    kind_of_object = _type(feature, properties)
    if kind_of_object in _NO_NUCLEI:
        return None
    geometry = _mapping(feature.get("nucleusGeometry")) or _mapping(feature.get("geometry"))
    kind, coordinates = geometry.get("type"), geometry.get("coordinates")
    parts: Any = [coordinates] if kind == "Polygon" else coordinates
    if kind not in ("Polygon", "MultiPolygon"):
        return None
    try:
        polygons = [[_ring(ring) for ring in part] for part in parts]
    except (TypeError, ValueError, LookupError, OverflowError):
        raise InputError(f"'{path}' holds a polygon without proper corners: export it again.") from None
    polygons = [polygon for polygon in polygons if polygon]
    if not polygons:
        return None
    measured = _measured(properties.get("measurements"))
    label = measured.pop(LABEL, 0.0)
    return Nucleus(
        label=int(label) if label.is_integer() and 0 < label < 2**32 else 0,
        polygons=polygons,
        class_name=_class_name(properties.get("classification")),
        measurements=measured,
        annotation=kind_of_object == "annotation",
    )


def _class_name(given: Any) -> str:
    """Return the name of a class as QuPath shows it; of a class of a class, as "Tumor: Positive", it may list both."""
    said = _mapping(given)
    names = said.get("names", said.get("name", given))
    parts = names if isinstance(names, list) else [names]
    return ": ".join(part.strip() for part in parts if isinstance(part, str) and part.strip())[:MAX_NAME]


def _ring(points: Any) -> NDArray[np.float64]:
    ring = np.array([(point[1], point[0]) for point in points], np.float64)
    if len(ring) < 3 or not (np.abs(ring) < FARTHEST).all():  # nor is NaN
        raise ValueError("no ring")
    return ring[:-1] if len(ring) > 3 and (ring[0] == ring[-1]).all() else ring


def _measured(given: Any) -> dict[str, float]:
    """Read measurements, which QuPath has written as an object, and before 0.4 as a list of names and values."""
    if isinstance(given, list):
        pairs = [(item.get("name"), item.get("value")) for item in given if isinstance(item, dict)]
    else:
        pairs = list(_mapping(given).items())
    return {
        str(name): float(value)
        for name, value in pairs
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
    }


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _features(path: Path) -> Iterator[Any]:
    """Yield the place, where it is said or not, and then every feature."""
    try:
        with _open(path) as file:
            text = _JsonText(file, path)
            start = text.peek()
            if start == "[":
                yield Place()
                yield from text.items()
                return
            place, said, alone = Place(), False, {}
            for key in text.each_key():
                if key == "features" and text.peek() == "[":
                    yield place
                    said = True
                    yield from text.items()
                elif key == _OURS:
                    place = Place.from_json(text.value(), str(path))
                else:
                    alone[key] = text.value()
            if not said:
                yield place
                yield alone
    except UnicodeDecodeError:
        raise InputError(f"'{path}' is no text in UTF-8, as GeoJSON is: export it again.") from None
    except (gzip.BadGzipFile, zlib.error, EOFError):
        raise InputError(f"'{path}' is cut short or damaged: copy or export it again.") from None
    except OSError as error:
        raise atomic.said(error, f"'{path}' cannot be read") from error


def _open(path: Path) -> TextIO:
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig")
    return path.open(encoding="utf-8-sig")


class _JsonText:
    """JSON in a file, decoded value by value, however its lines are broken."""

    def __init__(self, file: TextIO, path: Path) -> None:
        self._file, self._path = file, path
        self._text, self._at, self._ended = "", 0, False
        self._decoder = json.JSONDecoder()  # which knows NaN and Infinity: QuPath before 0.5 measured such numbers

    def peek(self) -> str:
        """Return the next character that is no blank, "" at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in _BLANKS:
                    return self._text[self._at]
                self._at += 1
            if not self._more(_PIECE):
                return ""

    def value(self) -> Any:
        """Return the next value, whole."""
        self.peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
                if end < len(self._text) or self._ended:  # else a number might go on
                    self._at = end
                    return value
            except json.JSONDecodeError:
                if self._ended:
                    raise self._wrong("no valid GeoJSON") from None
            except RecursionError:
                raise self._wrong("values nested too deeply") from None
            if len(self._text) - self._at > MAX_FEATURE:
                raise self._wrong(f"no valid GeoJSON, or a feature of more than {MAX_FEATURE:,} characters")
            self._more(max(_PIECE, len(self._text) - self._at))

    def items(self) -> Iterator[Any]:
        """Yield the values of a list."""
        yield from (self.value() for _ in self._parts("[", "]"))

    def each_key(self) -> Iterator[str]:
        """Yield the keys of an object; the value after each is to be taken before the next."""
        for _ in self._parts("{", "}"):
            key = self.value()
            self._take(":")
            yield str(key)

    def _parts(self, opening: str, closing: str) -> Iterator[None]:
        self._take(opening)
        if self.peek() == closing:
            self._at += 1
            return
        while True:
            yield
            if self.peek() == closing:
                self._at += 1
                return
            self._take(",")

    def _take(self, wanted: str) -> None:
        if self.peek() != wanted:
            raise self._wrong("no valid GeoJSON, or ends too early")
        self._at += 1

    def _more(self, count: int) -> bool:
        piece = self._file.read(count)
        self._text, self._at = self._text[self._at :] + piece, 0
        self._ended = not piece
        return not self._ended

    def _wrong(self, what: str) -> InputError:
        return InputError(f"'{self._path}' holds {what}: export it again from its source.")
