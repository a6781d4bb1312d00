"""What a run has said: written as it is said, read back whatever befell the file."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest

from napari_semiseg.errors import InputError
from napari_semiseg.events import Finished, Skipped, Started, Validated, encode
from napari_semiseg.io.event_log import open_log, read_events, read_timed

SAID = [Started("train", total=3), Skipped(1, 'no label; he said "time": 1.5}'), Validated(2, {"dice": 0.5})]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "events.jsonl"
    with open_log(path) as written:
        for event in SAID:
            written.write(event)
    return path


def test_events_come_back_in_order_with_the_time_they_were_said(log: Path) -> None:
    times, events = zip(*read_timed(log), strict=True)

    assert list(events) == SAID
    assert all(abs(said - time.time()) < 60 for said in times)


def test_a_torn_line_in_the_middle_costs_itself_only(log: Path) -> None:
    first, second, third = log.read_text().splitlines(keepends=True)
    log.write_text(first + second[:20] + "\n" + third)

    assert list(read_events(log)) == [SAID[0], SAID[2]]


def test_what_is_said_after_a_torn_last_line_is_not_lost_with_it(log: Path) -> None:
    log.write_text(log.read_text() + '{"event": "Vali')

    with open_log(log) as again:
        again.write(Finished("train"))

    assert list(read_events(log)) == [*SAID, Finished("train")]


def test_an_event_without_a_time_is_read_too(log: Path) -> None:
    log.write_text(encode(SAID[0]) + "\n")

    ((said, event),) = read_timed(log)

    assert math.isnan(said)
    assert event == SAID[0]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
def test_a_disk_that_becomes_full_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").symlink_to("/dev/full")

    with pytest.raises(InputError, match=r"events.jsonl' cannot be written, because the disk is full"):  # noqa: SIM117
        with open_log(tmp_path / "events.jsonl") as log:
            log.write(SAID[0])


def test_a_log_that_cannot_be_written_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").mkdir()

    with pytest.raises(InputError, match=r"events\.jsonl.* cannot be written"), open_log(tmp_path / "events.jsonl"):
        pass
