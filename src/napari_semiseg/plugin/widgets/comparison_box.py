"""Two runs beside each other: which one to compare with, where they differ, and which one is better."""

from __future__ import annotations

from functools import partial
from typing import Any

from qtpy.QtWidgets import QHBoxLayout, QLabel, QMenu, QPushButton, QToolButton, QVBoxLayout, QWidget

from napari_semiseg.app.comparison import Comparison
from napari_semiseg.app.session import Session
from napari_semiseg.plugin.comparison_layers import BOTH, ONLY_OTHER, ONLY_THIS, ComparisonLayers
from napari_semiseg.plugin.slide_view import SlideView
from napari_semiseg.plugin.widgets.look import framed_button, plain_button, sentences
from napari_semiseg.plugin.widgets.score_table import ScoreTable

_LEGEND = {ONLY_THIS: "this run only", BOTH: "both", ONLY_OTHER: "the other only"}
_COMPARE = "Segment this image with another run as well, and see where the two differ"
_PREFER = "Segment this image with the other run instead, and go on with that one"


class ComparisonBox(QWidget):
    """Says how good the run of the result is, and compares it with another one.

    Parameters
    ----------
    session : Session
    viewer : napari viewer
    view : SlideView
    """

    def __init__(self, session: Session, viewer: Any, view: SlideView, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.session = session
        self.comparison = Comparison(session)
        self.layers = ComparisonLayers(session, viewer, view, self.comparison)
        self.accuracy = sentences("semisegReason")
        self.compare = framed_button("Compare with ▾")
        self.compare.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.runs = QMenu(self)
        self.compare.setMenu(self.runs)
        self.difference = sentences("semisegHint")
        self.leave = plain_button("✕", "Compare no longer")
        self.leave.clicked.connect(self.comparison.drop)
        self.legend = _legend()
        self.flip = QPushButton("A/B")
        self.flip.setCheckable(True)
        self.flip.clicked.connect(self.layers.flip)
        self.prefer = QPushButton("Use the other")
        self.prefer.clicked.connect(self._prefer_other)
        self.scores = ScoreTable()
        self._lay_out()
        self.comparison.changed.connect(self._show)
        session.review.changed.connect(self._show_state)
        self._show()

    def add_beside(self, widget: QWidget) -> None:
        """Put another button into the row of the first one."""
        self._first.addWidget(widget, 1)

    def end(self) -> None:
        """Let go of the viewer and of the models."""
        self.session.review.changed.disconnect(self._show_state, missing_ok=True)
        self.layers.end()
        self.comparison.end()

    def _lay_out(self) -> None:
        self._first, differs, choice = QHBoxLayout(), QHBoxLayout(), QHBoxLayout()
        self._first.addWidget(self.compare)
        differs.addWidget(self.difference, 1)
        differs.addWidget(self.leave)
        choice.addWidget(self.flip)
        choice.addWidget(self.prefer)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(3)
        column.addWidget(self.accuracy)
        column.addLayout(self._first)
        column.addLayout(differs)
        column.addWidget(self.legend)
        column.addLayout(choice)
        column.addWidget(self.scores)

    def _prefer_other(self) -> None:
        """Segment with the run that is compared with, and compare no longer."""
        compared = self.comparison.compared
        if compared is not None:
            self.comparison.drop()
            self.session.review.request_predict(compared.path)

    def _show(self) -> None:
        found, review = self.comparison, self.session.review
        self.runs.clear()
        for run in found.runs:
            self.runs.addAction(run.words.replace("&", "&&"), partial(found.compare, run.path))
        for widget in (self.flip, self.prefer, self.legend, self.scores):
            widget.setVisible(found.difference is not None)
        if found.difference is not None:
            self.scores.show_scores(found.scores)
        self.flip.setChecked(self.layers.showing_other)
        other = found.compared.words if found.compared else ""
        self.flip.setToolTip(other and f"Show the nuclei of the other run ({other}), or again those of this one")
        self.accuracy.setText(found.accuracy)
        self.accuracy.setToolTip(review.run and f"Of the run {review.run}, with which this image was segmented")
        self._show_state()

    def _show_state(self) -> None:
        """Show what is waited for, and what can be done just now: a training or an export may begin, or end."""
        found, why_not_segment = self.comparison, self.session.review.why_not
        self.compare.setEnabled(not found.why_not and not found.waiting)
        self.compare.setToolTip(found.why_not or _COMPARE)
        self.prefer.setEnabled(not why_not_segment and not found.waiting)
        self.prefer.setToolTip(why_not_segment or _PREFER)
        self.difference.setText(self.comparison.words)
        for widget in (self.difference, self.leave):
            widget.setVisible(bool(self.comparison.words))


def _legend() -> QWidget:
    """Say which color means what, in plain text: a swatch and its words."""
    legend = QWidget()
    row = QHBoxLayout(legend)
    row.setContentsMargins(0, 0, 0, 0)
    for color, words in _LEGEND.items():
        swatch, meaning = QLabel("■"), QLabel(words)
        swatch.setStyleSheet(f"color: {color};")
        meaning.setObjectName("semisegHint")
        row.addWidget(swatch)
        row.addWidget(meaning)
    row.addStretch()
    return legend
