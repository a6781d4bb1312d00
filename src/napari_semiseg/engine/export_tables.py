"""Tables of nuclei, one row each: CSV and Parquet."""

from __future__ import annotations

from typing import Any

from napari_semiseg.engine.export_job import Job, measured, place_of
from napari_semiseg.engine.watched import Report
from napari_semiseg.io import table
from napari_semiseg.io.parquet import write_parquet


def to_csv(job: Job, report: Report) -> dict[str, Any]:
    """Write the table as text."""
    columns = measured(job, report)
    table.write_csv(job.target, columns)
    return {"nuclei": len(columns["label"]), "columns": list(columns)}


def to_parquet(job: Job, report: Report) -> dict[str, Any]:
    """Write the table with the types of its columns."""
    columns = measured(job, report)
    write_parquet(job.target, columns, place_of(job.result))
    return {"nuclei": len(columns["label"]), "columns": list(columns)}
