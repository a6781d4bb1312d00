"""A region drawn on the image, and the figures of the nuclei in it."""

from __future__ import annotations

from typing import Any

from napari.layers import Shapes
from psygnal import Signal
from qtpy.QtGui import QGuiApplication

from napari_semiseg.app.session import Session
from napari_semiseg.events import Event, Failed, Written
from napari_semiseg.plugin.layers import KEY, insert
from napari_semiseg.plugin.slide_view import SlideView

COLOR = "#e69f00"


class RegionTool:
    """Lets somebody draw around a region, and has the nuclei in it counted each time it is another.

    Attributes
    ----------
    words : str
        The figures in one line; "" without any.
    drawing : bool
        Whether the next strokes draw a region.
    """

    changed = Signal()

    def __init__(self, session: Session, viewer: Any, view: SlideView) -> None:
        self.session, self.viewer, self.view = session, viewer, view
        self.words = ""
        self.drawing = False
        self._layer: Shapes | None = None
        session.image_changed.connect(self._forget)
        session.review.result_changed.connect(self._measure)
        viewer.layers.events.removed.connect(self._on_removed)

    def switch(self, on: bool) -> None:
        """Begin to draw a new region, or stop."""
        self.drawing = on and self.view.placement is not None
        if self.drawing:
            if self._layer is None:
                self._layer = Shapes(
                    ndim=2,
                    name="Region",
                    edge_color=COLOR,
                    face_color="transparent",
                    edge_width=3,
                    metadata={KEY: {"role": "region", "image": self.session.image_index}},
                    **self.view.placement.at(),
                )
                insert(self.viewer, self._layer)
                self._layer.events.data.connect(self._on_drawn)
            self.viewer.layers.selection.active = self._layer
            self._layer.mode = "add_polygon_lasso"
        elif self._layer is not None:
            self._layer.mode = "pan_zoom"
        self.changed.emit()

    def copy(self) -> None:
        """Put the figures on the clipboard."""
        QGuiApplication.clipboard().setText(self.words)

    def end(self) -> None:
        """Let go of everything; the layer stays."""
        self.viewer.layers.events.removed.disconnect(self._on_removed)
        self.session.image_changed.disconnect(self._forget, missing_ok=True)
        self.session.review.result_changed.disconnect(self._measure, missing_ok=True)
        if self._layer is not None:
            self._layer.events.data.disconnect(self._on_drawn)
        self._layer = None

    def _on_drawn(self, event: Any) -> None:
        if str(getattr(event, "action", "")) in ("added", "changed", "removed") and self._layer is not None:
            if len(self._layer.data) > 1:  # the newest region is the one that counts
                self._layer.selected_data = set(range(len(self._layer.data) - 1))
                self._layer.remove_selected()
                return
            self.switch(False)
            self._measure()

    def _measure(self) -> None:
        self.words = ""
        result, image = self.session.review.result, self.session.image_index
        if self._layer is not None and len(self._layer.data) and result is not None and image is not None:
            corners = [[float(y), float(x)] for y, x in self._layer.data[-1][:, -2:]]
            source = self.session.project.folder.source_path(image)
            args = {"source": str(result), "polygon": corners, "image": source}
            self.session.ask("region", args, self._hear)
        self.changed.emit()

    def _hear(self, event: Event) -> None:
        match event:
            case Written("region", _, facts):
                self.words = figures(facts)
                self.changed.emit()
            case Failed(message, _, detail):
                self.session.tell(message, "warning", details=detail)

    def _forget(self) -> None:
        if self._layer is not None and self._layer in self.viewer.layers:
            self.viewer.layers.remove(self._layer)

    def _on_removed(self, event: Any) -> None:
        if self._layer is not None and self._layer not in self.viewer.layers:
            self._layer, self.drawing, self.words = None, False, ""
            self.changed.emit()


def figures(facts: dict[str, Any]) -> str:
    """Say what was counted: "412 nuclei · 0.31 mm² · 1,329 per mm² · 37 % positive (152)"."""
    parts = [f"{facts['nuclei']:,} {'nucleus' if facts['nuclei'] == 1 else 'nuclei'}"]
    if "area_mm2" in facts:
        parts += [f"{facts['area_mm2']:.3g} mm²", f"{facts['per_mm2']:,.0f} per mm²"]
    else:
        parts.append(f"{facts['area_px']:,} pixels")
    if "positive" in facts:
        parts.append(f"{100 * facts['positive_fraction']:.0f} % positive ({facts['positive']:,})")
    return " · ".join(parts)
