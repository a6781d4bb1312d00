from __future__ import annotations

import json
import sys

from napari_semiseg.cli.present import Bars, EventFormat, Lines, presenter
from napari_semiseg.events import Finished, Started, StepDone, Warned, Written, decode_event

STORY = [
    Started("train", "runs/a", 3, {}),
    *(StepDone(step, {"sup": 0.5}, rate=2.0, eta_s=2 - step) for step in range(3)),
    Warned("Mind the gap: [bold]µm[/bold]."),
    Written("csv", "out/a.csv"),
    Written("csv", "out/a.csv"),
    Finished("train", "runs/a"),
]


def tell(view):
    with view:
        for event in STORY:
            view.show(event)


def test_json_lines_are_the_events_and_nothing_else_is_on_stdout(capsys):
    tell(presenter(EventFormat.jsonl))
    said = capsys.readouterr()

    assert [decode_event(line)[0] for line in said.out.splitlines()] == STORY
    assert said.err == ""
    assert json.loads(said.out.splitlines()[0])["event"] == "Started"


def test_lines_go_to_stderr_and_the_results_once_each_to_stdout(capsys):
    tell(Lines(every_s=3600))
    said = capsys.readouterr()

    assert said.out.splitlines() == ["out/a.csv", "runs/a"]
    assert "training: 1/3  2 steps/s · 0:02 left  sup 0.5" in said.err
    assert "training: 2/3" not in said.err, "progress in between came less than an hour after the last"
    assert "training: 3/3" in said.err
    assert "Mind the gap" in said.err


def test_a_canceled_job_lists_no_result(capsys):
    with Lines() as view:
        view.show(Finished("train", "runs/a", stopped=True, canceled=True))

    assert capsys.readouterr().out == ""


def test_bars_go_to_stderr_and_take_no_text_for_markup(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    tell(Bars())
    said = capsys.readouterr()

    assert said.out.splitlines() == ["out/a.csv", "runs/a"]
    assert "3/3" in said.err
    assert "[bold]µm[/bold]" in said.err


def test_without_a_terminal_there_are_lines_and_no_bars(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    assert type(presenter(EventFormat.text)) is Lines
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert type(presenter(EventFormat.text)) is Bars
