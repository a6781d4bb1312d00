"""A report as one HTML file: pictures inside, nothing loaded from elsewhere, readable in ten years."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from napari_semiseg.atomic import write_text

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
body { color: #222; background: #fff }
h1 { font-size: 1.6rem; margin-bottom: 0 }
.lead { font-size: 1.15rem }
figure { display: inline-block; margin: 0 1rem 1.5rem 0; width: min(100%, 33rem); vertical-align: top }
figure img { width: 100%; image-rendering: auto; border: 1px solid #bbb }
figcaption { color: #555; font-size: .9rem }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { text-align: left; padding: .3rem 1.2rem .3rem 0; border-bottom: 1px solid #ccc }
td.number { text-align: right; font-variant-numeric: tabular-nums }
.swatch { display: inline-block; width: .9em; height: .9em; margin: 0 .3em 0 .8em }
.swatch { border: 1px solid #888; vertical-align: -.1em }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #181818 } figcaption { color: #aaa } }
"""


@dataclass(frozen=True)
class Picture:
    """An image with its caption.

    Attributes
    ----------
    pixels : ndarray, (h, w, 3), uint8
    caption : str
    legend : mapping of str to (int, int, int)
        What a color means.
    """

    pixels: NDArray[np.uint8]
    caption: str
    legend: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """Rows under a heading; numbers are shown with three decimals.

    Attributes
    ----------
    title : str
    columns : sequence of str
    rows : sequence of sequences
        Of text, numbers, or None for an empty place.
    note : str
        What the numbers mean.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | float | None]]
    note: str = ""


@dataclass(frozen=True)
class Report:
    """What stands on the page, top to bottom. All text is shown as it is, never as HTML."""

    title: str
    lead: str
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    facts: Mapping[str, str] = field(default_factory=dict)


def write_report(path: Path, report: Report) -> None:
    """Write a report to `path`, atomically, as one self-contained HTML file."""
    write_text(path, render(report))


def render(report: Report) -> str:
    """Return a report as HTML."""
    facts = Table("How it was made", ("", ""), list(report.facts.items()))
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>{escape(report.title)}</title><style>{_STYLE}</style></head><body>",
        f'<h1>{escape(report.title)}</h1><p class="lead">{escape(report.lead)}</p>',
        *map(_figure, report.pictures),
        *map(_table, report.tables),
        _table(facts) if report.facts else "",
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def png_bytes(pixels: NDArray[np.uint8]) -> bytes:
    """Encode an image, (h, w, 3) uint8, as PNG."""
    buffer = io.BytesIO()
    PillowImage.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _figure(picture: Picture) -> str:
    source = base64.b64encode(png_bytes(picture.pixels)).decode()
    legend = "".join(
        f'<span class="swatch" style="background: rgb{color}"></span>{escape(meaning)}'
        for meaning, color in picture.legend.items()
    )
    caption = escape(picture.caption)
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{source}">'
        f"<figcaption>{caption}{legend}</figcaption></figure>"
    )


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    rows = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in table.rows)
    note = f"<p>{escape(table.note)}</p>" if table.note else ""
    heading = f"<tr>{head}</tr>" if any(table.columns) else ""
    return f"<h2>{escape(table.title)}</h2><table>{heading}{rows}</table>{note}"


def _cell(value: str | float | None) -> str:
    if isinstance(value, float):
        return f'<td class="number">{value:.3f}</td>'
    return f"<td>{escape('' if value is None else str(value))}</td>"
