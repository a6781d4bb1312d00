"""The engine as the dock sees it: what it is doing, what it can do, and what went wrong."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, TypeAlias

from psygnal import Signal, SignalGroupDescriptor

from napari_semiseg.errors import InputError
from napari_semiseg.events import (
    Cancel,
    Command,
    Described,
    Event,
    Failed,
    Finished,
    Focus,
    Heartbeat,
    Inspect,
    LabelsChanged,
    Pause,
    Paused,
    ProposeNuclei,
    Ready,
    Resume,
    Resumed,
    Run,
    Started,
    Stop,
    SuggestTiles,
)

Status = Literal["starting", "ready", "busy", "paused", "stopping", "idle-ended", "failed"]

Ending = Literal["idle", "closed", "renewed", "restarted", "start", "crash", "hung", "garbled"]
"""How a child ended: nobody wanted anything; napari closes; it asked for a new one; the user asked for a new one; it
never became ready; it ended without a word; it gave no sign of life; it talked nonsense."""


@dataclass(frozen=True)
class ChildStarted:
    """The supervisor has started a child, whose stderr goes to the file `log`."""

    pid: int
    log: str


@dataclass(frozen=True)
class ChildEnded:
    """A child has ended or was ended.

    Attributes
    ----------
    how : Ending
    status : int or None
        Exit status, negative for a signal.
    log : str
        Path of its log.
    detail : str
        End of its log, or what the system said.
    again : bool
        Whether a new one is being started.
    """

    how: Ending
    status: int | None = None
    log: str = ""
    detail: str = ""
    again: bool = False


Batch: TypeAlias = Iterable[tuple[Event, str] | ChildStarted | ChildEnded]
"""What the supervisor hands over: events, each with its job, and what became of the child."""


@dataclass(frozen=True)
class Job:
    """A job that was asked for and is not over. `run` is its run folder, once that is known."""

    id: str
    verb: str
    args: Mapping[str, Any]
    run: str = ""


_NOUNS = {
    "train": "training",
    "predict": "prediction",
    "suggest": "suggestion of tiles",
    "split": "splitting of nuclei",
    "propose": "proposal",
    "doubtful": "search for doubtful nuclei",
    "compare": "comparison",
    "region": "measurement of a region",
    "export": "export",
    "inspect": "look inside",
}


@dataclass
class EngineModel:
    """State of the engine, of the one job that it may be doing, and of those that wait. Used from one thread.

    Attributes
    ----------
    status : Status
    message : str
        What went wrong last, in one plain sentence; "" once something new is started.
    detail : str
        What belongs to `message` and helps whoever mends it: a traceback, or the end of the log.
    log : str
        Path of the engine's log.
    versions : dict
        Versions of Python and of the packages that compute.
    description : dict
        Answer to `Describe`; its ``complete`` is false while torch is still being loaded, and it is empty before that.
    rss_bytes : int
        Memory of the child.
    job : Job or None
        The job that runs or is about to.
    waiting : tuple of Job
        Jobs that start when it is over, in the order in which they were asked for. One that never will start (it is
        stopped, or the engine dies) ends as a canceled job does: `received` says `Finished`.
    aside : Job or None
        The small job that runs beside a training. If the engine dies, `received` says `Failed`.
    lost_job : Job or None
        The job that a child took with it; `resume_lost` goes on with it. Also a training that failed with the graphics
        driver, once its child has made room for a new one.
    """

    status: Status = "starting"
    message: str = ""
    detail: str = ""
    log: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    description: dict[str, Any] = field(default_factory=dict)
    rss_bytes: int = 0
    job: Job | None = None
    waiting: tuple[Job, ...] = ()
    aside: Job | None = None
    lost_job: Job | None = None

    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()
    received = Signal(str, Event)
    """(job, event): every event but heartbeats, after this model took note of it; job is "" for the process's own."""
    commanded = Signal(Command)
    """What the supervisor is to send."""
    restart_wanted = Signal()

    def __post_init__(self) -> None:
        self._numbers = itertools.count(1)
        self._hold = False  # whether the job was last asked to pause
        self._failed: Job | None = None  # the last job, if it ended with an error

    @property
    def devices(self) -> list[dict[str, Any]]:
        """Devices, each with `name`, `title`, `ok` and `note`; empty until they were tested."""
        return list(self.description.get("devices", []))

    @property
    def jobs(self) -> tuple[Job, ...]:
        """All that was asked for and is not over: the job that runs, and those that wait."""
        return (self.job, *self.waiting) if self.job else self.waiting

    def start_words(self, job: str) -> str:
        """Say why a job has not begun yet."""
        if self.job is None or self.job.id == job:
            return "the engine is starting"
        return f"waits for the {_noun(self.job.verb)}"

    # What the dock asks for

    def run(self, verb: str, args: Mapping[str, Any], *, when_busy: Literal["refuse", "wait"] = "refuse") -> str:
        """Ask for a job.

        Parameters
        ----------
        verb : str
            One of those of `engine.serve`.
        args : mapping
            That verb's options.
        when_busy : {"refuse", "wait"}
            `wait`: start once the present job is over, and those that wait already.

        Returns
        -------
        str
            The job's id, which comes with its events. Asking again for exactly what is already running gives the same
            id, and no second job.

        Raises
        ------
        InputError
            If another job runs.
        """
        if self.jobs and when_busy == "refuse":
            for known in self.jobs:
                if (known.verb, dict(known.args)) == (verb, dict(args)):
                    return known.id
            raise InputError(f"The {_noun(self.jobs[0].verb)} is still running: wait for its end or stop it first.")
        job = Job(f"{verb}-{next(self._numbers)}", verb, dict(args))
        if self.jobs:
            self.waiting = (*self.waiting, job)
        else:
            self._start(job)
        return job.id

    @property
    def takes_aside(self) -> bool:
        """Whether a training runs beside which a small job can be done."""
        return self.job is not None and self.job.verb == "train" and self.aside is None

    def run_aside(self, verb: str, args: Mapping[str, Any]) -> str:
        """Ask for a small job beside the training: one that needs no torch and writes nothing that a user keeps.

        Returns
        -------
        str
            The job's id, which comes with its events.

        Raises
        ------
        InputError
            If no training runs, or another small job runs beside it.
        """
        if not self.takes_aside:
            raise InputError(f"There is no training beside which the {_noun(verb)} could run: ask again.")
        self.aside = Job(f"{verb}-{next(self._numbers)}", verb, dict(args))
        self.commanded.emit(Run(verb, dict(args), self.aside.id, aside=True))
        return self.aside.id

    def resume_lost(self) -> str:
        """Ask again for the job that was lost, from its last checkpoint where it has one; return the new job's id.

        Raises
        ------
        InputError
            If none was lost, or another job runs.
        """
        if self.lost_job is None:
            raise InputError("There is no lost job to resume: start a new one.")
        lost = self.lost_job
        again = {"out": lost.run, "resume": True} if lost.verb == "train" and lost.run else {}
        return self.run(lost.verb, {**lost.args, **again})

    def forget_lost(self) -> None:
        """Decline to resume."""
        self.lost_job = None
        self.message = self.detail = ""

    def pause(self) -> None:
        """Ask the job to hold."""
        if self.job and not self._hold and self.status != "stopping":
            self._hold = True
            self.commanded.emit(Pause())

    def resume(self) -> None:
        """Ask the job to go on."""
        if self.job and self._hold and self.status != "stopping":
            self._hold = False
            self.commanded.emit(Resume())

    def stop(self, job: str = "") -> None:
        """Ask a job to end and keep its best: by default the one that runs. One that waits is dropped."""
        if not self._drop(job) and self._runs(job) and self.status != "stopping":
            self.status = "stopping"
            self.commanded.emit(Stop())

    def cancel(self, job: str = "") -> None:
        """Ask a job to end and discard its result, also after it was asked to stop; else as `stop`."""
        if not self._drop(job) and self._runs(job):
            self.status = "stopping"
            self.commanded.emit(Cancel())

    def labels_changed(self) -> None:
        """Tell the job that annotations on disk have changed."""
        if self.job:
            self.commanded.emit(LabelsChanged())

    def focus(self, image: int, box: tuple[int, int, int, int]) -> None:
        """Tell the job which rectangle is looked at: y0, x0, y1, x1 in level-0 pixels of an image."""
        if self.job:
            self.commanded.emit(Focus(image, box))

    def propose(self, image: int, box: tuple[int, int, int, int], path: str) -> None:
        """Ask the training for the nuclei of a rectangle (as in `focus`), to be written into a file (.npy)."""
        if self.job:
            self.commanded.emit(ProposeNuclei(image, box, path))

    def suggest(self, image: int | None, side: int, n: int) -> None:
        """Ask the training for places for tiles of `side` pixels, in one image or all, where it is in doubt."""
        if self.job:
            self.commanded.emit(SuggestTiles(image, side, n))

    def inspect(self, show: str, image: int, box: tuple[int, int, int, int]) -> None:
        """Ask the training for a look inside its method over a rectangle (as in `focus`)."""
        if self.job:
            self.commanded.emit(Inspect(show, image, box))

    def restart(self) -> None:
        """End the child, and its job with it, and start a new one: for a job that no longer answers."""
        self.restart_wanted.emit()

    # What the supervisor tells

    def apply(self, batch: Batch) -> None:
        """Take note of what happened, in order.

        A listener that fails does not keep the rest from being noted; the first failure is raised afterwards.
        """
        failures = []
        for item in batch:
            try:
                self._apply_one(item)
            except Exception as error:
                failures.append(error)
        if failures:
            raise failures[0]

    def fail(self, error: Exception) -> None:
        """Take note that the supervisor itself has failed."""
        why = f"{type(error).__name__}: {error}"
        self.message = f"The connection to the engine broke ({why}){_not_begun(self.waiting)}: restart it."
        self._lose_jobs()
        self._lose_aside()

    def _apply_one(self, item: tuple[Event, str] | ChildStarted | ChildEnded) -> None:
        match item:
            case ChildStarted(_, log):
                self.log = log
                if self.status != "stopping":
                    self.status = "starting"
            case ChildEnded():
                self._note_end(item)
                self._lose_aside()
            case (event, job):
                self._note(event, job)
                if not isinstance(event, Heartbeat):
                    self.received.emit(job, event)
                if self.job is None and self.waiting and self.status == "ready":
                    first, *rest = self.waiting
                    self.waiting = tuple(rest)
                    self._start(first)

    def _note(self, event: Event, job: str) -> None:
        match event:
            case Heartbeat(rss_bytes):
                self.rss_bytes = rss_bytes
            case Ready(_, versions):
                self.versions = versions
                if self.status != "stopping":
                    self.status = "busy" if self.job else "ready"
            case Described(description):
                self.description = description
            case Failed(message, _, detail) if not job:
                self.message, self.detail = message, detail
        if self.job and job == self.job.id:
            self._note_job(self.job, event)
        if self.aside and job == self.aside.id and isinstance(event, Finished | Failed):
            self.aside = None
            if isinstance(event, Failed):
                self.message, self.detail = event.message, event.detail

    def _note_job(self, job: Job, event: Event) -> None:
        match event:
            case Started(_, run):
                self.job = replace(job, run=run)
            case Paused() if self.status != "stopping":
                self.status = "paused"
            case Resumed() if self.status != "stopping":
                self.status = "busy"
            case Finished() | Failed():
                self.job = None
                self.status = "ready"
                if isinstance(event, Failed):
                    self._failed = job
                    self.message, self.detail = event.message, event.detail

    def _note_end(self, end: ChildEnded) -> None:
        self.rss_bytes = 0
        if end.how == "closed":
            self.job, self.waiting = None, ()
        if end.how in ("idle", "closed", "renewed") or (end.how == "restarted" and not self.job):
            if not end.again:
                self.status = "idle-ended"
            if end.how == "renewed" and self._failed and self._failed.verb == "train":
                self.lost_job = self._failed
            return
        self.message = _sentence(end, self.job, self.waiting)
        self.detail = end.detail
        self._lose_jobs()

    def _start(self, job: Job) -> None:
        self.message = self.detail = ""
        self.lost_job = self._failed = None
        self.job = job
        self._hold = False
        self.status = "busy" if self.status == "ready" else "starting"
        self.commanded.emit(Run(job.verb, dict(job.args), job.id))

    def _lose_jobs(self) -> None:
        if self.job:
            self.lost_job = self.job
        self.job = None
        self.status = "failed"
        for job in self.waiting:
            self._drop(job.id)

    def _lose_aside(self) -> None:
        lost, self.aside = self.aside, None
        if lost:
            message = self.message or f"The engine ended during the {_noun(lost.verb)}: ask again."
            self.received.emit(lost.id, Failed(message, wrong_input=False, detail=self.detail))

    def _runs(self, job: str) -> bool:
        return self.job is not None and job in ("", self.job.id)

    def _drop(self, job: str) -> bool:
        """Take a job out of those that wait, and return whether it was one of them."""
        dropped = [known for known in self.waiting if known.id == job]
        self.waiting = tuple(known for known in self.waiting if known.id != job)
        for known in dropped:
            self.received.emit(job, Finished(known.verb, stopped=True, canceled=True))
        return bool(dropped)


def _noun(verb: str) -> str:
    return _NOUNS.get(verb, verb)


def _not_begun(waiting: tuple[Job, ...]) -> str:
    """Say what a child had no time to begin with."""
    nouns = " and the ".join(_noun(job.verb) for job in waiting)
    return f", and the {nouns} that waited did not begin" if waiting else ""


def _sentence(end: ChildEnded, job: Job | None, waiting: tuple[Job, ...]) -> str:
    """Say what became of a child, without guessing why."""
    during = f" during the {_noun(job.verb)}" if job else ""
    match end.how:
        case "start":
            what = f"The engine could not start ({_exit(end.status)})"
        case "hung":
            what = f"The engine gave no sign of life{during} and was ended"
        case "garbled":
            what = f"The engine talked nonsense{during} and was ended"
        case "restarted":
            what = f"The engine was ended{during} at your request"
        case _:
            what = f"The engine ended without a word{during} ({_exit(end.status)})"
    if job and job.verb == "train" and job.run:
        next_step = "resume to go on from its last checkpoint"
    elif end.how == "start":
        next_step = "`napari-semiseg doctor` in a terminal says what is wrong"
    else:
        next_step = "start again"
    log = f"; its log is {end.log}" if end.log else ""
    return f"{what}{_not_begun(waiting)}: {next_step}{log}."


def _exit(status: int | None) -> str:
    if status is None:
        return "no exit status"
    if status >= 0:
        return f"exit status {status}" if status < 2**16 else f"exit status {status:#x}"  # Windows counts upwards
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-status}"
