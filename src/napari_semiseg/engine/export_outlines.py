"""Nuclei as outlines: GeoJSON for QuPath, regions of interest for ImageJ. Read back nucleus by nucleus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from napari_semiseg import atomic
from napari_semiseg.blocks import cells
from napari_semiseg.engine import export_job
from napari_semiseg.engine.export_job import Job, measured, part_of, place_of, with_margin
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
    columns = measured(job, part_of(report, 0, 3))
    count = len(columns["label"])
    atomic.require_space(job.target.parent, count * _EXPECTED_BYTES, f"'{job.target.name}'")
    reading = part_of(report, 2, 3)
    nuclei = _nuclei(job, columns, part_of(report, 1, 3))
    if (
        write_outlines(job.target, form, nuclei, place_of(job.result), read_back=lambda done: reading(done, count))
        != count
    ):
        raise AssertionError("a nucleus was measured and not outlined")
    reading(1, 1)
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
