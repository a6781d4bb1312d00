"""Which number a stroke paints with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from napari_semiseg.app.corrections import Correction
from napari_semiseg.app.painting import BACKGROUND_ID, is_proposed, next_id
from napari_semiseg.plugin.painted_tile import PaintedTile
from napari_semiseg.plugin.pen import Pen
from napari_semiseg.plugin.strokes import encircles
from napari_semiseg.project.tile_annotation import BACKGROUND


class Brush:
    """Gives strokes their numbers: one that begins on a nucleus goes on with it, any other one begins a new one.

    Parameters
    ----------
    pen : Pen
    tile_of : callable
        Returns the tile that a layer is of, if it is of one.
    """

    def __init__(self, pen: Pen, tile_of: Callable[[Any], PaintedTile | None]) -> None:
        self.pen, self._tile_of = pen, tile_of
        self._force_new = False

    def watch(self, layer: Any) -> None:
        """Follow the strokes in a tile's layer."""
        layer.mouse_drag_callbacks.insert(0, self._begin_stroke)
        layer.events.mode.connect(self._on_mode)

    def next_nucleus(self, tile: PaintedTile | None) -> None:
        """Begin a new nucleus with the next stroke, wherever that begins."""
        self._force_new = True
        if tile is not None:
            tile.take_number()

    def _begin_stroke(self, layer: Any, event: Any) -> None:
        """Choose the number to paint with, before napari's own brush is asked."""
        tile = self._tile_of(layer)
        if tile is None or layer.mode not in ("paint", "polygon", "fill") or "Alt" in event.modifiers:
            return
        if encircles(layer):
            return  # until it is closed or given up, a press only moves the view
        if self.pen.kind == BACKGROUND:
            layer.selected_label = BACKGROUND_ID
            return
        if layer.mode == "polygon":  # its corners are clicks, and it is painted with the last of them
            if self._force_new or np.any(layer.data == layer.selected_label):
                tile.take_number()
        else:
            self._begin_at(tile, event.position)
        self._force_new = False

    def _begin_at(self, tile: PaintedTile, position: Sequence[float]) -> None:
        """Go on with the nucleus at a point of the world, or begin a new one."""
        under = tile.number_at(position)
        if is_proposed(under):  # who paints on it means that it is one
            tile.apply(_taken(tile.layer.data, under))
            under = tile.number_at(position)
        if not 0 < under < BACKGROUND_ID or self._force_new:
            tile.take_number()
            return
        if tile.layer.mode == "fill":  # a whole nucleus is filled: it gets the class that is painted with
            under = tile.reclass(under, self.pen.kind)
        tile.layer.selected_label = under

    def _on_mode(self, event: Any) -> None:
        """Keep neighbors from being painted over, but let the eraser erase all of them."""
        event.source.preserve_labels = event.source.mode in ("paint", "polygon")


def _taken(labels: np.ndarray, number: int) -> Correction:
    """Make a proposed nucleus a drawn one."""
    where = np.nonzero(labels == number)
    new = next_id(labels)
    return Correction("redraw", where, np.full(where[0].size, new), {new: number})
