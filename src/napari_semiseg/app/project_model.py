"""The project that a viewer works on: its images, tiles and classes, and how far saving has come."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_semiseg.app.background import UNREADABLE, Background
from napari_semiseg.app.painting import from_layer
from napari_semiseg.blocks import Box
from napari_semiseg.errors import InputError
from napari_semiseg.project.autosave import Autosave
from napari_semiseg.project.folder import ProjectFolder
from napari_semiseg.project.image_paths import OpenedImage
from napari_semiseg.project.lock import LockHeld
from napari_semiseg.project.recovery import Recovery
from napari_semiseg.project.schema import ClassSpec, ImageSource, Role, Status, Tile
from napari_semiseg.project.tile_annotation import Tally, TileAnnotation
from napari_semiseg.project.tiles import validation_tiles

TILE_SIDE = 250
"""Side of a new tile, in pixels: what the papers call a sub-image."""


class ProjectModel:
    """A project folder with signals. Used from one thread; saving happens in others.

    Attributes
    ----------
    folder : ProjectFolder or None
    selected : str
        Id of the tile that is being painted, or "".
    counts : dict of str to int
        Nuclei by tile: those that were drawn or accepted.
    tallies : dict of str to Tally
        How they came about, and how many proposed ones await a word.
    painted : dict of str to bool
        Whether anything at all is painted in a tile.
    """

    opened = Signal()
    """A project was made or opened."""
    closing = Signal()
    """It is about to be closed: who has something unsaved submits it now."""
    closed = Signal()
    images_changed = Signal()
    classes_changed = Signal()
    tiles_changed = Signal()
    """A tile was added, removed, or has another status, role or number of nuclei."""
    selected_changed = Signal(str)
    saved = Signal()
    """How far saving has come is to be shown again."""
    annotated = Signal(str)
    """What is painted in a tile has been handed over for saving."""
    recovered = Signal(Recovery)
    """What was found on opening a project that was not closed as it should have been."""
    failed = Signal(str)
    """Saving fails, in one sentence."""

    def __init__(self) -> None:
        self.folder: ProjectFolder | None = None
        self.selected = ""
        self.counts: dict[str, int] = {}
        self.tallies: dict[str, Tally] = {}
        self.painted: dict[str, bool] = {}
        self._saver = Background("annotation counts")
        self._counter = Background("counting nuclei")
        self._failure = ""
        self._saved_at: float | None = None
        self._autosave: Autosave | None = None  # kept: asking the folder waits while a large image is written into it

    # ---- what it holds ----

    @property
    def path(self) -> Path | None:
        """The folder."""
        return self.folder.path if self.folder else None

    @property
    def name(self) -> str:
        """Name of the folder, with its suffix; "" without a project."""
        return self.folder.path.name if self.folder else ""

    @property
    def read_only(self) -> bool:
        """Whether nothing may be changed: also where there is no project."""
        return self.folder is None or self.folder.read_only

    @property
    def images(self) -> tuple[ImageSource, ...]:
        """Images, in the order that tiles refer to."""
        return self.folder.images if self.folder else ()

    @property
    def tiles(self) -> tuple[Tile, ...]:
        """Tiles, in the order they were added."""
        return self.folder.tiles if self.folder else ()

    @property
    def classes(self) -> tuple[ClassSpec, ...]:
        """Classes of nuclei."""
        return self.folder.classes if self.folder else ()

    @property
    def validation(self) -> set[str]:
        """Tiles that a run judges itself by."""
        return {tile.id for tile in validation_tiles(self.tiles)}

    @property
    def nuclei(self) -> int:
        """Nuclei in all tiles that are in use."""
        return sum(self.counts.get(tile.id, 0) for tile in self.tiles if tile.status != "excluded")

    def tile(self, tile_id: str) -> Tile | None:
        """Return a tile, or None if there is none of that id."""
        return next((tile for tile in self.tiles if tile.id == tile_id), None)

    @property
    def words(self) -> str:
        """The tiles in one line: "3 complete · 1 sparse · 112 nuclei"."""
        if not self.tiles:
            return ""
        numbers = {status: sum(tile.status == status for tile in self.tiles) for status in _STATUSES}
        parts = [f"{count} {status}" for status, count in numbers.items() if count]
        return " · ".join([*parts, f"{self.nuclei} nuclei"])

    # ---- making, opening, closing ----

    def create(self, path: str | Path, classes: Sequence[ClassSpec] = ()) -> None:
        """Make a project and work on it.

        Raises
        ------
        InputError
            If it cannot be made there.
        """
        self._work_on(ProjectFolder.create(path, **({"classes": tuple(classes)} if classes else {})))

    def open(self, path: str | Path, read_only: bool = False, *, take_over: bool = False) -> None:
        """Open a project and work on it.

        Raises
        ------
        LockHeld
            If another program has it open: it can be opened read-only.
        InputError
            If it cannot be opened.
        """
        self._work_on(ProjectFolder.open(path, read_only, take_over=take_over))

    def open_or_look(self, path: str | Path) -> LockHeld | None:
        """Open a project, read-only where another program has it; return why, or None."""
        try:
            self.open(path)
        except LockHeld as held:
            self.open(path, read_only=True)
            return held
        return None

    def restore(self, path: str | Path) -> None:
        """Put the copy of the last opening in the place of a damaged ``project.json``, and work on it.

        Raises
        ------
        InputError
            If there is no such copy, or it cannot be opened.
        """
        self._work_on(ProjectFolder.restore(path))

    def close(self) -> bool:
        """Save what is left and give the project back; whether all is on the disk."""
        if self.folder is None:
            return True
        self.closing.emit()
        done = self._saver.drain(3.0)
        self._saver.deliver()
        folder, self.folder = self.folder, None
        done = folder.close() and done
        self.selected, self.counts, self.tallies, self.painted = "", {}, {}, {}
        self._failure, self._saved_at, self._autosave = "", None, None
        self.closed.emit()
        return done

    def end(self) -> None:
        """Close, and end the thread."""
        self.close()
        self._saver.end()
        self._counter.end()

    def _work_on(self, folder: ProjectFolder) -> None:
        self.close()
        self.folder = folder
        self._autosave = None if folder.read_only else folder.autosave
        self.counts = {tile.id: 0 for tile in folder.tiles}
        self.opened.emit()
        self.images_changed.emit()
        self.classes_changed.emit()
        self.tiles_changed.emit()
        self._count_all(folder)
        if not folder.recovery.clean:
            self.recovered.emit(folder.recovery)

    def _count_all(self, folder: ProjectFolder) -> None:
        """Count nuclei of images that are not looked at, in the background; where there is one, its tiles are read."""
        if len(folder.images) < 2:
            return

        def count() -> dict[str, Tally]:
            tallies = {tile.id: _tally(folder, tile.id) for tile in folder.tiles}
            return {tile_id: tally for tile_id, tally in tallies.items() if tally is not None}

        def done(tallies: dict[str, Tally]) -> None:
            if self.folder is not folder:
                return
            for tile_id, tally in tallies.items():
                if tile_id not in self.tallies and self.tile(tile_id):  # else it was read or painted in since
                    self.counts[tile_id], self.tallies[tile_id] = tally.nuclei, tally
            self.tiles_changed.emit()

        self._counter.submit(count, done)

    def _owned(self) -> ProjectFolder:
        if self.folder is None:
            raise InputError("There is no project yet: press Start first.")
        return self.folder

    # ---- images and classes ----

    def add_image(self, image: OpenedImage, *, mpp: float | None = None) -> int:
        """Add an image that lies in a file; return its index, also if it was there already."""
        index = self._owned().add_image(image, mpp=mpp)
        self.images_changed.emit()
        return index

    def set_classes(self, classes: Sequence[ClassSpec]) -> None:
        """Rename, recolor, add or remove classes.

        Raises
        ------
        InputError
            If a class that is painted would be gone.
        """
        folder = self._handed_over() if len(classes) < len(self.classes) else self._owned()
        folder.set_classes(classes)
        self.classes_changed.emit()

    # ---- tiles ----

    def add_tile(
        self,
        image: int,
        *,
        center: tuple[float, float] | None = None,
        box: Box | None = None,
        side: int = TILE_SIDE,
        select: bool = True,
    ) -> Tile:
        """Add a tile and, as long as nobody asks for something else, select it.

        Parameters
        ----------
        image : int
        center : (y, x), optional
            In pixels of level 0: a square tile of `side` around it, moved so that it lies inside the image as far as
            the image is large enough.
        box : Box, optional
            The tile itself, in place of `center`.
        side : int
            In pixels.
        select : bool

        Raises
        ------
        InputError
            If nothing of it lies in the image, or the project is read-only.
        """
        folder = self._owned()
        if box is None:
            if center is None:
                raise ValueError("a tile needs a center or a box")
            box = square(center, side, folder.images[image].shape)
        tile = folder.add_tile(image, box)
        self.counts[tile.id], self.painted[tile.id] = 0, False
        self.tiles_changed.emit()
        if select:
            self.select(tile.id)
        return tile

    def select(self, tile_id: str) -> None:
        """Choose the tile that is being painted; "" for none."""
        if tile_id != self.selected and (tile_id == "" or self.tile(tile_id)):
            self.selected = tile_id
            self.selected_changed.emit(tile_id)

    def set_status(self, tile_id: str, status: Status) -> None:
        """Say what a tile's unpainted pixels mean."""
        self._owned().set_status(tile_id, status)
        self.tiles_changed.emit()

    def set_role(self, tile_id: str, role: Role) -> None:
        """Say whether a tile is for training or for validation."""
        self._owned().set_role(tile_id, role)
        self.tiles_changed.emit()

    def remove_tile(self, tile_id: str) -> None:
        """Remove a tile; `restore_tile` brings it back with all that was painted."""
        folder = self._handed_over()
        gone = self.tile(tile_id)
        others = [tile.id for tile in self.tiles if gone and tile.image == gone.image and tile.id != tile_id]
        folder.remove_tile(tile_id)
        self.counts.pop(tile_id, None)
        self.tallies.pop(tile_id, None)
        self.painted.pop(tile_id, None)
        if self.selected == tile_id:
            self.selected = others[-1] if others else ""
        self.tiles_changed.emit()
        self.selected_changed.emit(self.selected)

    def restore_tile(self, tile_id: str, *, select: bool = True) -> None:
        """Bring back a removed tile and, as long as nobody asks for something else, select it."""
        self._owned().restore_tile(tile_id)
        self.tiles_changed.emit()
        if select:
            self.select(tile_id)

    @property
    def removed(self) -> list[str]:
        """Ids of removed tiles that can be brought back, the newest last."""
        if self.folder is None:
            return []
        try:
            found = [path for path in (self.folder.path / "annotations" / "removed").iterdir() if path.is_dir()]
            return [path.name for path in sorted(found, key=lambda path: path.stat().st_ctime_ns)]
        except OSError:  # none was ever removed
            return []

    # ---- annotations ----

    def annotation(self, tile_id: str) -> TileAnnotation:
        """Read what is painted in a tile, from the disk."""
        annotation = self._owned().annotation(tile_id)
        self.note_annotation(tile_id, annotation)
        return annotation

    def newest_annotation(self, tile_id: str) -> TileAnnotation:
        """Return what was submitted last of a tile, or else what is on the disk. For any thread.

        Raises
        ------
        InputError
            If it cannot be read.
        """
        return self._handed_over().newest_annotation(tile_id)

    def set_aside(self, tile_id: str) -> None:
        """Keep what is painted in a tile now, before something takes it away. For any thread.

        Raises
        ------
        InputError
            If that cannot be written.
        """
        self._handed_over().set_aside(tile_id)

    def note_annotation(self, tile_id: str, annotation: TileAnnotation) -> None:
        """Take note of what was read from the disk: its nuclei are counted."""
        self._note_count(tile_id, annotation.tally, bool(annotation.instance.any() or annotation.classes.any()))

    def note_written(self, tile_id: str, annotation: TileAnnotation) -> None:
        """Take note of what was written into a tile that nobody paints in: its status follows, as with a stroke."""
        if self.tile(tile_id):
            self.note_annotation(tile_id, annotation)
            self._follow_paint(tile_id, self.painted[tile_id])
            self.annotated.emit(tile_id)

    def submit(self, tile_id: str, labels: NDArray[Any], class_of: Mapping[int, int]) -> None:
        """Hand over what is painted in a tile now, to be saved within two seconds. Takes microseconds.

        Parameters
        ----------
        tile_id : str
        labels : array, (h, w), integer
            See `painting.to_layer`; a copy that the caller does not touch again.
        class_of : mapping of int to int
            Class of each nucleus; a copy, too.
        """
        folder, autosave = self._owned(), self._autosave
        if autosave is None:
            raise InputError("The project is open read-only, so nothing that you paint is saved.")
        if not self.painted.get(tile_id):  # who shows it again before it has been counted must not take it for empty
            self.painted[tile_id] = bool(np.any(labels))

        def save() -> tuple[Tally, bool]:
            annotation = from_layer(labels, class_of)
            autosave.submit(tile_id, instance=annotation.instance, classes=annotation.classes)
            return annotation.tally, bool(np.any(labels))

        def done(found: tuple[Tally, bool]) -> None:
            if self.folder is folder and self.tile(tile_id):
                self._note_count(tile_id, *found)
                self._follow_paint(tile_id, found[1])
                self.annotated.emit(tile_id)

        self._saver.submit(save, done, self._fail)

    def tick(self) -> None:
        """Look how far saving has come. The dock calls it a few times a second."""
        self._saver.deliver()
        self._counter.deliver()
        if self._autosave is None:
            return
        status = self._autosave.status
        if status.failure and status.failure != self._failure:
            self.failed.emit(status.failure)
        self._failure = status.failure or ""
        self._saved_at = None if status.saved_s_ago is None else time.monotonic() - status.saved_s_ago
        self.saved.emit()

    @property
    def saved_words(self) -> str:
        """How far saving has come, in a few words."""
        if self.folder is None:
            return ""
        if self._autosave is None:
            return "read-only"
        if self._failure:
            return "not saved"
        if self._saver.pending or self._autosave.status.unsaved:
            return "saving…"
        if self._saved_at is None:
            return "saved"
        return f"saved {age_text(time.monotonic() - self._saved_at)}"

    def _handed_over(self) -> ProjectFolder:
        """Return the folder, once it has all that was submitted."""
        folder = self._owned()
        if not self._saver.drain(3.0):
            raise InputError("What is painted is still being saved: try again in a moment.")
        return folder

    def _note_count(self, tile_id: str, tally: Tally, painted: bool) -> None:
        changed = (self.tallies.get(tile_id), self.painted.get(tile_id)) != (tally, painted)
        self.counts[tile_id], self.tallies[tile_id] = tally.nuclei, tally
        self.painted[tile_id] = painted
        if changed:
            self.tiles_changed.emit()

    def _follow_paint(self, tile_id: str, painted: bool) -> None:
        """Make a tile sparse with its first stroke, and empty again without any."""
        tile = self.tile(tile_id)
        if tile is None or self.read_only:
            return
        if tile.status == "empty" and painted:
            self.set_status(tile_id, "sparse")
        elif tile.status == "sparse" and not painted:
            self.set_status(tile_id, "empty")

    def _fail(self, error: Exception) -> None:
        if not isinstance(error, InputError):
            raise error
        self._failure = str(error)
        self.failed.emit(self._failure)


def _tally(folder: ProjectFolder, tile_id: str) -> Tally | None:
    """Count what is painted in a tile; None where it cannot be read, which is said where it is shown."""
    try:
        return folder.newest_annotation(tile_id).tally
    except UNREADABLE:
        return None


_STATUSES: tuple[Status, ...] = ("complete", "sparse", "empty", "excluded")


def square(center: tuple[float, float], side: int, shape: tuple[int, int] | None) -> Box:
    """Return the square of `side` pixels around a point (y, x), moved into an image of that shape."""
    y0, x0 = (round(middle - side / 2) for middle in center)
    if shape is not None:
        if not (0 <= center[0] < shape[0] and 0 <= center[1] < shape[1]):
            raise InputError("That point lies outside the image: click on the image.")
        y0 = max(0, min(y0, shape[0] - side))
        x0 = max(0, min(x0, shape[1] - side))
        return Box(y0, x0, min(y0 + side, shape[0]), min(x0 + side, shape[1]))
    return Box(max(0, y0), max(0, x0), max(0, y0) + side, max(0, x0) + side)


def age_text(seconds: float) -> str:
    """Return a time that has passed: "1 s", "3 min", "2 h"."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.0f} h"
