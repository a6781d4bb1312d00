"""The project as the dock sees it, on a real folder, without Qt."""

from __future__ import annotations

import time

import numpy as np
import pytest

from napari_semiseg.app.painting import BACKGROUND_ID, from_layer, next_id, to_layer
from napari_semiseg.app.project_model import ProjectModel, age_text, square
from napari_semiseg.errors import InputError
from napari_semiseg.project.folder import ProjectFolder
from napari_semiseg.project.tile_annotation import TileAnnotation


@pytest.fixture
def project(tmp_path):
    model = ProjectModel()
    model.create(tmp_path / "case")
    model.folder.add_array(np.zeros((300, 400, 3), np.uint8), "field")
    yield model
    model.end()


def settle(model: ProjectModel, until) -> None:
    end = time.monotonic() + 5
    while not until():
        assert time.monotonic() < end
        model.tick()
        time.sleep(0.005)


def test_what_is_painted_reaches_the_disk_and_makes_an_empty_tile_sparse(project, discs):
    tile = project.add_tile(0, center=(150, 150), side=100)
    said = []
    project.annotated.connect(said.append)
    project.submit(tile.id, discs(3, shape=(100, 100)).astype(np.uint16), {1: 2, 2: 2, 3: 2})
    settle(project, lambda: said)

    assert said == [tile.id]
    assert project.tile(tile.id).status == "sparse"
    assert project.words == "1 sparse · 3 nuclei"
    path = project.path
    assert project.close()
    assert ProjectFolder.open(path, read_only=True).annotation(tile.id).nuclei == 3


def test_nuclei_of_all_images_are_counted_when_a_project_is_opened(project, discs):
    project.folder.add_array(np.zeros((300, 400, 3), np.uint8), "other field")
    labels = discs(3, shape=(100, 100)).astype(np.uint16)
    for image in (0, 1):
        project.submit(project.add_tile(image, center=(150, 150), side=100).id, labels, {1: 2, 2: 2, 3: 2})
    settle(project, lambda: project.words == "2 sparse · 6 nuclei")
    path = project.path
    project.close()
    project.open(path)

    settle(project, lambda: project.words == "2 sparse · 6 nuclei")


def test_a_complete_tile_stays_complete_when_it_is_corrected(project, discs):
    tile = project.add_tile(0, center=(150, 150), side=100)
    project.set_status(tile.id, "complete")
    project.submit(tile.id, np.zeros((100, 100), np.uint16), {})
    settle(project, lambda: project.saved_words.startswith("saved"))

    assert project.tile(tile.id).status == "complete"


def test_removing_the_selected_tile_selects_another_and_it_can_come_back(project):
    first, second = (project.add_tile(0, center=center, side=100) for center in ((60, 60), (200, 200)))
    assert project.selected == second.id
    project.remove_tile(second.id)
    assert project.selected == first.id
    assert project.removed == [second.id]
    project.restore_tile(second.id)
    assert project.selected == second.id


def test_a_second_program_looks_and_cannot_paint(project, tmp_path):
    other = ProjectModel()
    held = other.open_or_look(tmp_path / "case.semiseg")

    assert "already open" in str(held)
    assert other.read_only
    assert other.saved_words == "read-only"
    with pytest.raises(InputError, match="read-only"):
        other.add_tile(0, center=(100, 100))
    other.end()


def test_without_a_project_everything_says_so(tmp_path):
    model = ProjectModel()

    assert (model.name, model.words, model.saved_words, model.tiles) == ("", "", "", ())
    with pytest.raises(InputError, match="press Start"):
        model.add_tile(0, center=(1, 1))
    assert model.close()
    model.end()


@pytest.mark.parametrize(
    ("center", "side", "shape", "box"),
    [
        ((100, 100), 50, (300, 300), (75, 75, 125, 125)),
        ((0, 299), 50, (300, 300), (0, 250, 50, 300)),
        ((10, 10), 250, (100, 300), (0, 0, 100, 250)),
        ((0, 0), 250, (1, 1), (0, 0, 1, 1)),
        ((50, 50), 20, None, (40, 40, 60, 60)),
    ],
)
def test_a_tile_is_moved_into_the_image_and_cut_where_the_image_is_smaller(center, side, shape, box):
    assert square(center, side, shape) == box


def test_a_click_beside_the_image_is_refused():
    with pytest.raises(InputError, match="outside the image"):
        square((-1, 10), 50, (100, 100))


def test_layer_and_annotation_are_the_same_in_both_directions(discs):
    instance = discs(4, shape=(80, 80))
    classes = np.where(instance > 0, np.uint8(2), np.uint8(0))
    classes[instance == 2] = 3
    classes[70:, 70:] = 1  # background
    annotation = TileAnnotation(instance, classes)
    labels, class_of = to_layer(annotation)

    assert class_of == {1: 2, 2: 3, 3: 2, 4: 2}
    assert (labels[70:, 70:] == BACKGROUND_ID).all()
    assert next_id(labels) == 5
    assert from_layer(labels, class_of).equals(annotation)


def test_an_age_is_said_as_people_do():
    assert [age_text(seconds) for seconds in (0.2, 3.4, 75, 7300)] == ["1 s", "3 s", "1 min", "2 h"]
