"""What is found and put in order when a project is opened that was not closed."""

from __future__ import annotations

import dataclasses
import json
import shutil
from datetime import datetime

import numpy as np
import pytest

from napari_semiseg import atomic
from napari_semiseg.blocks import Box
from napari_semiseg.errors import InputError
from napari_semiseg.project.folder import ProjectFolder
from napari_semiseg.project.lock import Holder
from napari_semiseg.project.opening import DamagedProject
from napari_semiseg.project.recovery import Recovered, Recovery
from napari_semiseg.project.tile_annotation import TileAnnotation


def died(project):
    """Leave a project as a process does that is killed, and return where it lies.

    What it wrote is copied while it is open; the lock in the copy names a process that is no more.
    """
    copy = project.path.with_name("killed.semiseg")
    if project._journal is not None:
        project.journal.flush()
    shutil.copytree(project.path, copy)
    holder = dataclasses.replace(Holder.here(), process="another boot:1", pid=4321)
    (copy / "project.lock").write_text(json.dumps(dataclasses.asdict(holder)))
    return copy


def record(project, tile, value):
    project.journal.record(tile.id, Box(0, 0, 5, 5), "instance", np.full((5, 5), value))


def test_a_project_that_was_closed_opens_without_a_word(project, tile_box, tmp_path):
    (tmp_path / "HE_0412.svs").touch()
    record(project, project.add_tile(0, tile_box), 3)
    project.close()
    with ProjectFolder.open(project.path) as again:
        assert again.recovery.clean
        assert again.recovery.sentences() == []


def test_strokes_that_only_the_journal_held_are_there_and_said(project, tile_box):
    first, second = (project.add_tile(0, tile_box) for _ in range(2))
    for value in (1, 2, 3):
        record(project, first, value)
    project.journal.flush()
    copy = died(project)
    with ProjectFolder.open(copy) as again:
        assert again.recovery.stopped.pid == 4321
        assert again.recovery.strokes == {first.id: 3}
        (found,) = again.recovery.tiles
        assert (found.before, found.now) == (0, 1)
        assert not found.earlier.instance.any()
        assert abs((datetime.now() - found.until).total_seconds()) < 60
        assert again.annotation(first.id).instance[:5, :5].min() == 3
        assert not again.annotation(second.id).instance.any()
        said = again.recovery.sentences()
        assert any("was not closed by the program" in line and "process 4321" in line for line in said)
        assert "3 strokes in 1 tile (t0001) were brought back from the journal." in said
    with ProjectFolder.open(copy) as again:
        assert again.recovery.stopped is None
        assert again.recovery.strokes == {}


def test_what_was_painted_before_the_recovered_strokes_is_known_and_both_can_be_kept(project, tile_box):
    tile = project.add_tile(0, tile_box)
    record(project, tile, 1)
    project.close()
    with ProjectFolder.open(project.path):
        pass  # makes a snapshot of the first stroke
    with ProjectFolder.open(project.path) as again:
        again.journal.record(tile.id, Box(6, 6, 9, 9), "instance", np.full((3, 3), 2))
        copy = died(again)
    with ProjectFolder.open(copy) as recovered:
        (found,) = recovered.recovery.tiles
        assert (found.before, found.now) == (1, 2)
        assert not recovered.has_aside(tile.id)
        assert recovered.kept_aside(tile.id) is None
        recovered.set_aside(tile.id)
        recovered.write_annotation(tile.id, found.earlier.instance, found.earlier.classes)
        assert recovered.annotation(tile.id).nuclei == 1
        assert recovered.has_aside(tile.id)
    with ProjectFolder.open(copy) as later:
        assert not later.recovery.tiles
        assert later.kept_aside(tile.id).nuclei == 2


def test_a_torn_journal_is_read_up_to_its_last_whole_stroke_and_said_once(project, tile_box):
    tile = project.add_tile(0, tile_box)
    for value in (1, 2):
        record(project, tile, value)
    copy = died(project)
    journal = next((copy / "annotations" / tile.id).glob("journal-*"))
    journal.write_bytes(journal.read_bytes()[:-7])
    with ProjectFolder.open(copy) as again:
        assert again.annotation(tile.id).instance[:5, :5].max() == 1
        assert list(again.recovery.torn) == [tile.id]
        assert any(f"journal of tile {tile.id} could not be read" in line for line in again.recovery.sentences())
    with ProjectFolder.open(copy) as again:
        assert again.recovery.torn == {}
        assert again.annotation(tile.id).instance[:5, :5].max() == 1


def test_half_written_files_are_deleted_and_files_of_others_are_not(project, tile_box):
    tile = project.add_tile(0, tile_box)
    copy = died(project)
    ours = [
        copy / ".semiseg-0011aabb.tmp.json",
        copy / "annotations" / tile.id / ".semiseg-0011aabb.tmp.npz",
        copy / "annotations" / ".semiseg-0011aabb.tmp",
    ]
    theirs = [copy / "notes.tmp", copy / "runs" / "x" / ".semiseg-0011aabb.tmp", copy / ".semiseg-notes.txt"]
    for path in ours + theirs:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    with ProjectFolder.open(copy) as again:
        assert len(again.recovery.leftovers) == 3
        assert "3 half-written files were deleted." in again.recovery.sentences()
    assert not any(path.exists() for path in ours)
    assert all(path.exists() for path in theirs)


def test_looking_changes_nothing(project, tile_box):
    tile = project.add_tile(0, tile_box)
    record(project, tile, 1)
    copy = died(project)
    (copy / ".semiseg-0011aabb.tmp").write_bytes(b"half")
    before = sorted((path, path.stat().st_mtime_ns) for path in copy.rglob("*"))
    with ProjectFolder.open(copy, read_only=True) as viewer:
        assert viewer.annotation(tile.id).instance[:5, :5].min() == 1
    assert sorted((path, path.stat().st_mtime_ns) for path in copy.rglob("*")) == before


def test_a_damaged_project_file_is_refused_and_the_last_copy_brings_back_every_tile(project, tile_box, painted):
    first = project.add_tile(0, tile_box)
    project.write_annotation(first.id, painted(first.box.shape, seed=1))
    project.set_status(first.id, "complete")
    project.close()
    with ProjectFolder.open(project.path) as again:  # the copy is made here
        second = again.add_tile(0, Box(100, 100, 140, 150))
        again.write_annotation(second.id, painted(second.box.shape, seed=2))
        again.set_status(second.id, "complete")
        third = again.add_tile(0, Box(0, 0, 9, 9))
    (project.path / "project.json").write_bytes(b"\0" * 500)  # what some file systems leave after a power cut

    with pytest.raises(DamagedProject, match=r"or put project\.previous\.json, the copy of the last opening") as caught:
        ProjectFolder.open(project.path)
    assert caught.value.can_restore
    assert str(caught.value).count(". ") == 0

    with ProjectFolder.restore(project.path) as again:
        assert again.tile(first.id).status == "complete"
        assert again.recovery.adopted == (second.id, third.id)
        assert again.tile(second.id).box == second.box
        # that it was complete nobody knows any more, so its unpainted pixels count for nothing
        assert again.tile(second.id).status == "sparse"
        assert again.tile(third.id).status == "empty"
        for tile, seed in ((first, 1), (second, 2)):
            assert np.array_equal(again.annotation(tile.id).instance, painted(tile.box.shape, seed=seed))
        assert again.add_tile(0, tile_box).id == "t0004"
    assert len(list(project.path.glob("project.damaged-*.json"))) == 1


def test_a_damaged_project_without_a_copy_says_so(project):
    project.close()
    (project.path / "project.json").write_text("{")
    with pytest.raises(DamagedProject) as caught:
        ProjectFolder.open(project.path)
    assert not caught.value.can_restore
    with pytest.raises(InputError, match="put one back from a backup"):
        ProjectFolder.restore(project.path)


def test_a_tile_that_was_being_removed_is_back_with_everything(project, tile_box, monkeypatch):
    """Killed after it was taken off the list and before its folder was moved."""
    tile = project.add_tile(0, tile_box)
    project.write_annotation(tile.id, np.full(tile.box.shape, 4))
    tile = project.set_status(tile.id, "complete")
    project.remove_tile(tile.id)
    project.close()
    (project.path / "annotations" / "removed" / tile.id).rename(project.path / "annotations" / tile.id)
    with ProjectFolder.open(project.path) as again:
        assert again.tiles == (tile,)
        assert (again.annotation(tile.id).instance == 4).all()


def test_folders_that_are_no_tiles_of_this_project_stay_where_they_are(project):
    strange = project.path / "annotations" / "t0007"
    for content in (
        "{",
        "[]",
        '{"tile": 5}',
        '{"tile": {"id": "t0007", "image": 0, "box": [0, 0, 5, 5]}, "image_path": "x"}',
    ):
        project.close()
        strange.mkdir(parents=True, exist_ok=True)
        (strange / "tile.json").write_text(content)
        with ProjectFolder.open(project.path) as again:
            assert again.tiles == ()
            assert again.add_tile(0, (0, 0, 5, 5)).id > "t0007"
            for tile in again.tiles:
                again.remove_tile(tile.id)
        assert (strange / "tile.json").read_text() == content


@pytest.mark.fault
def test_a_project_on_a_full_disk_opens_with_everything_in_it_and_says_what_could_not_be_done(
    project, tile_box, monkeypatch
):
    tile = project.add_tile(0, tile_box)
    record(project, tile, 6)
    copy = died(project)
    with ProjectFolder.open(copy, read_only=True) as viewer:
        assert viewer.annotation(tile.id).instance.max() == 6

    def full(path, data, real=atomic.write_bytes):
        if "annotations" in str(path):
            raise InputError(f"'{path}' cannot be written, because the disk is full: free some space and try again.")
        real(path, data)

    monkeypatch.setattr(atomic, "write_bytes", full)
    with ProjectFolder.open(copy) as again:
        assert again.annotation(tile.id).instance.max() == 6
        assert any("the disk is full" in line for line in again.recovery.sentences())


def test_a_snapshot_that_cannot_be_read_concerns_its_tile_alone_and_is_never_painted_over(project, tile_box):
    first, second = (project.add_tile(0, tile_box) for _ in range(2))
    for tile in (first, second):
        project.write_annotation(tile.id, np.full(tile.box.shape, 2))
    project.close()
    for path in (project.path / "annotations" / first.id).glob("*-*"):
        path.write_bytes(b"rubbish") if path.suffix == ".npz" else path.unlink()
    with ProjectFolder.open(project.path) as again:
        with pytest.raises(InputError, match="is damaged: put a copy of it back"):
            again.annotation(first.id)
        again.autosave.submit(first.id, instance=np.full(first.box.shape, 9))
        assert not again.autosave.flush()
        assert "is damaged" in again.autosave.status.failure
        assert (again.annotation(second.id).instance == 2).all()
    snapshot = next((project.path / "annotations" / first.id).glob("*.npz"))
    assert snapshot.read_bytes() == b"rubbish"


def test_sentences_are_plain_and_one_each():
    holder = dataclasses.replace(Holder.here(), since="2026-01-01T00:00:00+00:00")
    report = Recovery(
        stopped=holder,
        tiles=(Recovered("t0001", 1, datetime.now(), TileAnnotation.empty((4, 4)), 0, 1),),
        torn={"t0001": 5},
        damaged=("'a' is damaged: put a copy of it back.",),
        leftovers=("a",),
        adopted=("t0002",),
        missing_images=("b",),
    )
    said = report.sentences()
    assert len(said) == 7
    assert said[0] == "'a' is damaged: put a copy of it back."
    assert "1 stroke in 1 tile (t0001) was brought back from the journal." in said
    assert all(line.endswith(".") and "\n" not in line for line in said)
    assert not report.clean
    assert Recovery().clean
