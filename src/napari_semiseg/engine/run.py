"""Train, predict and export in one: the analyst's one click."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from napari_semiseg.engine.checkpoint import RunFolder
from napari_semiseg.engine.control import Control
from napari_semiseg.engine.export import FORMATS, MODEL_FORMATS, export
from napari_semiseg.engine.export_job import ExportRequest
from napari_semiseg.engine.export_report import write_index
from napari_semiseg.engine.predict import PredictRequest, predict
from napari_semiseg.engine.requests import TrainRequest
from napari_semiseg.engine.train import train
from napari_semiseg.errors import InputError
from napari_semiseg.events import Event, Finished, Started, Written
from napari_semiseg.io.find_images import check_results, find_images
from napari_semiseg.project.folder import ProjectFolder

INDEX = "report.html"
"""The page on all images of a run, in its folder, where ``to`` asks for reports."""


class RunRequest(TrainRequest):
    """A training, the prediction of all its images, and their export; `out` is the folder of all of it."""

    out: str = Field("", description="The folder to make: the run in run/, one .ome.zarr per image, and the exports.")
    to: tuple[str, ...] = Field(("csv",), description="Formats to export, besides the OME-Zarr.")
    model: str | None = Field(None, description="The run folder to predict with; then nothing is trained.")
    threshold: float | None = Field(None, gt=0, lt=1, description="Confidence from which a pixel is nucleus.")
    gaps: bool = Field(
        False, description="Complete a result although parts of its image cannot be read; these stay empty."
    )


def run_from_args(args: dict[str, Any], control: Control) -> Iterator[Event]:
    """Start from untrusted options."""
    return run(RunRequest.checked(args, "the request"), control)


def run(request: RunRequest, control: Control | None = None) -> Iterator[Event]:
    """Train, predict every image, export every result; yield what happens, in order.

    A stop ends the part that is going on, which keeps what it has, and no other is begun; the same request with
    `resume` goes on.

    Parameters
    ----------
    request : RunRequest
        With `model` nothing is trained.
    control : Control, optional

    Yields
    ------
    Event
        Those of the three jobs, each between its own `Started` and `Finished`, and around them those of the whole.

    Raises
    ------
    InputError
        If the request cannot be met. What can be seen beforehand is said before anything is computed.
    """
    _check(request)
    control = control or Control()
    out = Path(request.out)
    yield Started("run", str(out))
    end = yield from _parts(request, out, control)
    yield Finished("run", str(out), stopped=end.stopped, canceled=end.canceled)


def last_word(events: Iterable[Event]) -> Generator[Event, None, Finished]:
    """Pass events on and return the `Finished` among them: how a part of a longer job ended."""
    end = Finished("")
    for event in events:
        yield event
        if isinstance(event, Finished):
            end = event
    return end


def over(end: Finished) -> bool:
    """Whether somebody asked for an end, so that no other part is to begin."""
    return end.stopped or end.canceled


def _check(request: RunRequest) -> None:
    if not request.out:
        raise InputError("The results need a folder to go to: give --out.")
    known = [*FORMATS, *MODEL_FORMATS]
    unknown = [form for form in request.to if form not in known]
    if unknown:
        raise InputError(f"There is no format '{unknown[0]}': choose of {', '.join(known)}.")
    if request.model and not request.images:
        raise InputError("With --model nothing is trained: name images to predict, not a data set or a project.")
    if named := request.images or _images_in(request.project):
        check_results(find_images(named))


def _parts(request: RunRequest, out: Path, control: Control) -> Generator[Event, None, Finished]:
    model = Path(request.model) if request.model else out / "run"
    if not request.model:
        end = yield from last_word(train(_training(request, model), control))
        if over(end):
            return end
    asked = PredictRequest(
        run=str(model),
        images=request.images or _images_of(model),
        out=str(out),
        threshold=request.threshold,
        # To a training --mpp is the size to work at, which the run remembers; to a prediction that of the images.
        mpp=request.mpp if request.model else None,
        device=request.device,
        gaps=request.gaps,
        overwrite=request.resume,  # what a broken-off run predicted, it predicts again with what it has learned since
    )
    results: list[str] = []
    for event in predict(asked, control):
        yield event
        if isinstance(event, Written):
            results.append(event.path)
        if isinstance(event, Finished):
            end = event
    if over(end):
        return end
    of_results = [form for form in request.to if form in FORMATS and form != "ome-zarr"]  # that is there already
    wanted = [(result, form) for result in results for form in of_results]
    wanted += [(str(model), form) for form in request.to if form in MODEL_FORMATS]
    slides: list[dict[str, Any]] = []
    for source, form in wanted:
        for event in export(_export(source, form, out), control):
            yield event
            if isinstance(event, Written) and "summary" in event.facts:
                slides.append(event.facts["summary"])
            if isinstance(event, Finished):
                end = event
        if over(end):
            return end
    if slides:
        write_index(out / INDEX, slides, {"run": str(model), "images": str(len(slides))})
        yield Written("report", str(out / INDEX), {"slides": len(slides)})
    return end


def _training(request: RunRequest, run_folder: Path) -> TrainRequest:
    values = {name: getattr(request, name) for name in TrainRequest.model_fields}
    return TrainRequest(**values | {"out": str(run_folder)})


def _export(source: str, form: str, out: Path) -> ExportRequest:
    # A folder of this job's own, whose exports belong to an earlier run of the same.
    return ExportRequest.checked({"source": source, "to": form, "out": str(out), "overwrite": True}, "the request")


def _images_in(project: str | None) -> tuple[str, ...]:
    """Return the images of a project; none without one."""
    if not project:
        return ()
    folder = ProjectFolder.open(project, read_only=True)
    return tuple(folder.source_path(index) for index in range(len(folder.images)))


def _images_of(run_folder: Path) -> tuple[str, ...]:
    """Return the images that a run learned from."""
    return tuple(map(str, RunFolder(run_folder).read_config()["images"]))
