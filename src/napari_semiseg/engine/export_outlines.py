"""Nuclei as outlines: GeoJSON for QuPath, regions of interest for ImageJ. Read back nucleus by nucleus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from napari_semiseg import atomic
from napari_semiseg.engine.export_job import Job, measured_in_bands, part_of, place_of
from napari_semiseg.engine.watched import Report
from napari_semiseg.io.columns import Columns
from napari_semiseg.io.nucleus import Nucleus
from napari_semiseg.io.outline_files import GEOJSON, ROIS, OutlineFormat, write_outlines
from napari_semiseg.io.outlines import OutlineTracer, area

_EXPECTED_BYTES = 1500  # of a nucleus with twenty measurements
_NOT_MEASURED = ("label", "class", "bbox_y0", "bbox_x0", "bbox_y1", "bbox_x1")


def to_geojson(job: Job, report: Report) -> dict[str, Any]:
    """Write nuclei as detections, each with its measurements."""
    return _outlined(job, report, GEOJSON)


def to_imagej_roi(job: Job, report: Report) -> dict[str, Any]:
    """Write nuclei as regions of interest, in a zip."""
    return _outlined(job, report, ROIS)


def _outlined(job: Job, report: Report, form: OutlineFormat) -> dict[str, Any]:
    expected = int(job.result.card.facts.get("nuclei", 0))
    atomic.require_space(job.target.parent, expected * _EXPECTED_BYTES, f"'{job.target.name}'")
    nuclei = _Outlined(job, part_of(report, 0, 2))
    written = write_outlines(job.target, form, nuclei, place_of(job.result), read_back=part_of(report, 1, 2))
    if written != nuclei.measured:
        raise AssertionError("a nucleus was measured and not outlined")
    report(1, 1)
    return {"nuclei": written, "measurements": nuclei.names}


class _Outlined:
    """The nuclei of a result, each with its outlines and its measurements, as soon as both are there."""

    def __init__(self, job: Job, report: Report) -> None:
        self._job, self._report = job, report
        self.measured = 0
        self.names: list[str] = []

    def __iter__(self) -> Iterator[Nucleus]:
        tracer = OutlineTracer()
        for rows in measured_in_bands(self._job, self._report, tracer.add):
            self.measured += len(rows["label"])
            self.names = _names(rows)
            yield from self._joined(rows, tracer)

    def _joined(self, rows: Columns, tracer: OutlineTracer) -> Iterator[Nucleus]:
        order = np.argsort(rows["label"])
        ids = rows["label"][order]
        titles = rows["class"] if "class" in rows else np.full(len(ids), self._job.result.classes[0], object)
        for label, polygons in tracer.take(ids):
            row = order[np.searchsorted(ids, label)]
            if area(polygons) != rows["area_px"][row]:
                raise AssertionError(f"the outline of nucleus {label} does not hold its pixels")
            yield Nucleus(label, polygons, titles[row], {name: _shortened(rows[name][row]) for name in self.names})


def _names(columns: Columns) -> list[str]:
    return [name for name in columns if name not in _NOT_MEASURED and columns[name].dtype.kind in "iuf"]


def _shortened(value: Any) -> float:
    """Return a measurement with six significant digits, whole numbers as they are."""
    return float(f"{value:.6g}") if isinstance(value, np.floating) else int(value)
