"""Nuclei as outlines: GeoJSON for QuPath, regions of interest for ImageJ. Read back nucleus by nucleus."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from napari_semiseg import atomic
from napari_semiseg.blocks import cells
from napari_semiseg.engine import export_job
from napari_semiseg.engine.export_job import Job, measured, part_of, place_of, with_margin
from napari_semiseg.engine.watched import Report
from napari_semiseg.errors import InputError
from napari_semiseg.io.columns import Columns
from napari_semiseg.io.geojson import read_geojson, write_geojson
from napari_semiseg.io.imagej_roi import read_rois, write_rois
from napari_semiseg.io.nucleus import Nucleus, Place
from napari_semiseg.io.ome_metadata import CLASS_COLORS
from napari_semiseg.io.outlines import OutlineTracer, area

_EXPECTED_BYTES = 1500  # of a nucleus with twenty measurements
_NOT_MEASURED = ("label", "class", "bbox_y0", "bbox_x0", "bbox_y1", "bbox_x1")

_Write = Callable[[Path, Iterable[Nucleus], Place, Mapping[str, tuple[int, int, int]]], None]
_Read = Callable[[Path], tuple[Place, Iterator[Nucleus]]]


def to_geojson(job: Job, report: Report) -> dict[str, Any]:
    """Write nuclei as detections, each with its measurements."""
    return _outlined(job, report, write_geojson, read_geojson)


def to_imagej_roi(job: Job, report: Report) -> dict[str, Any]:
    """Write nuclei as regions of interest, in a zip."""
    return _outlined(job, report, write_rois, read_rois)


def _outlined(job: Job, report: Report, write: _Write, read: _Read) -> dict[str, Any]:
    columns = measured(job, part_of(report, 0, 3))
    count = len(columns["label"])
    place, titles = place_of(job.result), job.result.classes
    atomic.require_space(job.target.parent, count * _EXPECTED_BYTES, f"'{job.target.name}'")
    hexes = (CLASS_COLORS[number % len(CLASS_COLORS)] for number in range(len(titles)))
    colors = {title: tuple(bytes.fromhex(color)) for title, color in zip(titles, hexes, strict=True)}
    with atomic.staged(job.target) as temporary:
        seen = _Seen()
        write(temporary, seen.passing(_nuclei(job, columns, part_of(report, 1, 3))), place, colors)  # type: ignore[arg-type]
        back = _Seen()
        told, nuclei = read(temporary)
        for done, _ in enumerate(back.passing(nuclei), start=1):
            if done % 1000 == 0:
                report(2 * count + done, 3 * count)
        if (back.count, back.digest, told) != (count, seen.digest, place):
            raise InputError(f"'{job.target}' is not what was written when read back: try another disk.")
        report(3, 3)
    return {"nuclei": count, "measurements": _names(columns)}


def _nuclei(job: Job, columns: Columns, report: Report) -> Iterator[Nucleus]:
    """Yield the nuclei of a result with their outlines, in the order in which the cells complete them."""
    result = job.result
    ids = columns["label"]
    boxes = np.stack([columns[f"bbox_{side}"] for side in ("y0", "x0", "y1", "x1")], 1)
    names = _names(columns)
    titles = columns["class"] if "class" in columns else np.full(len(ids), result.classes[0], object)
    tracer, blocks = OutlineTracer(ids, boxes), cells(result.shape, export_job.BLOCK)
    for done, cell in enumerate(blocks, start=1):
        for label, polygons in tracer.add(cell, with_margin(result, cell, 1)):
            row = int(np.searchsorted(ids, label))
            if area(polygons) != columns["area_px"][row]:
                raise AssertionError(f"the outline of nucleus {label} does not hold its pixels")
            yield Nucleus(label, polygons, titles[row], {name: _shortened(columns[name][row]) for name in names})
        report(done, len(blocks))


def _names(columns: Columns) -> list[str]:
    return [name for name in columns if name not in _NOT_MEASURED and columns[name].dtype.kind in "iuf"]


def _shortened(value: Any) -> float:
    """Return a measurement with six significant digits, whole numbers as they are."""
    return float(f"{value:.6g}") if isinstance(value, np.floating) else int(value)


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
            for polygon in nucleus.polygons:
                for ring in polygon:
                    self._digest.update(np.asarray(ring, np.float64).tobytes())
            yield nucleus
