"""The result of the image in view as layers: confidence, and nuclei as contours."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from napari.layers import Image, Labels, Layer
from napari.utils.colormaps import CyclicLabelColormap
from numpy.typing import NDArray
from qtpy.compat import isalive
from qtpy.QtCore import QObject, QTimer

from napari_semiseg.app.background import Background
from napari_semiseg.app.doubt import Place, doubtful_places
from napari_semiseg.app.review_model import LiveNuclei
from napari_semiseg.app.session import Session
from napari_semiseg.blocks import Box
from napari_semiseg.errors import InputError
from napari_semiseg.io.parquet import read_parquet
from napari_semiseg.io.result import Result
from napari_semiseg.plugin.confidence_layer import confidence_colormap, doubt_colormap
from napari_semiseg.plugin.layers import KEY, hide, insert, put
from napari_semiseg.plugin.lazy_array import Squares
from napari_semiseg.plugin.lazy_result import GrowingLevel, LazyLevel
from napari_semiseg.plugin.slide_view import SlideView

WHOLE_PIXELS = 36_000_000
"""Up to this size a result is held in memory; larger ones are read where they are looked at."""
ONE_LEVEL = 4_000_000
"""Up to this many pixels one level is enough."""
NUCLEI_COLORS = ("#ffe600", "#00e0ff", "#ff5fd2", "#8dff6b")
"""Of neighboring nuclei: none is a color of stained tissue or of its empty ground, so that every contour is seen."""
MOST_ROWS = 200_000
"""Nuclei up to which the table is given to napari, which looks through all rows in the window's own process."""
GROW_S = 2.0
"""Seconds between two looks at a result that is being written."""
STILL_S = 0.4
"""Seconds that the view must rest before such a look: while it moves, each takes as long as two pictures."""
_LOOK_MS = 10
"""Milliseconds between two looks for what was read, while something is: a slider waits for that, too."""

Picture = Literal["", "confidence", "doubt"]


@dataclass(frozen=True)
class Shown:
    """What was read of a result: levels of nuclei and of confidence, finest first, and places of doubt."""

    path: Path
    nuclei: list[Any]
    confidence: list[Any]
    doubtful: list[Place]


class ResultLayers(QObject):
    """Keeps a nuclei layer and a confidence layer for the result of the image in view.

    While sliders move, nuclei of what is in view take the place of the others: in the same layer where the image is
    small, else in a layer of their own. Layers that the user removes come back with the next result.

    Parameters
    ----------
    session : Session
    viewer : napari viewer
    view : SlideView
    """

    def __init__(self, session: Session, viewer: Any, view: SlideView, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.session, self.viewer, self.view = session, viewer, view
        self.nuclei: Labels | None = None
        self.confidence: Image | None = None
        self.live: Labels | None = None
        self.growing: Labels | None = None
        self.doubtful: list[Place] = []
        self.picture: Picture = ""
        self._live_box: Box | None = None
        self._first = True
        self._grown_at = self._moved_at = -math.inf
        self._loader = Background("results")
        review = session.review
        review.result_changed.connect(self._on_result)
        review.live_changed.connect(self._on_live)
        review.grown.connect(self._on_grown)
        review.table_changed.connect(self._on_table)
        session.visible_changed.connect(self._note_view)
        session.project.closed.connect(self.clear)
        session.training.run_changed.connect(self._on_run)
        view.changed.connect(self._place)
        viewer.layers.events.removed.connect(self._on_removed)
        self._timer = QTimer(self)
        self._timer.timeout.connect(self._deliver)
        self._on_result()

    def show_picture(self, picture: Picture) -> None:
        """Show the confidence of the result, or its doubt (the same map in other colors), or nuclei alone."""
        self.picture = picture
        if self.confidence is not None:
            self.confidence.visible = bool(picture)
            self.confidence.colormap = doubt_colormap() if picture == "doubt" else confidence_colormap()

    def look_at(self, place: Place) -> None:
        """Move the view to a place of the image."""
        if self.view.placement is not None:
            y, x = self.view.placement.to_world(*place.center)
            self.viewer.scene.camera.center = (0.0, y, x)

    def clear(self) -> None:
        """Take the layers away."""
        for name in ("nuclei", "confidence", "live", "growing"):
            self._remove(name)
        self.doubtful = []
        self._first = True

    def end(self) -> None:
        """Let go of everything; the layers stay."""
        if isalive(self._timer):
            self._timer.stop()
        self._loader.end()
        self.viewer.layers.events.removed.disconnect(self._on_removed)
        review = self.session.review
        review.result_changed.disconnect(self._on_result, missing_ok=True)
        review.live_changed.disconnect(self._on_live, missing_ok=True)
        review.grown.disconnect(self._on_grown, missing_ok=True)
        review.table_changed.disconnect(self._on_table, missing_ok=True)
        self.session.visible_changed.disconnect(self._note_view, missing_ok=True)
        self.session.project.closed.disconnect(self.clear, missing_ok=True)
        self.session.training.run_changed.disconnect(self._on_run, missing_ok=True)
        self.view.changed.disconnect(self._place, missing_ok=True)

    # ---- the whole result ----

    def _on_result(self) -> None:
        path = self.session.review.result
        if path is None:
            self.clear()
            return
        image = self.session.image_index
        self._read(lambda: read_result(path), lambda shown: self._show(shown, image), self._fail)

    def _show(self, shown: Shown, image: int | None) -> None:
        if shown.path != self.session.review.result or image != self.session.image_index or not self.view.placement:
            return
        self.doubtful = shown.doubtful
        if self._fits(self.confidence, shown.confidence):
            self._renew(self.confidence, shown.confidence)
        else:
            self._remove("confidence")
            self.confidence = self._add_confidence(shown.confidence)
        self.show_picture(self.picture)
        if self._first:  # contours on the tissue are what is to be seen now; whoever wants more opens an eye
            self._first = False
            hide(self.viewer, "confidence", "proposal", but=self.confidence)
        if self._fits(self.nuclei, shown.nuclei):
            self._renew(self.nuclei, shown.nuclei)
            self.nuclei.visible = self.nuclei.visible or self.live is not None
        else:
            self._remove("nuclei")
            self.nuclei = self._add_nuclei(shown.nuclei, "Nuclei", self.view.placement.at())
        if self.session.review.live is None:
            self._remove("live")
        self.session.review.changed.emit()

    def _add_confidence(self, levels: list[Any]) -> Image:
        layer = Image(
            _data(levels),
            name="Confidence (result)",
            multiscale=len(levels) > 1,
            colormap=confidence_colormap(),
            contrast_limits=(0, 255),
            blending="translucent_no_depth",
            rgb=False,
            metadata=self._tag("confidence"),
            **self.view.placement.at(),
        )
        insert(self.viewer, layer)
        return layer

    def _add_nuclei(
        self, levels: list[Any], name: str, place: dict[str, Any], contour: int = 1, **noted: Any
    ) -> Labels:
        layer = Labels(
            _data(levels),
            name=name,
            multiscale=len(levels) > 1,
            opacity=0.95,
            colormap=nuclei_colormap(),
            metadata=self._tag("nuclei", **noted),
            **place,
        )
        layer.contour = contour
        layer.editable = False
        insert(self.viewer, layer)
        return layer

    # ---- what is in view, while sliders move ----

    def _on_live(self) -> None:
        live = self.session.review.live
        if live is not None:
            self._read(lambda: (live, np.load(live.path, allow_pickle=False)), self._show_live, self._fail)

    def _show_live(self, read: tuple[LiveNuclei, NDArray[np.uint32]]) -> None:
        live, labels = read
        if live != self.session.review.live or not self.view.placement or labels.shape != live.box.shape:
            return
        if self.nuclei is not None and not self.nuclei.multiscale:
            values = self.nuclei.data
            values[live.box.slices] = np.where(labels, labels + np.uint32(self.session.review.nuclei), 0)
            self.nuclei.refresh(thumbnail=False, highlight=False, extent=False)
            return
        origin = live.box.y0, live.box.x0
        place = self.view.placement.at(*origin)
        if self.live is not None and self.live.data.shape == labels.shape:
            self.live.data = labels
            self.live.metadata[KEY] = self._tag("nuclei", origin=origin)[KEY]
            put(self.live, place)
        else:
            self._remove("live")
            self.live = self._add_nuclei([labels], "Nuclei (in view, being adjusted)", place, origin=origin)
        self._live_box = live.box
        if self.nuclei is not None:
            self.nuclei.visible = False

    # ---- what is being written ----

    def _on_grown(self) -> None:
        """Show what there is of a result that grows, as outlines at all levels, and look again every few seconds."""
        path = self.session.review.growing
        if path is None:
            self._remove("growing")
            if self.nuclei is not None:
                self.nuclei.visible = True
            return
        now = time.monotonic()
        if now - self._grown_at < GROW_S or now - self._moved_at < STILL_S:
            return
        self._grown_at = now
        if self.growing is not None:
            self.growing.refresh(thumbnail=False, highlight=False, extent=False)
        else:
            self._read(lambda: growing_levels(path), lambda levels: self._show_growing(path, levels), self._fail)

    def _note_view(self) -> None:
        self._moved_at = time.monotonic()

    def _show_growing(self, path: Path, levels: list[Any]) -> None:
        if not levels or self.growing is not None or path != self.session.review.growing or not self.view.placement:
            return
        self.growing = self._add_nuclei(
            levels, "Nuclei (being found)", self.view.placement.at(), contour=0, outlines=True
        )
        hide(self.viewer, "proposal")
        if self.nuclei is not None:  # those of the result before
            self.nuclei.visible = False

    # ---- what was measured ----

    def _on_table(self) -> None:
        path = self.session.review.table
        if path is not None:
            self._read(lambda: read_features(path), partial(self._show_features, path), self._fail)
        elif self.nuclei is not None:
            self.nuclei.features = pd.DataFrame()

    def _show_features(self, path: Path, rows: pd.DataFrame) -> None:
        if path != self.session.review.table or self.nuclei is None:
            return
        if len(rows) <= MOST_ROWS:
            self.nuclei.features = rows
            self.session.tell(f"{len(rows):,} nuclei are measured: napari's Features table widget shows them.")
        else:
            self.session.tell(f"{len(rows):,} nuclei are measured; that many are a table for other programs: {path}")

    # ---- inner ----

    def _read(
        self, work: Callable[[], Any], done: Callable[[Any], object], failed: Callable[[Exception], object]
    ) -> None:
        self._loader.submit(work, done, failed)
        if not self._timer.isActive():  # else it would begin anew, and never end where much is asked for
            self._timer.start(_LOOK_MS)

    def _deliver(self) -> None:
        nothing_left = not self._loader.pending  # asked first: what comes after that is for the next look
        self._loader.deliver()
        if nothing_left and not self._loader.pending:
            self._timer.stop()

    def _tag(self, role: str, **noted: Any) -> dict[str, Any]:
        project, image = str(self.session.project.path), self.session.image_index
        return {KEY: {"role": role, "project": project, "image": image, **noted}}

    def _fits(self, layer: Layer | None, levels: list[Any]) -> bool:
        """Whether a layer that is there can show these levels."""
        if layer is None:
            return False
        present = list(layer.data) if layer.multiscale else [layer.data]
        return [tuple(level.shape) for level in present] == [tuple(level.shape) for level in levels]

    def _renew(self, layer: Layer, levels: list[Any]) -> None:
        """Give a layer other values of the same shape; in place where there is one level, which costs least."""
        if layer.multiscale:
            layer.data = levels
            return
        if not np.array_equal(layer.data, levels[0]):
            layer.data[...] = levels[0]
            layer.refresh(thumbnail=False, highlight=False, extent=False)

    def _remove(self, name: str) -> None:
        layer = getattr(self, name)
        setattr(self, name, None)
        if layer is not None and layer in self.viewer.layers:
            self.viewer.layers.remove(layer)

    def _place(self) -> None:
        if self.view.placement is None or self.session.image_index is None:
            return
        for layer in (self.nuclei, self.confidence, self.growing):
            if layer is not None:
                put(layer, self.view.placement.at())
        if self.live is not None and self._live_box is not None:
            put(self.live, self.view.placement.at(self._live_box.y0, self._live_box.x0))

    def _on_run(self) -> None:
        self._first = True
        if self.session.training.active and self.confidence is not None:  # the new run's own map comes
            self.confidence.visible = False

    def _on_removed(self, event: Any) -> None:
        for name in ("nuclei", "confidence", "live", "growing"):
            layer = getattr(self, name)
            if layer is not None and layer not in self.viewer.layers:
                setattr(self, name, None)

    def _fail(self, error: Exception) -> None:
        self.session.tell(f"The result cannot be shown ({error}): segment again.", "error")


def read_result(path: Path) -> Shown:
    """Read what a viewer needs of a result. Not for the GUI thread.

    Raises
    ------
    InputError
        If it is damaged or gone.
    """
    result = Result.open(path)
    shapes = result.levels
    inside = shapes[0][0] * shapes[0][1] <= WHOLE_PIXELS
    wanted = range(1 if shapes[0][0] * shapes[0][1] <= ONE_LEVEL else len(shapes))
    if inside:
        held = Squares if len(wanted) > 1 else np.asarray  # one level alone is changed in place
        nuclei = [held(result.nuclei(Box.whole(shapes[level]), level)) for level in wanted]
        confidence = [held(result.nucleus_confidence(Box.whole(shapes[level]), level)) for level in wanted]
    else:
        nuclei = [LazyLevel(result, "nuclei", level) for level in wanted]
        confidence = [LazyLevel(result, "confidence", level) for level in wanted]
    coarse = next((level for level, shape in enumerate(shapes) if max(shape) <= 2048), len(shapes) - 1)
    overview = result.nucleus_confidence(Box.whole(shapes[coarse]), coarse)
    return Shown(path, nuclei, confidence, doubtful_places(overview, 2**coarse))


def read_features(path: Path) -> pd.DataFrame:
    """Read a table of nuclei as napari wants it: ``index`` holds the labels."""
    _, columns = read_parquet(path)
    rows = pd.DataFrame(columns).rename(columns={"label": "index"}).sort_values("index", ignore_index=True)
    if "class" in rows:
        rows["class"] = rows["class"].astype("category")
    return rows


def growing_levels(path: Path) -> list[GrowingLevel]:
    """Open the nuclei of a result that is being written; an empty list while there are none. Not for the GUI thread."""
    try:
        result = Result.open(path)
    except InputError:
        return []  # between two results, or before the first
    if "nuclei" not in result.kinds:
        return []
    shapes = result.levels
    wanted = range(1 if shapes[0][0] * shapes[0][1] <= ONE_LEVEL else len(shapes))
    return [GrowingLevel(result, level) for level in wanted]


def nuclei_colormap() -> CyclicLabelColormap:
    """Return a few light colors in turn; 0 is clear."""
    colors = np.array(
        [[int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)] + [1] for color in NUCLEI_COLORS]
    )
    return CyclicLabelColormap(np.concatenate([np.zeros((1, 4)), colors]), background_value=0)


def _data(levels: list[Any]) -> Any:
    return levels if len(levels) > 1 else levels[0]
