"""A region drawn on the image, and the figures of the nuclei in it."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from napari.layers import Shapes
from psygnal import Signal
from qtpy.QtGui import QGuiApplication

from napari_semiseg.app.session import Session
from napari_semiseg.app.words import capital
from napari_semiseg.events import Event, Failed, Written
from napari_semiseg.plugin.layers import KEY, insert
from napari_semiseg.plugin.slide_view import SlideView

COLOR = "#e69f00"
LEAST_AREA = 4.0
"""Pixels that a region has at least: a click is none."""


class RegionTool:
    """Lets somebody draw around a region, and has the nuclei in it counted each time it is another.

    Attributes
    ----------
    words : str
        The figures in one line; "" without any.
    waiting : bool
        Whether they are being counted, or will be as soon as the engine is free.
    drawing : bool
        Whether the next strokes draw a region.
    """

    changed = Signal()

    def __init__(self, session: Session, viewer: Any, view: SlideView) -> None:
        self.session, self.viewer, self.view = session, viewer, view
        self.words = ""
        self.waiting = self.drawing = False
        self._layer: Shapes | None = None
        self._asked = 0
        session.image_changed.connect(self._forget)
        session.review.result_changed.connect(self._measure)
        viewer.layers.events.removed.connect(self._on_removed)

    @property
    def wait_words(self) -> str:
        """What is waited for; "" for nothing."""
        return (capital(self.session.waits("region")) or "counting…") if self.waiting else ""

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
                    opacity=1.0,
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
        self.session.tell(f"Copied: {self.words}")

    def end(self) -> None:
        """Let go of everything; the layer stays."""
        self._asked += 1
        self.viewer.layers.events.removed.disconnect(self._on_removed)
        self.session.image_changed.disconnect(self._forget, missing_ok=True)
        self.session.review.result_changed.disconnect(self._measure, missing_ok=True)
        if self._layer is not None:
            self._layer.events.data.disconnect(self._on_drawn)
        self._layer = None

    def _on_drawn(self, event: Any) -> None:
        if str(getattr(event, "action", "")) not in ("added", "changed", "removed") or self._layer is None:
            return
        regions = self._layer.data
        if len(regions) and _area(regions[-1]) < LEAST_AREA:
            self._remove(len(regions) - 1)
            self.session.tell("That region is empty: hold the mouse button and draw around the nuclei.", "warning")
        elif len(regions) > 1:  # the newest region is the one that counts
            self._remove(*range(len(regions) - 1))
        else:
            if len(regions):
                self.switch(False)
            self._measure(drawn=True)

    def _remove(self, *numbers: int) -> None:
        """Take regions away, which is a change to be heard of like any other."""
        self._layer.selected_data = set(numbers)
        self._layer.remove_selected()

    def _measure(self, *, drawn: bool = False) -> None:
        self._asked += 1
        self.words, self.waiting = "", False
        result, image = self.session.review.result, self.session.image_index
        if self._layer is not None and len(self._layer.data) and result is not None and image is not None:
            corners = self._layer.data[-1][:, -2:]
            if _beside(corners, self.session.project.images[image].shape):
                if drawn:
                    self.session.tell("The region does not lie on the image: draw it there.", "warning")
            else:
                source = self.session.project.folder.source_path(image)
                args = {"source": str(result), "polygon": corners.tolist(), "image": source}
                self.waiting = True
                self.session.ask("region", args, partial(self._hear, self._asked))
        self.changed.emit()

    def _hear(self, asked: int, event: Event) -> None:
        if asked != self._asked:  # another region, another result or none by now
            return
        match event:
            case Written("region", _, facts):
                self.words, self.waiting = figures(facts), False
                self.changed.emit()
            case Failed(message, _, detail):
                self.waiting = False
                self.changed.emit()
                self.session.tell(message, "warning", details=detail)

    def _forget(self) -> None:
        if self._layer is not None and self._layer in self.viewer.layers:
            self.viewer.layers.remove(self._layer)

    def _on_removed(self, event: Any) -> None:
        if self._layer is not None and self._layer not in self.viewer.layers:
            self._asked += 1
            self._layer, self.drawing, self.waiting, self.words = None, False, False, ""
            self.changed.emit()


def figures(facts: dict[str, Any]) -> str:
    """Say what was counted: "412 nuclei · 0.31 mm² · 1,329 per mm² · 37 % positive (152)"."""
    parts = [f"{facts['nuclei']:,} {'nucleus' if facts['nuclei'] == 1 else 'nuclei'}"]
    if "area_mm2" in facts:
        parts += [f"{facts['area_mm2']:.3g} mm²", f"{facts['per_mm2']:,.0f} per mm²"]
    else:
        parts.append(f"{facts['area_px']:,} pixels of unknown size")
    if "positive" in facts and facts["nuclei"]:
        parts.append(f"{100 * facts['positive_fraction']:.0f} % positive ({facts['positive']:,})")
    elif facts.get("dab") is False:
        parts.append("no DAB in this image")
    return " · ".join(parts)


def _area(corners: np.ndarray) -> float:
    """Return the area of a polygon, (n, 2), by the shoelace formula."""
    y, x = corners[:, -2], corners[:, -1]
    return abs(float(np.dot(y, np.roll(x, -1)) - np.dot(x, np.roll(y, -1)))) / 2


def _beside(corners: np.ndarray, shape: tuple[int, int] | None) -> bool:
    """Whether no part of a polygon, (n, 2), lies on an image."""
    return shape is not None and bool((corners.max(axis=0) < 0).any() or (corners.min(axis=0) > shape).any())
