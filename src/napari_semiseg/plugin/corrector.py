"""Gestures over a tile that correct its nuclei; `app/corrections.py` says what they mean."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from napari.layers import Shapes

from napari_semiseg.app.corrections import Point, correct, delete
from napari_semiseg.plugin.layers import KEY, insert, role, tag
from napari_semiseg.plugin.tile_layers import TileLayers

TRAIL_COLOR = "#ff5fd2"
_IN_THE_WAY = ("proposal", "confidence", "difference", "nuclei", "other")


class Corrector:
    """Listens to the mouse over tiles while nuclei are corrected, and draws where it went.

    Inside the tile the left button makes a gesture and the right one deletes the nucleus below it; outside, a drag
    moves the view as always. What other layers of ours say of nuclei is out of the way meanwhile.

    Parameters
    ----------
    viewer : napari viewer
    tiles : TileLayers
    """

    def __init__(self, viewer: Any, tiles: TileLayers) -> None:
        self.viewer, self.tiles = viewer, tiles
        self._trail: Shapes | None = None
        self._hidden: list[Any] = []
        tiles.added.connect(self._listen)
        tiles.correcting_changed.connect(self._on_switch)

    def _listen(self, layer: Any) -> None:
        layer.mouse_drag_callbacks.insert(0, self._on_press)
        layer.mouse_move_callbacks.append(self._on_move)

    def _on_switch(self) -> None:
        if self.tiles.correcting:
            self._hidden = [layer for layer in self.viewer.layers if role(layer) in _IN_THE_WAY and layer.visible]
            for layer in self._hidden:
                layer.visible = False
            return
        self._drop_trail()
        hidden, self._hidden = self._hidden, []
        for layer in hidden:
            if layer in self.viewer.layers:
                layer.visible = True

    def _on_move(self, layer: Any, event: Any) -> None:
        if self.tiles.correcting and layer.mode == "pan_zoom":
            layer.mouse_pan = not _inside(layer, _point(layer, event))

    def _on_press(self, layer: Any, event: Any) -> Iterator[None]:
        first = _point(layer, event)
        self._on_move(layer, event)  # a key may have brought the tile below a mouse, or a pen, that has not moved since
        if not self.tiles.correcting or layer.mode != "pan_zoom" or not _inside(layer, first):
            return
        tile_id = str(tag(layer).get("tile"))
        if event.button == 2:
            y, x = np.rint(first).astype(int)
            self.tiles.apply(tile_id, delete(layer.data, int(layer.data[y, x])))
            return
        if event.button != 1:
            return
        path = [first]
        yield
        while event.type == "mouse_move":
            path.append(_point(layer, event))
            self._draw(layer, path)
            yield
        self._drop_trail()
        self.tiles.apply(tile_id, correct(layer.data, path))

    def _draw(self, layer: Any, path: list[Point]) -> None:
        if self._trail is None:
            self._trail = Shapes(
                name="Gesture",
                ndim=2,
                metadata={KEY: {"role": "gesture"}},
                **{
                    name: getattr(layer, name)
                    for name in ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")
                },
            )
            insert(self.viewer, self._trail)
        self._trail.data = []
        self._trail.add_paths([np.array(path)], edge_color=TRAIL_COLOR, edge_width=1)

    def _drop_trail(self) -> None:
        trail, self._trail = self._trail, None
        if trail is not None and trail in self.viewer.layers:
            active = self.viewer.layers.selection.active
            self.viewer.layers.remove(trail)
            self.viewer.layers.selection.active = active

    def end(self) -> None:
        """Let go of the viewer."""
        self.tiles.added.disconnect(self._listen, missing_ok=True)
        self.tiles.correcting_changed.disconnect(self._on_switch, missing_ok=True)
        for layer in self.viewer.layers:
            if role(layer) == "annotation":
                for callbacks, callback in (
                    (layer.mouse_drag_callbacks, self._on_press),
                    (layer.mouse_move_callbacks, self._on_move),
                ):
                    if callback in callbacks:
                        callbacks.remove(callback)
        self._trail = None
        self._hidden.clear()


def _point(layer: Any, event: Any) -> Point:
    y, x = layer.world_to_data(event.position)[-2:]
    return float(y), float(x)


def _inside(layer: Any, point: Point) -> bool:
    return all(-0.5 <= place < side - 0.5 for place, side in zip(point, layer.data.shape, strict=True))
