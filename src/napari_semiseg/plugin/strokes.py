"""Whether a stroke is being drawn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from napari.layers import Labels

_IDLE_MODES = ("pan_zoom", "pick", "transform")


class Strokes:
    """Knows whether the mouse is pressed in a labels layer that is painted in.

    Attributes
    ----------
    drawing : bool
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self.drawing = False
        viewer.mouse_drag_callbacks.append(self._on_drag)

    def _on_drag(self, viewer: Any, event: Any) -> Iterator[None]:
        layer = viewer.layers.selection.active
        if not isinstance(layer, Labels) or str(layer.mode) in _IDLE_MODES:
            return
        self.drawing = True
        try:
            yield
            while event.type == "mouse_move":
                yield
        finally:
            self.drawing = False

    def end(self) -> None:
        """Let go of the viewer."""
        if self._on_drag in self._viewer.mouse_drag_callbacks:
            self._viewer.mouse_drag_callbacks.remove(self._on_drag)
        self.drawing = False
