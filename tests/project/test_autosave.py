"""From layers that are handed over to strokes on the disk."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from napari_semiseg import atomic
from napari_semiseg.errors import InputError
from napari_semiseg.project import autosave as autosave_module
from napari_semiseg.project.autosave import Autosave
from napari_semiseg.project.journal import JournalWriter
from napari_semiseg.project.tile_annotation import TileAnnotation
from napari_semiseg.project.tile_files import load, unsnapped

SHAPE = (50, 60)


def shape_of(tile_id):
    if tile_id not in ("t0001", "t0002"):
        raise InputError(f"There is no tile {tile_id}: add it.")
    return SHAPE


@pytest.fixture
def writer(tmp_path):
    with JournalWriter(tmp_path, shape_of) as opened:
        yield opened


@pytest.fixture
def autosave(writer):
    with Autosave(writer, lambda tile: load(writer.folder / tile, SHAPE).annotation, shape_of) as opened:
        yield opened


def on_disk(writer, tile_id="t0001"):
    return load(writer.folder / tile_id, SHAPE).annotation


def test_paint_fill_erase_and_undo_are_all_saved_as_what_is_there_then(autosave, writer, painted):
    states = [painted(seed=1), painted(seed=2), np.full(SHAPE, 4), np.zeros(SHAPE, int), painted(seed=1)]
    for state in states:
        autosave.submit("t0001", instance=state.copy())
        assert autosave.flush()
        assert np.array_equal(on_disk(writer).instance, state)


def test_only_the_rectangle_that_changed_is_journaled(autosave, writer):
    layer = np.zeros(SHAPE, np.int64)
    layer[10:13, 20:25] = 6
    autosave.submit("t0001", instance=layer.copy())
    assert autosave.flush()
    layer[40, 50] = 7
    autosave.submit("t0001", instance=layer.copy(), classes=np.zeros(SHAPE, np.uint8))
    assert autosave.flush()
    ((_, found),) = unsnapped(writer.folder / "t0001", SHAPE)
    assert [[(patch.layer, tuple(patch.box)) for patch in stroke] for stroke in found.strokes] == [
        [("instance", (10, 20, 13, 25))],
        [("instance", (40, 50, 41, 51))],
    ]


def test_a_layer_that_did_not_change_writes_nothing(autosave, writer):
    for _ in range(3):
        autosave.submit("t0001", instance=np.zeros(SHAPE, int), classes=np.zeros(SHAPE, int))
        assert autosave.flush()
    assert not (writer.folder / "t0001").exists()


def test_both_layers_of_a_moment_are_saved_together(autosave, writer):
    autosave.submit("t0001", instance=np.ones(SHAPE, int), classes=np.full(SHAPE, 2))
    assert autosave.flush()
    loaded = load(writer.folder / "t0001", SHAPE)
    assert loaded.strokes == 1
    assert loaded.annotation.equals(TileAnnotation(np.ones(SHAPE, np.uint32), np.full(SHAPE, 2, np.uint8)))


def test_layers_that_are_handed_over_faster_than_saved_end_as_the_newest(autosave, writer, painted):
    for seed in range(100):
        autosave.submit("t0001", instance=painted(seed=seed))
        autosave.submit("t0002", classes=np.full(SHAPE, seed % 200, np.uint8))
    assert autosave.flush()
    assert np.array_equal(on_disk(writer).instance, painted(seed=99))
    assert (on_disk(writer, "t0002").classes == 99).all()


def test_one_layer_handed_over_alone_does_not_forget_the_other(autosave, writer, monkeypatch):
    held = threading.Event()
    real = autosave._saved
    autosave._saved = lambda tile: (held.wait(10), real(tile))[1]
    autosave.submit("t0002", instance=np.ones(SHAPE, int))  # the thread is busy with this one
    autosave.submit("t0001", instance=np.full(SHAPE, 3))
    autosave.submit("t0001", classes=np.full(SHAPE, 2))
    held.set()
    assert autosave.flush()
    assert (on_disk(writer).instance == 3).all()
    assert (on_disk(writer).classes == 2).all()


def test_a_new_session_goes_on_from_what_is_on_the_disk(tmp_path, painted):
    for seed in (1, 2):
        with (
            JournalWriter(tmp_path, shape_of) as writer,
            Autosave(writer, lambda tile: load(tmp_path / tile, SHAPE).annotation, shape_of) as autosave,
        ):
            autosave.submit("t0001", instance=painted(seed=seed))
    assert np.array_equal(load(tmp_path / "t0001", SHAPE).annotation.instance, painted(seed=2))


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((50, 61), int), "the size 50 x 61, but the tile is 50 x 60"),
        (np.zeros((50, 60, 1), int), "50 x 60 x 1"),
        (np.zeros(SHAPE), "type float64"),
        (np.zeros(SHAPE, bool), "type bool"),
    ],
)
def test_a_layer_of_another_size_or_type_is_refused_when_it_is_handed_over(autosave, array, words):
    with pytest.raises(InputError, match=words):
        autosave.submit("t0001", instance=array)
    assert autosave.status.unsaved == 0


def test_an_unknown_tile_is_refused(autosave):
    with pytest.raises(InputError, match="no tile t0009"):
        autosave.submit("t0009", instance=np.zeros(SHAPE, int))


@pytest.mark.parametrize("value", [-1, 2**31])
def test_impossible_values_are_said_by_the_status_until_they_are_mended(autosave, writer, value):
    good = np.full(SHAPE, 5)
    autosave.submit("t0001", instance=good)
    assert autosave.flush()
    bad = good.copy()
    bad[3, 3] = value
    autosave.submit("t0001", instance=bad)
    assert not autosave.flush()
    assert f"The nuclei in tile t0001 hold {value}" in autosave.status.failure
    assert (on_disk(writer).instance == 5).all()
    autosave.submit("t0002", instance=good)
    assert not autosave.flush()
    assert (on_disk(writer, "t0002").instance == 5).all()
    autosave.submit("t0001", instance=good + 1)
    assert autosave.flush()
    assert autosave.status.failure is None
    assert (on_disk(writer).instance == 6).all()


@pytest.mark.flaky(reruns=2)
def test_handing_over_never_waits_for_a_disk(autosave, monkeypatch):
    held = threading.Event()
    real = atomic.write_all
    monkeypatch.setattr(atomic, "write_all", lambda *a: (held.wait(10), real(*a))[1])
    longest = 0.0
    for value in range(100):
        layer = np.full(SHAPE, value)
        start = time.perf_counter()
        autosave.submit("t0001", instance=layer)
        longest = max(longest, time.perf_counter() - start)
    assert autosave.status.unsaved > 0
    assert autosave.status.oldest_s > 0
    held.set()
    assert autosave.flush()
    assert autosave.status.unsaved == 0
    assert longest < 0.5  # no input or output; the rest is the scheduling of a busy computer


@pytest.mark.fault
def test_memory_stays_bounded_while_a_disk_is_full(autosave, writer, monkeypatch):
    limit = 10 * SHAPE[0] * SHAPE[1] * 4
    monkeypatch.setattr(autosave_module, "_MOST_UNSAVED_BYTES", limit)
    held = threading.Event()
    real = atomic.write_all
    monkeypatch.setattr(atomic, "write_all", lambda *a: (held.wait(20), real(*a))[1])
    for value in range(1, 201):
        autosave.submit("t0001", instance=np.full(SHAPE, value))
        time.sleep(0.002)
    assert writer.unsaved_bytes <= limit + SHAPE[0] * SHAPE[1] * 4
    held.set()
    assert autosave.flush(20)
    assert (on_disk(writer).instance == 200).all()


def test_after_forgetting_the_disk_is_asked_again(autosave, writer):
    autosave.submit("t0001", instance=np.ones(SHAPE, int))
    assert autosave.flush()
    writer.record("t0001", autosave_module.Box.whole(SHAPE), "instance", np.zeros(SHAPE, int))
    assert writer.flush()
    autosave.forget("t0001")
    autosave.submit("t0001", instance=np.ones(SHAPE, int))
    assert autosave.flush()
    assert (on_disk(writer).instance == 1).all()


def test_a_closed_autosave_says_so(writer):
    autosave = Autosave(writer, lambda tile: TileAnnotation.empty(SHAPE), shape_of)
    autosave.submit("t0001", instance=np.ones(SHAPE, int))
    assert autosave.close()
    assert (on_disk(writer).instance == 1).all()
    with pytest.raises(InputError, match="was closed"):
        autosave.submit("t0001", instance=np.ones(SHAPE, int))


def test_what_was_handed_over_last_can_be_asked_for_before_it_is_on_the_disk(autosave, writer, painted, monkeypatch):
    first, second, third = (painted(seed=seed) for seed in (1, 2, 3))
    autosave.submit("t0001", instance=first.copy(), classes=np.where(first, 2, 0))
    assert autosave.flush()
    slow, go_on = threading.Event(), threading.Event()
    record = autosave._record

    def held_up(*args):
        slow.set()
        assert go_on.wait(30)
        record(*args)

    monkeypatch.setattr(autosave, "_record", held_up)
    autosave.submit("t0001", instance=second.copy())
    assert slow.wait(30)
    np.testing.assert_array_equal(autosave.newest("t0001").instance, second)
    autosave.submit("t0001", instance=third.copy())
    np.testing.assert_array_equal(autosave.newest("t0001").instance, third)
    np.testing.assert_array_equal(autosave.newest("t0001").classes, np.where(first, 2, 0))
    np.testing.assert_array_equal(on_disk(writer).instance, first)
    go_on.set()
    assert autosave.flush()
    np.testing.assert_array_equal(on_disk(writer).instance, third)
    assert not autosave.newest("t0002").instance.any()
