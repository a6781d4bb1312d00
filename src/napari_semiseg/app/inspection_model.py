"""Looks inside a method: of the training that goes on, or of the run that was last."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_semiseg.events import Event, Failed, Finished, Unanswered, Written
from napari_semiseg.io.diagnostics import Look, read_look

if TYPE_CHECKING:
    from napari_semiseg.app.session import Session


class InspectionModel:
    """What can be looked at, and what was seen last. Used from one thread; holds neither Qt nor torch.

    Parameters
    ----------
    session : Session

    Attributes
    ----------
    look : Look or None
        What was seen last; None where nothing is shown.
    image : int
        Index of the image that it is of.
    waiting : str
        Title of what was asked for and is not there yet; "" for nothing.
    """

    changed = Signal()

    def __init__(self, session: Session) -> None:
        self.session = session
        self.look: Look | None = None
        self.image = 0
        self.waiting = ""
        self._asked = 0  # so that the answer to an earlier question is not taken for that to a later one
        self._live = False
        session.training.run_changed.connect(self.clear)
        session.image_changed.connect(self.clear)
        session.project.closed.connect(self.clear)

    @property
    def offered(self) -> list[tuple[str, str]]:
        """What can be looked at in the present run, each with its title; empty where there is none."""
        record, description = self.session.training.record, self.session.engine.description
        methods = {each["name"]: each for each in description.get("methods", [])}
        method = methods.get(record.facts.get("method"), {})
        titles = {look["name"]: look["title"] for look in description.get("looks", [])} if method else {}
        if "method" in titles:
            titles["method"] = method.get("shows", "")
        if method.get("network") == "none":  # which has no features
            titles = {name: title for name, title in titles.items() if name in ("agreement", "confusion")}
        return [(name, title) for name, title in titles.items() if title]

    @property
    def why_not(self) -> str:
        """Why nothing can be asked for now, in words; "" if something can."""
        training = self.session.training
        if self.waiting:
            return "Looking inside."
        if self.session.image_index is None or self.session.visible_box is None:
            return "No image of the project is in view."
        if training.state in ("running", "paused"):
            return ""
        if training.active:
            return "The training has not begun yet." if training.state == "waiting" else "The training is ending."
        return "" if training.run is not None else "There is no run to look inside."

    def ask(self, show: str) -> None:
        """Look inside, at what is in view. Does nothing where `why_not` says why."""
        box, image = self.session.visible_box, self.session.image_index
        if self.why_not or box is None or image is None:
            return
        self._asked += 1
        number, where = self._asked, (box.y0, box.x0, box.y1, box.x1)
        self.waiting = dict(self.offered).get(show, show)
        training = self.session.training
        self._live = training.active
        if self._live:
            self.session.engine.inspect(show, image, where)
        else:
            args: dict[str, Any] = {"run": str(training.run), "show": (show,), "box": where, "image": image}
            self.session.ask("inspect", args, lambda event: self._hear(number, event))
        self.changed.emit()

    def clear(self) -> None:
        """Show nothing any more, and wait for nothing."""
        self._asked += 1
        self.look, self.waiting = None, ""
        self.changed.emit()

    def receive(self, job: str, event: Event) -> None:
        """Take note of an event of the engine."""
        if self.waiting and self._live and job and job == self.session.training.job:
            self._hear(self._asked, event)

    def _hear(self, number: int, event: Event) -> None:
        if number != self._asked:
            return
        match event:
            case Written("look", path, facts):
                self.session.background.submit(
                    lambda: read_look(Path(path)),
                    lambda look: self._show(number, look, int(facts.get("image", 0))),
                    lambda error: self._fail(number, str(error)),
                )
            case Failed(message):
                self._fail(number, message)
            case Unanswered("Inspect") if self._live:  # the training has said why not, and the session has told it
                self._fail(number, "")
            case Finished() if self._live:
                self._fail(number, "")

    def _show(self, number: int, look: Look, image: int) -> None:
        if number == self._asked:
            self.look, self.image, self.waiting = look, image, ""
            self.changed.emit()

    def _fail(self, number: int, sentence: str) -> None:
        if number == self._asked:
            self.waiting = ""
            if sentence:
                self.session.tell(sentence, "warning")
            self.changed.emit()
