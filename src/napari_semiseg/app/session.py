"""What one viewer works on: its project, the engine that computes for it, and what is in view."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from psygnal import Signal

from napari_semiseg.app import words
from napari_semiseg.app.background import Background
from napari_semiseg.app.engine_model import EngineModel
from napari_semiseg.app.export_model import ExportModel
from napari_semiseg.app.inspection_model import InspectionModel
from napari_semiseg.app.project_model import ProjectModel
from napari_semiseg.app.review_model import ReviewModel
from napari_semiseg.app.training_model import TrainingModel
from napari_semiseg.blocks import Box
from napari_semiseg.errors import InputError
from napari_semiseg.events import ASIDE, Event, Failed, Finished

Level = Literal["info", "warning", "error"]

_LONG = {"train": "training", "predict": "segmentation", "export": "export"}


@dataclass(frozen=True)
class Notice:
    """One plain sentence for the user.

    Attributes
    ----------
    sentence : str
        Shown as it is, never as HTML.
    level : {"info", "warning", "error"}
    details : str
        For whoever mends it: behind a button that copies it.
    actions : tuple of (str, callable)
        What can be done about it: a button each.
    """

    sentence: str
    level: Level = "info"
    details: str = ""
    actions: tuple[tuple[str, Callable[[], object]], ...] = ()


@dataclass(frozen=True)
class _Errand:
    verb: str
    args: Mapping[str, Any]
    listen: Callable[[Event], object]
    purpose: str

    @property
    def only_looks(self) -> bool:
        """Whether it leaves everything but a file of its own as it is, so that it may be done beside a training."""
        return self.verb in ASIDE and not self.args.get("apply")


@dataclass
class Session:
    """What one viewer works on. Used from one thread; holds neither Qt nor torch.

    Attributes
    ----------
    engine : EngineModel
        The process that computes.
    project : ProjectModel
    background : Background
        A thread for reading files; its owner calls `deliver` a few times a second.
    pictures : Background
        A thread for pixels of the image that are only looked at: a slow disk holds up pictures, and no tile.
        What is foreseen is any error: the layer may be somebody else's.
    image_index : int or None
        Index, in the project, of the image in view. None without a project.
    visible_box : Box or None
        What is in view, in pixels of level 0 of that image; kept by the plugin.
    notice : Notice or None
        What was said last.

    Notes
    -----
    The models of the later steps, `training`, `inspection`, `review` and `exporting`, are made with the session as
    their only argument; they hear the engine through `receive(job, event)`, and put what they have to say through
    `tell`.
    """

    engine: EngineModel = field(default_factory=EngineModel)
    project: ProjectModel = field(default_factory=ProjectModel)
    background: Background = field(default_factory=lambda: Background("reading for the dock"))
    pictures: Background = field(default_factory=lambda: Background("pictures for the dock", foreseen=(Exception,)))
    image_index: int | None = None
    visible_box: Box | None = None
    notice: Notice | None = None

    told = Signal(object)
    """A `Notice`, or None to clear it."""
    image_changed = Signal()
    """`image_index` is another one."""
    visible_changed = Signal()
    ended = Signal()
    """The dock closes: let go of everything."""

    def __post_init__(self) -> None:
        self._errands: deque[_Errand] = deque()
        self._listening: dict[str, Callable[[Event], object]] = {}
        self.engine.received.connect(self._receive)
        self.engine.events["lost_job"].connect(self._note_lost)
        self.project.failed.connect(lambda sentence: self.tell(sentence, "error"))
        self.project.closed.connect(self._forget_image)
        self.training = TrainingModel(self)
        self.inspection = InspectionModel(self)
        self.review = ReviewModel(self)
        self.exporting = ExportModel(self)

    # ---- what is said ----

    def tell(
        self,
        sentence: str,
        level: Level = "info",
        *,
        details: str = "",
        actions: tuple[tuple[str, Callable[[], object]], ...] = (),
    ) -> None:
        """Say something to the user, in one plain sentence."""
        self.notice = Notice(sentence, level, details, actions)
        self.told.emit(self.notice)

    def hush(self) -> None:
        """Take back what was said last."""
        self.notice = None
        self.told.emit(None)

    # ---- what is in view ----

    def show_image(self, index: int | None) -> None:
        """Note which image of the project is in view; the tile that is chosen is one of it."""
        if index != self.image_index:
            self.image_index = index
            self.image_changed.emit()
            if index is not None:
                self._choose_tile(index)

    def _choose_tile(self, image: int) -> None:
        chosen = self.project.tile(self.project.selected)
        if chosen is not None and chosen.image != image:
            there = [tile.id for tile in self.project.tiles if tile.image == image]
            self.project.select(there[-1] if there else "")

    def show_box(self, box: Box | None) -> None:
        """Note which part of it is in view."""
        if box != self.visible_box:
            self.visible_box = box
            self.visible_changed.emit()

    # ---- small jobs for the engine ----

    def ask(self, verb: str, args: Mapping[str, Any], listen: Callable[[Event], object], *, purpose: str = "") -> None:
        """Have the engine do a small job as soon as it can; `listen` gets every event of it.

        Beside a training it does what only looks at results (`ASIDE`); everything else waits until it is free.
        A job of the same verb and for the same purpose that still waits is replaced.
        """
        waiting = (errand for errand in self._errands if (errand.verb, errand.purpose) != (verb, purpose))
        self._errands = deque([*waiting, _Errand(verb, dict(args), listen, purpose)])
        self.run_errands()

    def drop_errands(self, verb: str, purpose: str | None = None) -> None:
        """Forget what waits, and listen no longer to what runs; or forget only what waits for a purpose."""
        if purpose is not None:
            kept = (errand for errand in self._errands if (errand.verb, errand.purpose) != (verb, purpose))
            self._errands = deque(kept)
            return
        self._errands = deque(errand for errand in self._errands if errand.verb != verb)
        self._listening = {job: listen for job, listen in self._listening.items() if not job.startswith(f"{verb}-")}

    def waits(self, *verbs: str, purpose: str = "") -> str:
        """Say what a small job of one of these verbs waits for, as `wait_words`; "" where none does."""
        waits = any(errand.verb in verbs and errand.purpose == purpose for errand in self._errands)
        return self.wait_words if waits else ""

    @property
    def wait_words(self) -> str:
        """What waits for a long job, or for an engine that has ended: "waits for the training, about 3 min left"."""
        if self.engine.status == "failed":
            return "waits for the engine, which has ended: restart it in step 3"
        job = next((job for job in self.engine.jobs if job.verb in _LONG), None)
        if job is None:
            return ""
        noun = "measurement" if job.verb == "export" and self.review.measuring else _LONG[job.verb]
        state, left_s = "", math.nan
        if job.verb == "train":
            state, left_s = self.training.state, self.training.record.eta_s
        elif job.verb == "predict":
            state, left_s = self.review.state, self.review.eta_s
        match state:
            case "running" if math.isfinite(left_s):
                how = f", {words.about(left_s / 60)} left"
            case "paused":
                how = ", which is paused"
            case "stopping":
                how = ", which is ending"
            case _:
                how = ""
        return f"waits for the {noun}{how}"

    def run_errands(self) -> None:
        """Start what waits if the engine is free for it. The dock also calls this now and then."""
        engine = self.engine
        if not self._errands or engine.status in ("failed", "stopping"):
            return
        if not engine.jobs:
            self._start(self._errands[0], engine.run)
        elif engine.takes_aside:
            small = next((errand for errand in self._errands if errand.only_looks), None)
            if small is not None:
                self._start(small, engine.run_aside)

    def _start(self, errand: _Errand, run: Callable[[str, Mapping[str, Any]], str]) -> None:
        self._errands.remove(errand)
        try:
            job = run(errand.verb, errand.args)
        except InputError as error:
            errand.listen(Failed(str(error), wrong_input=True))
        else:
            self._listening[job] = errand.listen

    def end(self) -> None:
        """Save what is left and let go of everything. The engine is ended by its supervisor."""
        self.engine.received.disconnect(self._receive, missing_ok=True)
        self.engine.events["lost_job"].disconnect(self._note_lost, missing_ok=True)
        self._errands.clear()
        self._listening.clear()
        self.ended.emit()
        self.project.end()
        self.background.end()
        self.pictures.end()

    def deliver(self) -> None:
        """Hand over what the two threads have done."""
        self.background.deliver()
        self.pictures.deliver()

    def tick(self) -> None:
        """Do what is due: the dock calls this a few times a second."""
        self.project.tick()
        self.training.tick()
        self.review.tick()
        self.run_errands()

    def _receive(self, job: str, event: Event) -> None:
        for model in (self.training, self.inspection, self.review, self.exporting):
            model.receive(job, event)
        listen = self._listening.get(job)
        if listen:
            if isinstance(event, Finished | Failed):
                del self._listening[job]
            listen(event)
        if isinstance(event, Finished):
            self.run_errands()

    def _note_lost(self) -> None:
        """Tell whoever waits for a small job that the engine died of it: nobody is to wait on."""
        lost = self.engine.lost_job
        listen = self._listening.pop(lost.id, None) if lost is not None else None
        if listen:
            listen(Failed(self.engine.message, wrong_input=False, detail=self.engine.detail))

    def _forget_image(self) -> None:
        if self.notice is not None and self.notice.actions:
            self.hush()  # what could be done there is nothing to do in another project
        self.show_image(None)
        self.show_box(None)
