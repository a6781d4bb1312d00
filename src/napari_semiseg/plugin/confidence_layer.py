"""The confidence of a training as one image layer that is refreshed in place."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from napari.layers import Image
from napari.utils.colormaps import Colormap
from numpy.typing import NDArray
from qtpy.compat import isalive
from qtpy.QtCore import QObject, QTimer

from napari_semiseg.app.background import Background
from napari_semiseg.app.run_record import Preview
from napari_semiseg.app.session import Session
from napari_semiseg.metrics.entropy import binary_entropy
from napari_semiseg.plugin.layers import KEY, hide, insert, of_role, put
from napari_semiseg.plugin.slide_view import SlideView
from napari_semiseg.plugin.strokes import Strokes

EVERY_S = 0.25
"""Seconds between two refreshes, at least."""
LARGEST = 16_384
"""Side of the largest map that is shown: the largest texture that graphics cards agree on."""
_LOOK_MS = 60


def confidence_colormap() -> Colormap:
    """Return clear to blue to light turquoise: light and cover grow with confidence; not the color of any tissue."""
    colors = [[0.0, 0.35, 0.70, 0.0], [0.0, 0.45, 0.75, 0.25], [0.05, 0.75, 0.85, 0.55], [0.45, 1.0, 0.95, 0.75]]
    return Colormap(colors, controls=[0.0, 0.35, 0.65, 1.0], name="semiseg confidence")


def doubt_colormap() -> Colormap:
    """Return the doubt of each confidence, its entropy in bits: clear at 0 and 1, strong magenta at one half."""
    controls = np.linspace(0, 1, 33)
    doubt = binary_entropy(controls)
    colors = np.stack([0.8 + 0.2 * doubt, 0.2 + 0.1 * doubt, 0.7 + 0.1 * doubt, 0.75 * doubt**4], axis=1)
    return Colormap(colors, controls=controls, name="semiseg doubt")


class ConfidenceLayer(QObject):
    """Shows the map that the history points at, at most four times a second and never during a stroke.

    Files are read in a thread. A layer that the user removes stays away until another run begins.

    Parameters
    ----------
    session : Session
    viewer : napari viewer
    view : SlideView
    strokes : Strokes
    """

    def __init__(
        self, session: Session, viewer: Any, view: SlideView, strokes: Strokes, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self.session, self.viewer, self.view, self.strokes = session, viewer, view, strokes
        self.layer: Image | None = None
        self.shown: Preview | None = None
        self._loader = Background("confidence maps")
        self._ready: tuple[Preview, NDArray[np.uint8]] | None = None
        self._asked: Preview | None = None
        self._declined = False
        self._first = True
        self._shown_at = 0.0
        session.training.run_changed.connect(self._on_run)
        session.training.history.changed.connect(self._on_history)
        session.project.closed.connect(self.clear)
        session.image_changed.connect(self.clear)
        view.changed.connect(self._place)
        viewer.layers.events.removed.connect(self._on_removed)
        self._timer = QTimer(self)
        self._timer.timeout.connect(self.look)
        self._timer.start(_LOOK_MS)

    def look(self) -> None:
        """Show what is ready if now is a good time, and have the next map read."""
        self._loader.deliver()
        if self._ready and not self.strokes.drawing and time.monotonic() - self._shown_at >= EVERY_S:
            preview, values = self._ready
            self._ready = None
            self._show(preview, values)
        wanted = self.session.training.history.current
        busy = self._loader.pending or self._ready
        if wanted is None or busy or self._declined or wanted in (self.shown, self._asked):
            return
        self._asked = wanted
        self._loader.submit(lambda: (wanted, read_map(wanted)), self._keep, self._fail)

    def clear(self) -> None:
        """Take the layer away; the next map brings it back."""
        layer, self.layer = self.layer, None
        self.shown = self._asked = self._ready = None
        if layer is not None and layer in self.viewer.layers:
            self.viewer.layers.remove(layer)

    def end(self) -> None:
        """Let go of everything; the layer stays."""
        if isalive(self._timer):
            self._timer.stop()
        self._loader.end()
        self.viewer.layers.events.removed.disconnect(self._on_removed)
        self.session.training.run_changed.disconnect(self._on_run, missing_ok=True)
        self.session.training.history.changed.disconnect(self._on_history, missing_ok=True)
        self.session.project.closed.disconnect(self.clear, missing_ok=True)
        self.session.image_changed.disconnect(self.clear, missing_ok=True)
        self.view.changed.disconnect(self._place, missing_ok=True)

    # ---- inner ----

    def _keep(self, found: tuple[Preview, NDArray[np.uint8]]) -> None:
        if found[0].image == self.session.image_index:
            self._ready = found

    def _fail(self, error: Exception) -> None:
        """Say nothing: the run may have dropped a map since it announced it, and the next one comes by itself."""

    def _show(self, preview: Preview, values: NDArray[np.uint8]) -> None:
        if self.view.placement is None or preview.image != self.session.image_index:
            return
        self._shown_at = time.monotonic()
        if self._first:  # contours of a proposal would lie over the first map of a run; whoever wants both says so
            self._first = False
            hide(self.viewer, "proposal")
        layer = self.layer
        if layer is None:
            self._add(preview, values)
        elif layer.data.shape == values.shape and self._same_place(preview):
            layer.data[...] = values
            layer.refresh(thumbnail=False, highlight=False, extent=False)
        else:
            layer.data = values
            put(layer, self._at(preview))
        self.shown = preview

    def _add(self, preview: Preview, values: NDArray[np.uint8]) -> None:
        self.layer = Image(
            values,
            name="Confidence",
            colormap=confidence_colormap(),
            contrast_limits=(0, 255),
            blending="translucent_no_depth",
            interpolation2d="linear" if preview.downsample > 1 else "nearest",
            rgb=False,
            visible=self.session.training.active or not of_role(self.viewer, "nuclei"),
            metadata={KEY: {"role": "confidence", "project": str(self.session.project.path), "image": preview.image}},
            **self._at(preview),
        )
        insert(self.viewer, self.layer)

    def _at(self, preview: Preview) -> dict[str, Any]:
        return self.view.placement.at(preview.box[0], preview.box[1], preview.downsample)

    def _same_place(self, preview: Preview) -> bool:
        shown = self.shown
        return shown is not None and (shown.box, shown.downsample) == (preview.box, preview.downsample)

    def _place(self) -> None:
        if self.layer is not None and self.shown is not None and self.view.placement is not None:
            put(self.layer, self._at(self.shown))

    def _on_run(self) -> None:
        self._declined = False
        self._first = True
        self._asked = self._ready = None

    def _on_history(self) -> None:
        """Open the eye for whoever looks at an earlier map, or plays them all."""
        history = self.session.training.history
        if self.layer is not None and (history.playing or history.chosen_step is not None):
            self.layer.visible = True

    def _on_removed(self, event: Any) -> None:
        if self.layer is not None and self.layer not in self.viewer.layers:
            self.layer = self.shown = None
            self._declined = True


def read_map(preview: Preview) -> NDArray[np.uint8]:
    """Read a map from its file: the confidence of nucleus, whatever its class. Not for the GUI thread.

    Returns
    -------
    array, uint8, (h, w)

    Raises
    ------
    OSError, ValueError
        If it is gone, or not what a run writes.
    """
    stored = np.load(preview.path, mmap_mode="r", allow_pickle=False)
    if stored.dtype != np.uint8 or stored.ndim not in (2, 3) or max(stored.shape) > LARGEST or not stored.size:
        raise ValueError(f"{preview.path} is no confidence map")
    if stored.ndim == 2:
        return np.array(stored)
    return np.minimum(stored.sum(axis=0, dtype=np.uint16), 255).astype(np.uint8)
