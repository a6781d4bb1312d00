"""Marking a tile: as complete, as left out of training, as kept for validation."""

from __future__ import annotations

from collections.abc import Callable

from napari_semiseg.app import corrections
from napari_semiseg.app.session import Session
from napari_semiseg.errors import InputError
from napari_semiseg.plugin.tile_layers import TileLayers
from napari_semiseg.project.schema import Status, Tile

STATUS_WORDS = {
    "empty": "nothing painted yet",
    "sparse": "only what is painted counts, the rest is left open",
    "complete": "everything that is not painted is background",
    "excluded": "left out of training",
}


class TileMarks:
    """Marks the selected tile, and says what that means.

    Parameters
    ----------
    session : Session
    layers : TileLayers
    """

    def __init__(self, session: Session, layers: TileLayers) -> None:
        self.session, self.layers = session, layers
        self._were_complete: set[str] = set()  # tiles that are left out since
        session.project.closed.connect(self._forget)

    def complete(self) -> None:
        """Mark the tile complete, or sparse again."""
        project = self.session.project
        tile = project.tile(project.selected)
        if tile is None:
            return
        if tile.status == "excluded":
            self.session.tell(f"Tile {tile.id} is left out of training: take it in again first, in its menu ⋯.")
            return
        if self.layers.painted(tile.id) is None and (why := self._why_not_marked(tile)):
            self.session.tell(f"Tile {tile.id} {why}")
            return
        try:
            take_back = self._complete(tile)
        except InputError as error:
            self.session.tell(str(error), "warning")
            return
        now = project.tile(tile.id)
        self.session.tell(
            f"Tile {tile.id} is {now.status}: {STATUS_WORDS[now.status]}.",
            actions=(("Undo", lambda: self._try(take_back)),),
        )

    def _why_not_marked(self, tile: Tile) -> str:
        """Why a tile that is not there to be painted in is not marked, in words; "" if it is."""
        if tile.image != self.session.image_index:
            return "is not in view, so it was not marked: go to it first."
        if tile.status != "complete":  # what is proposed in it would be neither accepted nor seen
            return "is not read yet, or cannot be, so it was not marked: try again in a moment."
        return ""

    def _complete(self, tile: Tile) -> Callable[[], None]:
        """Mark a tile complete, which accepts what is still proposed in it; or sparse again.

        What it returns takes that back, wherever nothing was corrected since.
        """
        project, painted = self.session.project, self.layers.painted(tile.id)
        accepted = None
        if tile.status != "complete" and painted is not None:
            accepted = corrections.accept_all(painted.layer.data)
            before = accepted and accepted.reversed(painted.layer.data)
            painted.apply(accepted)
            self.layers.tick()
        bare = painted is not None and not painted.layer.data.any()
        project.set_status(tile.id, "complete" if tile.status != "complete" else "empty" if bare else "sparse")

        def take_back() -> None:
            now = self.layers.painted(tile.id)
            if accepted is not None and now is not None:
                now.apply(before.only(now.layer.data[accepted.where] == accepted.numbers))
                self.layers.tick()
            project.set_status(tile.id, tile.status)

        return take_back

    def exclude(self) -> None:
        """Leave the tile out of training, or take it in again as it was before; after a new start, as sparse."""
        project = self.session.project
        tile = project.tile(project.selected)
        if tile is None:
            return
        status: Status = "excluded"
        if tile.status == "excluded":
            status = "complete" if tile.id in self._were_complete else self._usual_status(tile.id)
        try:
            project.set_status(tile.id, status)
        except InputError as error:
            self.session.tell(str(error), "warning")
            return
        self._were_complete -= {tile.id}
        self._were_complete |= {tile.id} if tile.status == "complete" else set()
        self.session.tell(f"Tile {tile.id} is {status}: {STATUS_WORDS[status]}.")

    def judge(self) -> None:
        """Keep the tile for validation, or no longer, and say which ones are."""
        project = self.session.project
        tile = project.tile(project.selected)
        if tile is None:
            return
        try:
            project.set_role(tile.id, "training" if tile.id in project.validation else "validation")
        except InputError as error:
            self.session.tell(str(error), "warning")
            return
        kept = sorted(project.validation)
        none = "No tile is kept for validation now: a training cannot say how good it is."
        self.session.tell(f"For validation now: {', '.join(kept)}." if kept else none)

    def _usual_status(self, tile_id: str) -> Status:
        painted = self.layers.annotation_of(tile_id)
        some = painted[0].any() if painted else self.session.project.painted.get(tile_id)
        return "sparse" if some else "empty"

    def _forget(self) -> None:
        self._were_complete.clear()

    def _try(self, call: Callable[[], object]) -> None:
        try:
            call()
        except InputError as error:
            self.session.tell(str(error), "warning")
