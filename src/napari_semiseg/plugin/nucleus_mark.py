"""The nucleus of a result that is being judged: framed, and brought into view."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Shapes

from napari_semiseg.app.nuclei_review import DoubtfulNucleus
from napari_semiseg.app.session import Session
from napari_semiseg.plugin.layers import KEY, insert, look_at
from napari_semiseg.plugin.slide_view import SlideView

COLOR = "#ffffff"
AROUND = 6
"""Pixels between a nucleus and its frame."""
LEAST_SHARE = 1 / 12
"""A nucleus that is smaller than this part of the view is enlarged."""


class NucleusMark:
    """Keeps one frame."""

    def __init__(self, session: Session, viewer: Any, view: SlideView) -> None:
        self.session, self.viewer, self.view = session, viewer, view
        self._layer: Shapes | None = None

    def show(self, nucleus: DoubtfulNucleus | None) -> None:
        """Frame a nucleus and look at it; None for no frame."""
        if nucleus is None or self.view.placement is None:
            self.end()
            return
        y0, x0, y1, x1 = nucleus.box.grown(AROUND)
        corners = np.array([[y0, x0], [y0, x1], [y1, x1], [y1, x0]]) - 0.5
        if self._layer is None or self._layer not in self.viewer.layers:
            self._layer = Shapes(
                [corners],
                name="In doubt",
                edge_color=COLOR,
                face_color="transparent",
                edge_width=1,
                metadata={KEY: {"role": "suggestion", "project": str(self.session.project.path)}},
                **self.view.placement.at(),
            )
            insert(self.viewer, self._layer)
        else:
            self._layer.data = [corners]
        look_at(self.viewer, self.view.placement, nucleus.box, LEAST_SHARE)

    def end(self) -> None:
        """Take the frame away."""
        if self._layer is not None and self._layer in self.viewer.layers:
            self.viewer.layers.remove(self._layer)
        self._layer = None
