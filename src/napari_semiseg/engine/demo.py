"""The main job on the sample image: a few labels, a training, a prediction, exports, and a report with pictures."""

from __future__ import annotations

import platform
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from napari_semiseg import atomic
from napari_semiseg.blocks import Box
from napari_semiseg.config import Config
from napari_semiseg.engine import pictures
from napari_semiseg.engine.control import Control
from napari_semiseg.engine.evaluate import Pair, Scores, score
from napari_semiseg.engine.export import export
from napari_semiseg.engine.export_job import ExportRequest
from napari_semiseg.engine.predict import PredictRequest, predict
from napari_semiseg.engine.report import Picture, Report, Table, write_report
from napari_semiseg.engine.requests import TrainRequest
from napari_semiseg.engine.run import last_word, over
from napari_semiseg.engine.train import train
from napari_semiseg.errors import InputError
from napari_semiseg.events import Event, Finished, Started, Written
from napari_semiseg.io.overlay import write_png
from napari_semiseg.io.result import Result
from napari_semiseg.io.result_writer import discard_result
from napari_semiseg.postprocess.instances import split_nuclei
from napari_semiseg.postprocess.proposal import propose
from napari_semiseg.project.folder import ProjectFolder
from napari_semiseg.samples import SampleTile, immunohistochemistry, immunohistochemistry_tiles

NAME = "immunohistochemistry"
PROJECT = "demo.semiseg"
EXPORTS = ("ome-tiff", "csv", "png")
SHOWN = {"dice": "Dice", "iou": "IoU", "aji": "AJI", "pq": "PQ", "f1": "F1"}


class DemoRequest(Config):
    """The demonstration."""

    out: str = Field("demo-result", min_length=1, description="The folder to make.")
    minutes: float = Field(4.0, gt=0, le=600, description="Minutes of training.")
    steps: int | None = Field(None, ge=1, le=1_000_000, description="Optimizer steps, instead of minutes.")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:N or mps.")
    seed: int = Field(0, ge=0, lt=2**31, description="Fixes everything that is drawn.")


def demo_from_args(args: dict[str, Any], control: Control) -> Iterator[Event]:
    """Start from untrusted options."""
    return demo(DemoRequest.checked(args, "the request"), control)


def demo(request: DemoRequest, control: Control | None = None) -> Iterator[Event]:
    """Do the main job on the sample image, and yield what happens, in order.

    The folder then holds the image, a project with the annotated tiles and the run, the result as OME-Zarr with its
    exports, and ``report.html``. The tiles for scoring are excluded from the training, labels and pixels alike.

    Parameters
    ----------
    request : DemoRequest
    control : Control, optional

    Yields
    ------
    Event
        Those of training, prediction and exports, and around them those of the whole; `Finished` names the report.

    Raises
    ------
    InputError
        If the folder is in use for something else.
    """
    control = control or Control()
    begun = time.monotonic()
    out = Path(request.out)
    yield Started("demo", str(out))
    run = _prepare(out)
    end = yield from _computed(request, out, run, control)
    if over(end):
        yield Finished("demo", str(out), stopped=True, canceled=end.canceled)
        return
    outcome = _outcome(out)
    path = out / "report.html"
    write_report(path, _report(outcome, _facts(end, request, time.monotonic() - begun)))
    trained, threshold = outcome.trained.values["dice"], outcome.threshold.values["dice"]
    facts = {"dice": trained, "threshold_dice": threshold, "nuclei": int(outcome.nuclei.max())}
    yield Written("report", str(path), facts)
    yield Finished("demo", str(path), facts=facts)


@dataclass(frozen=True)
class _Outcome:
    """What the report tells of: maps of the whole image, (h, w), and scores on the tiles for scoring."""

    image: NDArray[np.uint8]
    confidence: NDArray[np.uint8]
    nuclei: NDArray[np.uint32]
    labeled: list[SampleTile]
    scored: list[SampleTile]
    trained: Scores
    threshold: Scores


def _prepare(out: Path) -> Path:
    """Write image and project, or take those of an earlier demonstration, and return the folder of a new run."""
    project = out / PROJECT
    if out.exists() and not project.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"'{out}' holds something else: choose another --out for the demonstration.")
    atomic.make_folder(out)
    if project.exists():
        discard_result(_result(out))
        with ProjectFolder.open(project) as folder:
            return folder.new_run_dir()
    image = immunohistochemistry()
    write_png(out / f"{NAME}.png", image)
    with ProjectFolder.create(project) as folder:
        index = folder.add_image(out / f"{NAME}.png", name=NAME, shape=image.shape[:2])
        for tile in immunohistochemistry_tiles():
            placed = folder.add_tile(index, tile.box).id
            if tile.role == "label":
                folder.write_annotation(placed, instance=tile.instances)
            folder.set_status(placed, "complete" if tile.role == "label" else "excluded", by="sample data")
        return folder.new_run_dir()


def _result(out: Path) -> Path:
    return out / f"{NAME}.ome.zarr"


def _computed(request: DemoRequest, out: Path, run: Path, control: Control) -> Generator[Event, None, Finished]:
    """Train, predict, export. Returns how the training ended, or whatever was ended before its time."""
    training = TrainRequest(
        project=str(out / PROJECT),
        out=str(run),
        minutes=None if request.steps else request.minutes,
        steps=request.steps,
        device=request.device,
        seed=request.seed,
    )
    trained = yield from last_word(train(training, control))
    if over(trained):
        return trained
    image = str(out / f"{NAME}.png")
    asked = PredictRequest(run=str(run), images=(image,), out=str(_result(out)), device=request.device)
    end = yield from last_word(predict(asked, control))
    for form in EXPORTS:
        if over(end):
            return end
        wanted = {"source": str(_result(out)), "to": form, "out": str(_exported(out, form)), "overwrite": True}
        end = yield from last_word(export(ExportRequest.checked(wanted, "the demonstration"), control))
    return end if over(end) else trained


def _exported(out: Path, form: str) -> Path:
    # The picture must not take the image's own name.
    return out / f"{NAME}-nuclei.png" if form == "png" else out


def _outcome(out: Path) -> _Outcome:
    image = immunohistochemistry()
    whole = Box.whole(image.shape)
    result = Result.open(_result(out))
    nuclei = result.nuclei(whole)
    scored = immunohistochemistry_tiles("score")
    _, proposal = propose(image, gray=False)
    return _Outcome(
        image=image,
        confidence=result.nucleus_confidence(whole),
        nuclei=nuclei,
        labeled=immunohistochemistry_tiles("label"),
        scored=scored,
        trained=_scores(nuclei, scored),
        threshold=_scores(split_nuclei(proposal), scored),
    )


def _scores(nuclei: NDArray[np.uint32], tiles: list[SampleTile]) -> Scores:
    return score(Pair(tile.name, nuclei[tile.box.slices], tile.instances) for tile in tiles)


def _report(outcome: _Outcome, facts: dict[str, str]) -> Report:
    trained, threshold = outcome.trained.values["dice"], outcome.threshold.values["dice"]
    painted = sum(tile.count for tile in outcome.labeled)
    return Report(
        title="Nuclei from few labels",
        lead=(
            f"Trained on {len(outcome.labeled)} small tiles with {painted} annotated nuclei. On {len(outcome.scored)} "
            f"other tiles, which it had not seen, the Dice is {trained:.3f}; the hematoxylin threshold, without any "
            f"label, has {threshold:.3f}."
        ),
        pictures=list(_pictures(outcome)),
        tables=[_table(outcome)],
        facts=facts,
    )


def _pictures(outcome: _Outcome) -> Iterator[Picture]:
    framed = pictures.with_frames(outcome.image, [tile.box for tile in outcome.labeled], pictures.BLUE)
    framed = pictures.with_frames(framed, [tile.box for tile in outcome.scored], pictures.YELLOW)
    yield Picture(framed, "The image.", {"tiles to learn from": pictures.BLUE, "tiles for scoring": pictures.YELLOW})
    yield Picture(pictures.in_colors(outcome.confidence), "Confidence: the probability of nucleus, dark 0, bright 1.")
    outlined = pictures.with_contours(outcome.image, outcome.nuclei)
    yield Picture(outlined, f"The {len(np.unique(outcome.nuclei)) - 1} nuclei that were found.")
    found = outcome.nuclei > 0
    tiles = [pictures.agreement(found[tile.box.slices], tile.instances > 0, tile.image) for tile in outcome.scored]
    row = pictures.enlarged(pictures.side_by_side(tiles), 2)
    yield Picture(row, "The tiles for scoring, compared with the annotation.", pictures.AGREEMENT)


def _table(outcome: _Outcome) -> Table:
    rows: list[list[str | float | None]] = [
        [name, *(float(scores.values[key]) for key in SHOWN)]
        for name, scores in (("trained", outcome.trained), ("hematoxylin threshold", outcome.threshold))
    ]
    definitions = "; ".join(f"{SHOWN[key]}: {outcome.trained.definitions[key]}" for key in SHOWN)
    return Table("Scores on the tiles for scoring", ("", *SHOWN.values()), rows, f"{definitions}.")


def _facts(end: Finished, request: DemoRequest, seconds: float) -> dict[str, str]:
    card = atomic.read_json(Path(end.result) / "run.json")
    chosen = {
        str(name).replace("_", " "): ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        for name, value in card["facts"].items()
    }
    versions = [f"{name} {version(name)}" for name in ("napari-semiseg", "torch")]
    return chosen | {
        "steps": str(end.facts.get("steps", "")),
        "seed": str(request.seed),
        "time for all of it": f"{seconds / 60:.1f} minutes",
        "made with": ", ".join([*versions, f"Python {platform.python_version()}"]),
        "image": "skimage.data.immunohistochemistry(): colonic glands, hematoxylin and DAB",
    }
