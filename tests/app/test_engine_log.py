from __future__ import annotations

import os
import tempfile
from pathlib import Path

from napari_semiseg.app.engine_log import KEPT, EngineLog


def test_a_log_starts_with_a_dated_line_and_is_only_ever_added_to(tmp_path):
    log = EngineLog(tmp_path / "logs")
    for line in (b"first\n", b"second\n"):
        with log.open("engine: python") as file:
            os.write(file.fileno(), line)

    words = log.path.read_text().split("\n")
    assert words[1].endswith(" engine: python")
    assert (words[2], words[5]) == ("first", "second")


def test_the_end_of_a_log_is_read_as_text_whatever_it_holds(tmp_path):
    log = EngineLog(tmp_path)
    assert log.tail() == ""
    log.path.write_bytes(b"old " * 5_000 + b"\xff\xfe end \xc3\xa9")

    assert log.tail(10).endswith(" end é")
    assert len(log.tail(10)) <= 10


def test_only_the_newest_logs_are_kept(tmp_path):
    for age in range(20):
        path = tmp_path / f"engine-{100_000 + age}.log"
        path.write_text("x")
        os.utime(path, (1e9 - age, 1e9 - age))
    EngineLog(tmp_path).open("engine").close()

    kept = sorted(path.name for path in tmp_path.glob("engine-*.log"))
    assert len(kept) == KEPT
    assert f"engine-{os.getpid()}.log" in kept
    assert "engine-100000.log" in kept
    assert "engine-100019.log" not in kept


def test_a_folder_that_cannot_be_written_is_replaced_by_the_one_for_temporary_files(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "file").write_text("in the way")
    log = EngineLog(tmp_path / "file" / "logs")
    log.open("engine").close()

    assert log.path.parent == tmp_path / "temporary" / "napari-semiseg"
    assert log.path.exists()


def test_by_default_the_log_lies_in_the_users_folder_for_logs():
    assert "napari-semiseg" in Path(EngineLog().path).parts[-3:-1] or "napari-semiseg" in str(EngineLog().path.parent)
