"""Images of a project that are not where they were."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from napari_semiseg.app.lost_images import find_again, lost_images
from napari_semiseg.errors import InputError
from napari_semiseg.project.folder import ProjectFolder


def write(path, shape=(40, 50)):
    path.parent.mkdir(exist_ok=True)
    tifffile.imwrite(path, np.zeros((*shape, 3), np.uint8), photometric="rgb")
    return path


@pytest.fixture
def project(tmp_path):
    with ProjectFolder.create(tmp_path / "p") as opened:
        yield opened


def test_the_plane_that_was_chosen_of_an_image_stays_chosen(project, tmp_path):
    tifffile.imwrite(
        tmp_path / "now.tif", np.zeros((3, 40, 50), np.uint8), photometric="minisblack", metadata={"axes": "ZYX"}
    )
    project.add_image(f"{tmp_path / 'before.tif'}[z=2]", name="a", shape=(40, 50))
    assert lost_images(project) == [0]
    assert find_again(project, 0, tmp_path / "now.tif") == [0]
    assert project.source_path(0) == f"{tmp_path / 'now.tif'}[z=2]"
    assert lost_images(project) == []


def test_only_images_that_are_lost_are_looked_for_beside_the_one_that_was_found(project, tmp_path):
    here = write(tmp_path / "b.tif")
    for path in (tmp_path / "a.tif", here, tmp_path / "c.tif"):
        project.add_image(path, shape=(40, 50))
    for name in ("a.tif", "b.tif", "c.tif"):
        write(tmp_path / "moved" / name)
    assert find_again(project, 2, tmp_path / "moved" / "c.tif") == [2, 0]
    assert project.source_path(1) == str(here)


def test_nothing_has_changed_where_the_file_is_another_image_or_none(project, tmp_path):
    project.add_image(tmp_path / "a.tif", shape=(40, 50))
    (tmp_path / "broken.tif").write_bytes(b"II*\0")
    for path in (write(tmp_path / "other.tif", (41, 50)), tmp_path / "broken.tif", tmp_path / "nowhere.tif"):
        with pytest.raises(InputError):
            find_again(project, 0, path)
    assert lost_images(project) == [0]


def test_an_image_whose_shape_nobody_knows_is_taken_as_it_is(project, tmp_path):
    project.add_image(tmp_path / "a.tif")
    assert find_again(project, 0, write(tmp_path / "moved" / "b.tif")) == [0]
