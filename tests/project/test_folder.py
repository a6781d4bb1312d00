"""The project folder: what is put in comes out again, in another process too."""

from __future__ import annotations

import json
import math
import os
import threading
from types import SimpleNamespace

import dask.array
import numpy as np
import pytest
import tifffile

from napari_semiseg import atomic
from napari_semiseg.app.lost_images import find_again
from napari_semiseg.blocks import Box
from napari_semiseg.errors import InputError
from napari_semiseg.io.images import open_image
from napari_semiseg.project.folder import ProjectFolder
from napari_semiseg.project.schema import ClassSpec, with_class
from napari_semiseg.project.stored_array import array_bytes
from napari_semiseg.project.tile_annotation import PROPOSED_AS
from napari_semiseg.project.tiles import validation_tiles


def reopened(project):
    project.close()
    return ProjectFolder.open(project.path)


def test_opening_restores_everything(project, tmp_path, painted):
    project.set_classes([ClassSpec(name="tumor", color="#d55e00"), ClassSpec(name="immune", color="#0072b2")])
    project.add_image("https://example.org/slide.ome.zarr", shape=(9, 9), series=2)
    tiles = [project.add_tile(0, (n * 50, 0, n * 50 + 50, 60)) for n in range(3)]
    for n, (tile, status) in enumerate(zip(tiles, ("complete", "sparse", "excluded"), strict=True)):
        project.write_annotation(tile.id, painted(seed=n), painted(seed=n) % 3)
        project.set_status(tile.id, status, by="Dr. Who")
    project.set_role(tiles[0].id, "validation")

    with reopened(project) as again:
        assert again.project == project.project
        assert [tile.status for tile in again.tiles] == ["complete", "sparse", "excluded"]
        assert again.tiles[0].set_by == "Dr. Who"
        assert again.tiles[0].role == "validation"
        for n, tile in enumerate(tiles):
            assert np.array_equal(again.annotation(tile.id).instance, painted(seed=n))
            assert np.array_equal(again.annotation(tile.id).classes, painted(seed=n) % 3)
        assert again.recovery.sentences() == ["Not found where they were: HE_0412; show where these images lie now."]


def test_each_image_of_a_file_that_holds_several_is_opened_by_where_it_lies(project, tmp_path):
    with tifffile.TiffWriter(tmp_path / "three.ome.tif") as tif:
        for value in (10, 100, 200):
            tif.write(np.full((40, 56, 3), value, np.uint8), photometric="rgb")
    indices = [project.add_image(tmp_path / "three.ome.tif", shape=(40, 56), series=series) for series in (0, 2)]
    indices += [project.add_image(f"{tmp_path / 'three.ome.tif'}[{choice}]", series=2) for choice in ("c=1", "s=1")]

    opened = [open_image(project.source_path(index)) for index in indices]
    assert [image.read(Box(0, 0, 40, 56)).max() for image in opened] == [10, 200, 200, 100]
    assert [image.gray for image in opened] == [False, False, True, False]
    find_again(project, indices[1], tmp_path / "three.ome.tif")
    assert open_image(project.source_path(indices[1])).read(Box(0, 0, 40, 56)).max() == 200


def test_the_folder_holds_what_the_design_says(project, tile_box):
    tile = project.add_tile(0, tile_box)
    project.write_annotation(tile.id, np.ones(tile.box.shape, int))
    project.new_run_dir()
    project.close()
    names = sorted(path.name for path in project.path.iterdir())
    assert names == ["annotations", "project.json", "runs"]
    with np.load(next((project.path / "annotations" / tile.id).glob("snapshot-*.npz"))) as arrays:
        assert {name: arrays[name].dtype for name in arrays} == {"instance": np.uint32, "class": np.uint8}


def test_the_project_file_may_be_given_instead_of_its_folder(project):
    project.close()
    with ProjectFolder.open(project.path / "project.json") as again:
        assert again.path == project.path


# ---- images ----


def test_an_image_beside_the_project_is_found_again_after_both_were_moved(tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "a.tif").touch()
    with ProjectFolder.create(tmp_path / "here" / "p") as project:
        project.add_image(tmp_path / "here" / "a.tif", shape=(5, 5))
        project.add_image(tmp_path / "far.tif", shape=(5, 5))
    (tmp_path / "here").rename(tmp_path / "there")
    with ProjectFolder.open(tmp_path / "there" / "p.semiseg") as again:
        assert again.source_path(0) == str(tmp_path / "there" / "a.tif")
        assert again.source_path(1) == str(tmp_path / "far.tif")
        assert again.recovery.missing_images == ("far",)
        (tmp_path / "far").mkdir()
        (tmp_path / "far" / "b.tif").touch()
        again.relink_image(1, tmp_path / "far" / "b.tif")
    with ProjectFolder.open(tmp_path / "there" / "p.semiseg") as again:
        assert again.recovery.missing_images == ()


def test_tiles_of_an_image_that_was_moved_are_brought_back_and_found_again(project, tmp_path, tile_box):
    kept, removed = project.add_tile(0, tile_box), project.add_tile(0, tile_box)
    project.add_image(tmp_path / "b.tif", shape=(200, 300))
    other = project.add_tile(1, tile_box)
    for tile in (kept, removed):
        project.write_annotation(tile.id, np.full(tile.box.shape, 4))
    project.remove_tile(removed.id)
    project.remove_tile(other.id)
    project.relink_image(0, tmp_path / "elsewhere" / "HE.svs")
    project.restore_tile(removed.id)
    project.restore_tile(other.id)
    assert [tile.image for tile in project.tiles] == [0, 0, 1]
    assert (project.annotation(removed.id).instance == 4).all()

    unlisted = project.tiles
    project._replace(tiles=())
    project.close()
    with ProjectFolder.open(project.path) as again:
        assert [tile.id for tile in again.tiles] == sorted(tile.id for tile in unlisted)
        assert again.recovery.adopted == tuple(sorted(tile.id for tile in unlisted))


def test_an_opened_image_brings_what_it_knows(project, tmp_path):
    image = SimpleNamespace(source=str(tmp_path / "b.ome.zarr"), name="b", shape=(70, 80), mpp=0.5)
    index = project.add_image(image)
    assert index == 1
    assert (project.images[1].name, project.images[1].shape, project.images[1].mpp) == ("b", (70, 80), 0.5)
    assert project.add_image(image) == 1
    assert len(project.images) == 2
    assert project.prediction_path(1) == project.predictions_dir / "b.ome.zarr"


def test_a_url_is_kept_as_it_is(project):
    index = project.add_image("https://example.org/a/slide.ome.zarr?token=1")
    assert project.source_path(index) == "https://example.org/a/slide.ome.zarr?token=1"
    assert project.images[index].shape is None


def test_an_image_that_is_not_there_is_said(project):
    for index in (-1, 1, 99):
        with pytest.raises(InputError, match=f"no number {index}"):
            project.source_path(index)
        with pytest.raises(InputError, match=f"no number {index}"):
            project.add_tile(index, (0, 0, 5, 5))


@pytest.mark.parametrize(
    "array",
    [
        np.arange(600 * 700).reshape(600, 700).astype(np.uint16),
        np.random.default_rng(0).integers(0, 256, (530, 40, 3), np.uint8),
        np.random.default_rng(0).integers(0, 256, (30, 40, 4), np.uint8),
        np.linspace(-1, 1, 1200).reshape(30, 40),
        np.linspace(-1, 1, 1200).reshape(30, 40).astype(np.float16),
        np.arange(1200).reshape(30, 40) - 600,
        np.arange(1200).reshape(30, 40).astype(">i2"),
        np.asfortranarray(np.arange(1200, dtype=np.uint8).reshape(30, 40)),
        dask.array.arange(1200, chunks=100).reshape(30, 40).astype(np.uint16),
        np.full((1, 1), 7, np.uint8),
    ],
    ids=["uint16", "rgb", "rgba", "float64", "float16", "int64", "big-endian", "fortran", "dask", "pixel"],
)
def test_an_image_from_memory_is_written_once_as_it_is(project, array):
    index = project.add_array(array, "My image", mpp=0.5)
    path = project.source_path(index)
    with tifffile.TiffFile(path) as file:
        assert np.array_equal(file.asarray(), np.asarray(array))
        assert file.is_ome
        assert file.pages[0].is_tiled
        assert 'PhysicalSizeX="0.5"' in file.ome_metadata
    assert project.images[index].shape == array.shape[:2]
    assert project.images[index].path == "images/My image.ome.tif"
    assert array_bytes(array, "x") >= np.prod(array.shape)


def test_a_mask_from_memory_becomes_black_and_white(project):
    path = project.source_path(project.add_array(np.eye(5, dtype=bool), "mask"))
    assert np.array_equal(tifffile.imread(path), np.eye(5) * 255)


def test_two_images_of_one_name_are_two_files(project):
    first, second = (project.add_array(np.full((5, 5), n, np.uint8), "Image") for n in (1, 2))
    assert project.source_path(first) != project.source_path(second)
    assert tifffile.imread(project.source_path(first)).max() == 1
    assert [project.images[n].name for n in (first, second)] == ["Image", "Image (2)"]


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((5, 5, 2)), "5 x 5 x 2"),
        (np.zeros((5, 5, 5)), "5 x 5 x 5"),
        (np.zeros((3, 5, 5)), "3 x 5 x 5"),
        (np.zeros((2, 5, 5, 3)), "2 x 5 x 5 x 3"),
        (np.zeros(5), "is 5,"),
        (np.zeros((0, 5)), "0 x 5"),
        (np.array(5.0), "is nothing"),
        (np.zeros((5, 5), complex), "complex128"),
        (np.full((5, 5), None), "object"),
        (np.full((5, 5), "a"), "<U1"),
        (SimpleNamespace(shape=(math.nan, 5), dtype=np.uint8), "does not know its own size"),
        (SimpleNamespace(shape=(3 * 10**6, 3 * 10**8), dtype=np.uint8), "not enough room for the image 'x'"),
    ],
)
def test_what_is_no_image_or_has_no_room_is_refused_before_anything_is_written(project, array, words):
    with pytest.raises(InputError, match=words):
        project.add_array(array, "x")
    assert len(project.images) == 1
    assert list((project.path / "images").iterdir()) == []


@pytest.mark.fault
def test_an_image_whose_source_fails_halfway_leaves_no_file(project):
    class Failing:
        shape, dtype = (2000, 2000), np.dtype(np.uint8)

        def __getitem__(self, slices):
            if slices[0].start > 1000:
                raise OSError(5, "Input/output error")
            return np.zeros((2000, 2000), np.uint8)[slices]

    with pytest.raises(InputError, match="the disk reports an error"):
        project.add_array(Failing(), "x")
    assert list((project.path / "images").iterdir()) == []


# ---- tiles ----


def test_a_tile_is_cut_off_at_the_border_of_its_image(project):
    assert project.add_tile(0, (-10, 250, 30, 400)).box == Box(0, 250, 30, 300)
    assert project.add_tile(0, (199, 299, 500, 500)).box.area == 1
    for outside in [(200, 0, 220, 20), (-20, 0, 0, 20), (0, 300, 5, 305), (10, 10, 10, 20), (20, 20, 10, 10)]:
        with pytest.raises(InputError, match="does not touch the image 'HE_0412': draw it on the image"):
            project.add_tile(0, outside)


def test_a_tile_that_nobody_could_finish_is_refused(project):
    index = project.add_image("https://example.org/slide.svs", shape=(200_000, 200_000))
    assert project.add_tile(index, (0, 0, 4096, 4096)).box.area == 2**24
    with pytest.raises(InputError, match="too large to be labeled"):
        project.add_tile(index, (0, 0, 4097, 4096))


def test_ids_are_never_used_again(project):
    first, second = (project.add_tile(0, (0, 0, 5, 5)) for _ in range(2))
    project.remove_tile(second.id)
    third = project.add_tile(0, (0, 0, 5, 5))
    assert [first.id, second.id, third.id] == ["t0001", "t0002", "t0003"]
    project.remove_tile(third.id)
    with reopened(project) as again:
        assert again.add_tile(0, (0, 0, 5, 5)).id == "t0004"


def four_complete_tiles(project):
    """Make tiles side by side, the last of which the rule sets aside; return their ids."""
    tiles = [project.add_tile(0, (0, n * 20, 20, n * 20 + 20)) for n in range(4)]
    return [project.set_status(tile.id, "complete").id for tile in tiles]


def test_no_new_tile_is_laid_on_one_that_is_kept_for_validation(project):
    four_complete_tiles(project)
    with pytest.raises(InputError, match="would lie on tile t0004, which is kept for validation: place it beside"):
        project.add_tile(0, (10, 70, 30, 90))
    assert len(project.tiles) == 4
    project.add_tile(0, (20, 60, 40, 80))
    project.set_role("t0004", "training")
    assert project.add_tile(0, (10, 70, 30, 90)).id == "t0006"


def test_a_tile_kept_for_validation_stays_so_when_one_that_lay_on_it_is_painted(project):
    under = project.add_tile(0, (10, 70, 30, 90))
    four_complete_tiles(project)
    assert [tile.id for tile in validation_tiles(project.tiles)] == ["t0005"]
    project.set_status(under.id, "sparse")
    with reopened(project) as again:
        assert [tile.id for tile in validation_tiles(again.tiles)] == ["t0005"]


def test_a_project_of_before_keeps_the_validation_tiles_that_it_had(project):
    under = project.add_tile(0, (10, 70, 30, 90))
    four_complete_tiles(project)
    project.close()
    path = project.path / "project.json"
    values = json.loads(path.read_text())
    for tile in values["tiles"]:
        del tile["judges"]
    path.write_text(json.dumps(values))
    with ProjectFolder.open(project.path) as again:
        again.set_status(under.id, "sparse")
        assert [tile.id for tile in validation_tiles(again.tiles)] == ["t0005"]


def test_a_mark_that_is_taken_back_and_given_again_leaves_validation_as_it_was(project):
    *_, last = four_complete_tiles(project)
    project.set_status(last, "sparse")
    assert validation_tiles(project.tiles) == []
    project.set_status(last, "complete")
    assert [tile.id for tile in validation_tiles(project.tiles)] == [last]


def test_a_removed_tile_keeps_its_annotation_and_comes_back_with_it(project, tile_box, painted):
    tile = project.add_tile(0, tile_box)
    project.autosave.submit(tile.id, instance=painted(tile.box.shape))
    project.set_status(tile.id, "complete")
    tile = project.set_role(tile.id, "validation")
    project.remove_tile(tile.id)
    assert project.tiles == ()
    for use in (project.annotation, project.remove_tile, lambda gone: project.set_status(gone, "sparse")):
        with pytest.raises(InputError, match="has no tile 't0001': it may have been removed"):
            use(tile.id)
    with reopened(project) as again:
        assert again.tiles == ()
        assert again.restore_tile(tile.id) == tile
        assert np.array_equal(again.annotation(tile.id).instance, painted(tile.box.shape))
        with pytest.raises(InputError, match="not there"):
            again.restore_tile(tile.id)


@pytest.mark.fault
def test_a_tile_whose_strokes_cannot_be_saved_is_not_removed(project, tile_box, monkeypatch):
    tile = project.add_tile(0, tile_box)
    monkeypatch.setattr(atomic, "write_all", _full)
    project.journal.record(tile.id, Box(0, 0, 1, 1), "instance", np.ones((1, 1), int))
    with pytest.raises(InputError, match="kept in memory and cannot be saved"):
        project.remove_tile(tile.id)
    assert project.tiles == (tile,)
    monkeypatch.undo()
    assert project.journal.flush()
    assert project.annotation(tile.id).instance.sum() == 1


def _full(*_):
    raise OSError(28, "No space left on device")


@pytest.mark.fault
@pytest.mark.parametrize(
    "change",
    [
        lambda p: p.add_image("b.tif"),
        lambda p: p.add_tile(0, (0, 0, 5, 5)),
        lambda p: p.set_status("t0001", "complete"),
        lambda p: p.set_classes([ClassSpec(name="a", color="#000000")]),
        lambda p: p.relink_image(0, "b.tif"),
        lambda p: p.save(),
    ],
    ids=["image", "tile", "status", "classes", "relink", "save"],
)
def test_a_change_that_a_full_disk_refuses_has_not_happened(project, tile_box, monkeypatch, change):
    project.add_tile(0, tile_box)
    before = project.project
    monkeypatch.setattr(atomic, "write_all", _full)
    with pytest.raises(InputError, match="the disk is full: free some space"):
        change(project)
    assert project.project is before
    monkeypatch.undo()
    change(project)
    with reopened(project) as again:
        assert again.project == project.project


def test_what_a_user_cannot_say_is_refused(project, tile_box):
    tile = project.add_tile(0, tile_box)
    for change in (lambda: project.set_status(tile.id, "done"), lambda: project.set_role(tile.id, "judge")):
        with pytest.raises(InputError, match="tile t0001"):
            change()
    with pytest.raises(InputError, match="has no tile"):
        project.tile("../../etc/passwd")
    assert project.tile(tile.id) == tile


def test_a_class_that_somebody_painted_is_not_removed(project, tile_box):
    two = [ClassSpec(name="tumor", color="#d55e00"), ClassSpec(name="immune", color="#0072b2")]
    project.set_classes(two)
    tile = project.add_tile(0, tile_box)
    for used in (3, PROPOSED_AS + 3):
        project.write_annotation(tile.id, classes=np.full(tile.box.shape, used))
        with pytest.raises(InputError, match="The class 'immune' is painted or proposed in tile t0001: paint it over"):
            project.set_classes(two[:1])
    project.write_annotation(tile.id, classes=np.full(tile.box.shape, 2))
    project.set_classes(two[:1])
    assert [spec.name for spec in project.classes] == ["tumor"]


@pytest.fixture
def stuck(project, tile_box, monkeypatch):
    """A tile with a nucleus that was handed over and does not get to the disk."""
    tile = project.add_tile(0, tile_box)
    go_on = threading.Event()
    record, flush = project.autosave._record, project.autosave.flush
    monkeypatch.setattr(project.autosave, "_record", lambda handed: go_on.wait(60) and record(handed))
    monkeypatch.setattr(project.autosave, "flush", lambda timeout_s=5.0: flush(min(timeout_s, 0.2)))
    ids = np.zeros(tile.box.shape, np.uint32)
    ids[2:6, 2:6] = 1
    project.autosave.submit(tile.id, instance=ids, classes=np.where(ids, 3, 0))
    yield SimpleNamespace(project=project, tile=tile, ids=ids)
    go_on.set()


def test_what_is_set_aside_is_what_was_painted_last_on_the_disk_or_not(stuck):
    stuck.project.set_aside(stuck.tile.id)
    np.testing.assert_array_equal(stuck.project.kept_aside(stuck.tile.id).instance, stuck.ids)


def test_a_class_that_was_painted_just_now_is_not_removed(stuck):
    project = stuck.project
    project.set_classes(with_class(project.classes, "immune"))
    with pytest.raises(InputError, match="is painted or proposed in tile t0001"):
        project.set_classes(project.classes[:1])


def test_a_tile_is_not_removed_or_written_over_as_long_as_its_paint_is_not_on_the_disk(stuck):
    project, tile = stuck.project, stuck.tile
    for change in (
        lambda: project.remove_tile(tile.id),
        lambda: project.write_annotation(tile.id, classes=np.zeros(tile.box.shape, np.uint8)),
    ):
        with pytest.raises(InputError, match="is not on the disk yet: wait and try again"):
            change()
    assert project.tile(tile.id) == tile
    np.testing.assert_array_equal(project.newest_annotation(tile.id).instance, stuck.ids)


# ---- runs, threads, closing ----


def test_run_folders_are_new_each_time_also_within_a_second(project):
    runs = [project.new_run_dir() for _ in range(5)]
    assert len(set(runs)) == 5
    assert all(run.is_dir() and run.parent == project.runs_dir for run in runs)


def test_changes_from_many_threads_are_all_kept(project):
    def add():
        for _ in range(5):
            tile = project.add_tile(0, (0, 0, 5, 5))
            project.write_annotation(tile.id, np.full((5, 5), int(tile.id[1:])))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({tile.id for tile in project.tiles}) == 20
    assert all((project.annotation(tile.id).instance == int(tile.id[1:])).all() for tile in project.tiles)
    written = json.loads((project.path / "project.json").read_text())
    assert len(written["tiles"]) == 20


def test_a_closed_project_saved_everything_holds_nothing_and_takes_nothing(project, tile_box, painted):
    tile = project.add_tile(0, tile_box)
    project.autosave.submit(tile.id, instance=painted(tile.box.shape))
    assert project.close()
    assert project.close()
    assert not (project.path / "project.lock").exists()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("annotation")]
    assert np.array_equal(project.annotation(tile.id).instance, painted(tile.box.shape))
    for use in (lambda: project.autosave, lambda: project.add_tile(0, tile_box), project.save, project.new_run_dir):
        with pytest.raises(InputError, match="nothing can be changed"):
            use()


def test_one_can_look_at_a_project_without_leaving_a_trace(project, tile_box):
    tile = project.add_tile(0, tile_box)
    project.write_annotation(tile.id, np.ones(tile.box.shape, int))
    project.close()

    def everything():
        return sorted((str(path), os.stat(path).st_mtime_ns) for path in project.path.rglob("*"))  # noqa: PTH116

    before = everything()
    with ProjectFolder.open(project.path, read_only=True) as viewer:
        viewer.annotation(tile.id)
        viewer.reload()
    assert everything() == before


def test_classes_that_cannot_be_are_refused_in_a_plain_sentence(project):
    with pytest.raises(InputError, match=r"^There is a class “nucleus” already: give this one another name\.$"):
        project.set_classes(with_class(project.classes, " nucleus "))
    with pytest.raises(InputError, match=r"^A project has at most 124 classes, and these are 125: keep fewer\.$"):
        project.set_classes([ClassSpec(name=str(number), color="#000000") for number in range(125)])
    project.set_classes(with_class(with_class(project.classes, "x" * 600), " "))

    assert [spec.name for spec in project.classes] == ["nucleus", "x" * 200, "unnamed"]
