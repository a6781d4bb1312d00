"""The curves of a run: its loss terms by name, and its score beside that of the threshold."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

import numpy as np
import pyqtgraph as pg
from napari.utils.theme import get_theme
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QHBoxLayout, QLabel, QSizePolicy, QVBoxLayout, QWidget

from napari_semiseg.app.run_record import RunRecord
from napari_semiseg.plugin.widgets.step import ElidedLabel

COLORS = ("#56b4e9", "#e69f00", "#cc79a7", "#009e73", "#d55e00", "#0072b2", "#f0e442")
"""Okabe and Ito's colors, which the color-blind tell apart."""
YOURS = "#56b4e9"
HEIGHT = 108
NAMED_DIGITS = ((1, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,))
"""Numbers of a decade that are named on a logarithmic axis: as many of them as there is room for."""
BETWEEN_NUMBERS = 13
"""Pixels that a number of an axis takes, at least."""


class Curves(QWidget):
    """Two small plots side by side: losses (logarithmic), and Dice."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.losses = small_plot("Loss terms, each with its weight, over steps")
        self.losses.setLogMode(y=True)
        self.scores = small_plot(
            "Dice on the validation tiles, over steps; dashed: the threshold that needs no training"
        )
        self.legend = QLabel()
        self.legend.setTextFormat(Qt.TextFormat.RichText)
        self.legend.setObjectName("semisegHint")
        self.legend.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.verdict = ElidedLabel()
        self.verdict.setObjectName("semisegVerdict")
        font = self.verdict.font()
        font.setBold(True)
        self.verdict.setFont(font)
        self._terms: dict[str, pg.PlotDataItem] = {}
        self.scores.setYRange(0, 1, padding=0.03)
        self._yours = self.scores.plot(pen=pg.mkPen(YOURS, width=2))
        self._threshold = self.scores.plot()
        plots = QHBoxLayout()
        plots.setSpacing(6)
        plots.addWidget(self.losses, 1)
        plots.addWidget(self.scores, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(self.verdict)
        layout.addLayout(plots)
        layout.addWidget(self.legend)
        self.show_theme("dark")

    def show_theme(self, name: str) -> None:
        """Take the colors of a theme of napari's."""
        dim = take_theme((self.losses, self.scores), name)
        self._threshold.setPen(pg.mkPen(dim, width=1.5, style=Qt.PenStyle.DashLine))

    def show_record(self, record: RunRecord, verdict: str) -> None:
        """Draw what a run has come to, and say it."""
        if [*self._terms] != [*record.losses][: len(self._terms)]:  # of another run: colors go by the place of a term
            for term in self._terms.values():
                self.losses.removeItem(term)
            self._terms.clear()
        for number, (name, curve) in enumerate(record.losses.items()):
            if name not in self._terms:
                self._terms[name] = self.losses.plot(pen=pg.mkPen(COLORS[number % len(COLORS)], width=1.5))
            steps, values = np.asarray(curve.steps), np.asarray(curve.values)
            drawn = values > 0  # a term that is off is no point on a logarithmic axis
            self._terms[name].setData(steps[drawn], smoothed(values[drawn]))
        yours, threshold = record.dice, record.threshold_dice
        self._yours.setData(yours.steps, yours.values, symbol="o", symbolSize=4, symbolBrush=YOURS, symbolPen=None)
        if threshold.values:  # on the same tiles it is the same at every step
            self._threshold.setData([0, max(1, record.total)], [threshold.last] * 2)
        else:
            self._threshold.setData([], [])
        self.scores.setVisible(bool(yours.values))
        end = max(1, record.total)
        for plot in (self.losses, self.scores):
            plot.setXRange(0, end, padding=0.02)
        self.verdict.setText(verdict)
        self.verdict.setVisible(bool(verdict))
        self._show_legend(record)

    def _show_legend(self, record: RunRecord) -> None:
        parts = [
            f'<span style="color:{COLORS[number % len(COLORS)]}">●</span> {plain_name(name)}'
            for number, name in enumerate(record.losses)
        ]
        self.legend.setText("&nbsp; ".join(parts))


class ShortAxis(pg.AxisItem):
    """An axis of a plot of few pixels: no number is written over another where it is logarithmic."""

    def logTickValues(
        self, minVal: float, maxVal: float, size: float, stdTicks: object
    ) -> list[tuple[None, list[float]]]:
        """Return where numbers stand, as exponents of ten."""
        decade = size / max(maxVal - minVal, 1e-9)
        for digits in NAMED_DIGITS:
            exponents = np.log10([*digits, 10])
            if np.diff(exponents).min() * decade >= BETWEEN_NUMBERS:
                break
        places = (np.arange(np.floor(minVal), np.ceil(maxVal))[:, None] + exponents[:-1]).ravel()
        return [(None, places[(places >= minVal) & (places <= maxVal)].tolist())]


def take_theme(plots: Iterable[pg.PlotWidget], name: str) -> pg.QtGui.QColor:
    """Give plots the colors of a theme of napari's; return that of their axes."""
    theme = get_theme(name)
    text, background = theme.text.as_hex(), theme.foreground.as_hex()
    dim = pg.mkColor(text)
    dim.setAlpha(130)
    for plot in plots:
        plot.setBackground(background)
        for side in ("left", "bottom"):
            axis = plot.getAxis(side)
            axis.setPen(pg.mkPen(dim, width=1))
            axis.setTextPen(dim)
    return dim


def smoothed(values: np.ndarray, share: float = 0.02) -> np.ndarray:
    """Average each value with its neighbors over a share of the curve, so that a trend can be seen; same length."""
    width = int(len(values) * share) * 2 + 1
    if width < 3:
        return values
    padded = np.pad(values, width // 2, mode="edge")
    sums = np.cumsum(np.insert(padded, 0, 0.0))
    return (sums[width:] - sums[:-width]) / width


def small_plot(tooltip: str) -> pg.PlotWidget:
    """Return an empty plot of the size of the dock's, that nobody drags or zooms."""
    plot = pg.PlotWidget(axisItems={"left": ShortAxis("left")})
    plot.setFixedHeight(HEIGHT)
    plot.setMinimumWidth(60)
    plot.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
    plot.setToolTip(tooltip)
    plot.setMenuEnabled(False)
    plot.setMouseEnabled(False, False)
    plot.hideButtons()
    plot.setFrameShape(plot.Shape.NoFrame)
    for side, size in (("left", 30), ("bottom", 18)):
        axis = plot.getAxis(side)
        axis.setStyle(tickTextOffset=3, tickLength=-3, hideOverlappingLabels=True)
        axis.enableAutoSIPrefix(False)
        axis.setTickFont(_small_font(plot))
        axis.setWidth(size) if side == "left" else axis.setHeight(size)
    return plot


def _small_font(widget: QWidget):
    font = widget.font()
    font.setPointSizeF(7.0)
    return font


def plain_name(text: str, most: int = 40) -> str:
    """Return at most so many characters of a text, as HTML that shows them as they are."""
    return escape(text[:most], quote=False).replace("_", " ")
