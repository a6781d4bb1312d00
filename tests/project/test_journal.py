"""The writer of strokes: it never makes the caller wait, and keeps what a disk refuses."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from napari_semiseg import atomic
from napari_semiseg.blocks import Box
from napari_semiseg.errors import InputError
from napari_semiseg.project import journal as journal_module
from napari_semiseg.project.journal import JournalWriter, WriterOptions
from napari_semiseg.project.tile_files import load

SHAPE = (40, 50)
SHAPES = {f"t{n:04d}": SHAPE for n in range(1, 41)}
WHOLE = Box.whole(SHAPE)


def shape_of(tile_id):
    if tile_id not in SHAPES:
        raise InputError(f"There is no tile {tile_id}: add it.")
    return SHAPES[tile_id]


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(journal_module, "_FIRST_RETRY_S", 0.02)
    monkeypatch.setattr(journal_module, "_LAST_RETRY_S", 0.05)


@pytest.fixture
def writer(tmp_path):
    with JournalWriter(tmp_path, shape_of) as opened:
        yield opened


def on_disk(writer, tile_id="t0001"):
    return load(writer.folder / tile_id, SHAPE).annotation


def eventually(condition, timeout_s=10.0):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def test_what_was_recorded_is_on_the_disk_within_a_second_without_asking(writer):
    writer.record("t0001", Box(1, 2, 3, 5), "instance", np.full((2, 3), 7))
    eventually(lambda: writer.status.unsaved == 0, 1.0)
    assert on_disk(writer).instance[1:3, 2:5].tolist() == [[7] * 3] * 2
    assert on_disk(writer).instance.sum() == 42
    assert writer.status.saved_s_ago < 1.0


def test_the_file_holds_a_stroke_before_it_is_flushed(tmp_path):
    with JournalWriter(tmp_path, shape_of, options=WriterOptions(sync_every_s=60)) as writer:
        writer.record("t0001", WHOLE, "class", np.ones(SHAPE, np.uint8))
        assert writer.flush()
        writer.record("t0001", WHOLE, "class", np.full(SHAPE, 2, np.uint8))
        eventually(lambda: (on_disk(writer).classes == 2).all())
        assert writer.status.unsaved == 1
        assert writer.flush()
        assert writer.status.unsaved == 0


def test_the_caller_may_change_the_array_at_once(writer):
    patch = np.full(SHAPE, 3, np.uint32)
    writer.record("t0001", WHOLE, "instance", patch)
    patch[:] = 9
    assert writer.flush()
    assert (on_disk(writer).instance == 3).all()


@pytest.mark.flaky(reruns=2)
def test_the_caller_never_waits_for_the_disk(writer, monkeypatch):
    held = threading.Event()
    real = atomic.write_all
    monkeypatch.setattr(atomic, "write_all", lambda *a: (held.wait(10), real(*a))[1])
    patch = np.ones(SHAPE, np.uint32)
    longest = 0.0
    for _ in range(200):
        start = time.perf_counter()
        writer.record("t0001", WHOLE, "instance", patch)
        longest = max(longest, time.perf_counter() - start)
    assert writer.status.unsaved == 200
    held.set()
    assert writer.flush()
    assert longest < 0.5  # no input or output; the rest is the scheduling of a busy computer


def test_a_stroke_of_two_layers_is_one(writer):
    writer.record_stroke("t0001", [("instance", WHOLE, np.ones(SHAPE, int)), ("class", WHOLE, np.full(SHAPE, 2))])
    assert writer.flush()
    loaded = load(writer.folder / "t0001", SHAPE)
    assert loaded.strokes == 1
    assert (loaded.annotation.instance == 1).all()
    assert (loaded.annotation.classes == 2).all()


@pytest.mark.parametrize(
    ("tile", "box", "layer", "patch", "words"),
    [
        ("t9999", WHOLE, "instance", np.ones(SHAPE, int), "no tile t9999"),
        ("t0001", Box(0, 0, 41, 50), "instance", np.ones((41, 50), int), "does not lie inside"),
        ("t0001", Box(-1, 0, 3, 3), "instance", np.ones((4, 3), int), "does not lie inside"),
        ("t0001", Box(3, 3, 3, 3), "instance", np.ones((0, 0), int), "does not lie inside"),
        ("t0001", Box(0, 0, 2, 2), "instance", np.ones((3, 2), int), "the size 3 x 2"),
        ("t0001", Box(0, 0, 2, 2), "instance", np.full((2, 2), -1), "hold -1"),
        ("t0001", Box(0, 0, 2, 2), "instance", np.full((2, 2), 2**31), "hold 2147483648"),
        ("t0001", Box(0, 0, 2, 2), "instance", np.ones((2, 2)), "type float64"),
        ("t0001", Box(0, 0, 2, 2), "class", np.full((2, 2), 255), "hold 255"),
    ],
)
def test_a_stroke_that_cannot_be_is_refused_at_once_and_nothing_is_recorded(writer, tile, box, layer, patch, words):
    with pytest.raises(InputError, match=words):
        writer.record(tile, box, layer, patch)
    assert writer.status.unsaved == 0


def test_many_tiles_need_few_open_files(tmp_path):
    descriptors = "/proc/self/fd"
    if not os.path.isdir(descriptors):  # noqa: PTH112
        pytest.skip("this system does not list open files")
    before = len(os.listdir(descriptors))  # noqa: PTH208
    with JournalWriter(tmp_path, shape_of) as writer:
        for value in (1, 2):
            for tile in SHAPES:
                writer.record(tile, WHOLE, "instance", np.full(SHAPE, value))
                assert writer.flush()
        assert len(os.listdir(descriptors)) - before <= 10  # noqa: PTH208
        assert all((on_disk(writer, tile).instance == 2).all() for tile in SHAPES)


@pytest.mark.fault
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE])
@pytest.mark.parametrize(
    ("call", "skip"),
    [("write", 0), ("write", 1), ("write", 4), ("fsync", 0), ("fsync", 1), ("fsync", 4), ("open", 0), ("open", 1)],
)
def test_what_a_disk_refuses_is_kept_said_and_saved_when_the_disk_is_well(
    tmp_path, monkeypatch, quick, number, call, skip
):
    """The disk fails after `skip` calls, in the middle of whatever that is: a header, a folder, a stroke."""
    with JournalWriter(tmp_path, shape_of, options=WriterOptions(sync_every_s=0.001)) as writer:
        real = getattr(os, call)
        calls = [0]

        def failing(*args, **keywords):
            if not threading.current_thread().name.startswith("annotation"):
                return real(*args, **keywords)
            calls[0] += 1
            if calls[0] <= skip:
                return real(*args, **keywords)
            if call == "write" and len(args[1]) > 1:
                real(args[0], args[1][: len(args[1]) // 2])  # a part gets through, as on a disk that fills up
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, call, failing)
        for value in range(1, 9):
            writer.record("t0001", Box(value, 0, 20, 20), "instance", np.full((20 - value, 20), value))
            writer.flush(1.0)
        failed = writer.status
        assert failed.unsaved > 0
        assert failed.failure.startswith("What was painted is kept in memory")
        assert failed.failure.endswith(".")

        monkeypatch.setattr(os, call, real)
        eventually(lambda: writer.status.unsaved == 0)
        assert writer.status.failure is None
        expected = np.zeros(SHAPE, np.uint32)
        for value in range(1, 9):
            expected[value:20, :20] = value
        assert np.array_equal(on_disk(writer).instance, expected)


@pytest.mark.fault
@pytest.mark.skipif(os.name == "nt", reason="no small disk can be mounted")
def test_a_really_full_disk_loses_no_stroke(tmp_path, quick):
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.decode().strip()}")
    random = np.random.default_rng(0)
    try:
        with JournalWriter(
            tmp_path, shape_of, options=WriterOptions(compact_strokes=10**9, compact_bytes=10**9)
        ) as writer:
            patches = [random.integers(0, 99, SHAPE) for _ in range(8)]
            for patch in patches:
                writer.record("t0001", WHOLE, "instance", patch)
            eventually(lambda: writer.status.failure is not None)
            assert "the disk is full: free some space" in writer.status.failure
            subprocess.run(["mount", "-o", "remount,size=4m", tmp_path], check=True)
            eventually(lambda: writer.status.unsaved == 0)
            assert writer.status.failure is None
            assert np.array_equal(on_disk(writer).instance, patches[-1])
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)


def test_a_journal_that_has_grown_long_becomes_a_snapshot_when_nobody_paints(tmp_path):
    options = WriterOptions(compact_strokes=5, idle_s=0.05, sync_every_s=0.01)
    with JournalWriter(tmp_path, shape_of, options=options) as writer:
        for value in range(1, 6):
            writer.record("t0001", WHOLE, "instance", np.full(SHAPE, value))
        eventually(lambda: list((tmp_path / "t0001").glob("snapshot-*")) != [])
        assert load(tmp_path / "t0001", SHAPE).strokes == 0
        assert (on_disk(writer).instance == 5).all()
        writer.record("t0001", WHOLE, "instance", np.full(SHAPE, 6))
        assert writer.flush()
        assert load(tmp_path / "t0001", SHAPE).strokes == 1
        assert (on_disk(writer).instance == 6).all()


@pytest.mark.fault
def test_strokes_are_safe_from_a_kill_while_a_flush_takes_long(writer, monkeypatch):
    held = threading.Event()
    real = atomic.sync
    monkeypatch.setattr(atomic, "sync", lambda descriptor: (held.wait(20), real(descriptor))[1])
    for value in (1, 2, 3):
        writer.record("t0001", WHOLE, "instance", np.full(SHAPE, value))
        eventually(lambda value=value: (on_disk(writer).instance == value).all(), 2.0)
    assert writer.status.unsaved == 3
    held.set()
    assert writer.flush()
    assert writer.status.unsaved == 0


@pytest.mark.fault
def test_strokes_are_safe_from_a_kill_while_a_snapshot_takes_long(writer, monkeypatch):
    held = threading.Event()
    real = journal_module.compact
    monkeypatch.setattr(journal_module, "compact", lambda *a, **k: (held.wait(20), real(*a, **k))[1])
    writer.record("t0001", WHOLE, "instance", np.full(SHAPE, 1))
    asking = threading.Thread(target=writer.compact, args=["t0001"])
    asking.start()
    eventually(lambda: writer._tiles and writer._tiles["t0001"].compacting)
    for value in (2, 3):
        writer.record("t0001", WHOLE, "instance", np.full(SHAPE, value))
        eventually(lambda value=value: (on_disk(writer).instance == value).all(), 2.0)
    held.set()
    asking.join()
    assert (on_disk(writer).instance == 3).all()
    assert load(writer.folder / "t0001", SHAPE).strokes == 2
    assert writer.compact("t0001")
    assert load(writer.folder / "t0001", SHAPE).strokes == 0
    assert (on_disk(writer).instance == 3).all()


@pytest.mark.fault
def test_a_snapshot_that_cannot_be_written_costs_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise InputError("The disk is full: free some space.")

    monkeypatch.setattr(atomic, "write_bytes", full)
    options = WriterOptions(compact_strokes=1, idle_s=0.01, sync_every_s=0.01)
    with JournalWriter(tmp_path, shape_of, options=options) as writer:
        for value in (1, 2, 3):
            writer.record("t0001", WHOLE, "instance", np.full(SHAPE, value))
            assert writer.flush()
            time.sleep(0.03)
        assert not writer.compact("t0001")
        assert (on_disk(writer).instance == 3).all()
        assert writer.status.failure is None


def test_whoever_lost_the_project_still_journals_but_deletes_nothing(tmp_path):
    with JournalWriter(tmp_path, shape_of, owned=lambda: False, options=WriterOptions(compact_strokes=1)) as writer:
        writer.record("t0001", WHOLE, "instance", np.ones(SHAPE, int))
        assert writer.flush()
        assert not writer.compact("t0001")
    assert [path.suffix for path in (tmp_path / "t0001").iterdir()] == [".log"]


def test_closing_saves_everything_and_ends_the_thread(tmp_path):
    writer = JournalWriter(tmp_path, shape_of)
    for value in range(1, 100):
        writer.record("t0001", WHOLE, "instance", np.full(SHAPE, value))
    assert writer.close()
    assert writer.close()
    assert not any(thread is writer._thread for thread in threading.enumerate())
    assert (on_disk(writer).instance == 99).all()
    assert load(tmp_path / "t0001", SHAPE).strokes == 0
    with pytest.raises(InputError, match="was closed"):
        writer.record("t0001", WHOLE, "instance", np.ones(SHAPE, int))


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_a_tile_folder_that_is_a_link_is_not_written_through(tmp_path, quick):
    (tmp_path / "outside").mkdir()
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "t0001").symlink_to(tmp_path / "outside")
    with JournalWriter(tmp_path / "annotations", shape_of) as writer:
        writer.record("t0001", WHOLE, "instance", np.ones(SHAPE, int))
        assert not writer.flush()
        assert "because it is a link" in writer.status.failure
        assert list((tmp_path / "outside").iterdir()) == []
        (tmp_path / "annotations" / "t0001").unlink()
        assert writer.flush()
    assert (on_disk(writer).instance == 1).all()


@pytest.mark.fault
@pytest.mark.flaky(reruns=2)
def test_closing_with_a_disk_that_hangs_takes_no_longer_than_allowed(tmp_path, monkeypatch):
    held = threading.Event()
    monkeypatch.setattr(atomic, "sync", lambda descriptor: held.wait(20))
    writer = JournalWriter(tmp_path, shape_of)
    writer.record("t0001", WHOLE, "instance", np.ones(SHAPE, int))
    start = time.monotonic()
    assert not writer.flush(0.1)
    assert not writer.close(0.2)
    assert time.monotonic() - start < 3
    assert (on_disk(writer).instance == 1).all()
    held.set()
    writer._slow_thread.join(10)
    assert not writer._slow_thread.is_alive()


def test_a_program_that_ends_without_closing_saves_what_was_recorded(tmp_path):
    script = """
import sys
from pathlib import Path
import numpy as np
from napari_semiseg.blocks import Box
from napari_semiseg.project.journal import JournalWriter
writer = JournalWriter(Path(sys.argv[1]), lambda tile: (40, 50))
for value in range(1, 51):
    writer.record("t0001", Box(0, 0, 40, 50), "instance", np.full((40, 50), value))
"""
    subprocess.run([sys.executable, "-c", script, tmp_path], check=True, timeout=60)
    assert (load(tmp_path / "t0001", SHAPE).annotation.instance == 50).all()


def test_a_reader_in_the_middle_of_painting_and_snapshots_sees_whole_strokes(tmp_path):
    """Each stroke paints the whole tile, in both layers: a reader may see an old one, never a mixture."""
    options = WriterOptions(compact_strokes=1, idle_s=0.0, sync_every_s=0.001)
    seen = []
    with JournalWriter(tmp_path, shape_of, options=options) as writer:
        done = threading.Event()

        def read():
            while not done.is_set():
                annotation = load(tmp_path / "t0001", SHAPE).annotation
                values = {*np.unique(annotation.instance).tolist(), *np.unique(annotation.classes).tolist()}
                seen.append(values)

        reader = threading.Thread(target=read)
        reader.start()
        for value in range(1, 121):
            writer.record_stroke(
                "t0001", [("instance", WHOLE, np.full(SHAPE, value)), ("class", WHOLE, np.full(SHAPE, value))]
            )
            time.sleep(0.003)
        writer.flush()
        done.set()
        reader.join()
    assert all(len(values) == 1 for values in seen)
    values = [min(values) for values in seen]
    assert values == sorted(values)
    assert len(set(values)) > 5
