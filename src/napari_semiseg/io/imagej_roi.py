"""ImageJ regions of interest: a zip with one ``.roi`` per nucleus, as the ROI Manager of ImageJ and Fiji keeps them.

A nucleus of one part without holes is a traced outline with whole-numbered corners, any other a composite path. Label
and class are properties of the region, which ImageJ keeps. Points are (x, y) in these files.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import roifile
from numpy.typing import NDArray

from napari_semiseg import atomic
from napari_semiseg.errors import InputError
from napari_semiseg.io.locate import check_file
from napari_semiseg.io.nucleus import Nucleus, Place
from napari_semiseg.io.outlines import nested

ENDINGS = (".zip", ".roi")

_MAX_ROI = 2**26  # bytes of one region: eight million corners
_MOVE, _LINE, _CLOSE = 0.0, 1.0, 4.0
_OUTLINED = {
    roifile.ROI_TYPE.POLYGON, roifile.ROI_TYPE.FREEHAND, roifile.ROI_TYPE.TRACED, roifile.ROI_TYPE.OVAL,
    roifile.ROI_TYPE.RECT,
}  # fmt: skip


def write_rois(
    path: str | Path, nuclei: Iterable[Nucleus], place: Place, colors: Mapping[str, tuple[int, int, int]]
) -> None:
    """Write nuclei as they come; see `napari_semiseg.io.geojson.write_geojson`."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        comment = json.dumps(place.as_json()).encode("ascii")
        archive.comment = comment if len(comment) < 2**16 else b""
        for nucleus in nuclei:
            roi = _roi(nucleus)
            if nucleus.class_name in colors:
                roi.stroke_color = bytes([255, *colors[nucleus.class_name]])
            archive.writestr(zipfile.ZipInfo(f"{roi.name}.roi"), roi.tobytes(), zipfile.ZIP_DEFLATED)


def read_rois(path: str | Path) -> tuple[Place, Iterator[Nucleus]]:
    """Read the regions of a ``.zip`` or ``.roi`` file.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    place : Place
        Of the image; empty where ImageJ has written the file.
    nuclei : iterator of Nucleus
        Of the regions that have an area, in the order of the file; points and lines are passed over.

    Raises
    ------
    InputError
        If the file is missing or none of ImageJ's, or a region is damaged or too large.
    """
    check_file(path)
    if Path(path).suffix.lower() == ".roi":
        with atomic.open_regular(path) as file:
            data = file.read(_MAX_ROI + 1)
        return Place(), iter(_nuclei([("the region", data)], path))
    try:
        with zipfile.ZipFile(path) as archive:
            comment = archive.comment
    except (zipfile.BadZipFile, NotImplementedError):
        raise InputError(f"'{path}' is no zip of ImageJ regions: save it anew from the ROI Manager.") from None
    place = Place()
    if comment.startswith(b"{"):
        place = Place.from_json(atomic.parse_json(comment, f"'{path}'"), str(path))
    return place, _nuclei(_members(path), path)


def _members(path: str | Path) -> Iterator[tuple[str, bytes]]:
    """Yield the regions of a zip, whatever their names: nothing is written to a disk."""
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if not entry.filename.lower().endswith(".roi"):
                continue
            try:
                with archive.open(entry) as file:
                    yield entry.filename, file.read(_MAX_ROI + 1)
            except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
                raise _damaged(path, entry.filename) from error


def _nuclei(members: Iterable[tuple[str, bytes]], path: str | Path) -> Iterator[Nucleus]:
    for name, data in members:
        if len(data) > _MAX_ROI:
            raise InputError(f"'{path}' holds a region of more than {_MAX_ROI >> 20} MiB: it is damaged.")
        try:
            roi = roifile.ImagejRoi.frombytes(data)
            rings = [_ring(line) for line in roi.coordinates(multi=True)] if roi.roitype in _OUTLINED else []
        except Exception as error:  # a parser of foreign bytes: whatever it raises means the same here
            raise _damaged(path, name) from error
        if any(not np.isfinite(ring).all() for ring in rings):
            raise _damaged(path, name)
        rings = [ring for ring in rings if len(ring) >= 3]
        if rings:
            said = roi.properties
            label = said.get("label", 0)
            yield Nucleus(
                label=int(label) if isinstance(label, int | float) and 0 < label < 2**32 else 0,
                polygons=nested(rings),
                class_name=_class_name(said.get("class", "")),
            )


def _damaged(path: str | Path, name: str) -> InputError:
    return InputError(f"'{path}' holds a region ('{name:.60}') that is damaged: save it anew from the ROI Manager.")


def _roi(nucleus: Nucleus) -> roifile.ImagejRoi:
    rings = [np.asarray(ring)[:, ::-1] for polygon in nucleus.polygons for ring in polygon]
    roi = roifile.ImagejRoi.frompoints(rings[0], name=f"{nucleus.label:06d}")
    roi.roitype = roifile.ROI_TYPE.TRACED
    if len(rings) > 1:
        roi.roitype = roifile.ROI_TYPE.RECT  # with a path: this is how ImageJ tells a composite
        roi.integer_coordinates = roi.subpixel_coordinates = None
        roi.n_coordinates = 0
        corners = np.concatenate(rings)
        (roi.left, roi.top), (roi.right, roi.bottom) = corners.min(0).tolist(), corners.max(0).tolist()
        roi.multi_coordinates = np.concatenate([_path(ring) for ring in rings]).astype(np.float32)
        roi.shape_roi_size = len(roi.multi_coordinates)
    roi.props = f"label: {nucleus.label}\n"
    if nucleus.class_name:
        roi.props += _class_property(nucleus.class_name)
    return roi


@lru_cache(maxsize=256)
def _class_property(name: str) -> str:
    """Return the line that says a class: in quotes and ASCII where the name as it is would not be read back.

    The length of other text is counted wrongly on its way, and "01" or "true" would be taken for what they mean.
    """
    plain = roifile.ImagejRoi(props=f"class: {name}\n")
    as_it_is = name.isascii() and name.isprintable() and _class_name(plain.properties.get("class", "")) == name
    return f"class: {name if as_it_is else json.dumps(name)}\n"


def _path(ring: NDArray[Any]) -> NDArray[np.float64]:
    lines = np.column_stack([np.full(len(ring), _LINE), ring])
    lines[0, 0] = _MOVE
    return np.append(lines.ravel(), _CLOSE)


def _ring(line: NDArray[Any]) -> NDArray[np.float64]:
    ring = np.asarray(line, np.float64)[:, ::-1]
    return ring[:-1] if len(ring) > 3 and (ring[0] == ring[-1]).all() else ring


def _class_name(said: Any) -> str:
    text = str(said)
    if text.startswith('"'):
        try:
            return str(json.loads(text))
        except ValueError:
            return text
    return text
