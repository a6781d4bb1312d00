"""Whether something is being drawn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from napari_semiseg.plugin.layers import unwrapped

_IDLE_MODES = ("pan_zoom", "pick", "transform")


class Strokes:
    """Knows whether the active layer is being drawn in: nothing of ours may come between a hand and its stroke.

    Attributes
    ----------
    drawn : int
        How many strokes have begun so far; gestures that correct nuclei are none.
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._pressed = False
        self.drawn = 0
        viewer.mouse_drag_callbacks.append(self._on_drag)

    @property
    def drawing(self) -> bool:
        """Whether the mouse draws: a stroke, a gesture, or napari's circle, which needs no button to be held."""
        layer = self._viewer.layers.selection.active
        return layer is not None and ((self._pressed and _draws(layer)) or encircles(layer))

    @property
    def unfinished(self) -> bool:
        """Whether the mouse draws, or a circle or a polygon is open in any layer: another mode would throw it away."""
        return self.drawing or any(encircles(layer) or _lacks_corners(layer) for layer in self._viewer.layers)

    def _on_drag(self, viewer: Any, event: Any) -> Iterator[None]:
        layer = viewer.layers.selection.active
        self.drawn += layer is not None and str(layer.mode) not in _IDLE_MODES
        self._pressed = True
        try:
            yield
            while event.type == "mouse_move":
                yield
        finally:
            self._pressed = False

    def end(self) -> None:
        """Let go of the viewer."""
        if self._on_drag in self._viewer.mouse_drag_callbacks:
            self._viewer.mouse_drag_callbacks.remove(self._on_drag)
        self._pressed = False


def _draws(layer: Any) -> bool:
    """Whether a drag in a layer draws: in a calm mode it does where it does not move the view."""
    mode = str(layer.mode)
    return mode not in _IDLE_MODES or (mode == "pan_zoom" and not layer.mouse_pan)


def encircles(layer: Any) -> bool:
    """Whether a circle of napari's is open in a layer: begun with the right button, and neither closed nor given up."""
    circle = _overlay(layer, "brush_stroke")
    return circle is not None and bool(circle.active)


def _lacks_corners(layer: Any) -> bool:
    polygon = _overlay(layer, "polygon")
    return polygon is not None and bool(polygon.enabled and polygon.points)


def _overlay(layer: Any, name: str) -> Any:
    """Return what napari draws over a layer; it tells what is half drawn nowhere else."""
    return getattr(unwrapped(layer), "_overlays", {}).get(name)
