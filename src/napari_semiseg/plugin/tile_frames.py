"""The frames around tiles, in the color of their status."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import LayerLock, Shapes

from napari_semiseg.app.session import Session
from napari_semiseg.plugin.layers import KEY, Placement, insert, put
from napari_semiseg.project.schema import Tile

STATUS_COLORS = {"empty": "#f0e442", "sparse": "#56b4e9", "complete": "#009e73", "excluded": "#999999"}
"""Okabe and Ito's colors, which the color-blind tell apart."""


class TileFrames:
    """Keeps one shapes layer with a rectangle around every tile of the image in view, wider around the selected one.

    Parameters
    ----------
    session : Session
    viewer : napari viewer

    Attributes
    ----------
    layer : Shapes or None
        None until there is a tile.
    """

    def __init__(self, session: Session, viewer: Any) -> None:
        self.session, self.viewer = session, viewer
        self.layer: Shapes | None = None
        self._drawn: object = None  # what the rectangles say

    def show(self, placement: Placement | None) -> None:
        """Draw the rectangles on the image, which lies there."""
        if placement is None:
            return
        project = self.session.project
        tiles = [tile for tile in project.tiles if tile.image == self.session.image_index]
        wanted = tuple((tile.id, tile.box, tile.status, tile.id == project.selected) for tile in tiles)
        if wanted == self._drawn and (self.layer is not None or not tiles):
            return
        before, self._drawn = self._drawn, wanted
        if self.layer is not None and self._choose(before, wanted, tiles):
            return
        if self.layer is None and tiles:
            self._make(placement)
        if self.layer is not None:
            self._draw(tiles)

    def move(self, placement: Placement) -> None:
        """Follow the image to where it lies now."""
        if self.layer is not None:
            put(self.layer, placement.at())

    def forget(self) -> None:
        """Begin anew: the layer was taken out of the viewer."""
        self.layer = self._drawn = None

    def _make(self, placement: Placement) -> None:
        self.layer = Shapes(
            ndim=2,
            name="Tiles",
            metadata={KEY: {"role": "tiles", "project": str(self.session.project.path)}},
            **placement.at(),
        )
        self.layer.locked = LayerLock.DELETION
        insert(self.viewer, self.layer)

    def _draw(self, tiles: list[Tile]) -> None:
        selected = self.session.project.selected
        self.layer.editable = True
        self.layer.data = []
        if tiles:
            self.layer.add_rectangles(
                [_corners(tile) for tile in tiles],
                edge_color=[STATUS_COLORS[tile.status] for tile in tiles],
                face_color="transparent",
                edge_width=[_edge(tile) * (2 if tile.id == selected else 1) for tile in tiles],
            )
            self.layer.selected_data = set()
        self.layer.editable = False

    def _choose(self, before: Any, wanted: Any, tiles: list[Tile]) -> bool:
        """Make the rectangles of the tile chosen now and of the one before wider and thinner, if that is all."""
        if not before or [entry[:3] for entry in before] != [entry[:3] for entry in wanted]:
            return False
        for number, (old, new) in enumerate(zip(before, wanted, strict=True)):
            if old != new:
                self.layer.selected_data = {number}
                self.layer.current_edge_width = _edge(tiles[number]) * (2 if new[3] else 1)
        self.layer.selected_data = set()
        return True


def _edge(tile: Tile) -> float:
    """Return the width of a tile's frame, in pixels of the image: as thin for its size whatever that is."""
    return max(1.0, min(tile.box.shape) / 125)


def _corners(tile: Tile) -> np.ndarray:
    y0, x0, y1, x1 = (side - 0.5 for side in tile.box)
    return np.array([[y0, x0], [y0, x1], [y1, x1], [y1, x0]])
