"""Labels of every odd kind are learned from as documented, or refused in one sentence that names them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_semiseg.blocks import Box
from napari_semiseg.engine.requests import TrainRequest
from napari_semiseg.engine.train import train
from napari_semiseg.errors import InputError
from napari_semiseg.events import Event, Finished, Started, StepDone, Warned
from napari_semiseg.project.folder import ProjectFolder

pytestmark = pytest.mark.usefixtures("one_thread")

Ask = Callable[..., TrainRequest]


def finite_run(request: TrainRequest) -> list[Event]:
    """Train, see that every loss is a number, and return what was said."""
    events = list(train(request))
    assert isinstance(events[-1], Finished)
    losses = [event.losses for event in events if isinstance(event, StepDone)]
    assert losses
    assert all(np.isfinite(list(terms.values())).all() for terms in losses)
    return events


def write_labels(fields: Path, values: np.ndarray) -> None:
    for path in (fields / "labels").iterdir():
        tifffile.imwrite(path, values)


def one_pixel() -> np.ndarray:
    labels = np.zeros((128, 128), np.uint16)
    labels[64, 64] = 1
    return labels


@pytest.mark.parametrize(
    ("labels", "nuclei"),
    [
        (np.zeros((128, 128), np.uint8), 0),
        (np.ones((128, 128), np.uint8), 4),  # one nucleus that lies in four cells
        (one_pixel(), 1),
        (np.where(np.eye(128, dtype=bool), 2**31, 0).astype(np.uint32), 2),
        (np.where(np.eye(128, dtype=bool), 2**32 - 1, 0).astype(np.uint32), 2),
        (np.full((128, 128), 255, np.uint8), 4),  # an id like any other: ignored pixels exist in tensors only
    ],
    ids=["nothing", "one class only", "one pixel", "2^31", "the largest id", "255"],
)
def test_any_whole_numbers_can_be_learned_from(ask: Ask, fields: Path, labels: np.ndarray, nuclei: int) -> None:
    write_labels(fields, labels)
    events = finite_run(ask(images=(str(fields / "images" / "0.tif"),), validation=0))

    started = events[0]
    assert isinstance(started, Started)
    assert started.facts["nuclei"] == nuclei
    assert len(started.facts["labeled"]) == 4


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.zeros((128, 128), np.float32), "whole numbers"),
        (np.full((128, 128), -1, np.int32), "begin at 0"),
        (np.zeros((64, 128), np.uint8), "64 x 128 pixels and their image has 128 x 128"),
    ],
)
@pytest.mark.parametrize("method", ["supervised", "auto"])
def test_what_are_no_labels_is_refused_before_a_run_is_made(
    ask: Ask, fields: Path, labels: np.ndarray, words: str, method: str
) -> None:
    write_labels(fields, labels)
    request = ask(method=method)

    with pytest.raises(InputError, match=words) as refusal:
        next(train(request))

    assert str(fields / "labels") in str(refusal.value)
    assert not (Path(request.out) / "run.json").exists()


def test_a_class_map_that_uses_the_number_for_ignored_pixels_is_refused(ask: Ask, fields: Path) -> None:
    (fields / "classes").mkdir()
    for path in (fields / "labels").iterdir():
        tifffile.imwrite(fields / "classes" / path.name, np.full((128, 128), 255, np.uint8))
    (fields / "classes" / "classes.json").write_text('["background", "tumor", "stroma"]')

    with pytest.raises(InputError, match="has class 255, but there are only 2"):
        next(train(ask(classes=str(fields / "classes"))))


@pytest.mark.parametrize(("method", "taken"), [("auto", "stain_guided"), ("cdcl", "cdcl")])
def test_with_every_tile_labeled_there_is_still_something_to_learn_from(ask: Ask, method: str, taken: str) -> None:
    events = finite_run(ask(method=method, labeled="8", network="small_unet"))

    started = events[0]
    assert isinstance(started, Started)
    assert len(started.facts["labeled"]) + len(started.facts["validation"]) == 8
    assert started.facts["method"] == taken


def test_without_any_label_the_method_that_needs_none_is_taken(ask: Ask) -> None:
    events = finite_run(ask(method="auto", labels=None))

    assert isinstance(events[0], Started)
    assert events[0].facts["method"] == "stain_guided"


@pytest.fixture
def project(fields: Path, tmp_path: Path) -> ProjectFolder:
    opened = ProjectFolder.create(tmp_path / "case")
    opened.add_image(fields / "images" / "0.tif", shape=(128, 128))
    return opened


def paint(project: ProjectFolder, box: Box, labels: np.ndarray, status: str = "complete") -> str:
    tile = project.add_tile(0, box)
    labels = np.asarray(labels)
    project.write_annotation(tile.id, labels.astype(np.uint32), np.where(labels > 0, 2, 0).astype(np.uint8))
    project.set_status(tile.id, status)  # type: ignore[arg-type]
    return tile.id


def in_project(ask: Ask, project: ProjectFolder, **changes: object) -> TrainRequest:
    project.close()
    return ask(images=(), labels=None, project=str(project.path), **changes)


@pytest.mark.parametrize("status", ["complete", "sparse"])
def test_a_tile_at_the_border_that_is_smaller_than_a_crop_is_padded_with_what_is_ignored(
    ask: Ask, project: ProjectFolder, status: str
) -> None:
    labels = np.zeros((20, 20))
    labels[5:10, 5:10] = 1
    paint(project, Box(108, 108, 128, 128), labels, status)
    paint(project, Box(0, 0, 9, 30), labels[:9, :1].repeat(30, 1) + np.eye(9, 30), status)  # no multiple of anything
    events = finite_run(in_project(ask, project, method="cdcl", set={"warmup_fraction": 0.2}))

    assert isinstance(events[0], Started)
    assert len(events[0].facts["labeled"]) == 2


def test_tiles_that_contradict_each_other_are_listed_and_the_run_goes_on(ask: Ask, project: ProjectFolder) -> None:
    one = paint(project, Box(0, 0, 60, 60), np.zeros((60, 60)))
    other = paint(project, Box(30, 30, 90, 90), np.ones((60, 60)))
    events = finite_run(in_project(ask, project))

    told = [event.message for event in events if isinstance(event, Warned)]
    assert any(one in message and other in message for message in told), told


def test_a_batch_in_which_everything_is_ignored_costs_nothing(ask: Ask, project: ProjectFolder) -> None:
    """One painted pixel in a large sparse tile: most crops hold nothing that is known."""
    labels = np.zeros((120, 120))
    labels[0, 0] = 1
    paint(project, Box(0, 0, 120, 120), labels, "sparse")
    events = finite_run(in_project(ask, project, set={"crop": 32}))

    assert any(event.losses["sup"] == 0 for event in events if isinstance(event, StepDone))


def test_a_tile_that_holds_no_paint_at_all_is_no_label(ask: Ask, project: ProjectFolder) -> None:
    paint(project, Box(0, 0, 60, 60), np.zeros((60, 60)), "sparse")

    with pytest.raises(InputError, match="there are none"):
        next(train(in_project(ask, project)))
