"""Adding a tile by a click on the image, with a rectangle that shows where it would lie."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from napari.layers import Shapes
from psygnal import Signal

from napari_semiseg.app.project_model import TILE_SIDE, square
from napari_semiseg.app.session import Session
from napari_semiseg.errors import InputError
from napari_semiseg.plugin.layers import KEY, insert
from napari_semiseg.plugin.slide_view import SlideView
from napari_semiseg.project.tiles import judge_at

_STILL = 4  # canvas pixels that a click may move and still be one
_FREE, _TAKEN = "#ffffff", "#d55e00"  # of a tile that can lie there, and of one that cannot: see `judge_at`


class TileTool:
    """While it is on, a click on the image adds a tile there; a drag moves the view as always.

    Attributes
    ----------
    side : int
        Side of a tile, in pixels of the image.
    """

    changed = Signal()

    def __init__(self, session: Session, viewer: Any, view: SlideView) -> None:
        self.session, self.viewer, self.view = session, viewer, view
        self.side = TILE_SIDE
        self.on = False
        self._ghost: Shapes | None = None
        session.project.closed.connect(self._on_closed)

    def _on_closed(self) -> None:
        self.switch(False)

    def switch(self, on: bool) -> None:
        """Switch it on or off."""
        if on == self.on or (on and (self.view.layer is None or not self.view.started)):
            self.changed.emit()
            return
        self.on = on
        if on:
            self.viewer.layers.selection.active = self.view.layer
            self.view.layer.mode = "pan_zoom"
            self.viewer.mouse_drag_callbacks.append(self._on_press)
            self.viewer.mouse_move_callbacks.append(self._on_move)
        else:
            self._off()
        self.changed.emit()

    def _off(self) -> None:
        for callbacks, callback in self._callbacks():
            if callback in callbacks:
                callbacks.remove(callback)
        if self._ghost is not None and self._ghost in self.viewer.layers:
            self.viewer.layers.remove(self._ghost)
        self._ghost = None

    def _callbacks(self) -> list[tuple[list[Any], Any]]:
        return [
            (self.viewer.mouse_drag_callbacks, self._on_press),
            (self.viewer.mouse_move_callbacks, self._on_move),
        ]

    def _on_press(self, viewer: Any, event: Any) -> Iterator[None]:
        start = np.asarray(event.pos, float)
        if event.button != 1:
            return
        where = self.view.placement.to_image(event.position)
        yield
        moved = 0.0
        while event.type == "mouse_move":
            moved = max(moved, float(np.abs(np.asarray(event.pos, float) - start).max()))
            yield
        if moved <= _STILL:
            self._add(where)

    def _add(self, where: tuple[float, float]) -> None:
        if self.session.image_index is None:  # the project was closed meanwhile
            self.switch(False)
            return
        try:
            self.switch(False)
            self.session.project.add_tile(self.session.image_index, center=where, side=self.side)
        except InputError as error:
            self.session.tell(str(error), "warning")
            self.switch(True)

    def _on_move(self, viewer: Any, event: Any) -> None:
        if self.view.slide is None:  # the image was taken out of the viewer
            return
        try:
            box = square(self.view.placement.to_image(event.position), self.side, self.view.slide.shape)
        except InputError:
            return
        y0, x0, y1, x1 = (value - 0.5 for value in box)
        corners = np.array([[y0, x0], [y0, x1], [y1, x1], [y1, x0]])
        color = _FREE if judge_at(self.session.project.tiles, self.session.image_index, box) is None else _TAKEN
        if self._ghost is None:
            self._ghost = Shapes(
                [corners],
                name="New tile",
                edge_color=color,
                face_color=f"{color}22",
                edge_width=2,
                metadata={KEY: {"role": "suggestion", "project": str(self.session.project.path)}},
                **self.view.placement.at(),
            )
            insert(self.viewer, self._ghost)
        else:
            self._ghost.data = [corners]
            self._ghost.edge_color, self._ghost.face_color = color, f"{color}22"

    def end(self) -> None:
        """Let go of the viewer."""
        self.on = False
        for callbacks, callback in self._callbacks():
            if callback in callbacks:
                callbacks.remove(callback)
