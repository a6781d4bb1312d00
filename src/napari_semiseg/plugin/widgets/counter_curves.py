"""What a method counts, over steps: shares in one plot, numbers in the other."""

from __future__ import annotations

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QHBoxLayout, QLabel, QSizePolicy, QVBoxLayout, QWidget

from napari_semiseg.app.curves import Curve
from napari_semiseg.app.run_record import RunRecord
from napari_semiseg.plugin.widgets.curves import COLORS, plain_name, small_plot, smoothed, take_theme


class CounterCurves(QWidget):
    """Two small plots side by side: counters that stay between 0 and 1, and the others (logarithmic)."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.shares = small_plot("What the method counts, in shares, over steps")
        self.shares.setYRange(0, 1, padding=0.03)
        self.counts = small_plot("What the method counts, in numbers, over steps")
        self.counts.setLogMode(y=True)
        self.legend = QLabel()
        self.legend.setTextFormat(Qt.TextFormat.RichText)
        self.legend.setObjectName("semisegHint")
        self.legend.setWordWrap(True)
        self.legend.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self._drawn: list[tuple[pg.PlotWidget, pg.PlotDataItem]] = []
        plots = QHBoxLayout()
        plots.setSpacing(6)
        plots.addWidget(self.shares, 1)
        plots.addWidget(self.counts, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addLayout(plots)
        layout.addWidget(self.legend)

    def show_theme(self, name: str) -> None:
        """Take the colors of a theme of napari's."""
        take_theme((self.shares, self.counts), name)

    def show_record(self, record: RunRecord) -> None:
        """Draw what a run has counted."""
        for plot, curve in self._drawn:
            plot.removeItem(curve)
        self._drawn.clear()
        for number, (name, curve) in enumerate(record.counters.items()):
            plot = self.shares if name in record.shares else self.counts
            pen = pg.mkPen(COLORS[number % len(COLORS)], width=1.5)
            self._drawn.append((plot, _plotted(plot, curve, pen, positive=plot is self.counts)))
        for plot in (self.shares, self.counts):
            plot.setXRange(0, max(1, record.total), padding=0.02)
            plot.setVisible(any(drawn is plot for drawn, _ in self._drawn))
        parts = [
            f'<span style="color:{COLORS[number % len(COLORS)]}">●</span> {plain_name(name)} {curve.last:.3g}'
            for number, (name, curve) in enumerate(record.counters.items())
        ]
        self.legend.setText("&nbsp; ".join(parts))
        self.legend.setMinimumHeight(max(0, self.legend.heightForWidth(max(self.legend.width(), 100))))


def _plotted(plot: pg.PlotWidget, curve: Curve, pen: object, *, positive: bool) -> pg.PlotDataItem:
    steps, values = np.asarray(curve.steps), np.asarray(curve.values)
    kept = values > 0 if positive else np.ones(len(values), bool)  # a logarithmic axis has no 0
    return plot.plot(steps[kept], smoothed(values[kept]), pen=pen)
