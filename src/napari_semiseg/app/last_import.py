"""What the last import of labels brought in, and taking it back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from napari_semiseg.app import words
from napari_semiseg.errors import InputError
from napari_semiseg.project.schema import ClassSpec
from napari_semiseg.project.tile_annotation import BACKGROUND, UNPAINTED, TileAnnotation

if TYPE_CHECKING:
    from napari_semiseg.app.session import Level, Session
    from napari_semiseg.project.folder import ProjectFolder


class PaintedTiles(Protocol):
    """The tiles that somebody may be painting in just now."""

    def hand_over(self) -> None:
        """Submit what is painted and was not submitted yet."""
        ...

    def fill(
        self, tile_id: str, found: TileAnnotation, done: Callable[[], object], failed: Callable[[str], object]
    ) -> None:
        """Put an annotation into a tile in which nothing is painted; where something is, say that it failed."""
        ...

    def empty(self, tile_id: str, done: Callable[[], object], failed: Callable[[str], object]) -> None:
        """Take away what is painted in a tile."""
        ...


@dataclass(frozen=True)
class Brought:
    """What an import brought in.

    Attributes
    ----------
    name : str
        What the user knows the labels by.
    made, filled : sequence of str
        Tiles that it made, and empty ones that it filled.
    classes : sequence of ClassSpec
        Classes that it added to the project, in order.
    removed : frozenset of str
        Tiles that were removed before it: none of them has one of these classes.
    """

    name: str
    made: Sequence[str]
    filled: Sequence[str]
    classes: Sequence[ClassSpec] = ()
    removed: frozenset[str] = frozenset()


class LastImport:
    """The last import of labels, until something is painted in its tiles or the project is closed.

    Parameters
    ----------
    session : Session
    tiles : PaintedTiles

    Attributes
    ----------
    busy : bool
        Whether it is being taken back.
    """

    def __init__(self, session: Session, tiles: PaintedTiles) -> None:
        self.session, self._tiles = session, tiles
        self.busy = False
        self._brought: Brought | None = None
        self._own: set[str] = set()  # filled tiles whose filling is still to be handed over for saving
        self._painted = self._going = False
        session.project.annotated.connect(self._note_painted)
        session.project.closed.connect(self._forget)

    def note(self, brought: Brought) -> None:
        """Take note of an import, before its tiles are filled."""
        self._brought, self._painted, self._own = brought, False, set(brought.filled)

    def leave_out(self, tile_id: str) -> None:
        """Take note that a tile could not be filled."""
        if self._brought is not None:
            filled = [other for other in self._brought.filled if other != tile_id]
            self._brought = replace(self._brought, filled=filled)

    @property
    def name(self) -> str:
        """What the user knows its labels by; "" without one."""
        return self._brought.name if self._brought else ""

    @property
    def why_not(self) -> str:
        """Why it cannot be taken back, in words; "" if it can."""
        if not self._left:
            return "Nothing was brought in since the project was opened, or its tiles were removed."
        if self._painted:
            return "Something was painted in its tiles since: remove those that you do not want one at a time."
        return "It is being taken back: a moment." if self.busy else ""

    def take_back(self) -> None:
        """Remove the tiles that were made, empty those that were filled, and remove the classes that nothing uses.

        A tile that is removed so can be brought back as any other, with its nuclei.
        """
        self._tiles.hand_over()
        if self.why_not:
            self.session.tell(self.why_not, "warning")
            return
        brought, folder = self._brought, self.session.project.folder
        assert brought is not None
        assert folder is not None
        left, self.busy = self._left, True

        def begin(keep: int) -> None:
            self.session.project.tick()  # which may tell of a stroke that was drawn just now
            if self._brought is not brought:  # the project was closed
                return
            if self._painted:
                self._end(self.why_not, "warning")
            else:
                self._going = True
                self._next(brought, left, folder, keep)

        self.session.background.submit(lambda: self._classes_to_keep(brought, left), begin, self._fail)

    # ---- inner ----

    @property
    def _left(self) -> list[str]:
        """Tiles that are there still, those last that were made."""
        brought = self._brought
        tiles = [*brought.filled, *brought.made] if brought else []
        return [tile_id for tile_id in tiles if self.session.project.tile(tile_id)]

    def _note_painted(self, tile_id: str) -> None:
        if tile_id in self._own:
            self._own.discard(tile_id)
        elif not self._going and tile_id in self._left:
            self._painted = True

    def _forget(self) -> None:
        self._brought, self._own = None, set()
        self.busy = self._going = self._painted = False

    def _classes_to_keep(self, brought: Brought, left: Sequence[str]) -> int:
        """Return how many classes stay: up to the last one that was not added, or is used in another tile."""
        project = self.session.project
        project.newest_annotation(left[0])  # waits until all that is painted has been handed over
        keep = len(project.classes)
        if not set(project.removed) <= brought.removed:  # what was removed since may have any of them
            return keep
        others = [tile.id for tile in project.tiles if tile.id not in left]
        used = max((project.newest_annotation(other).largest_class - BACKGROUND for other in others), default=0)
        while keep > max(used, 1) and project.classes[keep - 1] in brought.classes:
            keep -= 1
        return keep

    def _next(self, brought: Brought, left: list[str], folder: ProjectFolder, keep: int) -> None:
        """Take back one tile after the other: the window is drawn in between."""
        project = self.session.project
        if project.folder is not folder:
            return
        if not left:
            self._drop_classes(brought, folder, keep)
            return
        tile_id = left.pop()

        def go_on() -> None:
            self._next(brought, left, folder, keep)

        def emptied() -> None:
            if project.tile(tile_id):
                project.set_status(tile_id, "empty")
            go_on()

        def remove(_: object) -> None:
            if project.folder is not folder:
                return
            self._tiles.hand_over()
            try:
                project.remove_tile(tile_id)
            except InputError as error:
                self._fail(error)
            else:
                go_on()

        if project.tile(tile_id) is None:
            go_on()
        elif tile_id in brought.filled:
            self._tiles.empty(tile_id, emptied, lambda why: self._end(why, "error"))
        else:
            self.session.background.submit(lambda: _without_classes(folder, tile_id, keep), remove, self._fail)

    def _drop_classes(self, brought: Brought, folder: ProjectFolder, keep: int) -> None:
        """Remove what nothing uses any more; where something came to use it meanwhile, it stays."""
        project = self.session.project

        def work() -> None:
            if keep < len(folder.classes):
                with contextlib.suppress(InputError):  # somebody has painted with one of them meanwhile
                    folder.set_classes(folder.classes[:keep])

        def done(_: object) -> None:
            if project.folder is folder:
                project.classes_changed.emit()
                self._forget()
                number = words.count(len(brought.made) + len(brought.filled), "tile")
                self.session.tell(f"What “{brought.name}” had brought into {number} is taken back.")

        self.session.background.submit(work, done, self._fail)

    def _fail(self, error: Exception) -> None:
        self._end(str(error) if isinstance(error, InputError) else f"It cannot be taken back ({error}).", "error")

    def _end(self, said: str, level: Level) -> None:
        self.busy = self._going = False
        self.session.tell(said, level)


def _without_classes(folder: ProjectFolder, tile_id: str, keep: int) -> None:
    """Leave nuclei without the classes that are about to go: brought back, the tile must not have other ones."""
    classes = folder.newest_annotation(tile_id).classes
    gone = classes > keep + BACKGROUND
    if keep < len(folder.classes) and gone.any():
        folder.write_annotation(tile_id, None, np.where(gone, UNPAINTED, classes))
