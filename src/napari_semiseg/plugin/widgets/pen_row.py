"""The row of pens: one for each class of nuclei, one for background, and one that corrects."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import QSize, Qt
from qtpy.QtWidgets import QButtonGroup, QToolButton, QWidget
from superqt import QFlowLayout

from napari_semiseg.app.painting import FIRST_CLASS
from napari_semiseg.app.session import Session
from napari_semiseg.plugin.keys import Keys
from napari_semiseg.plugin.nucleus_colors import BACKGROUND_COLOR
from napari_semiseg.plugin.tile_layers import TileLayers
from napari_semiseg.plugin.widgets.look import dot_icon
from napari_semiseg.project.tile_annotation import BACKGROUND

_CORRECTING = -1  # what the button for it has in the place of a class


class PenRow(QWidget):
    """Shows what is painted with, and chooses it.

    Parameters
    ----------
    session : Session
    layers : TileLayers
    keys : Keys
    """

    def __init__(self, session: Session, layers: TileLayers, keys: Keys, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.session, self.layers, self.keys = session, layers, keys
        self._pens = QButtonGroup(self)
        self._pens.setExclusive(True)
        self._row = QFlowLayout(self)
        self._row.setContentsMargins(0, 0, 0, 0)
        self._row.setHorizontalSpacing(2)
        self._row.setVerticalSpacing(2)
        session.project.classes_changed.connect(self._show_classes)
        layers.pen_changed.connect(self._show_pen)
        layers.correcting_changed.connect(self._show_pen)
        keys.changed.connect(self._show_keys)
        self._show_classes()

    def _show_classes(self) -> None:
        for button in self._pens.buttons():
            self._pens.removeButton(button)
            self._row.removeWidget(button)
            button.hide()  # until Qt deletes it
            button.deleteLater()
        for kind, spec in enumerate(self.session.project.classes, start=FIRST_CLASS):
            button = self._add_color(kind, spec.name, spec.color)
            button.setToolTip(
                f"Paint nuclei of the class “{spec.name[:80]}”; with the picker (L) the picked nucleus becomes one"
            )
        self.background = self._add_color(BACKGROUND, "background", BACKGROUND_COLOR)
        self.correct = self._add(_CORRECTING, "correct", lambda: self.layers.correct(True))
        self._show_pen()
        self._show_keys()

    def _add_color(self, kind: int, name: str, color: str) -> QToolButton:
        text = name if len(name) <= 18 else f"{name[:17]}…"
        button = self._add(kind, text, lambda: self.layers.choose_pen(kind))
        button.setIcon(dot_icon(color, ring=kind == BACKGROUND))
        button.setIconSize(QSize(12, 12))
        button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        return button

    def _add(self, kind: int, text: str, choose: Callable[[], object]) -> QToolButton:
        button = QToolButton()
        button.setObjectName("semisegPen")
        button.setCheckable(True)
        button.setText(text)
        button.setProperty("kind", kind)
        button.clicked.connect(choose)
        self._pens.addButton(button)
        self._row.addWidget(button)
        return button

    def _show_pen(self) -> None:
        chosen = _CORRECTING if self.layers.correcting else self.layers.pen.kind
        for button in self._pens.buttons():
            button.setChecked(button.property("kind") == chosen)

    def _show_keys(self) -> None:
        key = self.keys.of
        what = "Paint what is certainly no nucleus: needed in sparse tiles only"
        self.background.setToolTip(f"{what} ({key('background')})")
        self.correct.setToolTip(f"Accept, delete, cut, join, redraw nuclei, each with one gesture ({key('correct')})")
