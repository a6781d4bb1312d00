"""The training of a project: asked for, watched, told what has changed, ended, and looked at afterwards."""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from psygnal import Signal

from napari_semiseg.app import words
from napari_semiseg.app.history_model import HistoryModel
from napari_semiseg.app.run_record import Preview, RunRecord, newest_run
from napari_semiseg.app.training_setup import TrainingSetup
from napari_semiseg.errors import InputError
from napari_semiseg.events import (
    GROWN,
    Event,
    Failed,
    Finished,
    Fitted,
    ImagesChanged,
    LabelsRead,
    Paused,
    PreviewWritten,
    Progressed,
    Resumed,
    Started,
    StepDone,
    Unanswered,
    Validated,
    Warned,
)
from napari_semiseg.project.annotations import digests
from napari_semiseg.project.folder import ProjectFolder

if TYPE_CHECKING:
    from pathlib import Path

    from napari_semiseg.app.session import Session

State = Literal["idle", "waiting", "running", "paused", "stopping", "done", "stopped", "canceled", "failed", "lost"]

ACTIVE: tuple[State, ...] = ("waiting", "running", "paused", "stopping")

QUIET_S = 1.0
"""Seconds without a change after which the run is told of new labels."""
LABELS_EVERY_S = 3.0
"""While somebody paints on and on, the run is told this often."""
DRIVER_TRIES = 2
"""How often a training goes on by itself after the graphics driver gave up; then the CPU is offered."""
FOCUS_S = 0.4
"""Seconds that the view must rest before the run is told what is looked at."""


class TrainingModel:
    """What a user would say about the training. Used from one thread; holds neither Qt nor torch.

    Parameters
    ----------
    session : Session
    clock : callable
        Seconds, monotonic.

    Attributes
    ----------
    setup : TrainingSetup
        What the next training will be.
    record : RunRecord
        What has happened in the run that goes on or was last.
    state : State
        ``lost``: the run broke off and can be gone on with.
    job : str
        Id of the engine's job; "" without one.
    doing : str
        What is waited for before the first step, in words.
    images_changed : bool
        The run that broke off was not gone on with, since an image of it is another now; `resume_run` then says that
        it is to be.
    unseen : set of str
        Tiles that were changed and that the run has not read; after its end, what was changed since too.
    """

    changed = Signal()
    """Anything but curves and maps."""
    curves_changed = Signal()
    previews_changed = Signal()
    run_changed = Signal()
    """Another run is looked at."""

    def __init__(self, session: Session, clock: Callable[[], float] = time.monotonic) -> None:
        self.session = session
        self.setup = TrainingSetup(session)
        self.record = RunRecord()
        self.history = HistoryModel(self)
        self.state: State = "idle"
        self.job = ""
        self.doing = ""
        self.images_changed = False
        self.unseen: set[str] = set()
        self._clock = clock
        self._args: dict[str, Any] = {}
        self._begun = False  # whether the engine has begun with the job
        self._failed = ""  # id of the last job, if it ended with an error
        self._driver_losses = 0
        self._edits: dict[str, int] = {}  # how often each tile was changed
        self._told: dict[str, int] = {}  # the tiles that the run was told of last, as often as they were changed then
        self._changed_at = 0.0
        self._untold_since: float | None = None
        self._focus_at: float | None = None
        self._tiles = self._signature()
        project, engine = session.project, session.engine
        project.annotated.connect(self._note_painted)
        project.tiles_changed.connect(self._note_tiles)
        project.classes_changed.connect(self._note_classes)
        project.images_changed.connect(self.changed)
        project.opened.connect(self.load_newest)
        project.closed.connect(self._forget)
        session.visible_changed.connect(self._note_view)
        session.image_changed.connect(self._note_view)
        self.setup.changed.connect(self.changed)
        for name in ("status", "description", "job"):
            engine.events[name].connect(self._on_engine)
        engine.events["lost_job"].connect(self._note_lost)

    # ---- what is asked for ----

    @property
    def why_not(self) -> str:
        """Why Train is disabled, in words; "" if it is not."""
        if self.active:
            return "This training is running."
        return self.setup.why_not

    @property
    def active(self) -> bool:
        """Whether a training runs or is about to."""
        return self.state in ACTIVE

    @property
    def answers(self) -> bool:
        """Whether the engine is at this training, which answers what it is asked from its first step on."""
        job = self.session.engine.job
        return self.active and job is not None and job.id == self.job

    def asked_anew(self, job: str, event: Event, asked_of: str) -> bool:
        """Whether what was asked has to be asked again: a training begins, or the one that was asked has ended.

        Parameters
        ----------
        job, event
            What was heard just now.
        asked_of : str
            The job that was asked; "" for none, where the engine is to answer as soon as it is free.
        """
        if job == asked_of:
            return isinstance(event, Finished | Failed)
        return job == self.job and isinstance(event, Started)

    def request_train(self) -> None:
        """Begin a training as it is set up. Does nothing where `why_not` says why."""
        folder = self.session.project.folder
        if self.why_not or folder is None:
            return
        try:
            out = folder.new_run_dir()
        except InputError as error:
            self.session.tell(str(error), "error")
            return
        self._driver_losses = 0
        self._run(self.setup.args(out), RunRecord(path=out))

    def resume_run(self) -> None:
        """Go on with a run that was broken off, from its last checkpoint that verifies."""
        if self.state != "lost" or self.record.path is None or self.setup.why_none:
            return
        begun = (self.record.path / "run.json").is_file()
        asked = self._args or {"project": str(self.session.project.path)}
        self.record.end = None
        how = {"resume": begun, "changed_images": self.images_changed}
        self._run({**asked, "out": str(self.record.path), **how}, self.record)

    def forget_lost(self) -> None:
        """Leave a broken-off run as it is."""
        if self.state == "lost":
            self._set("stopped" if self.record.usable else "idle")

    def pause(self) -> None:
        """Hold after the present step."""
        if self.state == "running":
            self.session.engine.pause()

    def resume(self) -> None:
        """Go on."""
        if self.state == "paused":
            self.session.engine.resume()

    def stop(self) -> None:
        """End after the present step and keep the best."""
        if self.active:
            self._set("stopping")
            self.session.engine.stop(self.job)

    def cancel(self) -> None:
        """End and discard the run."""
        if self.active:
            self._set("stopping")
            self.session.engine.cancel(self.job)

    def load_newest(self) -> None:
        """Look at the newest run of the project, in the background."""
        folder = self.session.project.folder
        if folder is None or self.active:
            return
        path, runs = folder.path, folder.runs_dir

        def done(record: RunRecord | None) -> None:
            if record is not None and self.session.project.folder is folder and not self.active:
                self._look_at(record)
                self.session.background.submit(
                    lambda: _changed_since(record, path), lambda tiles: compared(record, tiles)
                )

        def compared(record: RunRecord, tiles: set[str]) -> None:
            if self.record is record and self.session.project.folder is folder and not self.active:
                self.unseen |= tiles
                self.changed.emit()

        self.session.background.submit(lambda: newest_run(runs), done)

    def tick(self) -> None:
        """Tell the run what has changed, once it has been quiet for a moment. Called a few times a second."""
        if self.state not in ("running", "paused"):
            return
        now = self._clock()
        self._tell_labels(now)
        if self._focus_at is not None and now - self._focus_at >= FOCUS_S:
            self._focus_at = None
            box, image = self.session.visible_box, self.session.image_index
            if box is not None and image is not None and box.area:
                self.session.engine.focus(image, (box.y0, box.x0, box.y1, box.x1))

    # ---- what is heard ----

    def receive(self, job: str, event: Event) -> None:
        """Take note of an event of the engine."""
        if not job or job != self.job:
            return
        self.record.note(event)
        match event:
            case Progressed(what, _, _):
                self.doing = what
                self.changed.emit()
            case Started():
                self._begun = True
                self.doing = "measuring the speed"
                self._focus_at = self._clock() - FOCUS_S
                self._set("stopping" if self.state == "stopping" else "running")
            case StepDone():
                self.doing = ""
                self.curves_changed.emit()
                self.changed.emit()
            case Validated() | Fitted():
                self.curves_changed.emit()
                self.changed.emit()
            case PreviewWritten():
                self.previews_changed.emit()
            case LabelsRead():
                self.unseen -= {tile for tile, edits in self._told.items() if self._edits.get(tile, 0) == edits}
                self.changed.emit()
            case ImagesChanged():
                self.images_changed = True
            case Paused():
                self._set("stopping" if self.state == "stopping" else "paused")
            case Resumed():
                self._set("stopping" if self.state == "stopping" else "running")
            case Warned(message) | Unanswered(_, message):
                self.session.tell(message, "warning")
                self.changed.emit()
            case Finished() | Failed():
                self._end(event)

    # ---- what is said ----

    @property
    def choice_words(self) -> str:
        """What the run is, or the next would be, in a few words."""
        facts = self.record.facts
        if not (self.active and facts):
            return self.setup.words
        names = {name: _short(title) for name, title in (*self.setup.methods, *self.setup.networks)}
        parts = [names.get(facts.get(key, ""), str(facts.get(key, ""))) for key in ("method", "network")]
        device = dict(self.setup.devices).get(str(facts.get("device")), str(facts.get("device", "")))
        return " · ".join(part for part in (*dict.fromkeys(parts), device.partition(",")[0]) if part)

    @property
    def score_words(self) -> str:
        """The score beside that of the threshold: "yours 0.81 · threshold 0.74"."""
        dice, threshold = self.record.dice.last, self.record.threshold_dice.last
        if self.record.end is not None and self.record.dice.values:
            dice = max(self.record.dice.values)
        known = {name: value for name, value in (("yours", dice), ("threshold", threshold)) if math.isfinite(value)}
        return " · ".join(f"{name} {value:.2f}" for name, value in known.items())

    @property
    def advice(self) -> str:
        """What to do about a run that is over and has not passed the threshold that needs no training; or ""."""
        dice, threshold = self.record.dice.values, self.record.threshold_dice.last
        if self.state not in ("done", "stopped") or not dice or not math.isfinite(threshold) or max(dice) >= threshold:
            return ""
        return (
            "The threshold that needs no training still scores better on your tiles: "
            "train longer, or mark more tiles complete."
        )

    @property
    def time_words(self) -> str:
        """Time left and speed: "1:32 left · 14 steps/s"."""
        match self.state:
            case "waiting":
                return self.doing or self.session.engine.start_words(self.job)
            case "stopping":
                return "ending after this step"
            case "paused":
                return f"paused at step {self.record.step:,}"
        if self.state != "running":
            return self.outcome_words
        left = words.clock(self.record.eta_s)
        parts = [f"{left} left" if left else self.doing, words.rate(self.record.rate)]
        return " · ".join(part for part in parts if part)

    @property
    def outcome_words(self) -> str:
        """How the last run ended."""
        step = f"step {self.record.step:,}"
        match self.state:
            case "done":
                return f"trained · {step}"
            case "stopped":
                return f"stopped at {step} · the best was kept"
            case "canceled":
                return "canceled · nothing was kept"
            case "failed":
                return "ended with an error"
            case "lost":
                return f"broken off at {step}"
        return ""

    @property
    def seen_words(self) -> str:
        """Which labels the run has seen."""
        if not self.record.facts:
            return ""
        if not self.setup.uses_labels(str(self.record.facts.get("method", ""))):
            return "learns without labels"
        tiles, nuclei = words.count(self.record.tiles, "tile"), words.count(self.record.nuclei, "nucleus", "nuclei")
        verb = "learns" if self.active else "learned"
        changed = f" · {words.count(len(self.unseen), 'tile')} changed since" if self.unseen else ""
        return f"{verb} from {tiles} · {nuclei}{changed}"

    @property
    def share_done(self) -> float:
        """How much of the run is done, 0 to 1."""
        return min(1.0, self.record.step / self.record.total) if self.record.total else 0.0

    def previews(self, image: int | None) -> list[Preview]:
        """Return the kept maps of an image, in order of steps. Not to be changed."""
        return [] if image is None else self.record.previews.get(image, [])

    @property
    def young(self) -> bool:
        """Whether a network is being trained that is not worth asking yet: see `GROWN`."""
        if not self.active:
            return False
        dice, threshold = self.record.dice, self.record.threshold_dice
        return max(dice.values) <= threshold.last if dice.values else self.record.step < GROWN

    @property
    def run(self) -> Path | None:
        """The run that something can be predicted with; None where there is none."""
        return self.record.path if not self.active and self.state != "canceled" and self.record.usable else None

    # ---- inner ----

    def _run(self, args: dict[str, Any], record: RunRecord) -> None:
        try:
            job = self.session.engine.run("train", args, when_busy="wait")
        except InputError as error:
            self.session.tell(str(error), "error")
            return
        self.job, self._args, self.record, self._begun = job, args, record, False
        self.images_changed = False
        self.doing, self.unseen, self._untold_since = "", set(), None
        self._edits, self._told = {}, {}
        self._tiles = self._signature()
        if self.session.project.saved_words == "saving…":
            self._note_change()  # a stroke of a moment ago comes in as soon as it is saved
        self.session.hush()
        self._set("waiting")
        self.run_changed.emit()
        self.curves_changed.emit()
        self.previews_changed.emit()

    def _look_at(self, record: RunRecord) -> None:
        self.record, self.job, self._args, self.unseen = record, "", {}, set()
        self.images_changed = False
        match record.end:
            case Finished(canceled=True):
                self.state = "canceled"
            case Finished(stopped=True):
                self.state = "stopped"
            case Finished():
                self.state = "done"
            case _:
                self.state = "idle" if self.session.project.read_only else "lost"
        self.run_changed.emit()
        self.curves_changed.emit()
        self.previews_changed.emit()
        self.changed.emit()

    def _forget(self) -> None:
        if self.active:
            self.session.engine.stop(self.job)
        self.record, self.job, self._args = RunRecord(), "", {}
        self.unseen, self.images_changed = set(), False
        self.state = "idle"
        self.run_changed.emit()
        self.curves_changed.emit()
        self.previews_changed.emit()
        self.changed.emit()

    def _end(self, event: Finished | Failed) -> None:
        self._failed = self.job if isinstance(event, Failed) else ""
        self.job, self.doing = "", ""
        if isinstance(event, Failed) and self.images_changed:
            self.record.end = None
            self._set("lost")  # as before, until somebody says what is to become of it
        elif isinstance(event, Failed):
            self._set("failed")
        elif event.canceled and not self._begun and self._args.get("resume"):
            self.record.end = None
            self._set("lost")  # as before: it can be gone on with
        elif event.canceled:
            if self.record.path is not None and not self._begun:
                with contextlib.suppress(OSError):  # of what was not begun nothing is left but an empty folder
                    self.record.path.rmdir()
            self.record, self.unseen = RunRecord(), set()
            self._set("canceled")
            self.run_changed.emit()
            self.curves_changed.emit()
            self.previews_changed.emit()
        else:
            self._set("stopped" if event.stopped else "done")

    def _note_lost(self) -> None:
        lost = self.session.engine.lost_job
        if lost is None:
            return
        if lost.id == self.job:
            self.job, self.doing = "", ""
            self._set("lost")
        elif lost.id == self._failed:
            self._note_driver_lost()

    def _note_driver_lost(self) -> None:
        """Go on in the new process; where that has not helped, offer the CPU."""
        self._driver_losses += 1
        self._set("lost")
        if self._driver_losses <= DRIVER_TRIES:
            step = self.record.step
            self.resume_run()
            self.session.tell(
                f"The graphics driver gave up at step {step:,}: the training goes on from its last checkpoint.",
                "warning",
            )
            return
        self._args["device"] = "cpu"
        self.session.tell(
            f"The graphics driver gave up {self._driver_losses} times in this training: press “Resume” to go on from "
            "its last checkpoint on the CPU.",
            "error",
        )

    def _on_engine(self) -> None:
        self.changed.emit()

    def _note_painted(self, tile_id: str) -> None:
        if self._has_seen_labels:
            self._note_edited({tile_id})
            self.changed.emit()

    def _note_tiles(self) -> None:
        tiles = self._signature()
        if tiles != self._tiles:
            if self._has_seen_labels:
                self._note_edited({tile_id for tile_id, *_ in tiles ^ self._tiles})
            self._tiles = tiles
        self.changed.emit()

    def _note_classes(self) -> None:
        if self.active:  # it calls them what they are called, and says which of them it does not know
            self._note_change()
        self.changed.emit()

    def _note_edited(self, tiles: set[str]) -> None:
        self.unseen |= tiles
        self._edits |= {tile: self._edits.get(tile, 0) + 1 for tile in tiles}
        self._note_change()

    @property
    def _has_seen_labels(self) -> bool:
        """Whether there is a run that may have learned from what is changed now."""
        return self.active or bool(self.record.facts)

    def _note_change(self) -> None:
        self._changed_at = self._clock()
        if self._untold_since is None:
            self._untold_since = self._changed_at

    def _tell_labels(self, now: float) -> None:
        """Tell the run of new labels once they are on the disk; while somebody paints on and on, of those that are."""
        if self._untold_since is None:
            return
        saving = self.session.project.saved_words == "saving…"
        if now - self._untold_since < LABELS_EVERY_S and (saving or now - self._changed_at < QUIET_S):
            return
        if saving:  # what is on the disk comes in now, and the last stroke with the next time
            self._untold_since, self._told = now, {}
        else:
            self._untold_since, self._told = None, {tile: self._edits.get(tile, 0) for tile in self.unseen}
        if self.setup.uses_labels(str(self.record.facts.get("method", ""))):
            self.session.engine.labels_changed()

    def _signature(self) -> set[tuple[str, str, str]]:
        return {(tile.id, tile.status, tile.role) for tile in self.session.project.tiles}

    def _note_view(self) -> None:
        self._focus_at = self._clock()

    def _set(self, state: State) -> None:
        self.state = state
        self.changed.emit()


def _short(title: str) -> str:
    """Return the abbreviation that a title ends with in brackets, or else the title."""
    found = re.search(r"\(([A-Z][\w+-]*)\)$", title)
    return found.group(1) if found else title


def _changed_since(record: RunRecord, project: Path) -> set[str]:
    """Return the tiles of a project that are not as a run has seen them. Not for the GUI thread."""
    if record.seen is None:
        return set()
    try:
        with ProjectFolder.open(project, read_only=True) as folder:
            return record.unseen(digests(folder))
    except (InputError, OSError):  # what of a project cannot be read is said where it is opened
        return set()
