"""What a run learns from: a project's tiles as they are on disk."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from napari_semiseg.blocks import Box
from napari_semiseg.data.batch import IGNORE
from napari_semiseg.data.sources import LabeledRegion
from napari_semiseg.engine.control import Control
from napari_semiseg.engine.learning_data import read_project, read_training_data
from napari_semiseg.engine.manuscript import methods_paragraph
from napari_semiseg.engine.predictor import load_predictor
from napari_semiseg.engine.recipe import prepare
from napari_semiseg.engine.requests import TrainRequest
from napari_semiseg.engine.train import train
from napari_semiseg.errors import InputError
from napari_semiseg.events import (
    Event,
    Finished,
    LabelsChanged,
    LabelsRead,
    StepDone,
    Stop,
    Suggested,
    SuggestTiles,
    Unanswered,
    Validated,
    Warned,
)
from napari_semiseg.io.rescale import scale_of
from napari_semiseg.methods._registry import METHODS
from napari_semiseg.project.folder import ProjectFolder
from napari_semiseg.project.schema import ClassSpec


@pytest.fixture
def project(tmp_path: Path, discs: Callable[..., np.ndarray]) -> Iterator[ProjectFolder]:
    """One image of 128 x 128 with four tiles: complete, sparse, excluded, empty."""
    labels = discs(12, shape=(128, 128), radius=9)
    image = np.where(labels[..., None] > 0, [90, 60, 140], [225, 170, 205]).astype(np.uint8)
    tifffile.imwrite(tmp_path / "field.tif", image, photometric="rgb")
    with ProjectFolder.create(tmp_path / "field.semiseg") as folder:
        index = folder.add_image(tmp_path / "field.tif", name="field", shape=(128, 128))
        for box, status in [
            (Box(0, 0, 64, 64), "complete"),
            (Box(0, 64, 64, 128), "sparse"),
            (Box(64, 0, 128, 64), "excluded"),
            (Box(64, 64, 128, 128), "empty"),
        ]:
            tile = folder.add_tile(index, box)
            if status in ("complete", "sparse"):
                folder.write_annotation(tile.id, instance=labels[box.slices])
            folder.set_status(tile.id, status)  # type: ignore[arg-type]
        yield folder


def test_complete_tiles_have_background_sparse_ones_do_not_and_empty_ones_teach_nothing(project: ProjectFolder) -> None:
    data = read_project(project.path)

    complete, sparse = data.labeled
    assert set(np.unique(complete.label)) == {0, 1}
    assert set(np.unique(sparse.label)) == {1, IGNORE}
    assert data.excluded == [(0, Box(64, 0, 128, 64))]
    assert data.validation == []
    assert complete.nuclei > 1


def test_nothing_is_learned_from_what_lies_on_a_tile_that_judges_and_that_is_said(project: ProjectFolder) -> None:
    judge = painted(project, Box(0, 32, 64, 96), np.ones((64, 64), np.uint32))
    before = read_project(project.path)
    project.set_role(judge, "validation")
    after = read_project(project.path)

    complete, sparse = after.labeled
    assert (complete.label[:, 32:] == IGNORE).all()
    assert (sparse.label[:, :32] == IGNORE).all()
    np.testing.assert_array_equal(complete.label[:, :32], before.labeled[0].label[:, :32])
    assert [region.name for region in after.validation] == [judge]
    assert set(np.unique(after.validation[0].label)) == {1}
    on_judge = [note for note in after.notes if "which is kept for validation" in note]
    assert on_judge == [
        f"Tile {tile} lies in part on tile {judge}, which is kept for validation: what is painted there is not "
        "learned from."
        for tile in ("t0001", "t0002")
    ]


def test_what_an_excluded_tile_covers_is_neither_learned_from_nor_judged_by(project: ProjectFolder) -> None:
    before = read_project(project.path)
    hole = project.add_tile(0, Box(32, 48, 64, 80)).id  # over the complete tile and the sparse one
    project.set_status(hole, "excluded")
    after = read_project(project.path)

    complete, sparse = after.labeled
    assert (complete.label[32:, 48:] == IGNORE).all()
    assert (sparse.label[32:, :16] == IGNORE).all()
    np.testing.assert_array_equal(complete.label[:32], before.labeled[0].label[:32])
    assert after.digest() != before.digest()
    project.set_status(hole, "empty")
    assert read_project(project.path).digest() == before.digest()
    project.set_status(hole, "excluded")
    project.set_role(project.tiles[0].id, "validation")
    (judge,) = read_project(project.path).validation
    assert (judge.label[32:, 48:] == IGNORE).all()


def test_what_is_painted_while_a_run_goes_on_reaches_it(project: ProjectFolder, tmp_path: Path) -> None:
    control = Control()
    request = quick_run(project, tmp_path / "run")
    digests, said = [], False
    for event in train(request, control):
        if isinstance(event, StepDone) and not said:
            said = True
            empty = next(tile for tile in project.tiles if tile.status == "empty")
            project.write_annotation(empty.id, instance=np.ones((64, 64), np.uint32))
            project.set_status(empty.id, "complete")
            control.send(LabelsChanged())
        if isinstance(event, LabelsRead):
            digests.append((event.tiles, event.digest))
            assert event.seen == read_project(project.path).seen
        if isinstance(event, Finished):
            assert not event.stopped

    assert [tiles for tiles, _ in digests] == [3]


def fields_and_nuclei(run: Path) -> tuple[int, int]:
    """Return how many labeled fields, with how many nuclei, have taught a run, as its methods paragraph says."""
    said = re.search(r"of which (\d+) labeled fields? of .* with (\d+) nuclei taught it", methods_paragraph(run))
    assert said is not None
    return int(said[1]), int(said[2])


def test_the_methods_paragraph_counts_labels_that_came_while_the_run_went_on(
    project: ProjectFolder, tmp_path: Path
) -> None:
    request, one = quick_run(project, tmp_path / "run"), np.ones((64, 64), np.uint32)
    told(request, lambda: painted(project, Box(64, 64, 128, 128), one))
    taught = read_project(project.path).labeled
    painted(project, Box(0, 32, 64, 96), one)  # no step is left to learn from it
    list(train(request.model_copy(update={"resume": True})))

    assert fields_and_nuclei(tmp_path / "run") == (3, sum(region.nuclei for region in taught))


def test_the_methods_paragraph_counts_labels_that_came_before_the_run_was_resumed(
    project: ProjectFolder, tmp_path: Path
) -> None:
    request, stop = quick_run(project, tmp_path / "run"), Control()
    stop.send(Stop())
    list(train(request, stop))
    before = fields_and_nuclei(tmp_path / "run")
    painted(project, Box(64, 64, 128, 128), np.ones((64, 64), np.uint32))
    list(train(request.model_copy(update={"resume": True})))

    assert fields_and_nuclei(tmp_path / "run") == (before[0] + 1, before[1] + 1)


def test_contradicting_tiles_are_listed(project: ProjectFolder) -> None:
    tile = project.add_tile(0, Box(0, 0, 64, 64))
    project.write_annotation(tile.id, instance=np.zeros((64, 64), np.uint32))
    project.set_status(tile.id, "complete")

    notes = read_project(project.path).notes

    assert len(notes) == 1
    assert tile.id in notes[0]


def test_labels_of_another_shape_are_refused_with_the_file(small_dataset: Path, quick_request) -> None:  # type: ignore[no-untyped-def]
    tifffile.imwrite(small_dataset / "labels" / "field-0.tif", np.zeros((64, 64), np.uint16))

    with pytest.raises(InputError, match="field-0"):
        read_training_data(quick_request(labeled="12"))


@pytest.fixture
def classes(small_dataset: Path) -> str:
    """Give the nuclei of the data set two classes, and return where they lie."""
    (small_dataset / "classes").mkdir()
    for number in range(3):
        labels = tifffile.imread(small_dataset / "labels" / f"field-{number}.tif")
        kinds = np.where(labels > 0, 1 + labels % 2, 0).astype(np.uint8)
        tifffile.imwrite(small_dataset / "classes" / f"field-{number}.tif", kinds)
    (small_dataset / "classes.json").write_text('{"0": "background", "1": "round", "2": "long"}')
    return str(small_dataset / "classes")


def test_a_class_map_gives_the_classes(classes: str, quick_request) -> None:  # type: ignore[no-untyped-def]
    data = read_training_data(quick_request(classes=classes, labeled="12"))

    assert data.classes == ("background", "round", "long")
    assert set(np.unique(data.labeled[0].label)) == {0, 1, 2}


@pytest.mark.parametrize("name", [name for name, kind in METHODS.items() if kind.classes == "two"])
def test_a_method_of_two_classes_says_in_one_sentence_that_it_tells_no_more(
    name: str, classes: str, quick_request
) -> None:  # type: ignore[no-untyped-def]
    asked = quick_request(classes=classes, labeled="12", method=name, network="auto")
    if METHODS[name].labels == "unused":
        said = prepare(asked).data.notes
    else:
        with pytest.raises(InputError) as refused:
            prepare(asked)
        said = [str(refused.value)]

    [sentence] = said
    assert f"The method '{name}' tells nuclei from background only" in sentence
    assert "2 classes" in sentence
    assert sentence.count(".") == 1


def test_images_with_different_pixels_are_learned_from_and_predicted_at_one_size(
    small_dataset: Path, quick_request
) -> None:  # type: ignore[no-untyped-def]
    for number, size in enumerate((0.25, 0.25, 0.5)):
        path = small_dataset / "images" / f"field-{number}.tif"
        tifffile.imwrite(path, tifffile.imread(path), photometric="rgb", resolution=(1e4 / size,) * 2, resolutionunit=3)
    request = quick_request(steps=1)
    events = list(train(request))

    data = read_training_data(request)
    predictor = load_predictor(Path(request.out), torch.device("cpu"))
    assert data.scales == [1.0, 1.0, 2.0]
    assert [scale_of(image, predictor.mpp) for image in data.images] == data.scales
    assert any(isinstance(event, Warned) and "all are brought to 0.25 µm" in event.message for event in events)


def test_an_image_without_a_pixel_size_stays_as_it_is(quick_request) -> None:  # type: ignore[no-untyped-def]
    data = read_training_data(quick_request(mpp=0.5))

    assert data.scales == [1.0, 1.0, 1.0]
    assert data.mpp == 0.5


def painted(project: ProjectFolder, box: Box, label: np.ndarray) -> str:
    new = project.add_tile(0, box)
    project.write_annotation(new.id, instance=label)
    project.set_status(new.id, "complete")
    return new.id


def quick_run(project: ProjectFolder, out: Path, **changes: object) -> TrainRequest:
    values = {
        "project": str(project.path),
        "out": str(out),
        "method": "supervised",
        "network": "small_unet",
        "steps": 6,
        "device": "cpu",
        "set": {"crop": 64, "batch_labeled": 2},
    }
    return TrainRequest.model_validate(values | changes)


def told(request: TrainRequest, change: Callable[[], object]) -> list[Event]:
    """Train, change the project after the first step, and tell the run."""
    control, events = Control(), []
    for event in train(request, control):
        events.append(event)
        if isinstance(event, StepDone) and event.step == 0:
            change()
            control.send(LabelsChanged())
    return events


def test_a_run_without_labels_stays_without_them_when_tiles_are_painted_meanwhile(
    project: ProjectFolder, tmp_path: Path
) -> None:
    options = {"crop": 64, "batch_unlabeled": 2, "restarts": 1, "patch": 16}
    request = quick_run(project, tmp_path / "run", method="csl", network="auto", set=options)

    def paint() -> None:
        for _ in range(4):
            painted(project, Box(64, 64, 128, 128), np.ones((64, 64), np.uint32))

    events = told(request, paint)

    assert not [event for event in events if isinstance(event, Validated | LabelsRead)]
    assert isinstance(events[-1], Finished)


def add_class(project: ProjectFolder) -> None:
    project.set_classes([*project.classes, ClassSpec(name="lymphocyte", color="#00ffff")])


def test_a_run_that_knows_fewer_classes_than_its_project_ignores_the_nuclei_of_the_others(
    project: ProjectFolder,
) -> None:
    first = project.tiles[0]
    before = read_project(project.path)
    add_class(project)
    annotation = project.annotation(first.id)
    other = annotation.instance == np.unique(annotation.instance)[1]
    project.write_annotation(first.id, instance=annotation.instance, classes=np.where(other, 3, 0).astype(np.uint8))
    everything, known = read_project(project.path), read_project(project.path, known=1)

    assert (everything.labeled[0].label[other] == 2).all()
    assert (known.labeled[0].label[other] == IGNORE).all()
    np.testing.assert_array_equal(known.labeled[0].label[~other], before.labeled[0].label[~other])
    assert known.labeled[0].nuclei == before.labeled[0].nuclei - 1
    assert known.seen == everything.seen
    assert [note for note in known.notes if "lymphocyte" in note] == [
        "This training does not know the class 'lymphocyte' and ignores its nuclei: start another training to learn it."
    ]
    assert not [note for note in everything.notes if "lymphocyte" in note]


def test_a_class_added_while_a_run_goes_on_is_said_once_not_to_be_learned_and_other_labels_still_come_in(
    project: ProjectFolder, tmp_path: Path
) -> None:
    control, request, events = Control(), quick_run(project, tmp_path / "run"), []
    for event in train(request, control):
        events.append(event)
        if isinstance(event, StepDone) and event.step == 0:
            add_class(project)
            control.send(LabelsChanged())
        if isinstance(event, LabelsRead) and event.tiles < 4:
            painted(project, Box(64, 64, 128, 128), np.ones((64, 64), np.uint32))
            control.send(LabelsChanged())
    again = list(train(request.model_copy(update={"resume": True})))

    assert [event.tiles for event in events if isinstance(event, LabelsRead)] == [2, 3, 4]
    for run in (events, again):
        said = [event.message for event in run if isinstance(event, Warned) and "lymphocyte" in event.message]
        assert len(said) == 1
        assert "start another training" in said[0]
        assert isinstance(run[-1], Finished)
    assert load_predictor(tmp_path / "run", torch.device("cpu")).classes == ("background", "nucleus")


def test_a_class_that_is_renamed_while_a_run_goes_on_is_the_same_class_and_results_call_it_so(
    project: ProjectFolder, tmp_path: Path
) -> None:
    request = quick_run(project, tmp_path / "run")
    nucleus, *_ = project.classes

    def rename(name: str) -> None:
        project.set_classes([nucleus.model_copy(update={"name": name})])

    events = told(request, lambda: rename("tumor"))
    named = load_predictor(tmp_path / "run", torch.device("cpu")).classes
    rename("carcinoma")
    again = list(train(request.model_copy(update={"resume": True, "steps": 6})))

    assert [event.tiles for event in events if isinstance(event, LabelsRead)] == [2]
    for run in (events, again):
        assert not [event for event in run if isinstance(event, Warned) and "class" in event.message]
        assert isinstance(run[-1], Finished)
    assert named == ("background", "tumor")
    assert load_predictor(tmp_path / "run", torch.device("cpu")).classes == ("background", "carcinoma")


def test_a_class_that_was_removed_while_a_run_went_on_stops_neither_it_nor_its_going_on(
    project: ProjectFolder, tmp_path: Path
) -> None:
    one = list(project.classes)
    add_class(project)
    request = quick_run(project, tmp_path / "run")
    events = told(request, lambda: project.set_classes(one))
    again = list(train(request.model_copy(update={"resume": True})))

    assert [event.tiles for event in events if isinstance(event, LabelsRead)] == [2]
    assert isinstance(again[-1], Finished)
    assert load_predictor(tmp_path / "run", torch.device("cpu")).classes == ("background", "nucleus", "lymphocyte")


def test_other_classes_in_a_data_set_than_the_run_began_with_are_refused(small_dataset: Path, quick_request) -> None:  # type: ignore[no-untyped-def]
    (small_dataset / "classes").mkdir()
    for number in range(3):
        labels = tifffile.imread(small_dataset / "labels" / f"field-{number}.tif")
        tifffile.imwrite(small_dataset / "classes" / f"field-{number}.tif", (labels > 0).astype(np.uint8))
    listed = small_dataset / "classes.json"
    listed.write_text('["background", "round"]')
    request = quick_request(classes=str(small_dataset / "classes"), labeled="12", steps=1)
    list(train(request))
    listed.write_text('["background", "circular"]')
    again = list(train(request.model_copy(update={"resume": True})))
    listed.write_text('["background", "round", "long"]')

    assert isinstance(again[-1], Finished)
    with pytest.raises(InputError, match="start another training"):
        list(train(request.model_copy(update={"resume": True})))


def test_tiles_of_an_image_that_was_added_meanwhile_are_learned_from(project: ProjectFolder, tmp_path: Path) -> None:
    def add_image() -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
        tifffile.imwrite(tmp_path / "other.tif", pixels, photometric="rgb")
        index = project.add_image(tmp_path / "other.tif", name="other", shape=(96, 96))
        tile = project.add_tile(index, Box(0, 0, 64, 64))
        project.write_annotation(tile.id, instance=np.ones((64, 64), np.uint32))
        project.set_status(tile.id, "complete")

    events = told(quick_run(project, tmp_path / "run"), add_image)

    assert [event.tiles for event in events if isinstance(event, LabelsRead)] == [3]
    assert isinstance(events[-1], Finished)


def test_places_are_suggested_on_an_image_that_was_added_meanwhile_and_one_that_is_gone_ends_no_run(
    project: ProjectFolder, tmp_path: Path
) -> None:
    control = Control()
    request = quick_run(project, tmp_path / "run", steps=3)
    events: list[Event] = []
    for event in train(request, control):
        if isinstance(event, StepDone) and len(project.images) == 1:
            for name in ("more", "gone"):
                shutil.copy(tmp_path / "field.tif", tmp_path / f"{name}.tif")
                project.add_image(tmp_path / f"{name}.tif", shape=(128, 128))
            (tmp_path / "gone.tif").unlink()
            control.send(SuggestTiles(1, 32, 2))
            control.send(SuggestTiles(2, 32, 2))
        events.append(event)

    (places,) = [event.tiles for event in events if isinstance(event, Suggested)]
    assert {place["image"] for place in places} == {1}
    assert any("gone.tif" in event.message for event in events if isinstance(event, Unanswered))
    assert isinstance(events[-1], Finished)
    assert not events[-1].stopped


def test_a_project_that_cannot_be_read_for_a_while_ends_no_run(project: ProjectFolder, tmp_path: Path) -> None:
    def damage() -> None:
        (project.path / "project.json").write_text("{")

    events = told(quick_run(project, tmp_path / "run"), damage)

    assert any(isinstance(event, Warned) and "the labels that it has" in event.message for event in events)
    assert isinstance(events[-1], Finished)
    assert events[-1].facts["steps"] == 6


def test_the_best_by_other_judges_is_best_no_longer(project: ProjectFolder, tmp_path: Path) -> None:
    """A Dice on easy tiles is never reached on hard ones: what is learned since would never count."""
    truth = painted(project, Box(0, 32, 64, 96), np.ones((64, 64), np.uint32))
    project.set_role(truth, "validation")

    def judge_by_noise() -> None:
        noise = np.random.default_rng(0).random((64, 64)) < 0.3
        project.write_annotation(truth, instance=noise.astype(np.uint32))

    events = told(quick_run(project, tmp_path / "run"), judge_by_noise)

    scores = [event for event in events if isinstance(event, Validated)]
    assert scores[0].best
    changed = events.index(next(event for event in events if isinstance(event, LabelsRead)))
    after = [event for event in events[changed:] if isinstance(event, Validated)]
    assert after[0].best
    assert after[0].scores["threshold_dice"] != scores[0].scores["threshold_dice"]


def test_labels_that_a_run_has_taken_up_are_not_said_to_have_changed_when_it_goes_on(
    project: ProjectFolder, tmp_path: Path
) -> None:
    request = quick_run(project, tmp_path / "run")
    told(request, lambda: painted(project, Box(64, 64, 128, 128), np.ones((64, 64), np.uint32)))
    again = list(train(request.model_copy(update={"resume": True})))
    painted(project, Box(0, 0, 64, 128), np.ones((64, 128), np.uint32))
    changed = list(train(request.model_copy(update={"resume": True})))

    assert not [event for event in again if isinstance(event, Warned) and "have changed" in event.message]
    assert [event for event in changed if isinstance(event, Warned) and "have changed" in event.message]


def test_an_image_that_was_changed_before_a_run_goes_on_is_named(small_dataset: Path, quick_request) -> None:  # type: ignore[no-untyped-def]
    list(train(quick_request(steps=2)))
    same = list(train(quick_request(resume=True)))
    tifffile.imwrite(small_dataset / "images" / "field-1.tif", np.zeros((128, 128, 3), np.uint8), photometric="rgb")
    other = list(train(quick_request(resume=True, changed_images=True)))

    assert not [event for event in same if isinstance(event, Warned) and "changed" in event.message]
    said = [event.message for event in other if isinstance(event, Warned) and "changed" in event.message]
    assert len(said) == 1
    assert "field-1.tif" in said[0]


@pytest.mark.parametrize(
    "listed",
    ['{"1": "round", "2": "long"}', '{"a": "b"}', '"nuclei"', "5", '["background"]', '["background", 3]', "{}"],
)
def test_a_list_of_classes_that_says_no_classes_is_refused(small_dataset: Path, quick_request, listed: str) -> None:  # type: ignore[no-untyped-def]
    (small_dataset / "classes").mkdir()
    (small_dataset / "classes.json").write_text(listed)

    with pytest.raises(InputError, match="lists no classes"):
        read_training_data(quick_request(classes=str(small_dataset / "classes")))


def test_a_part_that_lists_nothing_is_refused(small_dataset: Path, quick_request) -> None:  # type: ignore[no-untyped-def]
    (small_dataset / "splits.json").write_text('{"train": []}')

    with pytest.raises(InputError, match="lists no image"):
        read_training_data(quick_request())


def test_a_project_without_an_image_is_refused(tmp_path: Path) -> None:
    with ProjectFolder.create(tmp_path / "new.semiseg"), pytest.raises(InputError, match="no image yet"):
        read_project(tmp_path / "new.semiseg")


def test_a_list_of_cells_may_begin_with_a_mark_of_its_encoding_and_has_to_be_text(
    small_dataset: Path,
    quick_request,  # type: ignore[no-untyped-def]
) -> None:
    path = small_dataset / "cells.txt"
    path.write_bytes(b"\xef\xbb\xbffield-0#1\n")
    assert [region.name for region in read_training_data(quick_request(labeled=str(path))).labeled] == ["field-0#1"]

    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read as text"):
        read_training_data(quick_request(labeled=str(path)))


def test_all_labels_are_learned_from_for_as_many_steps_as_few(quick_request) -> None:  # type: ignore[no-untyped-def]
    paper = {"preset": "paper", "steps": None, "set": {"batch_unlabeled": 4}}
    few, all_of_them = (prepare(quick_request(**paper, labeled=count)) for count in ("1", None))

    assert few.choices.steps == 80 * 3  # 11 unlabeled cells, 4 at a time
    assert all_of_them.choices.steps == few.choices.steps


def test_images_whose_names_have_dots_are_found_by_their_stems(small_dataset: Path, quick_request) -> None:  # type: ignore[no-untyped-def]
    for folder in ("images", "labels"):
        (small_dataset / folder / "field-0.tif").rename(small_dataset / folder / "field.v2.tif")
    (small_dataset / "splits.json").write_text('{"train": ["field.v2"]}')

    data = read_training_data(quick_request(labeled=None))

    assert [image.name for image in data.images] == ["field.v2"]
    assert len(data.labeled) == 3


# ---- what judges a run was never learned from by it ----


def five_tiles(project: ProjectFolder) -> list[str]:
    """Place tiles side by side below each other; all are empty but the first three, which are complete."""
    labels = np.zeros((24, 24), np.uint32)
    labels[4:20, 4:20] = 1
    for tile in project.tiles:
        project.remove_tile(tile.id)
    ids = [project.add_tile(0, Box(y, 0, y + 24, 24)).id for y in range(0, 120, 24)]
    for tile in ids:
        project.write_annotation(tile, instance=labels)
    for tile in ids[:3]:
        project.set_status(tile, "complete")
    return ids


def names(regions: Iterable[LabeledRegion]) -> list[str]:
    return [region.name for region in regions]


def test_a_tile_that_a_run_has_learned_from_never_judges_it_and_teaches_on(project: ProjectFolder) -> None:
    ids = five_tiles(project)
    project.set_status(ids[3], "sparse")
    before = read_project(project.path)
    project.set_status(ids[3], "complete")
    after = read_project(project.path, learned=before.learned)
    anew = read_project(project.path)

    assert (names(before.labeled), before.validation) == (ids[:4], [])
    assert (names(after.labeled), after.validation) == (ids[:4], [])
    (note,) = after.notes
    assert note == (
        f"Tile {ids[3]} is kept for validation, but this training has learned from it before: "
        "it goes on teaching here, and the tile judges the next training."
    )
    assert (names(anew.labeled), names(anew.validation), anew.notes) == (ids[:3], [ids[3]], [])
    assert after.seen == anew.seen


def test_what_a_run_has_learned_from_does_not_judge_it_because_an_earlier_tile_is_completed(
    project: ProjectFolder,
) -> None:
    ids = five_tiles(project)
    project.set_status(ids[2], "sparse")
    project.set_status(ids[3], "complete")
    before = read_project(project.path)
    project.set_status(ids[2], "complete")

    assert read_project(project.path, learned=before.learned).validation == []


def test_a_tile_that_a_run_has_not_learned_from_judges_it_also_when_it_comes_later(project: ProjectFolder) -> None:
    ids = five_tiles(project)
    before = read_project(project.path)
    project.set_status(ids[3], "complete")
    after = read_project(project.path, learned=before.learned)
    project.set_status(ids[4], "sparse")
    later = read_project(project.path, learned=after.learned)

    assert (names(after.labeled), names(after.validation), after.notes) == (ids[:3], [ids[3]], [])
    assert (names(later.labeled), names(later.validation)) == ([*ids[:3], ids[4]], [ids[3]])


def test_a_tile_that_the_user_keeps_for_validation_is_learned_from_no_more(project: ProjectFolder) -> None:
    ids = five_tiles(project)
    before = read_project(project.path)
    project.set_role(ids[0], "validation")
    after = read_project(project.path, learned=before.learned)

    assert (names(after.labeled), after.validation) == (ids[1:3], [])
    (note,) = after.notes
    assert note == (
        f"Tile {ids[0]} is kept for validation, but this training has learned from it before: "
        "from now on it does not, and the tile judges the next training."
    )


def test_a_new_tile_where_a_run_has_learned_from_a_removed_one_does_not_judge_it(project: ProjectFolder) -> None:
    ids = five_tiles(project)
    before = read_project(project.path)
    project.remove_tile(ids[0])
    over = painted(project, Box(0, 0, 20, 30), np.ones((20, 30), np.uint32))
    project.set_role(over, "validation")

    assert names(read_project(project.path).validation) == [over]
    assert read_project(project.path, learned=before.learned).validation == []


def test_what_is_spared_by_a_tile_that_overlaps_one_that_judges_does_not_count_as_learned(
    project: ProjectFolder,
) -> None:
    judge = painted(project, Box(0, 32, 64, 96), np.ones((64, 64), np.uint32))  # lies on two that teach
    project.set_role(judge, "validation")
    first = read_project(project.path)
    second = read_project(project.path, learned=first.learned)
    project.set_status(judge, "empty")
    without = read_project(project.path, learned=second.learned)
    project.set_status(judge, "complete")

    assert names(second.validation) == [judge]
    assert read_project(project.path, learned=without.learned).validation == []


def test_a_run_is_not_judged_by_what_it_has_learned_from_also_when_it_goes_on_later(
    project: ProjectFolder, tmp_path: Path
) -> None:
    ids = five_tiles(project)
    project.set_status(ids[3], "sparse")
    request = quick_run(project, tmp_path / "run")
    events = told(request, lambda: project.set_status(ids[3], "complete"))
    again = list(train(request.model_copy(update={"resume": True})))
    anew = list(train(quick_run(project, tmp_path / "new")))

    assert [event.tiles for event in events if isinstance(event, LabelsRead)] == [4]
    for run in (events, again):
        assert not [event for event in run if isinstance(event, Validated)]
        said = [event.message for event in run if isinstance(event, Warned) and ids[3] in event.message]
        assert len(said) == 1
        assert "judges the next training" in said[0]
    assert {name for event in anew if isinstance(event, Validated) for name in event.scores if ids[3] in name}


def test_a_run_that_broke_off_before_it_was_written_down_what_it_learned_from_goes_on(
    project: ProjectFolder, tmp_path: Path
) -> None:
    request = quick_run(project, tmp_path / "run")
    list(train(request))
    path = tmp_path / "run" / "run.json"
    config = json.loads(path.read_text())
    del config["learned"]
    path.write_text(json.dumps(config))

    assert isinstance(list(train(request.model_copy(update={"resume": True})))[-1], Finished)
    assert [place["box"] for place in json.loads(path.read_text())["learned"]] == [[0, 0, 64, 64], [0, 64, 64, 128]]
