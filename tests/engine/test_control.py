from __future__ import annotations

import threading

from napari_semiseg.engine.control import Control
from napari_semiseg.events import Command, Focus, Pause, Resume, Stop


def test_a_job_takes_what_was_asked_oldest_first_and_only_once():
    control = Control()
    asked = [Pause(), Focus(0, (0, 0, 1, 1)), Resume(), Stop()]
    for command in asked:
        control.send(command)

    assert list(control.take()) == asked
    assert list(control.take()) == []


def test_a_job_that_nobody_controls_never_waits():
    assert list(Control().take()) == []


def test_a_paused_job_waits_until_something_is_asked():
    control = Control()
    woken: list[Command] = []
    job = threading.Thread(target=lambda: woken.append(control.wait()))
    job.start()
    job.join(0.1)
    assert job.is_alive()

    control.send(Resume())
    job.join(2)
    assert woken == [Resume()]


def test_what_is_asked_while_the_job_looks_at_the_last_wish_is_taken_too():
    control = Control()
    control.send(Pause())
    taken = []
    for command in control.take():
        taken.append(command)
        if isinstance(command, Pause):
            control.send(Resume())

    assert taken == [Pause(), Resume()]


def test_nothing_asked_by_several_threads_is_lost():
    control = Control()
    askers = [
        threading.Thread(target=lambda who=who: [control.send(Focus(who, (0, 0, n, n))) for n in range(200)])
        for who in range(4)
    ]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()

    taken = list(control.take())
    for who in range(4):
        assert [focus.box[2] for focus in taken if focus.image == who] == list(range(200))
