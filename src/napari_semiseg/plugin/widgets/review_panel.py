"""Step 4: segment the image, move the sliders, look at what is in doubt."""

from __future__ import annotations

from functools import partial
from typing import Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QProgressBar, QVBoxLayout, QWidget

from napari_semiseg.app.session import Session
from napari_semiseg.plugin.keys import Keys
from napari_semiseg.plugin.peek import Peek
from napari_semiseg.plugin.result_layers import Picture, ResultLayers
from napari_semiseg.plugin.slide_view import SlideView
from napari_semiseg.plugin.tile_layers import TileLayers
from napari_semiseg.plugin.widgets.comparison_box import ComparisonBox
from napari_semiseg.plugin.widgets.history_box import HistoryBox
from napari_semiseg.plugin.widgets.look import framed_button, main_button, plain_button, sentences, toggle_button
from napari_semiseg.plugin.widgets.nuclei_by_doubt import NucleiByDoubt
from napari_semiseg.plugin.widgets.onward_button import OnwardButton
from napari_semiseg.plugin.widgets.places_button import PlacesButton
from napari_semiseg.plugin.widgets.region_row import RegionRow
from napari_semiseg.plugin.widgets.split_sliders import SplitSliders
from napari_semiseg.plugin.widgets.step import ElidedLabel

_GAPS = "Parts of the image could not be read, and nuclei are missing there. Segmenting again tries them again."


class ReviewPanel(QWidget):
    """Segments the image in view, and holds what looks at the result.

    Parameters
    ----------
    session : Session
    viewer : napari viewer
    view : SlideView
    tiles : TileLayers
        Where words on nuclei are written down.
    keys : Keys

    Attributes
    ----------
    summary : str
        How many nuclei there are, or how long finding them will take.
    done : bool
        Whether there is a result.
    """

    changed = Signal()

    def __init__(
        self,
        session: Session,
        viewer: Any,
        view: SlideView,
        tiles: TileLayers,
        keys: Keys,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.model, self.keys = session.review, keys
        self.summary, self.done = "", False
        self.layers = ResultLayers(session, viewer, view, self)
        self.peek = Peek(viewer, keys)
        self.sliders = SplitSliders(self.model)
        self.by_doubt = NucleiByDoubt(session, viewer, view, tiles, keys, self.layers)
        self.region = RegionRow(session, viewer, view)
        self.comparing = ComparisonBox(session, viewer, view)
        self.history = HistoryBox(session, viewer, view, self.layers)
        self.places = PlacesButton(self.model, self.layers)
        self.onward = OnwardButton(session, view)
        self.comparing.add_beside(self.onward)
        self._lay_out()
        self.model.changed.connect(self._show)
        keys.changed.connect(self._show_key)
        self._show_key()
        self._show()

    def end(self) -> None:
        """Let go of the viewer and of the model."""
        self.model.changed.disconnect(self._show, missing_ok=True)
        self.keys.changed.disconnect(self._show_key, missing_ok=True)
        for part in (self.sliders, self.by_doubt, self.region, self.onward, self.comparing, self.history, self.places):
            part.end()
        self.layers.end()
        self.peek.end()

    # ---- parts ----

    def _lay_out(self) -> None:
        self.segment = main_button("Segment", "")
        self.segment.clicked.connect(lambda: self.model.request_predict())
        self.reason = sentences("semisegReason")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(5)
        for widget in (self.segment, self.reason, self._make_progress(), self._make_result()):
            layout.addWidget(widget)

    def _make_progress(self) -> QWidget:
        self.progress = QWidget()
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(8)
        self.time = ElidedLabel()
        self.pause = plain_button("❚❚", "Pause after this block")
        self.stop = plain_button("■", "Stop; asking again goes on where it stopped")
        self.pause.clicked.connect(self.model.pause)
        self.stop.clicked.connect(self.model.stop)
        row = QHBoxLayout()
        row.setSpacing(2)
        row.addWidget(self.time, 1)
        row.addWidget(self.pause)
        row.addWidget(self.stop)
        column = QVBoxLayout(self.progress)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(3)
        column.addWidget(self.bar)
        column.addLayout(row)
        return self.progress

    def _make_result(self) -> QWidget:
        self.result_box = QWidget()
        self.count = ElidedLabel()
        self.measure = framed_button("Measure")
        self.measure.clicked.connect(self.model.measure)
        line = QHBoxLayout()
        line.setSpacing(2)
        line.addWidget(self.count, 1)
        line.addWidget(self.measure)
        column = QVBoxLayout(self.result_box)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(5)
        column.addLayout(line)
        column.addWidget(self.sliders)
        column.addLayout(self._make_pictures())
        for part in (self.by_doubt, self.region, self.comparing):
            column.addWidget(part)
        return self.result_box

    def _make_pictures(self) -> QVBoxLayout:
        """Make what chooses the picture below the nuclei."""
        self.confidence = toggle_button("Confidence", "Show how sure the network is that there is a nucleus")
        self.doubt = toggle_button("Doubt", "Show where the network is unsure")
        self.confidence.clicked.connect(partial(self._choose_picture, "confidence"))
        self.doubt.clicked.connect(partial(self._choose_picture, "doubt"))
        self.look = framed_button("Peek")
        self.look.pressed.connect(self.peek.begin)
        self.look.released.connect(self.peek.finish)
        row = QHBoxLayout()
        for button in (self.confidence, self.doubt, self.history.button):
            row.addWidget(button)
        row.addStretch(1)
        row.addWidget(self.look)
        column = QVBoxLayout()
        column.setSpacing(3)
        column.addLayout(row)
        column.addWidget(self.history)
        column.addWidget(self.places)
        return column

    # ---- showing ----

    def _choose_picture(self, picture: Picture, shown: bool) -> None:
        self.layers.show_picture(picture if shown else "")
        self.confidence.setChecked(self.layers.picture == "confidence")
        self.doubt.setChecked(self.layers.picture == "doubt")

    def _show_key(self) -> None:
        key = self.keys.of("peek")
        self.look.setToolTip(f"Hold to see the image alone; with a layer of ours selected, hold {key}")

    def _show(self) -> None:
        model, why = self.model, self.model.why_not
        self.segment.setVisible(not model.active)
        self.segment.setEnabled(not why)
        self.segment.setToolTip(why or "Find every nucleus of this image with the newest training")
        self.segment.setText("Segment again" if model.result is not None else "Segment")
        self.reason.setText(why)
        self.reason.setVisible(bool(why) and not model.active)
        self._show_progress()
        self._show_count()
        self.result_box.setVisible(model.result is not None and not model.active)
        summary = model.time_words if model.active else model.count_words
        shown = summary, model.result is not None and not model.active
        if shown != (self.summary, self.done):
            self.summary, self.done = shown
            self.changed.emit()

    def _show_progress(self) -> None:
        model = self.model
        self.progress.setVisible(model.active)
        self.bar.setRange(0, 1000 if model.total else 0)
        self.bar.setValue(round(1000 * model.share_done))
        self.time.setText(model.time_words)
        self.pause.setText("▶" if model.state == "paused" else "❚❚")
        self.pause.setEnabled(model.state in ("running", "paused"))
        self.stop.setEnabled(model.state != "stopping")

    def _show_count(self) -> None:
        model = self.model
        busy = " · splitting…" if model.applying else " · measuring…" if model.measuring else ""
        self.count.setText(f"{model.count_words}{busy}")
        if model.gaps:
            self.count.setToolTip(_GAPS)
        why_not = model.why_not_measure
        self.measure.setEnabled(not why_not)
        self.measure.setToolTip(why_not or "Measure every nucleus into a table beside the result and in napari")
