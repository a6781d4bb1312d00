"""The dock's way of bringing labels of others into the project: in the background, and said in one sentence."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_semiseg.app import words
from napari_semiseg.app.import_plan import plan_tiles
from napari_semiseg.app.importing import import_labels, read_annotations
from napari_semiseg.app.last_import import Brought, LastImport, PaintedTiles
from napari_semiseg.errors import InputError
from napari_semiseg.io.foreign_labels import ForeignLabels, open_labels
from napari_semiseg.project.schema import ClassSpec, Status
from napari_semiseg.project.tile_annotation import TileAnnotation

if TYPE_CHECKING:
    from napari_semiseg.app.session import Session

_BUSY = "Labels are being brought in, or taken back: a moment."


@dataclass(frozen=True)
class _Read:
    """What was brought into new tiles, and what is to be brought into empty ones."""

    made: Sequence[tuple[str, TileAnnotation]]
    fill: Sequence[tuple[str, TileAnnotation, Status]]
    classes: Sequence[ClassSpec]
    removed: frozenset[str]
    notes: Sequence[str]


class LabelImport:
    """Brings labels into empty and new tiles of the image in view. Used from one thread.

    Parameters
    ----------
    session : Session
    tiles : PaintedTiles

    Attributes
    ----------
    busy : bool
        Whether labels are being brought in.
    last : LastImport
        What was brought in last, and the way to take it back.
    """

    def __init__(self, session: Session, tiles: PaintedTiles) -> None:
        self.session = session
        self.busy = False
        self.last = LastImport(session, tiles)
        self._tiles = tiles
        session.project.closed.connect(self._forget)

    @property
    def why_not(self) -> str:
        """Why nothing can be brought in, in words; "" if it can."""
        if self.session.image_index is None:
            return "Begin with step 1: there is no project of this image yet."
        if self.session.project.read_only:
            return "The project is open read-only."
        return _BUSY if self.busy or self.last.busy else ""

    @property
    def why_no_undo(self) -> str:
        """Why the last import cannot be taken back, in words; "" if it can."""
        return _BUSY if self.busy else self.last.why_not

    def from_file(self, path: str | Path) -> None:
        """Bring in labels from a file; see `napari_semiseg.io.foreign_labels.open_labels`."""
        self.begin(lambda: open_labels(path), Path(path).name)

    def begin(self, make: Callable[[], ForeignLabels], name: str) -> None:
        """Bring labels in; `make` is called in the background, and `name` is what the user knows them by."""
        if self.why_not:
            self.session.tell(self.why_not, "warning")
            return
        project, index = self.session.project, self.session.image_index
        folder = project.folder
        assert folder is not None
        assert index is not None

        self._tiles.hand_over()
        removed = frozenset(project.removed)

        def work() -> _Read:
            labels = make()
            plan = plan_tiles(folder, index, labels)
            if plan.empty:
                raise InputError(f"Nothing of “{name}” was brought in, and no tile was made. {plan.words}".rstrip())
            before = len(folder.classes)
            done = [item.tile.id for item in import_labels(folder, index, labels, plan.boxes)]
            made = [(tile_id, folder.annotation(tile_id)) for tile_id in done]
            read = read_annotations(folder, labels, plan.fill)
            fill = [(tile_id, *found) for tile_id, found in zip(plan.fill, read, strict=True)]
            return _Read(made, fill, folder.classes[before:], removed, [plan.words, labels.note])

        def take(found: _Read) -> None:
            if project.folder is folder:
                self._take(found, name)

        self.busy = True
        self.session.tell(f"Bringing in “{name}”…")
        self.session.background.submit(work, take, self._failed)

    def _take(self, found: _Read, name: str) -> None:
        """Show the new tiles, and fill the empty ones, one after the other: the window is drawn in between."""
        project = self.session.project
        project.classes_changed.emit()
        for tile_id, annotation in found.made:
            project.note_annotation(tile_id, annotation)
        project.tiles_changed.emit()
        made, fill = ([tile_id for tile_id, *_ in some] for some in (found.made, found.fill))
        self.last.note(Brought(name, made, fill, found.classes, found.removed))
        nuclei = {tile_id: annotation.nuclei for tile_id, annotation in found.made}
        problems: list[str] = []
        waiting = deque(found.fill)

        def fill_next() -> None:
            if not waiting:
                self.busy = False
                self._show(nuclei, [*problems, *found.notes], name)
                return
            tile_id, annotation, status = waiting.popleft()

            def done() -> None:
                nuclei[tile_id] = annotation.nuclei
                tile = project.tile(tile_id)
                if tile is not None and tile.status != "excluded":
                    project.set_status(tile_id, status)
                fill_next()

            def failed(why: str) -> None:
                problems.append(why)
                self.last.leave_out(tile_id)
                fill_next()

            self._tiles.fill(tile_id, annotation, done, failed)

        fill_next()

    def _show(self, nuclei: dict[str, int], notes: list[str], name: str) -> None:
        project = self.session.project
        project.tiles_changed.emit()
        if not nuclei:
            self.session.tell(" ".join(filter(None, notes)), "warning")
            return
        project.select(next(iter(nuclei)))
        statuses = [tile.status for tile in project.tiles if tile.id in nuclei]
        counted = " and ".join(f"{statuses.count(status)} {status}" for status in sorted(set(statuses)))
        tiles = f"{counted} tile{'s' if len(statuses) > 1 else ''}"
        said = [f"“{name}”: {words.count(sum(nuclei.values()), 'nucleus', 'nuclei')} in {tiles}."]
        said += ["A complete tile has to be sparse where nuclei are missing."] if "complete" in statuses else []
        sparse = (("Mark them sparse", lambda: self._mark_sparse([*nuclei])),) if "complete" in statuses else ()
        self.session.tell(" ".join(filter(None, said + notes)), actions=(*sparse, ("Undo", self.last.take_back)))

    def _mark_sparse(self, tiles: list[str]) -> None:
        """Let nothing be background that is not labeled as such."""
        for tile_id in tiles:
            tile = self.session.project.tile(tile_id)
            if tile is not None and tile.status == "complete":
                self.session.project.set_status(tile_id, "sparse")

    def _forget(self) -> None:
        self.busy = False

    def _failed(self, error: Exception) -> None:
        self.busy = False
        said = str(error) if isinstance(error, InputError) else f"The labels cannot be brought in ({error})."
        self.session.tell(said, "error")
        self.session.project.tiles_changed.emit()  # those that came before the error are there
