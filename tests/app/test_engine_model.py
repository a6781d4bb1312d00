from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from napari_semiseg.app.engine_model import ChildEnded, ChildStarted, EngineModel, Job
from napari_semiseg.errors import InputError
from napari_semiseg.events import (
    Cancel,
    Command,
    Described,
    Failed,
    Finished,
    Focus,
    Heartbeat,
    LabelsChanged,
    Pause,
    Paused,
    Ready,
    Resume,
    Resumed,
    Run,
    Started,
    StepDone,
    Stop,
    Warned,
)

LOG = "/logs/engine-1.log"


class Bench:
    """A model with its commands and signals written down."""

    def __init__(self, *, ready: bool = True) -> None:
        self.model = EngineModel()
        self.commands: list[Command] = []
        self.states: list[str] = []
        self.received: list[tuple[str, Any]] = []
        self.model.commanded.connect(self.commands.append)
        self.model.received.connect(lambda job, event: self.received.append((job, event)))
        self.model.events.status.connect(self.states.append)
        if ready:
            self.model.apply([ChildStarted(1, LOG), (Ready(1, {"torch": "2"}), "")])

    def training(self) -> str:
        """Start a training, which has got as far as saying so."""
        job = self.model.run("train", {"out": "run"})
        self.model.apply([(Started("train", "/runs/1", 100), job)])
        self.commands.clear()
        return job


def test_it_says_how_far_the_engine_is():
    bench = Bench(ready=False)
    assert bench.model.status == "starting"

    bench.model.apply([ChildStarted(7, LOG), (Ready(7, {"torch": "2.9"}), ""), (Heartbeat(5_000), "")])

    assert (bench.model.status, bench.model.log, bench.model.rss_bytes) == ("ready", LOG, 5_000)
    assert bench.model.versions == {"torch": "2.9"}


def test_a_job_goes_from_busy_to_ready_and_its_events_are_passed_on():
    bench = Bench()
    job = bench.model.run("train", {"out": "run"})
    assert bench.commands == [Run("train", {"out": "run"}, job)]
    assert bench.model.status == "busy"

    step, end = StepDone(1, {"sup": 0.5}), Finished("train", "/runs/1")
    bench.model.apply([(Started("train", "/runs/1"), job), (Heartbeat(1), ""), (step, job)])
    assert bench.model.job == Job(job, "train", {"out": "run"}, "/runs/1")
    bench.model.apply([(end, job)])

    assert (bench.model.job, bench.model.status) == (None, "ready")
    assert bench.received[1:] == [(job, Started("train", "/runs/1")), (job, step), (job, end)]


def test_a_job_that_is_asked_for_while_the_engine_starts_is_busy_once_it_is_ready():
    bench = Bench(ready=False)
    bench.model.run("train", {})
    assert bench.model.status == "starting"

    bench.model.apply([ChildStarted(1, LOG), (Ready(1, {}), "")])
    assert bench.model.status == "busy"


def test_start_pressed_twenty_times_is_one_job():
    bench = Bench()
    jobs = {bench.model.run("train", {"out": "run"}) for _ in range(20)}

    assert len(jobs) == 1
    assert bench.commands == [Run("train", {"out": "run"}, *jobs)]


def test_another_job_is_refused_in_a_sentence_while_one_runs():
    bench = Bench()
    bench.model.run("train", {"out": "run"})

    with pytest.raises(InputError, match="The training is still running: wait for its end or stop it first"):
        bench.model.run("export", {})
    assert len(bench.commands) == 1


def test_jobs_that_wait_are_done_in_the_order_in_which_they_were_asked_for():
    bench = Bench()
    jobs = [bench.model.run(verb, {}, when_busy="wait") for verb in ("suggest", "train", "export")]
    assert len(bench.commands) == 1
    assert [job.id for job in bench.model.jobs] == jobs
    assert bench.model.start_words(jobs[1]) == "waits for the suggestion of tiles"

    bench.model.apply([(Finished("suggest"), jobs[0])])
    assert bench.commands[1:] == [Run("train", {}, jobs[1])]
    assert bench.model.status == "busy"
    bench.model.apply([(Finished("train"), jobs[1]), (Finished("export"), jobs[2])])
    assert bench.commands[2:] == [Run("export", {}, jobs[2])]
    assert bench.model.jobs == ()


@pytest.mark.parametrize("how", ["stop", "cancel"])
def test_a_job_that_waits_is_dropped_without_a_word_to_the_one_that_runs(how):
    bench = Bench()
    running = bench.model.run("suggest", {})
    waiting = bench.model.run("train", {}, when_busy="wait")
    getattr(bench.model, how)(waiting)

    assert bench.received[-1] == (waiting, Finished("train", stopped=True, canceled=True))
    assert [job.id for job in bench.model.jobs] == [running]
    bench.model.apply([(Finished("suggest"), running)])
    assert bench.commands == [Run("suggest", {}, running)]
    assert bench.model.status == "ready"


def test_stopping_a_job_that_is_over_stops_no_other():
    bench = Bench()
    over = bench.training()
    bench.model.apply([(Finished("train"), over)])
    bench.model.run("predict", {})
    bench.model.stop(over)
    bench.model.cancel(over)

    assert bench.model.status == "busy"
    assert [type(command) for command in bench.commands] == [Run]


def test_what_waits_for_an_engine_that_dies_is_named_and_ends_as_if_canceled():
    bench = Bench()
    running = bench.model.run("suggest", {})
    waiting = bench.model.run("train", {}, when_busy="wait")
    bench.model.apply([ChildEnded("crash", -9, LOG, again=True), ChildStarted(2, LOG), (Ready(2, {}), "")])

    assert (waiting, Finished("train", stopped=True, canceled=True)) in bench.received
    assert bench.model.message == (
        "The engine ended without a word during the suggestion of tiles (signal SIGKILL), and the training that waited "
        f"did not begin: start again; its log is {LOG}."
    )
    assert bench.model.lost_job.id == running
    assert bench.model.jobs == ()
    assert bench.model.status == "ready"


def test_a_small_job_runs_beside_a_training_and_changes_nothing_of_it():
    bench = Bench()
    training = bench.model.run("train", {})
    small = bench.model.run_aside("region", {"of": "result"})
    with pytest.raises(InputError, match="ask again"):
        bench.model.run_aside("split", {})
    bench.model.apply([(Failed("There is no result.", wrong_input=True), small)])

    assert bench.commands[-1] == Run("region", {"of": "result"}, small, aside=True)
    assert bench.model.message == "There is no result."
    assert (bench.model.job.id, bench.model.status, bench.model.aside) == (training, "busy", None)
    assert bench.model.run_aside("split", {}) == bench.model.aside.id


@pytest.mark.parametrize("verb", [None, "predict", "export"])
def test_beside_what_is_no_training_there_is_no_small_job(verb):
    bench = Bench()
    if verb:
        bench.model.run(verb, {})

    assert not bench.model.takes_aside
    with pytest.raises(InputError):
        bench.model.run_aside("split", {})


def test_a_small_job_that_dies_with_the_engine_ends_with_the_reason():
    bench = Bench()
    bench.model.run("train", {})
    small = bench.model.run_aside("split", {})
    bench.model.apply([ChildEnded("crash", -9, LOG)])

    job, event = bench.received[-1]
    assert (job, type(event), bench.model.aside) == (small, Failed, None)
    assert event.message == bench.model.message != ""


def test_pausing_and_resuming_send_each_command_once():
    bench = Bench()
    job = bench.training()

    for _ in range(3):
        bench.model.pause()
    assert bench.model.status == "busy"
    bench.model.apply([(Paused(5), job)])
    assert bench.model.status == "paused"
    for _ in range(3):
        bench.model.resume()
    bench.model.apply([(Resumed(5), job)])

    assert bench.model.status == "busy"
    assert bench.commands == [Pause(), Resume()]


def test_resuming_before_the_pause_was_heard_still_resumes():
    bench = Bench()
    bench.training()
    bench.model.pause()
    bench.model.resume()

    assert bench.commands == [Pause(), Resume()]


def test_a_paused_job_can_be_stopped():
    bench = Bench()
    job = bench.training()
    bench.model.pause()
    bench.model.apply([(Paused(5), job)])
    bench.model.stop()
    bench.model.stop()
    bench.model.apply([(Resumed(5), job)])
    assert bench.model.status == "stopping"
    bench.model.apply([(Finished("train", "/runs/1", stopped=True), job)])

    assert bench.commands == [Pause(), Stop()]
    assert bench.model.status == "ready"


def test_a_job_that_was_asked_to_stop_can_still_be_canceled():
    bench = Bench()
    bench.training()
    bench.model.stop()
    bench.model.cancel()

    assert bench.commands == [Stop(), Cancel()]


def test_stopping_while_the_engine_starts_is_not_forgotten():
    bench = Bench(ready=False)
    job = bench.model.run("train", {})
    bench.model.stop()
    bench.model.apply([ChildStarted(1, LOG), (Ready(1, {}), "")])
    assert bench.model.status == "stopping"
    bench.model.apply([(Finished("train", stopped=True), job)])

    assert bench.commands == [Run("train", {}, job), Stop()]
    assert bench.model.status == "ready"


def test_labels_and_focus_are_told_to_a_running_job_only():
    bench = Bench()
    bench.model.labels_changed()
    bench.model.focus(0, (0, 0, 1, 1))
    for ask in (bench.model.pause, bench.model.resume, bench.model.stop, bench.model.cancel):
        ask()
    assert bench.commands == []
    assert bench.model.status == "ready"

    bench.training()
    bench.model.labels_changed()
    bench.model.focus(2, (1, 2, 3, 4))
    assert bench.commands == [LabelsChanged(), Focus(2, (1, 2, 3, 4))]


def test_a_job_that_fails_leaves_its_sentence_and_a_ready_engine():
    bench = Bench()
    job = bench.model.run("export", {})
    bench.model.apply([(Failed("The folder 'x' is not there: choose another.", True, "trace"), job)])

    assert (bench.model.status, bench.model.job, bench.model.lost_job) == ("ready", None, None)
    assert bench.model.message == "The folder 'x' is not there: choose another."
    assert bench.model.detail == "trace"

    bench.model.run("export", {})
    assert (bench.model.message, bench.model.detail) == ("", "")


@pytest.mark.parametrize(
    ("how", "status", "words"),
    [
        ("crash", -9, "The engine ended without a word during the training (signal SIGKILL)"),
        ("crash", 3, "The engine ended without a word during the training (exit status 3)"),
        ("crash", 3221225477, "(exit status 0xc0000005)"),
        ("hung", None, "The engine gave no sign of life during the training and was ended"),
        ("garbled", None, "The engine talked nonsense during the training and was ended"),
        ("restarted", None, "The engine was ended during the training at your request"),
    ],
)
def test_a_lost_training_is_said_in_a_sentence_with_the_log_and_can_be_resumed(how, status, words):
    bench = Bench()
    job = bench.training()
    bench.model.apply([ChildEnded(how, status, LOG, "last lines", again=True)])

    assert bench.model.status == "failed"
    assert words in bench.model.message
    assert bench.model.message.endswith(f": resume to go on from its last checkpoint; its log is {LOG}.")
    assert bench.model.detail == "last lines"
    assert bench.model.job is None
    assert bench.model.lost_job == Job(job, "train", {"out": "run"}, "/runs/1")

    bench.model.apply([ChildStarted(2, LOG), (Ready(2, {}), "")])
    assert bench.model.status == "ready"
    assert bench.model.message
    again = bench.model.resume_lost()
    assert bench.commands == [Run("train", {"out": "/runs/1", "resume": True}, again)]
    assert (bench.model.lost_job, bench.model.message) == (None, "")


def test_resuming_can_be_declined():
    bench = Bench()
    bench.training()
    bench.model.apply([ChildEnded("crash", -9, LOG)])
    bench.model.forget_lost()

    assert (bench.model.lost_job, bench.model.message) == (None, "")
    with pytest.raises(InputError, match="no lost job"):
        bench.model.resume_lost()


def test_an_engine_that_cannot_start_says_where_its_log_is_and_takes_the_job_with_it():
    bench = Bench(ready=False)
    bench.model.run("predict", {"run": "r"})
    bench.model.apply([ChildStarted(1, LOG), ChildEnded("start", -11, LOG, "Fatal Python error")])

    assert bench.model.status == "failed"
    assert bench.model.message == (
        "The engine could not start (signal SIGSEGV): `napari-semiseg doctor` in a terminal says what is wrong; "
        f"its log is {LOG}."
    )
    assert bench.model.lost_job == Job("predict-1", "predict", {"run": "r"})

    bench.model.resume_lost()
    assert bench.model.status == "starting"


def test_an_idle_end_is_no_failure_and_the_next_job_starts_the_engine():
    bench = Bench()
    bench.model.apply([ChildEnded("idle", 0, LOG)])
    assert (bench.model.status, bench.model.message) == ("idle-ended", "")

    job = bench.model.run("train", {})
    assert bench.model.status == "starting"
    bench.model.apply([ChildStarted(2, LOG), (Ready(2, {}), "")])
    assert bench.model.status == "busy"
    assert bench.model.job.id == job


def test_an_idle_end_that_crossed_with_a_new_job_keeps_that_job():
    bench = Bench()
    job = bench.model.run("train", {})
    bench.model.apply([ChildEnded("idle", 0, LOG, again=True), ChildStarted(2, LOG), (Ready(2, {}), "")])

    assert (bench.model.status, bench.model.job.id) == ("busy", job)


def test_a_renewed_engine_keeps_the_reason_that_its_job_gave():
    bench = Bench()
    job = bench.training()
    bench.model.apply([(Failed("CUDA error", False), job), ChildEnded("renewed", 75, LOG, again=True)])

    assert bench.model.message == "CUDA error"
    assert bench.model.lost_job.run == "/runs/1"


def test_without_torch_the_reason_is_there():
    bench = Bench()
    bench.model.apply([(Failed("PyTorch could not be loaded (ImportError: x): …", False, "trace"), "")])

    assert bench.model.message.startswith("PyTorch could not be loaded")
    assert bench.model.status == "ready"


def test_events_of_an_earlier_job_change_nothing():
    bench = Bench()
    job = bench.training()
    bench.model.apply([(Finished("train"), "train-0"), (Paused(1), "train-0"), (Failed("x", True), "train-0")])

    assert bench.model.job.id == job
    assert (bench.model.status, bench.model.message) == ("busy", "")


def test_the_description_tells_the_devices():
    bench = Bench()
    assert bench.model.devices == []
    devices = [{"name": "cpu", "title": "CPU", "ok": True, "note": ""}]
    bench.model.apply([(Described({"complete": True, "devices": devices}), "")])

    assert bench.model.devices == devices


def test_a_listener_that_fails_does_not_keep_the_rest_from_being_noted():
    bench = Bench()
    job = bench.training()
    bench.model.received.connect(_burst)

    with pytest.raises(Exception, match="widget"):
        bench.model.apply([(Warned("first"), ""), (Finished("train"), job)])

    assert bench.model.job is None
    assert bench.model.status == "ready"


def _burst(job: str, event: object) -> None:
    raise RuntimeError("a widget that is no more")


def test_a_supervisor_that_fails_loses_the_job_but_says_so():
    bench = Bench()
    job = bench.training()
    bench.model.fail(OSError("no pipe"))

    assert bench.model.status == "failed"
    assert bench.model.message == "The connection to the engine broke (OSError: no pipe): restart it."
    assert bench.model.lost_job.id == job


def test_asking_for_a_restart_is_passed_on():
    bench = Bench()
    asked = []
    bench.model.restart_wanted.connect(lambda: asked.append("restart"))
    bench.model.restart()
    bench.model.apply([ChildEnded("restarted", None, LOG, again=True)])

    assert asked == ["restart"]
    assert bench.model.message == ""


def test_the_models_of_the_viewer_need_neither_torch_nor_qt():
    script = (
        "import sys\n"
        "import napari_semiseg.app.engine_model, napari_semiseg.app.engine_watch\n"
        "print(sorted({'torch', 'qtpy', 'napari', 'PyQt6', 'PySide6'} & set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "[]"
