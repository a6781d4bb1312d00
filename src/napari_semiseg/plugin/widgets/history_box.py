"""How a training came about: the confidence at each kept step, and beside it the nuclei in it."""

from __future__ import annotations

from typing import Any

from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_semiseg.app.history_nuclei import HistoryNuclei
from napari_semiseg.app.session import Session
from napari_semiseg.plugin.history_layers import HistoryLayers
from napari_semiseg.plugin.history_player import HistoryPlayer
from napari_semiseg.plugin.result_layers import ResultLayers
from napari_semiseg.plugin.slide_view import SlideView
from napari_semiseg.plugin.widgets.look import toggle_button
from napari_semiseg.plugin.widgets.step import ElidedLabel

_HELP = (
    "Show the confidence at each kept step of the newest training, and beside it the nuclei that the sliders make of it"
)


class HistoryBox(QWidget):
    """Plays the maps back for as long as its button is down, and is not there otherwise.

    Parameters
    ----------
    session : Session
    viewer : napari viewer
    view : SlideView
    results : ResultLayers
        Hidden meanwhile.

    Attributes
    ----------
    button : QToolButton
        To be placed beside those that choose another picture.
    """

    def __init__(
        self, session: Session, viewer: Any, view: SlideView, results: ResultLayers, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self.session = session
        self.nuclei = HistoryNuclei(session)
        self.layers = HistoryLayers(session, viewer, view, self.nuclei, results)
        self.button = toggle_button("History", "")
        self.button.clicked.connect(self.nuclei.switch)
        self.player = HistoryPlayer(session.training.history)
        self.words = ElidedLabel()
        self.words.setObjectName("semisegHint")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(1)
        column.addWidget(self.player)
        column.addWidget(self.words)
        self.nuclei.changed.connect(self._show)
        session.review.changed.connect(self._show_words)
        self._show()

    def end(self) -> None:
        """Let go of the viewer and of the models."""
        self.session.review.changed.disconnect(self._show_words, missing_ok=True)
        self.layers.end()
        self.nuclei.end()
        self.player.end()

    def _show(self) -> None:
        self.button.setEnabled(not self.nuclei.why_not)
        self.button.setToolTip(self.nuclei.why_not or _HELP)
        self.button.setChecked(self.nuclei.on)
        self.setVisible(self.nuclei.on)
        self._show_words()

    def _show_words(self) -> None:
        self.words.setText(self.nuclei.words)
