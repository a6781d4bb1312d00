"""The suggested tile, outlined in the image until it is taken or another is shown."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Shapes

from napari_semiseg.app.session import Session
from napari_semiseg.app.suggestions import Suggestion, Suggestions
from napari_semiseg.plugin.layers import KEY, insert
from napari_semiseg.plugin.slide_view import SlideView


class SuggestionLayer:
    """Shows the suggestion on offer where it lies in the image in view."""

    def __init__(self, session: Session, viewer: Any, view: SlideView, suggestions: Suggestions) -> None:
        self.session, self.viewer, self.view, self.suggestions = session, viewer, view, suggestions
        self._layer: Shapes | None = None
        self._shown: Suggestion | None = None
        suggestions.changed.connect(self._show)
        session.image_changed.connect(self._show)

    def _show(self) -> None:
        current = self.suggestions.current
        if current is not None and current.image != self.session.image_index:
            current = None
        if current is self._shown:
            return
        self._drop()
        self._shown = current
        if current is None or self.view.placement is None:
            return
        y0, x0, y1, x1 = (side - 0.5 for side in current.box)
        self._layer = Shapes(
            [np.array([[y0, x0], [y0, x1], [y1, x1], [y1, x0]])],
            name="Suggested tile",
            edge_color="#ffffff",
            face_color="#ffffff22",
            edge_width=3,
            metadata={KEY: {"role": "suggestion", "project": str(self.session.project.path)}},
            **self.view.placement.at(),
        )
        insert(self.viewer, self._layer)

    def _drop(self) -> None:
        if self._layer is not None and self._layer in self.viewer.layers:
            self.viewer.layers.remove(self._layer)
        self._layer = None

    def end(self) -> None:
        """Let go of the viewer."""
        self.suggestions.changed.disconnect(self._show, missing_ok=True)
        self.session.image_changed.disconnect(self._show, missing_ok=True)
        self._layer = None
