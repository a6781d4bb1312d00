"""Where two results of one image differ, and which of them agrees better with what a person painted. Free of torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from napari_semiseg import atomic, metrics
from napari_semiseg.blocks import Box
from napari_semiseg.config import Config
from napari_semiseg.data.learned import Learned
from napari_semiseg.engine.control import Control
from napari_semiseg.engine.npy import write_npy
from napari_semiseg.errors import InputError
from napari_semiseg.events import Event, Finished, Started, Written
from napari_semiseg.io.result import Result
from napari_semiseg.project.folder import ProjectFolder
from napari_semiseg.project.tiles import validation_tiles

WIDEST = 4096
"""Side of the largest rectangle that is compared, in pixels."""


class CompareRequest(Config):
    """Where two results of the same image differ."""

    a: str = Field(min_length=1, description="A result (.ome.zarr).")
    b: str = Field(min_length=1, description="Another one.")
    out: str = Field(min_length=1, description="File (.npy) for the map.")
    box: tuple[int, int, int, int] | None = Field(
        None, description="The rectangle (y0, x0, y1, x1) in pixels; without it the middle of the image."
    )
    project: str = Field("", description="A project, to score both on its complete tiles; without it none is scored.")
    image: int = Field(0, ge=0, description="Index of the image in that project.")


def compare_from_args(args: dict[str, Any], control: Control) -> Iterator[Event]:
    """Compare two results from untrusted options: what `serve` calls."""
    return compare(CompareRequest.checked(args, "the request"))


def compare(request: CompareRequest) -> Iterator[Event]:
    """Find where two results have nuclei, and score both on the tiles that a person has completed.

    Yields
    ------
    Event
        `Started`; `Written` with what="difference": uint8 (h, w), 0 neither, 1 only `a`, 2 both, 3 only `b`, and the
        facts `box`, `only_a`, `both`, `only_b` (pixels), `dice` (1 where neither has any) and, with a project,
        `scores` (see `scores_on_tiles`); `Finished`.

    Raises
    ------
    InputError
        If a result or the project cannot be read, or the results are not of one size.
    """
    yield Started("compare")
    one, other = Result.open(request.a), Result.open(request.b)
    if one.shape != other.shape:
        raise InputError(f"The results have {one.shape} and {other.shape} pixels: compare two of the same image.")
    whole = Box.whole(one.shape)
    box = (whole.middle(WIDEST) if request.box is None else Box(*request.box)).intersect(whole)
    if not box.area:
        raise InputError(f"The rectangle {request.box} does not lie on the results, which have {one.shape} pixels.")
    if max(box.shape) > WIDEST:
        raise InputError(f"At most {WIDEST} x {WIDEST} pixels are compared: ask for a smaller rectangle.")
    in_one, in_other = one.nuclei(box) > 0, other.nuclei(box) > 0
    found = np.where(in_one & in_other, 2, np.where(in_one, 1, np.where(in_other, 3, 0))).astype(np.uint8)
    write_npy(request.out, found)
    _, only_a, both, only_b = (int(count) for count in np.bincount(found.ravel(), minlength=4))
    parts = 2 * both + only_a + only_b
    facts: dict[str, Any] = {
        "only_a": only_a,
        "both": both,
        "only_b": only_b,
        "dice": 2 * both / parts if parts else 1.0,
    }
    if request.project:
        project = ProjectFolder.open(request.project, read_only=True)
        facts["scores"] = scores_on_tiles(project, request.image, (one, other))
    yield Written("difference", request.out, {"box": list(box), **facts})
    yield Finished("compare", request.out)


def scores_on_tiles(project: ProjectFolder, image: int, results: Sequence[Result]) -> list[dict[str, Any]]:
    """Score results on the complete tiles of an image.

    Parameters
    ----------
    project : ProjectFolder
    image : int
    results : sequence of Result

    Returns
    -------
    list of dict
        One for the tiles set aside to judge by that neither run has learned from, and one for the others, as far as
        there are any: `judges` (bool),
        `tiles`, `nuclei` (how many were painted), and `results`: for each its `dice` (pixels pooled), `aji`, `pq`,
        `nuclei`, and `best_on`, the number of tiles on which no other one has a higher Dice.
    """
    learned = [_learned_by(project, result) for result in results]
    judges = {
        tile.id
        for tile in validation_tiles(project.tiles)
        if not any(before.reaches(tile.image, tile.box) for before in learned)
    }
    complete = [tile for tile in project.tiles if tile.image == image and tile.status == "complete"]
    groups = [(True, [tile for tile in complete if tile.id in judges])]
    groups += [(False, [tile for tile in complete if tile.id not in judges])]
    rows = []
    for judging, tiles in groups:
        if tiles:
            truths = [(tile.box, project.annotation(tile.id).instance) for tile in tiles]
            scored = _scored(results, truths)
            nuclei = sum(len(np.unique(truth[truth > 0])) for _, truth in truths)
            rows.append({"judges": judging, "tiles": len(tiles), "nuclei": nuclei, "results": scored})
    return rows


def _learned_by(project: ProjectFolder, result: Result) -> Learned:
    """Return what the run of a result has learned from; nothing where that is not known."""
    path = project.runs_dir / Path(str(result.card.facts.get("run", ""))).name / "run.json"
    try:
        config = atomic.read_json(path)
        return Learned.of(config if isinstance(config, dict) else {}, str(path))
    except InputError:  # the run is gone, or was none of this project
        return Learned()


def _scored(results: Sequence[Result], truths: Sequence[tuple[Box, NDArray[np.uint32]]]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    each = np.zeros((len(results), len(truths)))
    for row, result in enumerate(results):
        pixels, objects = np.zeros((2, 2), np.int64), metrics.ObjectCounts()
        for column, (box, truth) in enumerate(truths):
            found = result.nuclei(box)
            table = metrics.confusion(found > 0, truth > 0)
            each[row, column] = metrics.dice(table)
            pixels, objects = pixels + table, objects + metrics.compare(found, truth)
        rows.append(
            {"dice": metrics.dice(pixels), "aji": objects.aji, "pq": objects.pq, "nuclei": int(objects.predicted)}
        )
    ahead = (each == each.max(axis=0)).sum(axis=1)
    return [{**scores, "best_on": int(count)} for scores, count in zip(rows, ahead, strict=True)]
