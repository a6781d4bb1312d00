"""The sliders that nuclei follow while they move: threshold, how readily touching nuclei part, and the smallest one."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QGridLayout, QLabel, QVBoxLayout, QWidget
from superqt import QLabeledDoubleSlider
from superqt.utils import signals_blocked

from napari_semiseg.app.review_model import ReviewModel
from napari_semiseg.plugin.widgets.look import hint, say

_AREAS = {"µm²": (0.5, 60.0, 0.5, 1), "px": (1, 1000, 1, 0)}
"""Least and largest area of the smallest nucleus that the slider gives, its step, and how many decimals it shows."""
_NAMES = {"threshold": "Threshold", "strength": "Split", "min_area": "Smallest"}
_HELP = {
    "threshold": "Confidence above which a pixel counts as nucleus: higher finds less",
    "strength": "How readily touching nuclei are parted: 0 never, 1 always",
    "min_area": "Nuclei smaller than this are left out",
}


class SplitSliders(QWidget):
    """Shows how the result in view is split, and has it split otherwise.

    Parameters
    ----------
    model : ReviewModel
    """

    def __init__(self, model: ReviewModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.model = model
        self.threshold, self.strength = QLabeledDoubleSlider(), QLabeledDoubleSlider()
        self.min_area = QLabeledDoubleSlider()
        self.names: dict[str, QLabel] = {}
        grid = QGridLayout()
        grid.setVerticalSpacing(2)
        grid.setColumnStretch(1, 1)
        sliders = (self.threshold, self.strength, self.min_area)
        for row, (name, slider) in enumerate(zip(_NAMES, sliders, strict=True)):
            slider.setOrientation(Qt.Orientation.Horizontal)
            slider.setToolTip(_HELP[name])
            self.names[name] = QLabel(_NAMES[name])
            self.names[name].setToolTip(_HELP[name])
            grid.addWidget(self.names[name], row, 0)
            grid.addWidget(slider, row, 1)
        for slider in (self.threshold, self.strength):
            slider.setRange(0.0, 1.0)
            slider.setSingleStep(0.01)
            slider.setDecimals(2)
        self.waits = hint()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(5)
        column.addLayout(grid)
        column.addWidget(self.waits)
        self._show_split()
        self._show_waiting()
        self.threshold.valueChanged.connect(lambda value: model.set_split(threshold=round(float(value), 3)))
        self.strength.valueChanged.connect(lambda value: model.set_split(strength=round(float(value), 3)))
        self.min_area.valueChanged.connect(lambda value: model.set_smallest(round(float(value), 3)))
        model.split_changed.connect(self._show_split)
        model.changed.connect(self._show_waiting)

    def end(self) -> None:
        """Hear nothing more."""
        self.model.split_changed.disconnect(self._show_split, missing_ok=True)
        self.model.changed.disconnect(self._show_waiting, missing_ok=True)

    def _show_waiting(self) -> None:
        say(self.waits, self.model.wait_words)

    def _show_split(self) -> None:
        split, smallest = self.model.split, self.model.smallest
        with signals_blocked(self.threshold), signals_blocked(self.strength), signals_blocked(self.min_area):
            self.threshold.setValue(split.threshold)
            self.strength.setValue(split.strength)
            self._show_unit()
            if smallest is not None:
                self.min_area.setValue(smallest)

    def _show_unit(self) -> None:
        """Let the slider of the smallest nucleus speak of µm² where the size of a pixel is known, else of pixels."""
        unit = "µm²" if self.model.mpp else "px"
        least, largest, step, decimals = _AREAS[unit]
        self.names["min_area"].setText(f"{_NAMES['min_area']}, {unit}")
        self.min_area.setDecimals(decimals)
        self.min_area.setRange(least, largest)
        self.min_area.setSingleStep(step)
