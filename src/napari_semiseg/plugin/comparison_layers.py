"""The result of another run over that in view: its nuclei, and where the two differ."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Labels
from napari.utils.colormaps import DirectLabelColormap

from napari_semiseg.app.comparison import Comparison, Difference
from napari_semiseg.app.session import Session
from napari_semiseg.io.result import Result
from napari_semiseg.plugin.layers import KEY, insert, of_role
from napari_semiseg.plugin.slide_view import SlideView

ONLY_THIS, BOTH, ONLY_OTHER = "#f0e442", "#009e73", "#d55e00"
"""Okabe and Ito's yellow, green and vermilion, which the color-blind tell apart."""


class ComparisonLayers:
    """Keeps two layers while there is something to compare: the other nuclei, and the difference.

    Attributes
    ----------
    showing_other : bool
        Whether the nuclei of the other run are in view in the place of those of the result.
    """

    def __init__(self, session: Session, viewer: Any, view: SlideView, comparison: Comparison) -> None:
        self.session, self.viewer, self.view, self.comparison = session, viewer, view, comparison
        self.showing_other = False
        self._shown: Difference | None = None
        comparison.changed.connect(self._show)
        session.review.split_changed.connect(self.show_this)

    def flip(self) -> None:
        """Show the nuclei of the other run, or again those of the result."""
        self.showing_other = not self.showing_other
        for layer in of_role(self.viewer, "nuclei"):
            layer.visible = not self.showing_other
        for layer in of_role(self.viewer, "other"):
            layer.visible = self.showing_other

    def show_this(self) -> None:
        """Show the nuclei of the result, whatever was shown: the sliders move those."""
        if self.showing_other:
            self.flip()
            self.comparison.changed.emit()

    def end(self) -> None:
        """Take the layers away."""
        self.comparison.changed.disconnect(self._show, missing_ok=True)
        self.session.review.split_changed.disconnect(self.show_this, missing_ok=True)
        self._drop()

    def _show(self) -> None:
        difference = self.comparison.difference
        if difference is self._shown:
            return
        self._drop()
        self._shown = difference
        other = self.comparison.other
        if difference is None or other is None:
            return

        def read() -> tuple[np.ndarray, np.ndarray]:
            return np.load(difference.path, allow_pickle=False), Result.open(other).nuclei(difference.box)

        self.session.background.submit(read, lambda found: self._add(difference, *found), self._fail)

    def _add(self, difference: Difference, found: np.ndarray, nuclei: np.ndarray) -> None:
        if difference is not self.comparison.difference or self.view.placement is None:
            return
        place = self.view.placement.at(difference.box.y0, difference.box.x0)
        colors = {0: "transparent", None: "transparent", 1: ONLY_THIS, 2: BOTH, 3: ONLY_OTHER}
        self._insert(found, "Difference of two runs", colors, 0, place)
        layer = self._insert(nuclei, "Nuclei of the other run", {0: "transparent", None: ONLY_OTHER}, 1, place)
        layer.visible = False

    def _insert(self, data: np.ndarray, name: str, colors: dict[Any, str], contour: int, place: dict) -> Labels:
        role = "other" if contour else "difference"
        layer = Labels(data, name=name, opacity=0.9 if contour else 0.5, metadata={KEY: {"role": role}}, **place)
        layer.colormap = DirectLabelColormap(color_dict=colors)
        layer.contour = contour
        layer.editable = False
        insert(self.viewer, layer)
        return layer

    def _drop(self) -> None:
        if self.showing_other:
            self.flip()
        self._shown = None
        for role in ("difference", "other"):
            for layer in of_role(self.viewer, role):
                self.viewer.layers.remove(layer)

    def _fail(self, error: Exception) -> None:
        self.session.tell(f"The comparison cannot be shown ({error}): compare again.", "error")
