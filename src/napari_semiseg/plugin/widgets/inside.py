"""Inside the training: what the method counts, how sure it is, and looks inside it as layers over the image."""

from __future__ import annotations

from typing import Any

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLabel, QSizePolicy, QVBoxLayout, QWidget

from napari_semiseg.app.session import Session
from napari_semiseg.io.diagnostics import Amount, Boxes, Categories, Colors, Look, Meaning, Plot
from napari_semiseg.plugin.look_layers import LookLayers
from napari_semiseg.plugin.slide_view import SlideView
from napari_semiseg.plugin.widgets.counter_curves import CounterCurves
from napari_semiseg.plugin.widgets.curves import plain_name
from napari_semiseg.plugin.widgets.look import plain_button
from napari_semiseg.plugin.widgets.patch_histograms import PatchHistograms

_SHOW = "Look inside the method, over what is in view: as layers over the image"
_HIDE = "Take these layers away"
MOST_MEANINGS = 8


class Inside(QWidget):
    """Unfolds below the curves.

    Parameters
    ----------
    session : Session
    viewer : napari viewer
    view : SlideView
    """

    def __init__(self, session: Session, viewer: Any, view: SlideView, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.session, self.model = session, session.inspection
        self.layers = LookLayers(session, viewer, view)
        self.unfold = plain_button("Inside the training", "What the method counts, and looks inside it")
        self.unfold.setCheckable(True)
        self.unfold.setArrowType(Qt.ArrowType.RightArrow)
        self.unfold.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.unfold.toggled.connect(self._unfold)
        self.body = QWidget()
        self.body.hide()
        self.counters = CounterCurves()
        self.patches = PatchHistograms()
        self.choice = QComboBox()
        self.choice.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.show_button = plain_button("Show", _SHOW)
        self.show_button.clicked.connect(self._ask)
        self.hide_button = plain_button("✕", _HIDE)
        self.hide_button.clicked.connect(self.model.clear)
        self.plot = QLabel()
        self.legend = QLabel()
        self.legend.setTextFormat(Qt.TextFormat.RichText)
        self.legend.setObjectName("semisegHint")
        self.legend.setWordWrap(True)
        row = QHBoxLayout()
        row.setSpacing(2)
        row.addWidget(self.choice, 1)
        row.addWidget(self.show_button)
        row.addWidget(self.hide_button)
        column = QVBoxLayout(self.body)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addWidget(self.counters)
        column.addWidget(self.patches)
        column.addLayout(row)
        column.addWidget(self.legend)
        column.addWidget(self.plot)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(self.unfold)
        layout.addWidget(self.body)
        self.model.changed.connect(self._on_look)
        session.training.changed.connect(self._on_training)
        self._on_training()
        self._on_look()

    def end(self) -> None:
        """Let go of the models and the viewer."""
        self.layers.end()
        self.model.changed.disconnect(self._on_look, missing_ok=True)
        self.session.training.changed.disconnect(self._on_training, missing_ok=True)

    def show_theme(self, name: str) -> None:
        """Take the colors of a theme of napari's."""
        self.counters.show_theme(name)
        self.patches.show_theme(name)

    def show_curves(self) -> None:
        """Draw counters and histograms, where they can be seen."""
        if not self.unfold.isChecked():
            return
        record = self.session.training.record
        self.counters.setVisible(bool(record.counters))
        self.counters.show_record(record)
        self.patches.show_patches(record.patches.get(self.session.image_index or 0, []), record.total)

    def _unfold(self, unfolded: bool) -> None:
        self.unfold.setArrowType(Qt.ArrowType.DownArrow if unfolded else Qt.ArrowType.RightArrow)
        self.body.setVisible(unfolded)
        self.show_curves()
        self._on_training()

    def _ask(self) -> None:
        if self.choice.currentData():
            self.model.ask(self.choice.currentData())

    def _on_training(self) -> None:
        offered = self.model.offered
        if offered != [(self.choice.itemData(n), self.choice.itemText(n)) for n in range(self.choice.count())]:
            chosen = self.choice.currentData()
            self.choice.clear()
            for name, title in offered:
                self.choice.addItem(title, name)
            self.choice.setCurrentIndex(max(0, self.choice.findData(chosen)))
        why = self.model.why_not
        self.show_button.setEnabled(not why and bool(offered))
        self.show_button.setToolTip(why or _SHOW)

    def _on_look(self) -> None:
        look = self.model.look
        self.hide_button.setEnabled(look is not None)
        self.legend.setText(
            (self.model.waiting and f"{plain_name(self.model.waiting)} …") or (_legend(look) if look else "")
        )
        self.legend.setVisible(bool(self.legend.text()))
        self.legend.setMinimumHeight(max(0, self.legend.heightForWidth(max(self.legend.width(), 100))))
        plot = next((item for item in look.maps.values() if isinstance(item, Plot)), None) if look else None
        self.plot.setVisible(plot is not None)
        if plot is not None:
            side = max(100, min(self.body.width(), plot.values.shape[1]))
            self.plot.setPixmap(_pixmap(plot.values).scaledToWidth(side, Qt.TransformationMode.SmoothTransformation))
            self.plot.setFixedHeight(self.plot.pixmap().height())
            self.plot.setToolTip(plot.words)
        self._on_training()


def _legend(look: Look) -> str:
    """Say what colors mean, and what was counted, as HTML of plain words."""
    parts = [f"step {look.step:,}"]
    for name, item in look.maps.items():
        match item:
            case Categories(_, meanings) | Boxes(_, _, meanings):
                shown = [_swatch(meaning) for meaning in list(meanings.values())[:MOST_MEANINGS]]
                parts += shown + (["…"] if len(meanings) > MOST_MEANINGS else [])
            case Amount(_, low, high, words):
                parts.append(f"{plain_name(name)}: {plain_name(words)}, {low:.3g} to {high:.3g}")
            case Colors(_, words):
                parts.append(plain_name(words, 200))
    parts += [f"{plain_name(name)} {value:.3f}" for name, value in look.numbers.items()]
    return " &nbsp; ".join(parts)


def _swatch(meaning: Meaning) -> str:
    red, green, blue = meaning.color
    return f'<span style="color:rgb({red},{green},{blue})">■</span> {plain_name(meaning.words, 80)}'


def _pixmap(values: np.ndarray) -> QPixmap:
    height, width = values.shape[:2]
    pixels = np.ascontiguousarray(values)
    return QPixmap.fromImage(QImage(pixels.data, width, height, 3 * width, QImage.Format.Format_RGB888).copy())
