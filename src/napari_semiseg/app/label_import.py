"""The dock's way of bringing labels of others into the project: in the background, and said in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from napari_semiseg.app import words
from napari_semiseg.app.importing import import_labels, plan_tiles
from napari_semiseg.errors import InputError
from napari_semiseg.io.foreign_labels import ForeignLabels, open_labels
from napari_semiseg.project.tile_annotation import TileAnnotation

if TYPE_CHECKING:
    from napari_semiseg.app.session import Session
    from napari_semiseg.project.folder import ProjectFolder

_Found = tuple[list[tuple[str, TileAnnotation]], list[str]]


class LabelImport:
    """Brings labels into new tiles of the image in view. Used from one thread.

    Parameters
    ----------
    session : Session

    Attributes
    ----------
    busy : bool
        Whether labels are being brought in.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.busy = False

    @property
    def why_not(self) -> str:
        """Why nothing can be brought in, in words; "" if it can."""
        if self.session.image_index is None:
            return "Begin with step 1: there is no project of this image yet."
        if self.session.project.read_only:
            return "The project is open read-only."
        return "Labels are being brought in: a moment." if self.busy else ""

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

        def work() -> _Found:
            labels = make()
            plan = plan_tiles(folder, index, labels)
            if not plan.boxes:
                raise InputError(f"“{name}” has no nuclei outside of the tiles that are there: no tile was made.")
            done = [item.tile.id for item in import_labels(folder, index, labels, plan.boxes)]
            return [(tile, folder.annotation(tile)) for tile in done], [plan.words, labels.note]

        def done(found: _Found) -> None:
            self.busy = False
            if project.folder is folder:
                self._show(*found, name)

        self.busy = True
        self.session.tell(f"Bringing in “{name}”…")
        self.session.background.submit(work, done, self._failed)

    def _show(self, found: list[tuple[str, TileAnnotation]], notes: list[str], name: str) -> None:
        project, folder = self.session.project, self.session.project.folder
        assert folder is not None
        project.classes_changed.emit()
        for tile, annotation in found:
            project.note_annotation(tile, annotation)
        project.tiles_changed.emit()
        project.select(found[0][0])
        nuclei = sum(annotation.nuclei for _, annotation in found)
        imported = {tile for tile, _ in found}
        statuses = [tile.status for tile in project.tiles if tile.id in imported]
        counted = " and ".join(f"{statuses.count(status)} {status}" for status in sorted(set(statuses)))
        tiles = f"{counted} tile{'s' if len(found) > 1 else ''}"
        said = [f"“{name}”: {words.count(nuclei, 'nucleus', 'nuclei')} in {tiles}."]
        said += ["A complete tile has to be sparse where nuclei are missing."] if "complete" in statuses else []
        made = [tile for tile, _ in found]
        sparse = (("Mark them sparse", lambda: self._mark_sparse(made)),) if "complete" in statuses else ()
        self.session.tell(
            " ".join(filter(None, said + notes)), actions=(*sparse, ("Undo", lambda: self._take_back(made, folder)))
        )

    def _mark_sparse(self, tiles: list[str]) -> None:
        """Let nothing be background that is not labeled as such."""
        for tile_id in tiles:
            tile = self.session.project.tile(tile_id)
            if tile is not None and tile.status == "complete":
                self.session.project.set_status(tile_id, "sparse")

    def _take_back(self, tiles: list[str], folder: ProjectFolder) -> None:
        """Remove the tiles that were made, one at a time: each can be brought back as any that was removed."""
        project = self.session.project
        left = [tile_id for tile_id in tiles if project.tile(tile_id)]
        if not left or project.folder is not folder:
            return
        try:
            project.remove_tile(left.pop())
        except InputError as error:
            self._failed(error)
        else:  # the window is drawn in between
            self.session.background.submit(lambda: None, lambda _: self._take_back(left, folder))

    def _failed(self, error: Exception) -> None:
        self.busy = False
        said = str(error) if isinstance(error, InputError) else f"The labels cannot be brought in ({error})."
        self.session.tell(said, "error")
        self.session.project.tiles_changed.emit()  # those that came before the error are there
