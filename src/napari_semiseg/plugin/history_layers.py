"""Confidence and nuclei side by side: the map that the history points at, and to its right the nuclei found in it."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Image, Labels

from napari_semiseg.app.history_nuclei import HistoryNuclei
from napari_semiseg.app.run_record import Preview
from napari_semiseg.app.session import Session
from napari_semiseg.blocks import Box
from napari_semiseg.plugin.layers import KEY, insert, levels, of_role, put, role, shown
from napari_semiseg.plugin.result_layers import ResultLayers, nuclei_colormap
from napari_semiseg.plugin.slide_view import SlideView

GAP = 0.03
"""Between the two, as a part of the map's width."""
MARGIN = 1.05
"""How much more than both fits into the view."""


class HistoryLayers:
    """Keeps a copy of the tissue and the nuclei of a map beside it for as long as somebody compares the two.

    The nuclei and the confidence of the result are hidden meanwhile; eyes and view are given back in the end.

    Parameters
    ----------
    session : Session
    viewer : napari viewer
    view : SlideView
    nuclei : HistoryNuclei
    results : ResultLayers
    """

    def __init__(
        self, session: Session, viewer: Any, view: SlideView, nuclei: HistoryNuclei, results: ResultLayers
    ) -> None:
        self.session, self.viewer, self.view = session, viewer, view
        self.nuclei, self.results = nuclei, results
        self._place: tuple[Box, int] | None = None
        self._eyes: list[tuple[Any, bool]] = []
        self._camera: tuple[Any, float] | None = None
        self._image: Any = None  # the layer that was looked at then
        nuclei.changed.connect(self._show)

    def end(self) -> None:
        """Take the layers away."""
        self.nuclei.changed.disconnect(self._show, missing_ok=True)
        self._leave()

    def _show(self) -> None:
        preview = self.nuclei.history.current
        if not self.nuclei.on or preview is None or self.view.placement is None:
            self._leave()
            return
        place = Box(*preview.box), preview.downsample
        if place != self._place:
            self._leave()
            self._arrive(preview)
            self._place = place
        found = self.nuclei.found
        if found is not None and (Box(*found.preview.box), found.preview.downsample) == place:
            self._show_nuclei(found.labels, preview)

    def _arrive(self, preview: Preview) -> None:
        """Make room: hide what would lie over the map, and show the map and what comes beside it."""
        for layer in self.viewer.layers:
            if role(layer) in ("nuclei", "other", "difference", "confidence", "proposal"):
                self._eyes.append((layer, layer.visible))
                layer.visible = role(layer) == "confidence" and layer != self.results.confidence
        camera = self.viewer.scene.camera
        self._camera, self._image = (tuple(camera.center), float(camera.zoom)), self.view.layer
        box = Box(*preview.box)
        half = (1 + GAP / 2) * box.width
        camera.center = (0.0, *self.view.placement.to_world((box.y0 + box.y1) / 2, box.x0 + half))
        height, width = self.viewer.canvas.size
        scale = float(np.mean(np.abs(self.view.placement.scale)))
        camera.zoom = min(height / box.height, width / (2 * half)) / MARGIN / scale
        self._read_tissue(preview)

    def _read_tissue(self, preview: Preview) -> None:
        layer, box, step = self.view.layer, Box(*preview.box), preview.downsample
        array, rgb, limits = levels(layer)[0], bool(layer.rgb), tuple(layer.contrast_limits)

        def read() -> np.ndarray:
            return shown(np.asarray(array[box.slices])[::step, ::step], rgb, limits)

        def put_in(tissue: np.ndarray) -> None:
            if self._place == (box, step) and not any(isinstance(there, Image) for there in self._ours()):
                self._insert(Image(tissue, rgb=True, name="The same tissue", **self._beside(preview)), lowest=True)

        self.session.pictures.submit(read, put_in, self._fail)

    def _show_nuclei(self, labels: np.ndarray, preview: Preview) -> None:
        there = next((layer for layer in self._ours() if isinstance(layer, Labels)), None)
        if there is not None:
            if there.data is not labels:
                there.data = labels
            put(there, self._beside(preview))
            return
        layer = Labels(
            labels, name="Nuclei at that step", opacity=0.95, colormap=nuclei_colormap(), **self._beside(preview)
        )
        shrunk = 1 / (float(self.viewer.scene.camera.zoom) * float(np.mean(np.abs(layer.scale))))
        layer.contour = max(1, round(shrunk))  # a contour of one pixel is lost where a whole map is looked at
        layer.editable = False
        self._insert(layer)

    def _insert(self, layer: Any, *, lowest: bool = False) -> None:
        layer.metadata[KEY] = {"role": "beside", "project": str(self.session.project.path)}
        above = self._ours()
        insert(self.viewer, layer)
        if lowest and above:
            self.viewer.layers.move(self.viewer.layers.index(layer), self.viewer.layers.index(above[0]))

    def _beside(self, preview: Preview) -> dict[str, Any]:
        box = Box(*preview.box)
        return self.view.placement.at(box.y0, box.x1 + GAP * box.width, preview.downsample)

    def _ours(self) -> list[Any]:
        return of_role(self.viewer, "beside")

    def _leave(self) -> None:
        """Take both away, and give back eyes and view."""
        if self._place is None:
            return
        self._place = None
        for layer in self._ours():
            self.viewer.layers.remove(layer)
        for layer, visible in self._eyes:
            if layer in self.viewer.layers:
                layer.visible = visible
        self._eyes.clear()
        if self._camera is not None and self._shows(self._camera[0]):
            self.viewer.scene.camera.center, self.viewer.scene.camera.zoom = self._camera
        self._camera = self._image = None

    def _shows(self, center: Any) -> bool:
        """Whether a view of before is one of the image that is looked at now: another one may lie elsewhere."""
        slide, placement = self.view.slide, self.view.placement
        if self.view.layer == self._image or slide is None or placement is None:
            return True
        return all(0 <= place < side for place, side in zip(placement.to_image(center), slide.shape, strict=True))

    def _fail(self, error: Exception) -> None:
        self.session.tell(f"The tissue cannot be shown a second time ({error}).", "warning")
