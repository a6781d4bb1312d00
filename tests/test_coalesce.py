from __future__ import annotations

import threading

from napari_semiseg.coalesce import Coalescer
from napari_semiseg.events import (
    Event,
    Failed,
    Finished,
    Heartbeat,
    PreviewWritten,
    Progressed,
    Saved,
    StepDone,
    Validated,
    Warned,
    Written,
)


def _filled(events: list[Event], **limits: int) -> Coalescer[Event]:
    mailbox: Coalescer[Event] = Coalescer(**limits)
    for event in events:
        mailbox.put(event, "train-1", event)
    return mailbox


def test_only_the_newest_state_is_kept():
    steps = [StepDone(step, {"sup": 1.0 / step}) for step in range(1, 100)]
    mailbox = _filled([*steps, Heartbeat(1), Heartbeat(2), Progressed("reading", 1, 9), Progressed("reading", 2, 9)])

    assert mailbox.take() == [steps[-1], Heartbeat(2), Progressed("reading", 2, 9)]
    assert mailbox.count_left_out() == 0


def test_every_result_is_kept_in_order():
    results = [
        Validated(1, {"dice": 0.5}),
        Saved(1, "a"),
        Warned("careful"),
        Warned("careful"),
        Validated(2, {"dice": 0.6}),
        Written("csv", "out.csv"),
        Failed("no", wrong_input=True),
        Finished("train"),
    ]
    mixed = [event for result in results for event in (StepDone(0, {}), result, Heartbeat(0))]

    assert [event for event in _filled(mixed).take() if not isinstance(event, StepDone | Heartbeat)] == results


def test_state_of_different_subjects_stays_apart():
    whole, corner, other = (0, 0, 64, 64), (0, 0, 8, 8), (0, 0, 64, 64)
    old, new = PreviewWritten(1, "1.npy", 0, whole, 4), PreviewWritten(2, "2.npy", 0, whole, 4)
    detail, second = PreviewWritten(2, "3.npy", 0, corner, 1), PreviewWritten(2, "4.npy", 1, other, 4)

    assert _filled([old, detail, second, new]).take() == [detail, second, new]


def test_state_of_different_jobs_stays_apart():
    mailbox: Coalescer[str] = Coalescer()
    mailbox.put(StepDone(1, {}), "train-1", "first job")
    mailbox.put(StepDone(1, {}), "train-2", "second job")

    assert mailbox.take() == ["first job", "second job"]


def test_a_flood_of_one_kind_is_bounded_and_pushes_out_no_other():
    flood = [Warned(str(number)) for number in range(100_000)]
    mailbox = _filled([Finished("train"), *flood], capacity=10)

    assert mailbox.take() == [Finished("train"), *flood[-10:]]
    assert mailbox.count_left_out() == 99_990
    assert mailbox.count_left_out() == 0


def test_a_flood_of_large_events_is_bounded_by_size_and_the_newest_survives():
    mailbox: Coalescer[int] = Coalescer(max_size=100)
    for number in range(10):
        mailbox.put(Warned("x"), "", number, size=40)
    mailbox.put(Written("huge", "x"), "", 99, size=1_000)

    assert mailbox.take() == [8, 9, 99]


def test_the_reader_is_woken_once_until_it_has_taken():
    woken: list[str] = []
    mailbox: Coalescer[int] = Coalescer(on_first=lambda: woken.append("up"))

    for number in range(5):
        mailbox.put(Warned("x"), "", number)
    assert woken == ["up"]
    assert mailbox

    mailbox.take()
    assert not mailbox
    mailbox.put(Warned("x"), "", 6)
    assert woken == ["up", "up"]


def test_nothing_is_lost_or_doubled_between_threads():
    mailbox: Coalescer[tuple[int, int]] = Coalescer(capacity=100_000)
    writers = [
        threading.Thread(target=lambda who=who: [mailbox.put(Warned("x"), "", (who, n)) for n in range(500)])
        for who in range(4)
    ]
    taken: list[tuple[int, int]] = []
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        taken += mailbox.take()
    taken += mailbox.take()

    assert sorted(taken) == [(who, n) for who in range(4) for n in range(500)]
    for who in range(4):
        assert [n for w, n in taken if w == who] == list(range(500))
