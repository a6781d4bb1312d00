"""Tiles that are worth painting next, as the engine suggests them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psygnal import Signal

from napari_semiseg.app.session import Session
from napari_semiseg.blocks import Box
from napari_semiseg.events import Event, Failed, Finished, Progressed, Suggested, Unanswered, Warned
from napari_semiseg.project.schema import Tile

COUNT = 6


@dataclass(frozen=True)
class Suggestion:
    """A place for a tile, and why."""

    image: int
    box: Box
    reason: str


class Suggestions:
    """Asks the engine for tiles, and offers them one by one.

    Attributes
    ----------
    everywhere : bool
        Whether all images of the project are looked at for places, and not the one in view alone.
    current : Suggestion or None
        The one on offer.
    left : int
        How many more there are.
    waiting : bool
        Whether the engine is at it.
    looking : str
        How far it is, where that is known, in words.
    """

    changed = Signal()

    def __init__(self, session: Session) -> None:
        self.session = session
        self.everywhere = True
        self.current: Suggestion | None = None
        self.waiting, self.looking = False, ""
        self._rest: list[Suggestion] = []
        self._side = 0
        self._asked_of = ""  # the job of the training that was asked; "" where the engine is, as soon as it is free
        session.project.closed.connect(self.drop)
        session.image_changed.connect(self._follow_image)
        session.engine.received.connect(self._hear_training)
        session.engine.events["lost_job"].connect(self._give_up)

    @property
    def left(self) -> int:
        """How many more there are."""
        return len(self._rest)

    @property
    def words(self) -> str:
        """Why the one on offer, and in which of several images."""
        if self.current is None:
            return ""
        images = self.session.project.images
        where = f" in “{images[self.current.image].name}”" if len(images) > 1 else ""
        return f"Suggested{where}: {self.current.reason}"

    def ask(self, side: int) -> None:
        """Ask for places for tiles of `side` pixels in all images, or in the one in view."""
        project = self.session.project
        if project.path is None or self.session.image_index is None or self.waiting:
            return
        self.waiting, self.looking, self._side = True, "", side
        image = None if self.everywhere and len(project.images) > 1 else self.session.image_index
        training = self.session.training
        self._asked_of = training.job if training.answers else ""
        if self._asked_of:  # its network knows best, and the engine is busy with it
            self.session.engine.suggest(image, side, COUNT)
            self.changed.emit()
            return
        args = {"source": str(project.path), "n": COUNT, "image": image, "side": side}
        self.session.ask("suggest", args, self._hear)
        self.changed.emit()

    def take(self) -> Tile | None:
        """Add the tile on offer, and return it. One that cannot be added stays on offer.

        Raises
        ------
        InputError
            If it cannot be added.
        """
        taken = self.current
        if taken is None:
            return None
        tile = self.session.project.add_tile(taken.image, box=taken.box)
        if self.current is taken:
            self.current, self._rest = None, []
            self.changed.emit()
        return tile

    def skip(self) -> None:
        """Offer the next one."""
        self.current = self._rest.pop(0) if self._rest else None
        self.changed.emit()

    def cancel(self) -> None:
        """Wait for places no longer; what is on offer stays."""
        self.session.drop_errands("suggest")
        self._give_up()

    def drop(self) -> None:
        """Offer nothing."""
        self.session.drop_errands("suggest")
        self.current, self._rest, self.waiting = None, [], False
        self.changed.emit()

    def _follow_image(self) -> None:
        """Places of other images than the one in view are on offer only where all of them are looked at."""
        if not self.everywhere or self.session.project.path is None:
            self.drop()

    def end(self) -> None:
        """Hear nothing more."""
        self.session.drop_errands("suggest")
        self.session.engine.received.disconnect(self._hear_training, missing_ok=True)
        self.session.engine.events["lost_job"].disconnect(self._give_up, missing_ok=True)

    def _hear_training(self, job: str, event: Event) -> None:
        """Take what the running training suggests; where it ended before, or has just begun, ask again."""
        if not self.waiting or not job:
            return
        if job == self._asked_of and isinstance(event, Suggested | Unanswered):
            self._hear(event)
        elif self.session.training.asked_anew(job, event, self._asked_of):
            self.session.drop_errands("suggest")
            self.waiting = False
            self.ask(self._side)

    def _give_up(self) -> None:
        if self.waiting:
            self.waiting = False
            self.changed.emit()

    def _hear(self, event: Event) -> None:
        match event:
            case Progressed(_, done, total) if total > 1:
                self.looking = f"Looking at images: {done} of {total}"
                self.changed.emit()
            case Suggested(tiles):
                self._rest = [_suggestion(tile) for tile in tiles]
                self.waiting = False
                if not tiles:
                    self.session.tell("There is no room for another tile on tissue: make new tiles smaller (⋯).")
                self.skip()
            case Failed(message, _, detail):
                self.waiting = False
                self.session.tell(message, "error", details=detail)
                self.changed.emit()
            case Warned(message):  # of an image that is left out: the others are looked at
                self.session.tell(message, "warning")
            case Finished() | Unanswered(asked="SuggestTiles"):
                self._give_up()


def _suggestion(tile: dict[str, Any]) -> Suggestion:
    y0, x0, y1, x1 = (int(side) for side in tile["box"])
    return Suggestion(int(tile["image"]), Box(y0, x0, y1, x1), str(tile["reason"])[:300])
