"""The thumbnails of tiles, drawn in the background as they are painted in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from qtpy.QtCore import QObject, QTimer

from napari_semiseg.app.session import Session
from napari_semiseg.plugin.layers import pixels
from napari_semiseg.plugin.slide_view import SlideView
from napari_semiseg.plugin.tile_layers import TileLayers
from napari_semiseg.plugin.widgets.tile_strip import thumbnail
from napari_semiseg.project.schema import Tile

RENEW_MS = 1500
AT_ONCE = 4


class TilePictures(QObject):
    """Draws thumbnails of the tiles of the image in view, a few at a time, and again where something was painted.

    Parameters
    ----------
    session : Session
    view : SlideView
    layers : TileLayers
    show : callable
        Is given a tile and its thumbnail: uint8 (h, w, 3).
    """

    def __init__(
        self,
        session: Session,
        view: SlideView,
        layers: TileLayers,
        show: Callable[[Tile, np.ndarray], object],
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self.session, self.view, self.layers, self._show = session, view, layers, show
        self._stale: set[str] = set()
        session.project.annotated.connect(self._mark_stale)
        self._timer = QTimer(self)
        self._timer.setInterval(RENEW_MS)
        self._timer.timeout.connect(self._renew)
        self._timer.start()

    def draw(self, tile_ids: set[str]) -> None:
        """Draw the thumbnails of tiles as soon as that can be done."""
        self._stale |= tile_ids
        self._renew()

    def end(self) -> None:
        """Draw nothing more."""
        self._timer.stop()

    def _mark_stale(self, tile_id: str) -> None:
        self._stale.add(tile_id)

    def _renew(self) -> None:
        layer = self.view.layer
        if layer is None or not self._stale or not self.view.started or self.session.pictures.pending:
            return
        tiles = {tile.id: tile for tile in self.session.project.tiles if tile.image == self.session.image_index}
        for tile_id in sorted(self._stale)[:AT_ONCE]:
            self._stale.discard(tile_id)
            if tile_id in tiles:
                self._draw(tiles[tile_id], layer)

    def _draw(self, tile: Tile, layer: Any) -> None:
        painted = self.layers.annotation_of(tile.id)
        labels, class_of = (painted[0].copy(), dict(painted[1])) if painted else (None, {})
        colors = [spec.color for spec in self.session.project.classes]

        def failed(error: Exception) -> None:
            self.session.tell(f"The thumbnail of tile {tile.id} cannot be drawn: {error}", "warning")

        self.session.pictures.submit(
            lambda: thumbnail(pixels(layer, tile.box), labels, class_of, colors),
            lambda picture: self._show(tile, picture),
            failed,
        )
