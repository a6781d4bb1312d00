"""Removing tiles, and bringing them back."""

from __future__ import annotations

from collections.abc import Callable

from napari_semiseg.app.session import Session
from napari_semiseg.errors import InputError
from napari_semiseg.plugin.tile_layers import TileLayers


class TileRemoval:
    """Removes tiles; the project keeps what is painted in them, so that each can be brought back.

    Parameters
    ----------
    session : Session
    layers : TileLayers
    go_to : callable
        Brings a tile into view.
    """

    def __init__(self, session: Session, layers: TileLayers, go_to: Callable[[str], object]) -> None:
        self.session, self.layers, self._go_to = session, layers, go_to

    def remove(self) -> None:
        """Remove the selected tile."""
        project = self.session.project
        tile_id = project.selected
        if not tile_id:
            return
        self.layers.tick()
        judged = " It was one to judge by." if tile_id in project.validation else ""
        try:
            project.remove_tile(tile_id)
        except InputError as error:
            self.session.tell(str(error), "error")
            return
        self.session.tell(
            f"Tile {tile_id} is removed; what was painted in it is kept.{judged}",
            actions=(("Bring it back", lambda: self._bring_back(tile_id)),),
        )

    def bring_back_last(self) -> None:
        """Bring back the tile that was removed last."""
        removed = self.session.project.removed
        if removed:
            self._bring_back(removed[-1])

    def _bring_back(self, tile_id: str) -> None:
        try:
            self.session.project.restore_tile(tile_id, select=False)
            self._go_to(tile_id)
        except InputError as error:
            self.session.tell(str(error), "warning")
