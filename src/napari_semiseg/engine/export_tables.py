"""Tables of nuclei, one row each: CSV and Parquet, written while they are measured."""

from __future__ import annotations

import itertools
from typing import Any

from napari_semiseg.engine.export_job import Job, measured_in_bands, place_of
from napari_semiseg.engine.watched import Report
from napari_semiseg.io import table
from napari_semiseg.io.parquet import write_parquet


def to_csv(job: Job, report: Report) -> dict[str, Any]:
    """Write the table as text."""
    bands = measured_in_bands(job, report)
    first = next(bands)
    return {"nuclei": table.write_csv(job.target, itertools.chain([first], bands)), "columns": list(first)}


def to_parquet(job: Job, report: Report) -> dict[str, Any]:
    """Write the table with the types of its columns."""
    bands = measured_in_bands(job, report)
    first = next(bands)
    nuclei = write_parquet(job.target, itertools.chain([first], bands), place_of(job.result))
    return {"nuclei": nuclei, "columns": list(first)}
