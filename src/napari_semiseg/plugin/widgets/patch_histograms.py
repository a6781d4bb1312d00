"""How sure the map is of its patches, over steps: histograms of mean confidence and of mean entropy, upright."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import QRectF
from qtpy.QtWidgets import QHBoxLayout, QWidget

from napari_semiseg.app.run_record import Patches
from napari_semiseg.plugin.widgets.curves import small_plot, take_theme


class PatchHistograms(QWidget):
    """Two small maps side by side: steps to the right, confidence or entropy upward, bright where many patches lie."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.confidence = small_plot("Patches of the map by mean confidence (upward), over steps")
        self.entropy = small_plot("Patches of the map by mean entropy in bits (upward), over steps")
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(6)
        self._maps = []
        for plot in (self.confidence, self.entropy):
            item = pg.ImageItem(colorMap=pg.colormap.get("viridis"), levels=(0, 1))
            plot.addItem(item)
            plot.setYRange(0, 1, padding=0.0)
            self._maps.append(item)
            layout.addWidget(plot, 1)

    def show_theme(self, name: str) -> None:
        """Take the colors of a theme of napari's."""
        take_theme((self.confidence, self.entropy), name)

    def show_patches(self, patches: Sequence[Patches], total: int) -> None:
        """Draw the histograms of an image, in order of steps."""
        self.setVisible(bool(patches))
        if not patches:
            return
        end = max(patches[-1].step, patches[0].step + 1)
        for item, counts in zip(
            self._maps, ([each.confidence for each in patches], [each.entropy for each in patches]), strict=True
        ):
            counted = np.asarray(counts, np.float32)
            shares = counted / np.maximum(counted.sum(1, keepdims=True), 1)
            item.setImage(np.sqrt(shares), autoLevels=False)  # few patches in a bin are to be seen too
            item.setRect(QRectF(patches[0].step, 0, end - patches[0].step, 1))
        for plot in (self.confidence, self.entropy):
            plot.setXRange(0, max(1, total), padding=0.02)
