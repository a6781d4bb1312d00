"""Look inside a trained method: maps over images, and a page with them, the curves of the run, and its histograms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from napari_semiseg.blocks import Box
from napari_semiseg.config import Config
from napari_semiseg.data.sources import LabeledRegion, class_labels
from napari_semiseg.engine import pictures
from napari_semiseg.engine.checkpoint import RunFolder
from napari_semiseg.engine.control import Control
from napari_semiseg.engine.devices import choose_device
from napari_semiseg.engine.draw_look import drawn
from napari_semiseg.engine.learning_data import read_project
from napari_semiseg.engine.look_inside import Subject, look_inside, make_room
from napari_semiseg.engine.looks import IDEAS
from napari_semiseg.engine.recipe import Choices
from napari_semiseg.engine.report import Picture, Report, Table, write_report
from napari_semiseg.engine.run_pictures import run_pictures
from napari_semiseg.errors import InputError
from napari_semiseg.events import Cancel, Event, Finished, Progressed, Started, Stop, Warned, Written
from napari_semiseg.io.diagnostics import Look, write_look
from napari_semiseg.io.find_images import find_images
from napari_semiseg.io.images import Image, open_image
from napari_semiseg.io.labels import read_labels
from napari_semiseg.io.overlay import write_png
from napari_semiseg.io.rescale import scale_of
from napari_semiseg.methods._base import Method

_LABELS = (".tif", ".tiff", ".png")


class InspectRequest(Config):
    """A look inside a run."""

    run: str = Field(min_length=1, description="The run folder.")
    images: tuple[str, ...] = Field((), description="Images or folders of images; the first of the run without any.")
    out: str = Field("", description="The folder to make, with a report; in the run folder, without one, if not given.")
    show: tuple[str, ...] = Field(
        (), description=f"What to look at, of {', '.join(IDEAS)}; all that there is without any."
    )
    labels: str | None = Field(None, description="Instance labels to compare with: a file, or a folder of stems.")
    box: tuple[int, int, int, int] | None = Field(
        None, description="The rectangle to look at: y0, x0, y1, x1 in pixels of the image."
    )
    image: int | None = Field(None, ge=0, description="Index of an image of the run's project, instead of images.")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:N or mps.")
    seed: int = Field(0, ge=0, lt=2**31, description="Fixes everything that is drawn.")


def inspect_from_args(args: dict[str, Any], control: Control) -> Iterator[Event]:
    """Start from untrusted options."""
    return inspect(InspectRequest.checked(args, "the request"), control)


def inspect(request: InspectRequest, control: Control | None = None) -> Iterator[Event]:
    """Look inside a run, and yield what happens, in order.

    For each image and idea there is then one ``.npz`` file that `io.diagnostics.read_look` reads. With `out` there are
    also pictures of them over the image (PNG), and ``report.html`` with the curves of the run.

    Parameters
    ----------
    request : InspectRequest
    control : Control, optional

    Yields
    ------
    Event
        `Started`, `Progressed`, `Written` (what="look") for each look, `Warned` where something that was not asked for
        by name cannot be seen, `Written` (what="report"), `Finished`.

    Raises
    ------
    InputError
        If there is no such run or image, or what was asked for by name cannot be seen.
    """
    control = control or Control()
    run = RunFolder(Path(request.run))
    choices = Choices.checked(run.read_config().get("choices", {}), str(run.path / "run.json"))
    device = choose_device(request.device)
    method = choices.model_copy(update={"weights": "none"}).build(device)
    step = _restored(run, method)
    places = _places(request, run, choices)
    out = Path(request.out) if request.out else run.diagnostics
    ideas = request.show or tuple(IDEAS)
    total = len(places) * len(ideas)
    yield Started("inspect", str(run.path), total, {"method": choices.method, "step": step})
    shown: list[Picture] = []
    counted: list[list[str | float | None]] = []
    for done, (place, show) in enumerate(((place, show) for place in places for show in ideas), 1):
        if any(isinstance(command, Stop | Cancel) for command in control.take()):
            yield Finished("inspect", str(out), stopped=True)
            return
        subject = Subject(
            method, device, place.image, place.image.shape, scale_of(place.image, choices.mpp), place.truth, step
        )
        try:
            look = look_inside(subject, show, None if request.box is None else Box(*request.box), request.seed)
        except InputError as error:
            if request.show:
                raise
            yield Warned(str(error))
            continue
        path = out / f"{place.name}-{show}-step-{step:07d}.npz"
        write_look(path, look)
        counted += [[place.name, name, value] for name, value in look.numbers.items()]
        yield Written("look", str(path), {"show": show, "step": step, "image": place.index, **look.numbers})
        yield Progressed("looking inside", done, total)
        if request.out:
            shown += _pictured(place, look, out)
    if request.out:
        report = Report(
            title=f"Inside {run.path.name}",
            lead=f"The method '{choices.method}' after {step:,} steps.",
            pictures=[*run_pictures(run.path), *shown],
            tables=[Table("Counted", ("image", "what", "value"), counted)] if counted else [],
        )
        write_report(out / "report.html", report)
        yield Written("report", str(out / "report.html"))
    else:
        make_room(out)
    yield Finished("inspect", str(out))


@dataclass(frozen=True)
class _Place:
    """An image to look at, with what is known of it."""

    name: str
    index: int
    image: Image
    truth: Sequence[LabeledRegion]


def _restored(run: RunFolder, method: Method) -> int:
    """Load the newest checkpoint of a method, and return its step."""
    snapshot, _ = run.restore(method, [])
    if snapshot is None:
        raise InputError(f"{run.path} holds no checkpoint to look inside: train first, or give another run folder.")
    return snapshot.step


def _places(request: InspectRequest, run: RunFolder, choices: Choices) -> list[_Place]:
    config = run.read_config()
    project = (config.get("request") or {}).get("project")
    if not request.images and project and not request.labels:
        data = read_project(project, choices.mpp, known=len(choices.classes) - 1)
        index = request.image or 0
        if index >= len(data.images):
            raise InputError(f"The project {project} holds {len(data.images)} images, and none of index {index}.")
        truth = [region for region in (*data.labeled, *data.validation) if region.image == index]
        return [_Place(f"image-{index}", index, data.images[index], truth)]
    paths = find_images(request.images or tuple(map(str, config.get("images", [])[:1])))
    return [
        _Place(image.name, index, image, _labeled(request.labels, image))
        for index, image in enumerate(map(open_image, paths))
    ]


def _labeled(labels: str | None, image: Image) -> list[LabeledRegion]:
    """Return the labels of an image as one region; none where there is no file of its stem."""
    if labels is None:
        return []
    found = Path(labels)
    if found.is_dir():
        files = [found / f"{image.name}{suffix}" for suffix in _LABELS]
        found = next((file for file in files if file.is_file()), found / f"{image.name}.tif")
    instances = read_labels(found, expect_shape=image.shape)
    return [LabeledRegion(image.name, 0, Box.whole(image.shape), class_labels(instances), int(instances.max()))]


def _pictured(place: _Place, look: Look, out: Path) -> list[Picture]:
    """Write each map over the image as PNG, and return the pictures."""
    behind = _behind(place.image, look)
    found = []
    for name, item in look.maps.items():
        picture = drawn(item, behind, look.place, f"{place.name}: {name}, step {look.step:,}.")
        slug = "".join(letter if letter.isalnum() else "-" for letter in name).strip("-")
        write_png(out / f"{place.name}-{look.show}-{slug}.png", picture.pixels)
        found.append(picture)
    return found


def _behind(image: Image, look: Look) -> NDArray[np.uint8]:
    """Return the image under a look, at its own pixel size."""
    place = look.place
    y, x = round(place.y), round(place.x)
    height, width = (max(1, round(side * place.pixel)) for side in (place.height, place.width))
    pixels: pictures.RGB = image.read(Box(y, x, y + height, x + width))
    return pixels
