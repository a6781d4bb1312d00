"""Step 4: segment the image, move the sliders, look at what is in doubt."""

from __future__ import annotations

from functools import partial
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QToolButton,
    QVBoxLayout,
    QWidget,
)
from superqt import QLabeledDoubleSlider, QLabeledSlider

from napari_semiseg.app.session import Session
from napari_semiseg.app.words import count
from napari_semiseg.plugin.peek import KEY_NAME, Peek
from napari_semiseg.plugin.result_layers import Picture, ResultLayers
from napari_semiseg.plugin.slide_view import SlideView
from napari_semiseg.plugin.widgets.look import main_button, plain_button
from napari_semiseg.plugin.widgets.step import ElidedLabel

_LARGEST_AREA = 1000
_HELP = {
    "threshold": "Confidence above which a pixel counts as nucleus: higher finds less",
    "strength": "How readily touching nuclei are parted: 0 never, 1 always",
    "min_area": "Nuclei smaller than this are left out, in pixels",
}


class ReviewPanel(QWidget):
    """Shows the review model, and asks it.

    Parameters
    ----------
    session : Session
    viewer : napari viewer
    view : SlideView
    """

    changed = Signal()

    def __init__(self, session: Session, viewer: Any, view: SlideView, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.session, self.viewer = session, viewer
        self.model = session.review
        self.summary, self.done = "", False
        self.layers = ResultLayers(session, viewer, view, self)
        self.peek = Peek(viewer)
        self._place = -1
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(5)
        self.segment = main_button("Segment", "")
        self.segment.clicked.connect(self.model.request_predict)
        self.reason = QLabel()
        self.reason.setObjectName("semisegReason")
        self.reason.setTextFormat(Qt.TextFormat.PlainText)
        self.reason.setWordWrap(True)
        layout.addWidget(self.segment)
        layout.addWidget(self.reason)
        layout.addWidget(self._make_progress())
        layout.addWidget(self._make_result())
        self.model.changed.connect(self._show)
        self.model.split_changed.connect(self._show_split)
        self.model.result_changed.connect(self._first_place)
        self._show_split()
        self._show()

    def end(self) -> None:
        """Let go of the viewer and of the model."""
        self.model.changed.disconnect(self._show, missing_ok=True)
        self.model.split_changed.disconnect(self._show_split, missing_ok=True)
        self.model.result_changed.disconnect(self._first_place, missing_ok=True)
        self.layers.end()
        self.peek.end()

    # ---- parts ----

    def _make_progress(self) -> QWidget:
        self.progress = QWidget()
        column = QVBoxLayout(self.progress)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(3)
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
        column.addWidget(self.bar)
        column.addLayout(row)
        return self.progress

    def _make_result(self) -> QWidget:
        self.result_box = QWidget()
        column = QVBoxLayout(self.result_box)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(5)
        self.threshold, self.strength = QLabeledDoubleSlider(), QLabeledDoubleSlider()
        self.min_area = QLabeledSlider()
        grid = QGridLayout()
        grid.setVerticalSpacing(2)
        grid.setColumnStretch(1, 1)
        rows = (("threshold", self.threshold), ("strength", self.strength), ("min_area", self.min_area))
        words = {"threshold": "Threshold", "strength": "Split", "min_area": "Smallest"}
        for number, (name, slider) in enumerate(rows):
            slider.setOrientation(Qt.Orientation.Horizontal)
            slider.setToolTip(_HELP[name])
            label = QLabel(words[name])
            label.setToolTip(_HELP[name])
            grid.addWidget(label, number, 0)
            grid.addWidget(slider, number, 1)
        for slider in (self.threshold, self.strength):
            slider.setRange(0.0, 1.0)
            slider.setSingleStep(0.01)
            slider.setDecimals(2)
        self.min_area.setRange(1, _LARGEST_AREA)
        self.threshold.valueChanged.connect(lambda value: self.model.set_split(threshold=round(float(value), 3)))
        self.strength.valueChanged.connect(lambda value: self.model.set_split(strength=round(float(value), 3)))
        self.min_area.valueChanged.connect(lambda value: self.model.set_split(min_area=int(value)))
        self.count = ElidedLabel()
        self.measure = plain_button("Measure", "")
        self.measure.clicked.connect(self.model.measure)
        line = QHBoxLayout()
        line.setSpacing(2)
        line.addWidget(self.count, 1)
        line.addWidget(self.measure)
        column.addLayout(line)
        column.addLayout(grid)
        column.addLayout(self._make_doubt())
        return self.result_box

    def _make_doubt(self) -> QVBoxLayout:
        self.confidence = _toggle("Confidence", "Show how sure the network is that there is a nucleus")
        self.doubt = _toggle("Doubt", "Show where the network is unsure")
        self.confidence.clicked.connect(partial(self._choose_picture, "confidence"))
        self.doubt.clicked.connect(partial(self._choose_picture, "doubt"))
        self.next = QPushButton()
        self.next.setToolTip("Go to the next place where the network is unsure, the most doubtful first")
        self.next.clicked.connect(self._next_place)
        self.look = plain_button(
            "Peek", f"Hold to see the image alone; with a layer of ours selected, hold {KEY_NAME.upper()}"
        )
        self.look.pressed.connect(self.peek.begin)
        self.look.released.connect(self.peek.finish)
        first, second, both = QHBoxLayout(), QHBoxLayout(), QVBoxLayout()
        for widget in (self.confidence, self.doubt):
            first.addWidget(widget)
        first.addStretch(1)
        first.addWidget(self.look)
        second.addWidget(self.next, 1)
        both.setSpacing(3)
        both.addLayout(first)
        both.addLayout(second)
        return both

    # ---- doing ----

    def _choose_picture(self, picture: Picture, shown: bool) -> None:
        self.layers.show_picture(picture if shown else "")
        self.confidence.setChecked(self.layers.picture == "confidence")
        self.doubt.setChecked(self.layers.picture == "doubt")

    def _first_place(self) -> None:
        self._place = -1
        self._show()

    def _next_place(self) -> None:
        places = self.layers.doubtful
        if places:
            self._place = (self._place + 1) % len(places)
            self.layers.look_at(places[self._place])
            self._show()

    # ---- showing ----

    def _show(self) -> None:
        model, why = self.model, self.model.why_not
        self.segment.setVisible(not model.active)
        self.segment.setEnabled(not why)
        self.segment.setToolTip(why or "Find every nucleus of this image with the newest training")
        self.segment.setText("Segment again" if model.result is not None else "Segment")
        self.reason.setText(why)
        self.reason.setVisible(bool(why) and not model.active)
        self.progress.setVisible(model.active)
        self.bar.setRange(0, 1000 if model.total else 0)
        self.bar.setValue(round(1000 * model.share_done))
        self.time.setText(model.time_words)
        self.pause.setText("▶" if model.state == "paused" else "❚❚")
        self.pause.setEnabled(model.state in ("running", "paused"))
        self.stop.setEnabled(model.state != "stopping")
        self.result_box.setVisible(model.result is not None and not model.active)
        busy = " · splitting…" if model.applying else " · measuring…" if model.measuring else ""
        why_not_measure = model.why_not_measure
        self.measure.setEnabled(not why_not_measure)
        self.measure.setToolTip(why_not_measure or "Measure every nucleus into a table beside the result and in napari")
        self.count.setText(f"{model.count_words}{busy}")
        self._show_places()
        summary = model.time_words if model.active else model.count_words
        shown = summary, model.result is not None and not model.active
        if shown != (self.summary, self.done):
            self.summary, self.done = shown
            self.changed.emit()

    def _show_places(self) -> None:
        places = self.layers.doubtful
        self.next.setEnabled(bool(places))
        if not places:
            self.next.setText("no place in doubt")
        elif self._place < 0:
            self.next.setText(f"{count(len(places), 'place')} in doubt  ▸")
        else:
            self.next.setText(f"{self._place + 1} of {len(places)} in doubt  ▸")

    def _show_split(self) -> None:
        split = self.model.split
        values = ((self.threshold, split.threshold), (self.strength, split.strength), (self.min_area, split.min_area))
        for slider, value in values:
            slider.blockSignals(True)
            slider.setValue(50 if value is None else value)
            slider.blockSignals(False)


def _toggle(text: str, tooltip: str) -> QToolButton:
    button = QToolButton()
    button.setObjectName("semisegPen")
    button.setText(text)
    button.setToolTip(tooltip)
    button.setCheckable(True)
    button.setCursor(Qt.CursorShape.PointingHandCursor)
    return button
