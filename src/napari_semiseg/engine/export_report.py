"""A report on the nuclei of a slide, and one on all slides of a folder: numbers, plots, one HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semiseg.engine.export_job import Job, measured_in_bands
from napari_semiseg.engine.report import Picture, Table, write_report
from napari_semiseg.engine.report import Report as Page
from napari_semiseg.engine.watched import Report
from napari_semiseg.io.summary import Pieces, Summary, table_of
from napari_semiseg.postprocess.tissue import find_tissue

_OVERVIEW = 1024  # longer side of the picture, in pixels


def to_report(job: Job, report: Report) -> dict[str, Any]:
    """Measure all nuclei, and write what they come to: over the slide, and for each piece of its tissue."""
    assert job.image is not None
    overview = job.image.overview(_OVERVIEW)
    pieces = Pieces.of_tissue(find_tissue(overview, job.image.shape).mask, job.image.shape)
    summary = Summary(pieces, job.result.mpp)
    for rows in measured_in_bands(job, report):
        summary.add(rows)
    write_report(job.target, _page(job, summary, overview))
    return {"nuclei": int(summary.count[-1]), "summary": summary.rows()[0] | {"name": job.result.card.name}}


def write_index(path: Path, slides: Sequence[Mapping[str, Any]], facts: Mapping[str, str]) -> None:
    """Write one page on many slides.

    Parameters
    ----------
    path : Path
        An HTML file, replaced if it exists.
    slides : sequence of mapping
        The facts ``summary`` of each slide's own report.
    facts : mapping of str to str
        How they were made.
    """
    heads, cells = table_of(slides, first="slide")
    nuclei = sum(slide["nuclei"] for slide in slides)
    note = "Means ± standard deviations over nuclei. Neighbors are looked for within 50 µm, or 200 pixels."
    write_report(
        path,
        Page(
            f"{len(slides)} slides",
            f"{nuclei:,} nuclei on {len(slides)} slides.",
            pictures=[Picture(_bars(slides), "Nuclei per mm² of tissue, or nuclei where the pixel size is unknown.")],
            tables=[Table("Slides", heads, cells, note)],
            facts=dict(facts),
        ),
    )


def _page(job: Job, summary: Summary, overview: NDArray[np.uint8]) -> Page:
    card, rows = job.result.card, summary.rows()
    heads, cells = table_of(rows, first="region")
    size = "of unknown size" if card.mpp is None else f"of {card.mpp:.4g} µm"
    within = "200 pixels" if card.mpp is None else "50 µm"
    note = (
        "Means ± standard deviations over nuclei. Pieces are connected tissue, the largest first; a nucleus belongs to "
        "the piece that holds its centroid, and the slide has also those on what looks like glass. Neighbors are "
        f"looked for within {within}."
    )
    lead = f"{rows[0]['nuclei']:,} nuclei on {card.shape[1]:,} x {card.shape[0]:,} pixels {size}."
    pictures = [
        Picture(overview, "The slide."),
        Picture(_density(summary), "Density of nuclei."),
        Picture(_histogram(summary, "area"), "Area of nuclei."),
        Picture(_histogram(summary, "nearest"), "Distance to the nearest neighbor, between centroids."),
    ]
    facts = {"image": card.image, "result": str(job.result.path), "run": str(card.facts.get("run", ""))}
    split = card.facts.get("split", {})
    facts |= {name: str(split[name]) for name in ("threshold", "strength") if name in split}
    if (least := split.get("min_area")) is not None:
        known = "" if card.mpp is None else f"{least * card.mpp**2:.3g} µm², "
        facts["smallest nucleus"] = f"{known}{least} pixels"
    if gaps := card.facts.get("gaps"):
        facts["left out"] = f"{len(gaps)} parts of the image, which could not be read"
    return Page(card.name, lead, pictures, [Table("What the nuclei come to", heads, cells, note)], facts)


def _density(summary: Summary) -> NDArray[np.uint8]:
    figure, axes = _figure()
    per_mm2 = summary.mpp is not None
    each = (summary.field * (summary.mpp or 1.0) / 1000) ** 2 if per_mm2 else 1.0
    shown = axes.imshow(summary.map / each, cmap="viridis", interpolation="nearest")
    axes.set_axis_off()
    figure.colorbar(shown, ax=axes, label="nuclei per mm²" if per_mm2 else f"nuclei per {summary.field}² pixels")
    return _pixels(figure)


def _histogram(summary: Summary, name: str) -> NDArray[np.uint8]:
    figure, axes = _figure()
    axes.stairs(summary.histograms[name], summary.edges[name], fill=True)
    unit = {"area": ("µm²", "pixels"), "nearest": ("µm", "pixels")}[name][summary.mpp is None]
    axes.set_xlabel({"area": f"area, {unit}", "nearest": f"nearest neighbor, {unit}"}[name])
    axes.set_ylabel("nuclei")
    axes.spines[["top", "right"]].set_visible(False)
    return _pixels(figure)


def _bars(slides: Sequence[Mapping[str, Any]]) -> NDArray[np.uint8]:
    figure, axes = _figure(height=max(2.0, 0.28 * len(slides) + 1))
    values = [slide.get("nuclei_per_mm2") or slide["nuclei"] for slide in slides]
    axes.barh(range(len(slides)), values)
    axes.set_yticks(range(len(slides)), [str(slide["name"])[:40] for slide in slides], parse_math=False)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    return _pixels(figure)


def _figure(height: float = 4.0) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, min(height, 100)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def _pixels(figure: Any) -> NDArray[np.uint8]:
    figure.canvas.draw()
    return np.ascontiguousarray(np.asarray(figure.canvas.buffer_rgba())[..., :3])
