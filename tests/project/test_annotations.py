"""Annotations: what is refused, what a loss is given, what is hashed, and where tiles contradict each other."""

from __future__ import annotations

import time

import numpy as np
import pytest

from napari_semiseg.blocks import Box
from napari_semiseg.errors import InputError
from napari_semiseg.project.annotations import TileAnnotation, conflicts, digests, load_annotation, training_labels
from napari_semiseg.project.folder import ProjectFolder
from napari_semiseg.project.schema import ClassSpec, Tile

SHAPE = (2, 3)


def tile(status, shape=SHAPE):
    return Tile(id="t0001", image=0, box=Box(5, 5, 5 + shape[0], 5 + shape[1]), status=status)


def annotation(instance, classes):
    return TileAnnotation(np.array(instance, np.uint32), np.array(classes, np.uint8))


# columns: unpainted, background, first class, second class, nucleus without class, nucleus painted as background
_EVERY = annotation([[0, 0, 1, 2, 3, 4]], [[0, 1, 2, 3, 0, 1]])


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("complete", [0, 0, 1, 2, 1, 0]),
        ("sparse", [255, 0, 1, 2, 1, 0]),
        ("empty", [255] * 6),
        ("excluded", [255] * 6),
    ],
)
def test_what_is_not_painted_is_background_in_a_complete_tile_and_ignored_in_a_sparse_one(status, expected):
    labels = training_labels(tile(status, (1, 6)), _EVERY)
    assert labels.dtype == np.uint8
    assert labels.tolist() == [expected]


def test_the_largest_class_on_disk_is_not_taken_for_ignore():
    labels = training_labels(tile("sparse", (1, 2)), annotation([[0, 0]], [[125, 0]]))
    assert labels.tolist() == [[124, 255]]


def test_nothing_is_learned_from_what_was_proposed_and_not_accepted():
    for status in ("sparse", "complete"):
        found = training_labels(
            tile(status, (1, 4)), annotation([[45_000, 46_000, 30_000, 1]], [[254, 130, 2, 2]]), classes=1
        )
        assert found.tolist() == [[255, 255, 1, 1]]


def test_an_annotation_of_another_size_or_an_unknown_class_is_refused():
    with pytest.raises(InputError, match="another size than the tile"):
        training_labels(tile("sparse", (1, 5)), _EVERY)
    assert training_labels(tile("sparse", (1, 6)), _EVERY, classes=2).max() == 255
    with pytest.raises(InputError, match="Tile t0001 holds class 3, which the project does not have"):
        training_labels(tile("sparse", (1, 6)), _EVERY, classes=1)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.full(SHAPE, -1), "hold -1"),
        (np.array([[0, 0, 0], [0, 0, -(2**63)]]), "hold -9223372036854775808"),
        (np.full(SHAPE, 2**31), "hold 2147483648"),
        (np.full(SHAPE, 2**64 - 1, np.uint64), "hold 18446744073709551615"),
        (np.ones(SHAPE, np.float32), "type float32"),
        (np.full(SHAPE, np.nan), "type float64"),
        (np.ones(SHAPE, complex), "type complex128"),
        (np.ones(SHAPE, bool), "type bool"),
        (np.array([["a"] * 3] * 2), "type <U1"),
        (np.array([[None] * 3] * 2), "type object"),
        (np.ones((3, 2), int), "size 3 x 2, but the tile is 2 x 3"),
        (np.ones((2, 3, 1), int), "size 2 x 3 x 1"),
        (np.ones((0, 0), int), "size 0 x 0"),
        (np.array(5), "size one number"),
    ],
    ids=lambda value: value if isinstance(value, str) else str(value.dtype),
)
@pytest.mark.parametrize("layer", ["instance", "classes"])
def test_what_is_no_annotation_is_refused_in_one_sentence(array, words, layer):
    values = {"instance": None, "classes": None, layer: array}
    with pytest.raises(InputError, match=words) as caught:
        TileAnnotation.checked(**values, shape=SHAPE, where="layer 'my labels'")
    text = str(caught.value)
    assert "layer 'my labels'" in text
    assert text.endswith(".")
    assert "\n" not in text


def test_the_class_that_means_ignore_in_tensors_is_refused():
    with pytest.raises(InputError, match="hold 255, but 254 is the largest"):
        TileAnnotation.checked(None, np.full(SHAPE, 255), SHAPE, "a file")


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "u4", "i8", "u8", ">i4", ">u2"])
def test_whole_numbers_of_any_type_are_taken_and_copied(dtype):
    array = np.arange(6).reshape(SHAPE).astype(dtype)
    found = TileAnnotation.checked(array, array, SHAPE, "a file")
    array[:] = 0
    assert found.instance.tolist() == found.classes.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert (found.instance.dtype, found.classes.dtype) == (np.uint32, np.uint8)
    assert found.nuclei == 5


def test_nothing_and_one_pixel_and_one_class_are_annotations(project):
    one = project.add_tile(0, (0, 0, 1, 1))
    project.write_annotation(one.id, np.full((1, 1), 2**31 - 1), np.full((1, 1), 254))
    assert project.annotation(one.id).instance.tolist() == [[2**31 - 1]]
    assert project.annotation(one.id).classes.tolist() == [[254]]
    project.write_annotation(one.id, np.zeros((1, 1), int), np.zeros((1, 1), int))
    assert project.annotation(one.id).nuclei == 0


def test_a_refused_annotation_leaves_the_old_one(project, tile_box):
    added = project.add_tile(0, tile_box)
    project.write_annotation(added.id, np.full(added.box.shape, 3))
    for bad in (np.full(added.box.shape, -1), np.full(added.box.shape, 0.5), np.ones((3, 3), int)):
        with pytest.raises(InputError, match=rf"tile {added.id}"):
            project.write_annotation(added.id, bad)
    assert (load_annotation(project, added.id).instance == 3).all()


def test_a_layer_that_is_not_given_stays(project, tile_box):
    added = project.add_tile(0, tile_box)
    project.write_annotation(added.id, np.full(added.box.shape, 3))
    project.write_annotation(added.id, classes=np.full(added.box.shape, 2))
    found = project.annotation(added.id)
    assert (found.instance == 3).all()
    assert (found.classes == 2).all()


def test_an_annotation_written_between_two_autosaves_is_what_the_next_one_is_compared_with(project, tile_box):
    added = project.add_tile(0, tile_box)
    shape = added.box.shape
    project.autosave.submit(added.id, instance=np.ones(shape, int))
    project.write_annotation(added.id, np.full(shape, 5))
    assert (project.annotation(added.id).instance == 5).all()
    project.autosave.submit(added.id, instance=np.ones(shape, int))
    assert project.autosave.flush()
    assert (project.annotation(added.id).instance == 1).all()


def test_what_was_handed_over_before_an_annotation_is_written_never_comes_after_it(project, tile_box, monkeypatch):
    added = project.add_tile(0, tile_box)
    shape = added.box.shape
    monkeypatch.setattr(project.autosave, "_saved", lambda tile: (time.sleep(0.1), project.annotation(tile))[1])
    project.autosave.submit(added.id, instance=np.ones(shape, int))
    project.write_annotation(added.id, np.full(shape, 5))
    assert project.autosave.flush()
    assert (project.annotation(added.id).instance == 5).all()


# ---- the hash of what a run may learn from ----


@pytest.fixture
def two_tiles(project):
    for number, box in enumerate([(0, 0, 10, 10), (50, 50, 70, 60)], start=1):
        added = project.add_tile(0, box)
        project.write_annotation(added.id, np.full(added.box.shape, number))
        project.set_status(added.id, "complete")
    return project


def test_the_hash_of_a_tile_does_not_depend_on_how_the_same_labels_came_to_be(two_tiles, tmp_path):
    before = digests(two_tiles)
    first = two_tiles.tiles[0]
    two_tiles.write_annotation(first.id, np.zeros(first.box.shape, int))
    two_tiles.write_annotation(first.id, np.ones(first.box.shape, int))
    assert digests(two_tiles) == before
    two_tiles.close()
    with ProjectFolder.open(two_tiles.path, read_only=True) as again:
        assert digests(again) == before
    assert list(before) == ["t0001", "t0002"]
    assert len(set(before.values())) == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p.write_annotation("t0001", np.full((10, 10), 2)),
        lambda p: p.write_annotation("t0001", classes=np.full((10, 10), 1)),
        lambda p: p.set_status("t0001", "sparse"),
        lambda p: p.set_status("t0001", "excluded"),
        lambda p: p.set_role("t0001", "validation"),
        lambda p: p.remove_tile("t0001"),
    ],
    ids=["instance", "classes", "sparse", "excluded", "validation", "removed"],
)
def test_the_hash_of_a_tile_changes_with_whatever_a_run_would_learn_otherwise_from_it(two_tiles, change):
    before = digests(two_tiles)
    change(two_tiles)
    after = digests(two_tiles)
    assert after.get("t0001") != before["t0001"]
    assert after["t0002"] == before["t0002"]


def test_a_tile_that_is_left_out_has_a_hash_of_its_own(two_tiles):
    before = digests(two_tiles)
    left_out = two_tiles.add_tile(0, (9, 9, 20, 20)).id
    two_tiles.set_status(left_out, "excluded")
    after = digests(two_tiles)
    assert after.keys() - before.keys() == {left_out}
    assert {tile: after[tile] for tile in before} == before


def test_no_hash_changes_with_what_no_run_reads(two_tiles):
    before = digests(two_tiles)
    two_tiles.add_tile(0, (0, 0, 5, 5))
    two_tiles.set_classes([ClassSpec(name="tumor", color="#123456")])
    two_tiles.relink_image(0, "/elsewhere/b.tif")
    assert digests(two_tiles) == before


# ---- contradictions ----


def overlapping(project, first, second, *, status=("complete", "complete")):
    """Add two tiles that share the rows 5 to 9 and columns 5 to 9 of the image, painted with these classes."""
    for box, classes, its in zip([(0, 0, 10, 10), (5, 5, 20, 20)], (first, second), status, strict=True):
        added = project.add_tile(0, box)
        project.write_annotation(added.id, classes=np.array(classes, np.uint8) * np.ones(added.box.shape, np.uint8))
        project.set_status(added.id, its)
    return conflicts(project)


def test_tiles_that_contradict_each_other_are_listed_with_the_place(project):
    (found,) = overlapping(project, 2, 1)
    assert (found.first, found.second, found.image) == ("t0001", "t0002", 0)
    assert found.box == Box(5, 5, 10, 10)
    assert found.pixels == 25
    assert str(found) == (
        "Tiles t0001 and t0002 disagree on 25 pixels at rows 5 to 9, columns 5 to 9: correct one of them."
    )


def test_only_the_pixels_that_differ_are_counted(project):
    second = np.full((15, 15), 2)
    second[1, 2] = 1  # row 6, column 7 of the image
    second[14, 14] = 1  # not shared
    (found,) = overlapping(project, 2, second)
    assert (found.box, found.pixels) == (Box(6, 7, 7, 8), 1)


def test_unpainted_pixels_contradict_a_nucleus_only_in_a_complete_tile(project):
    assert len(overlapping(project, 2, 0)) == 1
    project.set_status("t0002", "sparse")
    assert conflicts(project) == []


@pytest.mark.parametrize("status", ["empty", "excluded"])
def test_tiles_that_no_run_uses_contradict_nothing(project, status):
    assert overlapping(project, 2, 1, status=("complete", status)) == []


def test_what_an_excluded_tile_covers_contradicts_nothing(project):
    assert len(overlapping(project, 2, 1)) == 1
    project.set_status(project.add_tile(0, (0, 0, 12, 12)).id, "excluded")
    assert conflicts(project) == []


def test_other_ids_for_the_same_nuclei_are_no_contradiction(project):
    for number, box in enumerate([(0, 0, 10, 10), (5, 5, 20, 20)], start=1):
        added = project.add_tile(0, box)
        project.write_annotation(added.id, np.full(added.box.shape, number))
        project.set_status(added.id, "complete")
    assert conflicts(project) == []


def test_tiles_on_different_images_or_side_by_side_contradict_nothing(project, tmp_path):
    other = project.add_image(tmp_path / "b.tif", shape=(100, 100))
    for image, box, value in [(0, (0, 0, 10, 10), 1), (other, (0, 0, 10, 10), 2), (0, (0, 10, 10, 20), 2)]:
        added = project.add_tile(image, box)
        project.write_annotation(added.id, classes=np.full(added.box.shape, value))
        project.set_status(added.id, "complete")
    assert conflicts(project) == []
