"""Plays the kept confidence maps of a run back."""

from __future__ import annotations

from qtpy.compat import isalive
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QHBoxLayout, QLabel, QSlider, QWidget
from superqt.utils import signals_blocked

from napari_semiseg.app.history_model import HistoryModel
from napari_semiseg.plugin.widgets.look import plain_button

FRAME_MS = 300
"""Milliseconds that each map is looked at: the layer is refreshed at most four times a second."""


class HistoryPlayer(QWidget):
    """A play button, a slider with a notch for each map, and the step of the one that is looked at."""

    def __init__(self, history: HistoryModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.history = history
        self.play = plain_button("▶", "Play the confidence maps of this run from the start")
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setToolTip("Confidence at each kept step; the right end follows the newest")
        self.slider.setPageStep(5)
        self.step = QLabel()
        self.step.setObjectName("semisegHint")
        self.step.setTextFormat(Qt.TextFormat.PlainText)
        self.step.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self.step.setMinimumWidth(72)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(6)
        row.addWidget(self.play)
        row.addWidget(self.slider, 1)
        row.addWidget(self.step)
        self._timer = QTimer(self)
        self._timer.setInterval(FRAME_MS)
        self._timer.timeout.connect(history.advance)
        self.play.clicked.connect(history.toggle_play)
        self.slider.valueChanged.connect(history.choose)
        history.changed.connect(self._show)
        self._show()

    def end(self) -> None:
        """Hear nothing more."""
        if isalive(self._timer):
            self._timer.stop()
        self.history.changed.disconnect(self._show, missing_ok=True)

    def _show(self) -> None:
        history = self.history
        count = len(history.maps)
        with signals_blocked(self.slider):
            self.slider.setRange(0, max(0, count - 1))
            self.slider.setValue(max(0, history.position))
        self.step.setText(history.words)
        self.play.setText("❚❚" if history.playing else "▶")
        self.setVisible(count > 1)
        if history.playing != self._timer.isActive():
            self._timer.start() if history.playing else self._timer.stop()
