"""Which tiles napari holds and draws: it draws all layers anew with every stroke, wherever they lie."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication

from napari_semiseg.app.session import Session
from napari_semiseg.plugin.layers import Placement, of_role, tag
from napari_semiseg.project.schema import Tile

AROUND = 0.25
"""How far beyond the edges of the view tiles are drawn, as a part of the view: a drag then shows them at once."""
SEEN_FROM = 16
"""Pixels of the canvas from which on the paint in a tile can be made out. A smaller one is a frame in a color."""
AT_ONCE = 4
"""Eyes that one call of `settle` opens or closes: with more of them a stroke would wait."""
CALM_S = 0.15
"""For so long nothing has moved before a tile is prepared that is not in view."""


class TilesInView:
    """Puts tiles' layers into the viewer as they come into view, and closes their eyes as they leave it.

    A layer is not taken out again, since that takes napari longer than drawing its row. An eye that somebody closes
    stays closed until somebody opens it, or goes to that tile.

    Parameters
    ----------
    session : Session
    viewer : napari viewer
    put : callable
        Inserts a layer into the viewer.

    Attributes
    ----------
    due : bool
        Whether `settle` has something left to do.
    """

    def __init__(self, session: Session, viewer: Any, put: Callable[[Any], object]) -> None:
        self.session, self.viewer, self._put = session, viewer, put
        self._side: float | None = None  # of a pixel of the image in the world
        self._closed_by_hand: set[str] = set()
        self._ours = self.due = False
        self._moved = 0.0
        session.project.selected_changed.connect(self.look_again)

    def lie_at(self, placement: Placement | None) -> None:
        """Note where the image lies; None where there is none."""
        self._side = None if placement is None else placement.side
        self.look_again()

    def look_again(self) -> None:
        """Note that another part of the image is in view or another zoom, or that other tiles are there."""
        self.due, self._moved = True, time.monotonic()

    def watch(self, layer: Any) -> None:
        """Follow the eye of a tile's layer."""
        layer.events.visible.connect(self._on_eye)
        self.look_again()

    def shows(self, tile: Tile) -> bool:
        """Whether a tile is to be drawn."""
        if tile.id == self.session.project.selected:
            return True
        view = self.session.visible_box
        if tile.id in self._closed_by_hand or view is None or self._side is None:
            return False
        side = min(tile.box.shape) * self._side * float(self.viewer.scene.camera.zoom)
        around = view.grown(round(AROUND * max(view.shape)))
        return side >= SEEN_FROM and around.intersect(tile.box).area > 0

    def settle(self, layers: Mapping[str, Any], ahead: Callable[[], list[str]]) -> None:
        """Do a part of what is due, the most urgent first; call it again and again.

        Parameters
        ----------
        layers : mapping
            Id of a tile to its layer.
        ahead : callable
            Lists the tiles that somebody will probably go to next.
        """
        if not self.due:
            return
        there = {str(tag(layer).get("tile")) for layer in of_role(self.viewer, "annotation")}
        selected = self.session.project.selected  # whose eye is that of the person who looks at it
        tiles = [tile for tile in self.session.project.tiles if tile.id in layers and tile.id != selected]
        missing = [tile.id for tile in tiles if tile.id not in there and self.shows(tile)]
        wrong = [tile for tile in tiles if tile.id in there and layers[tile.id].visible != self.shows(tile)]
        wrong.sort(key=lambda tile: layers[tile.id].visible)
        if missing:
            self._put(layers[missing[0]])
        elif wrong:
            with self._by_us():
                for tile in wrong[:AT_ONCE]:
                    layers[tile.id].visible = not layers[tile.id].visible
        elif time.monotonic() - self._moved > CALM_S and QApplication.mouseButtons() == Qt.MouseButton.NoButton:
            self._prepare([tile_id for tile_id in ahead() if tile_id in layers and tile_id not in there], layers)

    def _prepare(self, ahead: list[str], layers: Mapping[str, Any]) -> None:
        """Put one more layer where going to it finds it."""
        if not ahead:
            self.due = False
            return
        with self._by_us():
            layers[ahead[0]].visible = False
        self._put(layers[ahead[0]])

    @contextmanager
    def _by_us(self) -> Iterator[None]:
        self._ours = True
        try:
            yield
        finally:
            self._ours = False

    def _on_eye(self, event: Any) -> None:
        if self._ours:
            return
        tile_id = str(tag(event.source).get("tile"))
        if event.source.visible:
            self._closed_by_hand.discard(tile_id)
        else:
            self._closed_by_hand.add(tile_id)
