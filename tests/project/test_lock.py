"""Who may write into a project."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from datetime import datetime

import pytest

from napari_semiseg.errors import InputError
from napari_semiseg.project import lock as lock_module
from napari_semiseg.project.folder import ProjectFolder
from napari_semiseg.project.lock import Holder, LockHeld, ProjectLock


def left_behind(path, **changes):
    """Write the lock of some other process."""
    holder = dataclasses.replace(Holder.here(), token="other", **changes)
    path.write_text(json.dumps(dataclasses.asdict(holder)))
    return holder


def another_process(path, rest="input()"):
    """Start a process that takes the lock, says so, and does the rest."""
    script = f"""
        import sys
        from pathlib import Path
        from napari_semiseg.project.lock import ProjectLock
        lock = ProjectLock.acquire(Path({str(path)!r}))
        print("held", flush=True)
        {rest}
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_a_lock_is_held_once_and_given_back(tmp_path):
    lock = ProjectLock.acquire(tmp_path / "lock")
    assert lock.held
    assert lock.recovered is None
    with pytest.raises(LockHeld, match="already open in this program"):
        ProjectLock.acquire(tmp_path / "lock")
    lock.release()
    assert not lock.held
    assert list(tmp_path.iterdir()) == []
    ProjectLock.acquire(tmp_path / "lock").release()


def test_another_process_keeps_its_lock_while_it_lives_and_not_a_moment_longer(tmp_path):
    process = another_process(tmp_path / "lock")
    try:
        for take_over in (False, True):  # nobody takes a project from a living process on this computer
            with pytest.raises(LockHeld, match=rf"in another program \(process {process.pid}\)") as caught:
                ProjectLock.acquire(tmp_path / "lock", take_over=take_over)
            assert caught.value.holder.pid == process.pid
    finally:
        process.send_signal(signal.SIGKILL if os.name != "nt" else signal.SIGTERM)
        # not waited for yet: a process that ended but that its parent has not looked after is dead too
        process.stdout.read()
    if os.name != "nt":
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    lock = ProjectLock.acquire(tmp_path / "lock")
    assert lock.recovered.pid == process.pid
    lock.release()
    process.communicate()


def test_a_process_that_reuses_the_number_of_a_dead_one_is_not_taken_for_it(tmp_path):
    left_behind(tmp_path / "lock", process="another boot:1")
    lock = ProjectLock.acquire(tmp_path / "lock")
    assert lock.recovered.token == "other"
    assert lock.held


def test_a_computer_of_which_nothing_is_known_keeps_its_lock_until_the_user_says_otherwise(tmp_path):
    left_behind(tmp_path / "lock", host="microscope-2")
    with pytest.raises(LockHeld, match="on the computer 'microscope-2'") as caught:
        ProjectLock.acquire(tmp_path / "lock")
    for way_out in ("close it there", "open it read-only", "take it over"):
        assert way_out in str(caught.value)
    assert not caught.value.holder.on_this_computer
    lock = ProjectLock.acquire(tmp_path / "lock", take_over=True)
    assert lock.held
    assert lock.recovered.host == "microscope-2"


def test_two_computers_of_one_name_are_two(tmp_path):
    left_behind(tmp_path / "lock", machine="another", process="another boot:1")
    with pytest.raises(LockHeld, match="on the computer"):
        ProjectLock.acquire(tmp_path / "lock")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[]", b"null", b'{"pid": 1}', b"[" * 4000, bytes(4096), b"x" * 10**6]
)
def test_a_lock_file_that_holds_no_lock_is_left_over(tmp_path, monkeypatch, content):
    monkeypatch.setattr(lock_module, "_GRACE_S", 0.01)
    (tmp_path / "lock").write_bytes(content)
    assert ProjectLock.acquire(tmp_path / "lock").held


@pytest.mark.parametrize("pid", [0, -1, 2**31 - 1, 2**80, 1.5, "1", None, True])
def test_a_lock_of_an_impossible_process_is_left_over(tmp_path, monkeypatch, pid):
    monkeypatch.setattr(lock_module, "_GRACE_S", 0.01)
    left_behind(tmp_path / "lock", pid=pid, process="no boot:1")
    assert ProjectLock.acquire(tmp_path / "lock").held


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
@pytest.mark.timeout(10)
def test_a_lock_that_is_a_pipe_or_a_folder_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(InputError, match="no ordinary file"):
            ProjectLock.acquire(tmp_path / name)


def test_of_many_that_find_a_lock_left_over_one_gets_it(tmp_path):
    for _ in range(10):
        left_behind(tmp_path / "lock", process="another boot:1")
        got, start = [], threading.Barrier(8)

        def take(got=got, start=start):
            start.wait()
            try:
                got.append(ProjectLock.acquire(tmp_path / "lock"))
            except InputError:
                got.append(None)

        threads = [threading.Thread(target=take) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        holders = [lock for lock in got if lock is not None and lock.held]
        assert len(holders) == 1
        holders[0].release()


@pytest.mark.skipif(lock_module.fcntl is None, reason="Windows has no locks on files that go away")
def test_who_is_late_to_a_lock_left_over_gives_no_third_one_room_beside_the_second(tmp_path, monkeypatch):
    path = tmp_path / "lock"
    left_behind(path, process="another boot:1")
    read, rename = lock_module._read_when_written, lock_module.Path.rename
    first, third = [], []

    def read_and_wait(found):
        was = read(found)
        if not first:  # while the one that is late has read it, another takes it
            first.append(None)
            first[0] = ProjectLock.acquire(found)
        return was

    def rename_and_wait(found, target):
        moved = rename(found, target)
        if first and first[0] and not third:
            third.append(ProjectLock.acquire(path))
        return moved

    monkeypatch.setattr(lock_module, "_read_when_written", read_and_wait)
    monkeypatch.setattr(lock_module.Path, "rename", rename_and_wait)
    with pytest.raises(LockHeld):
        ProjectLock.acquire(path)
    assert first[0].held
    assert not third


def test_where_a_file_system_has_no_hard_links_the_lock_works_too(tmp_path, monkeypatch):
    def no_links(*_, **__):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    lock = ProjectLock.acquire(tmp_path / "lock")
    assert lock.held
    with pytest.raises(LockHeld):
        ProjectLock.acquire(tmp_path / "lock")
    lock.release()
    left_behind(tmp_path / "lock", process="another boot:1")
    assert ProjectLock.acquire(tmp_path / "lock").held


def test_a_clock_that_jumps_makes_nobody_dead(tmp_path, monkeypatch):
    import psutil

    lock = ProjectLock.acquire(tmp_path / "lock")
    monkeypatch.setattr(psutil, "boot_time", lambda: 0.0)
    monkeypatch.setattr("time.time", lambda: 3600.0)
    assert not lock.holder.is_dead


# ---- of whole projects ----


def test_a_second_viewer_is_offered_to_look_and_sees_what_the_first_paints(project, tile_box, painted):
    tile = project.add_tile(0, tile_box)
    with pytest.raises(LockHeld, match="or open it read-only"):
        ProjectFolder.open(project.path)
    with ProjectFolder.open(project.path, read_only=True) as viewer:
        assert viewer.read_only
        project.write_annotation(tile.id, painted(tile.box.shape))
        assert viewer.annotation(tile.id).equals(project.annotation(tile.id))
        other = project.add_tile(0, tile_box)
        viewer.reload()
        assert viewer.tile(other.id) == other
        for change in (viewer.save, viewer.new_run_dir, lambda: viewer.set_status(tile.id, "complete")):
            with pytest.raises(InputError, match="read-only, so nothing can be changed"):
                change()
    assert project.path.joinpath("project.lock").exists()
    project.set_status(tile.id, "sparse")


def test_a_project_taken_over_by_another_computer_is_not_written_any_more(project, tile_box):
    tile = project.add_tile(0, tile_box)
    left_behind(project.path / "project.lock", host="microscope-2")
    with pytest.raises(InputError, match="was taken over by another program: close it here"):
        project.set_status(tile.id, "complete")
    assert project.tile(tile.id).status == "empty"
    project.close()
    assert "microscope-2" in (project.path / "project.lock").read_text()
    with pytest.raises(LockHeld):
        ProjectFolder.open(project.path)
    with ProjectFolder.open(project.path, take_over=True) as again:
        assert again.recovery.stopped.host == "microscope-2"


def test_a_program_that_ends_without_closing_gives_the_project_back(project):
    project.close()
    script = """
        import os, sys
        from napari_semiseg.project.folder import ProjectFolder
        project = ProjectFolder.open(sys.argv[1])
        if hasattr(os, "fork") and os.fork() == 0:
            sys.exit()  # a child that was forked takes nothing along
        if hasattr(os, "fork"):
            os.wait()
        assert (project.path / "project.lock").exists()
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script), project.path], check=True, timeout=60)
    assert not (project.path / "project.lock").exists()


def test_a_refused_opening_leaves_no_lock(project):
    project.close()
    (project.path / "project.json").write_text("{")
    for _ in range(2):
        with pytest.raises(InputError, match="no valid JSON"):
            ProjectFolder.open(project.path)
    assert not (project.path / "project.lock").exists()


def test_it_is_said_where_and_since_when_a_project_is_open_whatever_the_lock_holds():
    here = Holder.here()
    at = datetime.fromisoformat(here.since).astimezone()
    assert here.words == f"in this program since {at:%d %b %H:%M}"
    assert dataclasses.replace(here, since="some day").words == "in this program since some day"
    assert dataclasses.replace(here, host="pathology-7").words.startswith("on the computer 'pathology-7' since ")
