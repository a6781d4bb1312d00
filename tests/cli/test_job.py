"""How a job that runs in the terminal ends: by itself, by an error, by Ctrl-C, by SIGTERM."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from napari_semiseg.cli.job import follow
from napari_semiseg.cli.present import EventFormat
from napari_semiseg.errors import InputError
from napari_semiseg.events import Failed, decode_event

JOBS = """
import time
from napari_semiseg.cli.job import follow
from napari_semiseg.errors import InputError
from napari_semiseg.events import Cancel, Failed, Finished, Started, Stop

def patient(args, control):
    \"\"\"Goes on until asked; a slow job also waits for a second word after a Stop.\"\"\"
    yield Started("train")
    asked = []
    until = time.monotonic() + 30
    while time.monotonic() < until:
        asked += control.take()
        if any(isinstance(command, Cancel) for command in asked) or (asked and not args.get("slow")):
            yield Finished("train", "runs/a", stopped=True, canceled=isinstance(asked[-1], Cancel))
            return
        time.sleep(0.01)

def echo(args, control):
    yield Finished("train", repr(args))

def refuse(args, control):
    yield Started("train")
    raise InputError("a.tif cannot be read: choose another.")

def fail(args, control):
    yield Failed("There is no room on the disk: make some.", wrong_input=True)

def break_down(args, control):
    yield Failed("Something broke.", wrong_input=False, detail="KeyError: 'x'")

if __name__ == "__main__":
    import sys
    sys.exit(follow("jobs:patient", {"slow": "slow" in sys.argv}))
"""


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    (tmp_path / "jobs.py").write_text(textwrap.dedent(JOBS))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "jobs", raising=False)
    yield tmp_path / "jobs.py"
    sys.modules.pop("jobs", None)


def test_options_that_were_not_given_do_not_reach_the_job(jobs, capsys):
    assert follow("jobs:echo", {"seed": 0, "minutes": None}) == 0
    assert "{'seed': 0}" in capsys.readouterr().out


def test_bad_input_is_raised_and_also_told_to_programs(jobs, capsys):
    with pytest.raises(InputError, match=r"a\.tif"):
        follow("jobs:refuse", {}, EventFormat.jsonl)

    last, _ = decode_event(capsys.readouterr().out.splitlines()[-1])
    assert last == Failed("a.tif cannot be read: choose another.", wrong_input=True)


def test_a_failure_told_as_an_event_is_a_failure(jobs):
    with pytest.raises(InputError, match="no room"):
        follow("jobs:fail", {})
    with pytest.raises(RuntimeError, match="KeyError"):
        follow("jobs:break_down", {})


def test_signal_handlers_are_put_back(jobs):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    follow("jobs:echo", {})
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.skipif(os.name == "nt", reason="signals between processes are POSIX")
@pytest.mark.parametrize(
    ("option", "signals", "words"),
    [
        ("", [signal.SIGINT], "Training was stopped: runs/a."),
        ("", [signal.SIGTERM], "Training was stopped: runs/a."),
        ("slow", [signal.SIGINT, signal.SIGINT], "Training was canceled; its result is discarded."),
    ],
)
def test_an_interrupted_job_ends_by_its_own_hand_with_status_3(jobs, option, signals, words):
    with subprocess.Popen(
        [sys.executable, jobs, option], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert "begins" in process.stderr.readline()
        for number in signals:
            process.send_signal(number)
            if option:  # signals of one kind that arrive together are one
                assert process.stderr.readline() == "\n"
                assert "Ctrl-C again" in process.stderr.readline()
        said = process.stderr.read()

    assert process.returncode == 3
    assert words in said


@pytest.mark.skipif(os.name == "nt", reason="signals between processes are POSIX")
def test_a_third_interrupt_ends_a_job_that_does_not_listen(jobs):
    jobs.write_text(jobs.read_text().replace("asked += control.take()", "pass"))
    with subprocess.Popen([sys.executable, jobs], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert "begins" in process.stderr.readline()
        for answer in ("Stopping", "Canceling", "Traceback"):
            process.send_signal(signal.SIGINT)
            assert answer in process.stderr.readline() + process.stderr.readline()
        said = process.stderr.read()

    assert process.returncode not in (0, 3)
    assert "KeyboardInterrupt" in said
