"""Step 3: one button that trains, and what comes of it while it goes on."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from qtpy.compat import isalive
from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtWidgets import (
    QButtonGroup,
    QHBoxLayout,
    QProgressBar,
    QPushButton,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_semiseg.app.session import Session
from napari_semiseg.app.training_setup import PRESETS
from napari_semiseg.app.words import about
from napari_semiseg.plugin.confidence_layer import ConfidenceLayer
from napari_semiseg.plugin.history_player import HistoryPlayer
from napari_semiseg.plugin.slide_view import SlideView
from napari_semiseg.plugin.strokes import Strokes
from napari_semiseg.plugin.widgets.advanced_form import AdvancedForm
from napari_semiseg.plugin.widgets.curves import Curves
from napari_semiseg.plugin.widgets.inside import Inside
from napari_semiseg.plugin.widgets.look import main_button, plain_button, sentences
from napari_semiseg.plugin.widgets.step import ElidedLabel

_LOOK_MS = 250
_SHOWN_S = 1.0
"""Seconds between two drawings of what only goes on (time, bar, curves), at least. In a window with a canvas every
drawing costs a composition of the whole window: it waits while a stroke is drawn, and nothing here is animated."""
_GO_ON = "Go on from the last checkpoint that is intact"
_GO_ON_CHANGED = "Go on from the last checkpoint, and learn from the images as they are now"
_PAUSE = "Pause after this step; the run is saved first"
_RESUME = "Go on with the training"
_STOP = "Stop and keep the best so far: it can be used at once"
_CANCEL = "Cancel: stop, and discard all of this run"


class TrainPanel(QWidget):
    """Shows the training model, and asks it.

    Parameters
    ----------
    session : Session
    viewer : napari viewer
    view : SlideView
    strokes : Strokes
    """

    changed = Signal()

    def __init__(
        self, session: Session, viewer: Any, view: SlideView, strokes: Strokes, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self.session, self.viewer, self.view, self.strokes = session, viewer, view, strokes
        self.model = session.training
        self.summary, self.done = "", False
        self.confidence = ConfidenceLayer(session, viewer, view, strokes, self)
        self._stale = self._curves_stale = True
        self._shown_at = 0.0
        self._shown_state = ""
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(5)
        for part in (self._make_presets(), self._make_buttons(), self._make_words(), self._make_run()):
            layout.addWidget(part)
        self.model.changed.connect(self._on_changed)
        self.model.curves_changed.connect(self._on_curves)
        viewer.events.theme.connect(self._on_theme)
        self._timer = QTimer(self)
        self._timer.timeout.connect(self._tick)
        self._timer.start(_LOOK_MS)
        self._on_theme()
        self._show()

    def end(self) -> None:
        """Let go of the viewer and of the model."""
        if isalive(self._timer):
            self._timer.stop()
        self.viewer.events.theme.disconnect(self._on_theme)
        self.model.changed.disconnect(self._on_changed, missing_ok=True)
        self.model.curves_changed.disconnect(self._on_curves, missing_ok=True)
        for part in (self.confidence, self.history, self.inside, self.form):
            part.end()

    # ---- parts ----

    def _make_presets(self) -> QWidget:
        self.presets = QWidget()
        row = QHBoxLayout(self.presets)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(2)
        self._preset_group = QButtonGroup(self)
        self.preset_buttons: dict[str, QToolButton] = {}
        for name in PRESETS:
            button = QToolButton()
            button.setObjectName("semisegPen")
            button.setCheckable(True)
            button.setCursor(Qt.CursorShape.PointingHandCursor)
            button.clicked.connect(partial(self._choose_preset, name))
            self._preset_group.addButton(button)
            self.preset_buttons[name] = button
            row.addWidget(button, 1)
        row.addStretch(1)
        self.more = plain_button("Advanced", "Method, network, device and every other option; nothing has to be set")
        self.more.setCheckable(True)
        self.more.setArrowType(Qt.ArrowType.RightArrow)
        self.more.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.more.toggled.connect(self._unfold)
        row.addWidget(self.more)
        return self.presets

    def _make_buttons(self) -> QWidget:
        box = QWidget()
        column = QVBoxLayout(box)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        self.form = AdvancedForm(self.model.setup, box)
        self.form.hide()
        self.train = main_button("▶  Train", "")
        self.train.clicked.connect(self.model.request_train)
        self.go_on = main_button("Resume", _GO_ON)
        self.go_on.clicked.connect(self.model.resume_run)
        self.leave = QPushButton("Leave it")
        self.leave.setToolTip("Do not go on with that run; what it has saved stays")
        self.leave.clicked.connect(self.model.forget_lost)
        self.restart = QPushButton("Restart the engine")
        self.restart.setToolTip("Start the process that computes again")
        self.restart.clicked.connect(self.session.engine.restart)
        row = QHBoxLayout()
        row.addWidget(self.go_on, 2)
        row.addWidget(self.leave, 1)
        column.addWidget(self.form)
        column.addLayout(row)
        column.addWidget(self.train)
        column.addWidget(self.restart)
        return box

    def _make_words(self) -> QWidget:
        box = QWidget()
        column = QVBoxLayout(box)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        self.choice = ElidedLabel()
        self.choice.setObjectName("semisegHint")
        self.reason = sentences("semisegReason")
        self.seen = ElidedLabel()
        self.seen.setObjectName("semisegHint")
        self.warnings = sentences("semisegHint")
        for label in (self.choice, self.reason, self.seen, self.warnings):
            column.addWidget(label)
        return box

    def _make_run(self) -> QWidget:
        self.run_box = QWidget()
        column = QVBoxLayout(self.run_box)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        self.curves = Curves()
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(8)
        self.bar.setRange(0, 1000)
        self.time = ElidedLabel()
        self.pause = plain_button("❚❚", _PAUSE)
        self.stop = plain_button("■", _STOP)
        self.cancel = plain_button("✕", _CANCEL)
        self.pause.clicked.connect(self._pause_or_resume)
        self.stop.clicked.connect(self.model.stop)
        self.cancel.clicked.connect(self.model.cancel)
        row = QHBoxLayout()
        row.setSpacing(2)
        row.addWidget(self.time, 1)
        for button in (self.pause, self.stop, self.cancel):
            row.addWidget(button)
        self.history = HistoryPlayer(self.model.history)
        self.inside = Inside(self.session, self.viewer, self.view)
        column.addWidget(self.curves)
        column.addWidget(self.bar)
        column.addLayout(row)
        column.addWidget(self.history)
        column.addWidget(self.inside)
        return self.run_box

    # ---- asking ----

    def _choose_preset(self, name: str) -> None:
        self.model.setup.choose(preset=name)

    def _unfold(self, unfolded: bool) -> None:
        self.more.setArrowType(Qt.ArrowType.DownArrow if unfolded else Qt.ArrowType.RightArrow)
        self.form.setVisible(unfolded)

    def _pause_or_resume(self) -> None:
        if self.model.state == "paused":
            self.model.resume()
        else:
            self.model.pause()

    # ---- showing ----

    def _on_changed(self) -> None:
        if self.model.active and self.model.state == self._shown_state:
            self._stale = True  # it only goes on
        else:
            self._show()

    def _tick(self) -> None:
        if self.strokes.drawing:
            return
        now = time.monotonic()
        if now - self._shown_at < _SHOWN_S:
            return
        if self._stale or self._curves_stale:
            self._shown_at = now
        if self._stale:
            self._show()
        if self._curves_stale and self.isVisible():
            self._curves_stale = False
            self.curves.show_record(self.model.record, self.model.score_words)
            self.inside.show_curves()

    def _on_curves(self) -> None:
        self._curves_stale = True

    def _on_theme(self, event: Any = None) -> None:
        self.curves.show_theme(self.viewer.theme)
        self.inside.show_theme(self.viewer.theme)

    def _show(self) -> None:
        model = self.model
        active = model.active
        self._stale, self._shown_state = False, model.state
        self._show_setup(active)
        self.choice.setText(model.choice_words)
        self.seen.setText(model.seen_words)
        self.seen.setVisible(bool(model.seen_words))
        notes = [*model.record.warnings[-3:], *([model.advice] if model.advice else [])]
        self.warnings.setText("\n".join(notes))
        self.warnings.setVisible(bool(notes))
        began = active or model.record.step > 0
        self.run_box.setVisible(began)
        self.curves.setVisible(bool(model.record.losses))
        self.bar.setValue(round(1000 * model.share_done))
        self.bar.setVisible(active)
        self.time.setText(model.time_words)
        self._show_buttons(active)
        shown = self._summary(active), model.state in ("done", "stopped")
        if shown != (self.summary, self.done):
            self.summary, self.done = shown
            self.changed.emit()

    def _show_setup(self, active: bool) -> None:
        model, why = self.model, self.model.why_not
        self.presets.setVisible(not active)
        self.form.setVisible(self.more.isChecked() and not active)
        self.form.show_setup()
        for name, button in self.preset_buttons.items():
            minutes = model.setup.minutes(name)
            button.setText(name)
            button.setChecked(model.setup.preset == name)
            button.setToolTip(f"{about(minutes)} on this computer" if minutes else name)
        lost = model.state == "lost"
        self.go_on.setVisible(lost)
        self.go_on.setText("Resume with changed images" if model.images_changed else "Resume")
        self.go_on.setToolTip(_GO_ON_CHANGED if model.images_changed else _GO_ON)
        self.go_on.setEnabled(not model.setup.why_none)
        self.leave.setVisible(lost)
        self.train.setVisible(not active)
        self.train.setEnabled(not why)
        self.train.setText(self._words_of_train())
        self.train.setToolTip(why or f"Train on this project: {model.setup.words}")
        self.restart.setVisible(self.session.engine.status == "failed")
        self.reason.setText(why)
        self.reason.setVisible(bool(why) and not active)

    def _words_of_train(self) -> str:
        minutes = self.model.setup.request.get("minutes") or self.model.setup.minutes(self.model.setup.preset)
        if self.model.setup.request.get("steps"):
            return f"▶  Train · {self.model.setup.request['steps']:,} steps"
        return f"▶  Train · {about(minutes)}" if minutes else "▶  Train"

    def _show_buttons(self, active: bool) -> None:
        state = self.model.state
        for button in (self.pause, self.stop, self.cancel):
            button.setVisible(active)
        self.pause.setEnabled(state in ("running", "paused"))
        self.pause.setText("▶" if state == "paused" else "❚❚")
        self.pause.setToolTip(_RESUME if state == "paused" else _PAUSE)
        self.stop.setEnabled(state != "stopping")

    def _summary(self, active: bool) -> str:
        model = self.model
        if active:
            return model.score_words or model.time_words
        return " · ".join(part for part in (model.score_words, model.outcome_words) if part)
