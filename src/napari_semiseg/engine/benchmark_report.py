"""The results of a benchmark for programs and for readers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_semiseg import atomic
from napari_semiseg.engine.benchmark_budget import Budget, budget_of, budgets_of, words
from napari_semiseg.engine.evaluate import DEFINITIONS, EMPTY_CASES
from napari_semiseg.engine.papers import DEFINITIONS as PAPERS
from napari_semiseg.engine.papers import PaperRow, paper_rows

SCHEMA = 1
NONE, ALL = "0", "1"
USUAL_SPLITS = ("splits", "splits_grouped")
"""Names of files that lie beside a data set, and need not be said."""

COLUMNS = {
    "dice": "Dice per image",
    "dice_cells": "Dice per sub-image",
    "iou": "Jaccard per image",
    "dice_pooled": "Dice pooled",
    "mdice_two_class": "mDice, two classes",
    "miou_two_class": "mIoU, two classes",
    "accuracy_pooled": "accuracy pooled",
    "aji": "AJI",
    "pq": "PQ",
}
CLASS_COLUMNS = {
    "mdice": "mDice, all classes",
    "miou": "mIoU, all classes",
    "accuracy_classes": "accuracy, all classes",
}
WORDS = {
    **DEFINITIONS,
    "dice_cells": "foreground Dice of each sub-image, mean over sub-images",
    "dice_opened": "foreground Dice of each image after opening and closing with disks of 3 and of 1, mean over images",
}

Record = Mapping[str, Any]


def write_report(
    out: Path, rows: Sequence[Record], request: Record, total: int, failed: Mapping[str, str], dataset: str
) -> list[Path]:
    """Write ``results.json`` and ``table.md``, each whole or not at all.

    Parameters
    ----------
    out : Path
        The folder of the benchmark.
    rows : sequence of mapping
        The finished rows.
    request : mapping
        What was asked for.
    total : int
        How many rows there will be.
    failed : mapping of str to str
        Why rows cannot be had, by name.
    dataset : str
        Name of what is scored, by which the papers' figures are found.
    """
    results, table = out / "results.json", out / "table.md"
    beside = [vars(row) for row in _papers(request, dataset)]
    atomic.write_json(
        results,
        {
            "schema": SCHEMA,
            "request": dict(request),
            "rows_planned": total,
            "rows_finished": len(rows),
            "failed": dict(failed),
            "definitions": WORDS,
            "rows": list(rows),
            "papers": {"definitions": PAPERS, "rows": beside},
        },
    )
    atomic.write_text(table, table_of(rows, request, total, failed, dataset))
    return [results, table]


def table_of(rows: Sequence[Record], request: Record, total: int, failed: Mapping[str, str], dataset: str) -> str:
    """Return the results as a page of Markdown: a table for each amount of labels, the papers' rows below ours."""
    trained = Path(request["dataset"]).name
    scored = f"`{request['part']}` of {dataset}"
    if request["splits"] and Path(request["splits"]).stem not in USUAL_SPLITS:
        scored += f" as `{Path(request['splits']).name}` parts it"
    if request.get("classes"):
        scored += ", in classes"
    lines = [f"# {trained}, scored on {scored}", "", _conditions(rows, request)]
    if len(rows) + len(failed) < total:
        lines += ["", f"**Unfinished: {len(rows)} of {total} rows.**"]
    papers = _papers(request, dataset)
    several = len(budgets_of(request)) > 1
    unlabeled = [row for row in rows if row["labeled"] == NONE]
    amounts = list(dict.fromkeys(row["labeled"] for row in rows if row["labeled"] != NONE))
    for amount in amounts or [NONE]:
        mine = [row for row in rows if row["labeled"] == amount and amount != NONE]
        heading = f"## {_amount(amount, mine, request['by'])}"
        lines += ["", heading, "", *_section(amount, mine, unlabeled, papers, several=several)]
    lines += ["", *[f"- *{name}*: {WORDS[key]}." for key, name in COLUMNS.items()], "", EMPTY_CASES]
    named = [paper for paper in PAPERS if any(f"({paper})*" in line for line in lines)]
    lines += ["", *[f"- *{paper}*, as printed there: {PAPERS[paper]}." for paper in named]] if named else []
    lines += ["", *[f"- No row `{name}`: {why}" for name, why in failed.items()]] if failed else []
    return "\n".join(lines) + "\n"


def _papers(request: Record, dataset: str) -> list[PaperRow]:
    """Return the papers' rows that were learned from the same set and scored on the same.

    What a paper has of so many cells, drawn from all images, is not what whole images of as many give.
    """
    trained = Path(request["dataset"]).name
    elsewhere = request["test"] is not None and Path(request["test"]).name != trained
    found = paper_rows(dataset, trained if elsewhere else "")
    by_cells = request["by"] == "cells"
    return [row for row in found if by_cells or row.count is None or row.labeled in (NONE, ALL)]


def _section(
    amount: str, mine: Sequence[Record], unlabeled: Sequence[Record], papers: Sequence[PaperRow], *, several: bool
) -> list[str]:
    """Return a table; with `several` budgets in a column of their own, the methods of one budget below each other."""
    shown = [*unlabeled, *mine]
    if several:
        shown.sort(key=lambda row: (budget_of(row) or Budget()).length)
    columns = dict(COLUMNS)
    if any("mdice" in row["scores"] for row in shown):
        columns |= CLASS_COLUMNS
    counts = {row["cells"] for row in mine}
    beside = [
        row
        for row in papers
        if row.fits(amount, min(counts) if len(counts) == 1 else None) or (unlabeled and row.labeled == NONE)
    ]
    if any(set(row.scores) & set(CLASS_COLUMNS) for row in beside):
        columns |= CLASS_COLUMNS
    head = ["method", "labels", *(["budget"] if several else []), *columns.values(), "minutes", "steps", "runs"]
    lines = [_line(*head), _line(*["---"] * len(head))]
    for kind in dict.fromkeys(map(_kind, shown)):
        own = [row for row in shown if _kind(row) == kind]
        name, _, budget = kind
        scores = [mean_and_spread([row["scores"].get(column) for row in own]) for column in columns]
        minutes = np.mean([row["seconds_training"] for row in own]) / 60
        steps = f"{np.mean([row['steps'] for row in own]):.0f}"
        cells = "/".join(str(count) for count in sorted({row["cells"] for row in own}))
        given = [str(budget or "")] if several else []
        lines.append(_line(name, cells, *given, *scores, f"{minutes:.1f}", steps, str(len(own))))
    for row in beside:
        figures = [f"{row.scores[column]:.3f}" if column in row.scores else "" for column in columns]
        named = [f"*{row.method} ({row.paper})*", _labels_of(row), *([""] if several else [])]
        lines.append(_line(*named, *figures, "", "", ""))
    return lines


def _labels_of(paper: PaperRow) -> str:
    """Say how many cells a paper's row had labels of; where it does not, which share of all."""
    return str(paper.count or ("all" if paper.labeled == ALL else paper.labeled))


def _kind(row: Record) -> tuple[str, str, Budget | None]:
    """Return what the runs of one line of a table have in common."""
    return name_of(row, code="`"), row["labeled"], budget_of(row)


def name_of(row: Record, code: str = "") -> str:
    """Name what was trained: a method, and its variant where it is one; with `code` around the method's name."""
    variant = row.get("variant", "")  # which older rows do not have
    return f"{code}{row['method']}{code}" + (f": {variant}" if variant else "")


def mean_and_spread(values: Sequence[float | None]) -> str:
    """Return mean ± standard deviation over runs; the mean alone of one, "" of none."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    spread = f" ± {np.std(known, ddof=1):.3f}" if len(known) > 1 else ""
    return f"{np.mean(known):.3f}{spread}"


def _conditions(rows: Sequence[Record], request: Record) -> str:
    length = words(budgets_of(request)) or f"the time of the preset `{request['preset']}`"
    if request.get("variants") and not words(budgets_of(request)):
        length += ", of a variant its paper's epochs,"
    devices = "; ".join(dict.fromkeys(row["device"] for row in rows)) or "nothing yet"
    commits = ", ".join(dict.fromkeys(row["commit"] for row in rows))
    torches = ", ".join(dict.fromkeys(row["versions"]["torch"] for row in rows))
    said = f"Learned from `{request['split']}`, {length} a training, mean ± sd over runs. Device: {devices}."
    return f"{said} torch {torches}, commit {commits}." if rows else said


def _amount(amount: str, rows: Sequence[Record], by: str) -> str:
    if amount == NONE:
        return "No label"
    if amount == ALL:
        return "All labels"
    cells = "/".join(str(count) for count in sorted({row["cells"] for row in rows}))
    name = Path(amount).name if Path(amount).is_file() else amount
    return f"Labels: {name} of the {by} ({cells} cells)"


def _line(*entries: str) -> str:
    return f"| {' | '.join(entries)} |"
