"""A region of the result, drawn and counted: its figures, and a button that copies them."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QWidget

from napari_semiseg.app.session import Session
from napari_semiseg.plugin.region_tool import RegionTool
from napari_semiseg.plugin.slide_view import SlideView
from napari_semiseg.plugin.widgets.look import framed_button

_HELP = "Draw around it: nuclei, nuclei per mm², and the share that DAB stains"


class RegionRow(QWidget):
    """Draws a region, says what is in it, and copies that.

    Parameters
    ----------
    session : Session
    viewer : napari viewer
    view : SlideView
    """

    def __init__(self, session: Session, viewer: Any, view: SlideView, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.session = session
        self.tool = RegionTool(session, viewer, view)
        self.draw = QPushButton("Measure a region")
        self.draw.setToolTip(_HELP)
        self.draw.setCheckable(True)
        self.draw.clicked.connect(self.tool.switch)
        self.figures = QLabel()
        self.figures.setTextFormat(Qt.TextFormat.PlainText)
        self.figures.setWordWrap(True)
        self.copy = framed_button("Copy", "Copy the figures")
        self.copy.clicked.connect(self.tool.copy)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.draw)
        row.addWidget(self.figures, 1)
        row.addWidget(self.copy)
        self.tool.changed.connect(self._show)
        session.review.changed.connect(self._show_words)
        self._show()

    def end(self) -> None:
        """Let go of the viewer and of the models."""
        self.session.review.changed.disconnect(self._show_words, missing_ok=True)
        self.tool.end()

    def _show(self) -> None:
        self.draw.setChecked(self.tool.drawing)
        self.copy.setVisible(bool(self.tool.words))
        self._show_words()

    def _show_words(self) -> None:
        self.figures.setText(self.tool.wait_words or self.tool.words)
