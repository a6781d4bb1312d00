"""Snapshots and journals of a tile, and what is left of them after damage."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from napari_semiseg.blocks import Box
from napari_semiseg.errors import InputError
from napari_semiseg.project.snapshot import DamagedSnapshot, read_snapshot, write_snapshot
from napari_semiseg.project.strokes import Patch, encode
from napari_semiseg.project.tile_annotation import TileAnnotation
from napari_semiseg.project.tile_files import compact, load, new_journal, next_number, unsnapped

SHAPE = (20, 30)


def paint(folder, values, *, torn=b""):
    """Journal one stroke for each value: rows 0 to value are filled with it."""
    folder.mkdir(exist_ok=True)
    with new_journal(folder, SHAPE) as journal:
        for value in values:
            box = Box(0, 0, 1 + value % SHAPE[0], SHAPE[1])
            journal.append(encode([Patch.of("instance", box, np.full(box.shape, value))]))
        path = journal.path
    with path.open("ab") as file:
        file.write(torn)
    return path


def expected(values):
    array = np.zeros(SHAPE, np.uint32)
    for value in values:
        array[: 1 + value % SHAPE[0]] = value
    return array


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_tile_without_files_is_unpainted(tmp_path):
    loaded = load(tmp_path / "missing", SHAPE)
    assert not loaded.annotation.instance.any()
    assert loaded.strokes == 0


def test_journals_are_replayed_in_order_also_after_one_with_a_torn_end(tmp_path):
    paint(tmp_path, [5, 3], torn=b"half a frame")
    paint(tmp_path, [2])
    loaded = load(tmp_path, SHAPE)
    assert np.array_equal(loaded.annotation.instance, expected([5, 3, 2]))
    assert loaded.strokes == 3
    assert [torn.bytes for torn in loaded.torn] == [12]


def test_a_snapshot_holds_everything_and_a_second_one_lets_the_first_journals_go(tmp_path):
    paint(tmp_path, [5])
    compact(tmp_path, SHAPE)
    assert names(tmp_path) == ["journal-000001.log", "snapshot-000002.npz"]
    assert unsnapped(tmp_path, SHAPE) == []
    paint(tmp_path, [3])
    compact(tmp_path, SHAPE)
    assert names(tmp_path) == ["journal-000002.log", "snapshot-000002.npz", "snapshot-000003.npz"]
    loaded = load(tmp_path, SHAPE)
    assert np.array_equal(loaded.annotation.instance, expected([5, 3]))
    assert loaded.strokes == 0


def test_a_snapshot_of_nothing_new_is_not_made(tmp_path):
    paint(tmp_path, [5])
    compact(tmp_path, SHAPE)
    before = names(tmp_path)
    compact(tmp_path, SHAPE)
    assert names(tmp_path) == before


def test_a_damaged_snapshot_loses_nothing_while_the_one_before_is_there(tmp_path):
    for value in (9, 7, 4):
        paint(tmp_path, [value])
        compact(tmp_path, SHAPE)
    paint(tmp_path, [2])
    newest = max(tmp_path.glob("snapshot-*"))
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 255
    newest.write_bytes(content)

    loaded = load(tmp_path, SHAPE)
    assert np.array_equal(loaded.annotation.instance, expected([9, 7, 4, 2]))
    assert loaded.damaged == (newest,)

    compact(tmp_path, SHAPE)
    assert f"{newest.name}.damaged" in names(tmp_path)
    assert load(tmp_path, SHAPE).damaged == ()
    assert np.array_equal(load(tmp_path, SHAPE).annotation.instance, expected([9, 7, 4, 2]))


def test_two_damaged_snapshots_are_said_and_nothing_is_made_up(tmp_path):
    for value in (9, 7, 4):
        paint(tmp_path, [value])
        compact(tmp_path, SHAPE)
    for path in tmp_path.glob("snapshot-*"):
        path.write_bytes(b"")
    with pytest.raises(InputError, match="is damaged: put a copy of it back"):
        load(tmp_path, SHAPE)
    with pytest.raises(InputError):
        compact(tmp_path, SHAPE)


def test_the_unread_end_of_a_journal_is_kept_aside(tmp_path):
    torn = paint(tmp_path, [5], torn=b"x" * 100)
    for value in (3, 2):
        compact(tmp_path, SHAPE)
        paint(tmp_path, [value])
    compact(tmp_path, SHAPE)
    assert f"{torn.name}.damaged" in names(tmp_path)
    assert np.array_equal(load(tmp_path, SHAPE).annotation.instance, expected([5, 3, 2]))


def test_a_snapshot_that_vanishes_while_it_is_read_is_looked_for_again(tmp_path, monkeypatch):
    from napari_semiseg.project import tile_files

    paint(tmp_path, [5])
    compact(tmp_path, SHAPE)
    old = tmp_path / "snapshot-000002.npz"
    real = tile_files.read_snapshot

    def compacted_meanwhile(path, shape):
        if path == old and old.exists():
            old.rename(tmp_path / "snapshot-000003.npz")
        return real(path, shape)

    monkeypatch.setattr(tile_files, "read_snapshot", compacted_meanwhile)
    assert np.array_equal(load(tmp_path, SHAPE).annotation.instance, expected([5]))
    assert not old.exists()


def test_numbers_only_grow(tmp_path):
    assert next_number(tmp_path) == 1
    paint(tmp_path, [1])
    assert next_number(tmp_path) == 2
    compact(tmp_path, SHAPE)
    assert next_number(tmp_path) == 2
    (tmp_path / "journal-000041.log").touch()
    (tmp_path / "journal-99.log").touch()
    (tmp_path / "snapshot-000077.log").touch()
    assert next_number(tmp_path) == 42


def test_a_snapshot_is_a_file_that_numpy_opens_and_the_same_labels_are_the_same_bytes(tmp_path):
    random = np.random.default_rng(0)
    annotation = TileAnnotation(
        random.integers(0, 9, SHAPE, dtype=np.uint32), random.integers(0, 3, SHAPE, dtype=np.uint8)
    )
    write_snapshot(tmp_path / "a.npz", annotation)
    write_snapshot(tmp_path / "b.npz", annotation)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz") as arrays:
        assert np.array_equal(arrays["instance"], annotation.instance)
        assert np.array_equal(arrays["class"], annotation.classes)
    assert read_snapshot(tmp_path / "a.npz", SHAPE).equals(annotation)


def test_a_snapshot_damaged_anywhere_is_refused_or_says_the_same(tmp_path):
    shape = (4, 5)
    random = np.random.default_rng(1)
    annotation = TileAnnotation(random.integers(0, 3, shape, dtype=np.uint32), np.ones(shape, np.uint8))
    path = tmp_path / "a.npz"
    write_snapshot(path, annotation)
    whole = path.read_bytes()
    refused = 0
    for place in range(len(whole)):
        content = bytearray(whole)
        content[place] ^= int(random.integers(1, 256))
        path.write_bytes(content if place % 2 else whole[:place])
        try:
            assert read_snapshot(path, shape).equals(annotation), place
        except DamagedSnapshot:
            refused += 1
    assert refused > 0.8 * len(whole)


def _archive(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return buffer.getvalue()


def _npy(array, **keywords):
    buffer = io.BytesIO()
    np.save(buffer, array, **keywords)
    return buffer.getvalue()


_CLASSES = ("class.npy", _npy(np.zeros(SHAPE, np.uint8)))


@pytest.mark.parametrize(
    "instance",
    [
        np.zeros((21, 30), np.uint32),
        np.zeros((600,), np.uint32),
        np.zeros(SHAPE, np.int32),
        np.zeros(SHAPE, np.float32),
        np.zeros(SHAPE, np.uint64),
        np.zeros(SHAPE, ">u4"),
        np.asfortranarray(np.zeros(SHAPE, np.uint32)),
        np.array([[None] * 30] * 20, object),
        np.zeros(5 * 10**6, np.uint32),
    ],
    ids=["shape", "flat", "signed", "float", "wide", "big-endian", "fortran", "object", "bomb"],
)
def test_a_snapshot_of_anything_else_is_refused_and_no_pickle_is_opened(tmp_path, instance):
    (tmp_path / "a.npz").write_bytes(_archive([("instance.npy", _npy(instance)), _CLASSES]))
    with pytest.raises(DamagedSnapshot):
        read_snapshot(tmp_path / "a.npz", SHAPE)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_snapshot_with_members_missing_or_twice_is_refused(tmp_path):
    instance = ("instance.npy", _npy(np.zeros(SHAPE, np.uint32)))
    for members in ([instance], [_CLASSES], [instance, instance, _CLASSES], []):
        (tmp_path / "a.npz").write_bytes(_archive(members))
        with pytest.raises(DamagedSnapshot):
            read_snapshot(tmp_path / "a.npz", SHAPE)
