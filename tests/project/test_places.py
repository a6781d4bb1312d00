"""Where a project may lie, and where it may not."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from napari_semiseg.blocks import Box
from napari_semiseg.errors import InputError
from napari_semiseg.project.folder import ProjectFolder

posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")


def is_one_sentence(error: BaseException) -> bool:
    text = str(error)
    return text.endswith(".") and "\n" not in text and len(text) < 1000


@posix
@pytest.mark.parametrize(
    "name",
    ["é", "e\u0301", "🔬 slide 7", "-rf", "a'b", "two..dots", "x" * 200, "новый проект", "スライド"],
    ids=lambda n: n[:12],
)
def test_a_project_of_any_portable_name_is_made_and_opened_again(tmp_path, name):
    with ProjectFolder.create(tmp_path / name) as project:
        image = project.add_array(np.full((20, 30), 7, np.uint8), name)
        tile = project.add_tile(image, (0, 0, 10, 10))
        project.write_annotation(tile.id, np.ones((10, 10), np.uint32))
    with ProjectFolder.open(tmp_path / f"{name}.semiseg") as again:
        assert again.name == name
        assert Path(again.source_path(0)).is_file()
        assert (again.annotation(tile.id).instance == 1).all()
        assert again.recovery.clean


@pytest.mark.parametrize(
    "name", ["CON", "nul", "Aux.old", "com1", "trailing.", "space ", "a:b", "what?", "tab\there", 'a"b']
)
def test_a_name_that_some_system_forbids_is_refused_before_anything_is_made(tmp_path, name):
    with pytest.raises(InputError, match="no name that every system allows") as caught:
        ProjectFolder.create(tmp_path / name)
    assert is_one_sentence(caught.value)
    assert list(tmp_path.iterdir()) == []


@posix
def test_a_long_path_works_and_a_too_long_name_is_said(tmp_path):
    deep = tmp_path.joinpath(*["folder" * 5] * 10)
    deep.mkdir(parents=True)
    with ProjectFolder.create(deep / "p") as project:
        assert len(str(project.path)) > 300
        project.add_image(deep / "a.tif", shape=(10, 10))
        project.write_annotation(project.add_tile(0, (0, 0, 5, 5)).id, np.ones((5, 5), int))
    with ProjectFolder.open(deep / "p.semiseg") as again:
        assert len(again.tiles) == 1
    with pytest.raises(InputError, match="the name is too long") as caught:
        ProjectFolder.create(tmp_path / ("x" * 300))
    assert is_one_sentence(caught.value)


def test_twins_that_some_disks_cannot_tell_apart_get_distinct_names(project, tmp_path):
    for name in ("Slide", "slide", "SLIDE", "B\u00e9", "Be\u0301", "CON"):
        project.add_image(tmp_path / "elsewhere" / name / f"{name}.tif", shape=(10, 10))
    results = [project.prediction_path(index).name for index in range(1, 7)]
    assert results == [
        "Slide.ome.zarr",
        "slide (2).ome.zarr",
        "SLIDE (3).ome.zarr",
        "Bé.ome.zarr",
        "Bé (2).ome.zarr",
        "_CON.ome.zarr",
    ]


def test_a_file_name_that_is_no_unicode_is_refused_with_what_to_do(project, tmp_path):
    with pytest.raises(InputError, match="rename the file") as caught:
        project.add_image(str(tmp_path / os.fsdecode(b"B\xe9.tif")))
    assert is_one_sentence(caught.value)
    str(caught.value).encode("utf-8")


def test_nothing_that_somebody_else_made_is_written_over(tmp_path):
    (tmp_path / "a.semiseg").mkdir()
    (tmp_path / "a.semiseg" / "thesis.doc").write_text("mine")
    (tmp_path / "b.semiseg").write_text("mine")
    for name, words in (("a", "not empty"), ("b", "no folder")):
        with pytest.raises(InputError, match=words) as caught:
            ProjectFolder.create(tmp_path / name)
        assert is_one_sentence(caught.value)
    assert (tmp_path / "a.semiseg" / "thesis.doc").read_text() == "mine"
    assert (tmp_path / "b.semiseg").read_text() == "mine"


def test_a_project_is_not_made_twice(tmp_path):
    ProjectFolder.create(tmp_path / "a").close()
    with pytest.raises(InputError, match="is a project already"):
        ProjectFolder.create(tmp_path / "a.semiseg")


def test_making_a_project_goes_on_where_it_was_killed(tmp_path):
    (tmp_path / "a.semiseg").mkdir()
    (tmp_path / "a.semiseg" / ".semiseg-0123.tmp.json").write_text("{")
    with ProjectFolder.create(tmp_path / "a") as project:
        assert project.tiles == ()


def test_a_project_without_a_parent_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="not there"):
        ProjectFolder.create(tmp_path / "no" / "such" / "folder")


def _loop(path):
    path.symlink_to(path.name)


def _pipe(path):
    os.mkfifo(path)


def _file(path):
    path.write_text("x")


def _folder(path):
    path.mkdir()


@posix
@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_loop, "leads back to itself"),
        (_pipe, "no folder"),
        (_file, "no folder"),
        (_folder, r"no project\.json"),
        (lambda path: None, "not there"),
    ],
)
@pytest.mark.parametrize("read_only", [True, False])
def test_what_is_no_project_is_refused_without_waiting(tmp_path, make, words, read_only):
    make(tmp_path / "a.semiseg")
    with pytest.raises(InputError, match=words) as caught:
        ProjectFolder.open(tmp_path / "a.semiseg", read_only)
    assert is_one_sentence(caught.value)


@posix
@pytest.mark.timeout(10)
@pytest.mark.parametrize("make", [_loop, _pipe, _folder])
def test_a_project_file_that_is_no_file_is_refused_without_waiting(tmp_path, make):
    (tmp_path / "a.semiseg").mkdir()
    make(tmp_path / "a.semiseg" / "project.json")
    with pytest.raises(InputError) as caught:
        ProjectFolder.open(tmp_path / "a.semiseg")
    assert is_one_sentence(caught.value)
    assert sorted(path.name for path in (tmp_path / "a.semiseg").iterdir()) == ["project.json"]


@posix
@pytest.mark.timeout(10)
@pytest.mark.parametrize("name", ["annotations", "images", "runs", "predictions"])
@pytest.mark.parametrize("kind", ["link out", "file", "pipe", "loop"])
def test_a_folder_of_the_project_that_is_none_is_refused(project, tmp_path, name, kind):
    project.close()
    shutil.rmtree(project.path / name, ignore_errors=True)
    place = project.path / name
    if kind == "link out":
        (tmp_path / "outside").mkdir()
        place.symlink_to(tmp_path / "outside")
    else:
        {"file": _file, "pipe": _pipe, "loop": _loop}[kind](place)
    with pytest.raises(InputError) as caught:
        ProjectFolder.open(project.path)
    assert is_one_sentence(caught.value)
    assert name in str(caught.value)


@posix
@pytest.mark.timeout(10)
def test_odd_files_among_the_annotations_do_not_keep_the_project_from_opening(project, tile_box):
    tiles = [project.add_tile(0, tile_box) for _ in range(3)]
    for tile in tiles:
        project.write_annotation(tile.id, np.ones(tile.box.shape, np.uint32))
    project.close()
    os.mkfifo(project.path / "annotations" / tiles[0].id / "journal-000099.log")
    shutil.rmtree(project.path / "annotations" / tiles[1].id)
    (project.path / "annotations" / tiles[1].id).symlink_to("/")
    (project.path / "annotations" / "stray.txt").write_text("x")

    with ProjectFolder.open(project.path) as again:
        assert len(again.recovery.damaged) == 2
        assert tiles[0].id in again.recovery.damaged[0]
        assert "leads out of the project" in again.recovery.damaged[1]
        assert (again.annotation(tiles[2].id).instance == 1).all()
        for tile in tiles[:2]:
            with pytest.raises(InputError):
                again.annotation(tile.id)


@posix
def test_a_project_that_cannot_be_written_opens_read_only(shared_folder, as_ordinary_user):
    with ProjectFolder.create(shared_folder / "locked") as project:
        project.add_image(shared_folder / "a.tif", shape=(100, 100))
        tile = project.add_tile(0, Box(0, 0, 10, 10))
        project.write_annotation(tile.id, np.full((10, 10), 3))
    for path in [project.path, *project.path.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = sorted((path, path.stat().st_mtime_ns) for path in project.path.rglob("*"))

    said = as_ordinary_user(
        """
        from napari_semiseg.errors import InputError
        from napari_semiseg.project.folder import ProjectFolder

        def refused(attempt):
            try:
                attempt()
                print("done")
            except InputError as error:
                print(error)

        def work(folder):
            refused(lambda: ProjectFolder.open(folder / "locked.semiseg"))
            refused(lambda: ProjectFolder.create(folder / "locked.semiseg" / "inner"))
            with ProjectFolder.open(folder / "locked.semiseg", read_only=True) as project:
                print(int(project.annotation("t0001").instance.min()))
                refused(lambda: project.add_tile(0, (0, 0, 5, 5)))
                refused(lambda: project.journal)
        """
    )
    assert "or open the project read-only." in said[0]
    assert "not allowed there" in said[1]
    assert said[2] == "3"
    assert all("open read-only, so nothing can be changed" in line for line in said[3:5])
    assert sorted((path, path.stat().st_mtime_ns) for path in project.path.rglob("*")) == before


@posix
def test_a_file_of_root_in_a_project_is_said_and_the_rest_opens(shared_folder, as_ordinary_user):
    if os.geteuid() != 0:
        pytest.skip("only root can make a file of root")
    with ProjectFolder.create(shared_folder / "mine") as project:
        project.add_image(shared_folder / "a.tif", shape=(100, 100))
        for _ in range(2):
            tile = project.add_tile(0, Box(0, 0, 10, 10))
            project.write_annotation(tile.id, np.full((10, 10), 3))
    for path in [project.path, *project.path.rglob("*")]:
        os.chown(path, 65534, 65534)
    snapshot = next((project.path / "annotations" / "t0001").glob("snapshot-*"))
    os.chown(snapshot, 0, 0)
    snapshot.chmod(0o600)

    said = as_ordinary_user(
        """
        from napari_semiseg.errors import InputError
        from napari_semiseg.project.folder import ProjectFolder

        def work(folder):
            with ProjectFolder.open(folder / "mine.semiseg") as project:
                for tile in project.tiles:
                    try:
                        print(int(project.annotation(tile.id).instance.min()))
                    except InputError as error:
                        print(error)
        """
    )
    assert "not allowed there" in said[0]
    assert "snapshot" in said[0]
    assert said[1] == "3"


@posix
def test_files_of_somebody_else_are_refused_before_anything_starts(shared_folder, as_ordinary_user):
    (shared_folder / "locked").mkdir()
    (shared_folder / "locked" / "secret.json").write_text("{}")
    (shared_folder / "locked" / "secret.json").chmod(0)
    (shared_folder / "locked").chmod(0o555)
    said = as_ordinary_user(
        """
        from napari_semiseg import atomic
        from napari_semiseg.errors import InputError

        def work(folder):
            for attempt in (
                lambda: atomic.require_writable(folder / "locked"),
                lambda: atomic.write_text(folder / "locked" / "a", "x"),
                lambda: atomic.read_json(folder / "locked" / "secret.json"),
            ):
                try:
                    attempt()
                    print("done")
                except InputError as error:
                    print(error)
        """
    )
    assert len(said) == 3
    assert all("it is not allowed there: choose another place" in line for line in said), said
