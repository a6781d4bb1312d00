"""What the mouse and the keys do in a tile."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QHBoxLayout, QLabel, QVBoxLayout, QWidget

from napari_semiseg.app.painting import FIRST_CLASS
from napari_semiseg.app.session import Session
from napari_semiseg.plugin.keys import Keys
from napari_semiseg.plugin.tile_layers import TileLayers
from napari_semiseg.plugin.widgets.look import plain_button
from napari_semiseg.plugin.widgets.step import as_plain_tooltip

_STROKES = (
    "Drag to paint, or right-click and move around a nucleus: back at the start it is filled. "
    "A stroke on free ground is a new nucleus."
)
_GESTURES = (
    "Click on it: accept. Right-click: delete. Draw across: cut in two. From one into another: "
    "join. Around it: redraw. Outside the tile a drag moves the view."
)


class PaintingHelp(QWidget):
    """Says what strokes do, or gestures while nuclei are corrected, and on demand what each key does.

    Parameters
    ----------
    session : Session
    layers : TileLayers
    keys : Keys
    """

    def __init__(self, session: Session, layers: TileLayers, keys: Keys, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.session, self.layers, self.keys = session, layers, keys
        self.hint, self.key_list = QLabel(), QLabel()
        for label in (self.hint, self.key_list):
            label.setObjectName("semisegHint")
            label.setTextFormat(Qt.TextFormat.PlainText)
            label.setWordWrap(True)
        self.show_keys = plain_button("Keys", "Show what each key does; change them in napari's preferences")
        self.show_keys.setCheckable(True)
        self.show_keys.toggled.connect(self.key_list.setVisible)
        self.key_list.setVisible(False)
        row = QHBoxLayout()
        row.addWidget(self.hint, 1)
        row.addWidget(self.show_keys, 0, Qt.AlignmentFlag.AlignTop)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addLayout(row)
        column.addWidget(self.key_list)
        for signal in (session.project.classes_changed, layers.pen_changed, layers.correcting_changed, keys.changed):
            signal.connect(self._show_hint)
        keys.changed.connect(self._show_keys)
        self._show_hint()
        self._show_keys()

    def _show_hint(self) -> None:
        self.hint.setText(self._gesture_words() if self.layers.correcting else _STROKES)

    def _gesture_words(self) -> str:
        """Say what gestures do, and where there are several classes, of which one accepted nuclei are."""
        classes = self.session.project.classes
        if len(classes) < 2:
            return f"White is proposed. {_GESTURES}"
        pen = classes[min(self.layers.pen.nucleus_kind - FIRST_CLASS, len(classes) - 1)].name
        return (
            f"Pale is proposed, in the color of its class; what is white becomes “{pen[:40]}”. {_GESTURES} "
            f"{self.keys.of('reclass')} gives the nucleus below the mouse the next class."
        )

    def _show_keys(self) -> None:
        self.key_list.setText(self.keys.words)
        self.hint.setToolTip(as_plain_tooltip(self.keys.words))
