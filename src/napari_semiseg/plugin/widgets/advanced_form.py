"""What else can be set for a training: drawn from what the engine says of itself."""

from __future__ import annotations

from functools import partial
from typing import Any

from magicgui.widgets import CheckBox, ComboBox, FloatSpinBox, LineEdit, SpinBox
from magicgui.widgets.bases import ValueWidget
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractSpinBox,
    QCheckBox,
    QComboBox,
    QGridLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible
from superqt.utils import signals_blocked

from napari_semiseg.app.forms import Field
from napari_semiseg.app.training_setup import TrainingSetup
from napari_semiseg.plugin.widgets.step import as_plain_tooltip

_CHOICES = ("method", "network", "device")


class AdvancedForm(QWidget):
    """Method, network and device, and below them every option: one that is not ticked is left to the preset.

    Parameters
    ----------
    setup : TrainingSetup
    """

    def __init__(self, setup: TrainingSetup, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setup = setup
        self.choosers: dict[str, QComboBox] = {}
        self.ticks: dict[str, QCheckBox] = {}
        self.editors: dict[str, ValueWidget] = {}
        self._drawn: object = None
        self._groups = QVBoxLayout()
        self._groups.setSpacing(2)
        self.waiting = QLabel("The engine is still loading: options appear in a moment.")
        self.waiting.setWordWrap(True)
        self.waiting.setObjectName("semisegHint")
        self.reset = QPushButton("Leave everything to the preset")
        self.reset.setObjectName("semisegLink")
        self.reset.setCursor(Qt.CursorShape.PointingHandCursor)
        self.reset.clicked.connect(self._reset)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 2, 0, 2)
        layout.setSpacing(4)
        layout.addLayout(self._make_choosers())
        layout.addWidget(self.waiting)
        layout.addLayout(self._groups)
        layout.addWidget(self.reset)
        setup.changed.connect(self.show_setup)

    def end(self) -> None:
        """Hear nothing more."""
        self.setup.changed.disconnect(self.show_setup, missing_ok=True)

    def show_setup(self) -> None:
        """Draw what there is to choose, if that is anything else than before, and what is chosen."""
        if not self.isVisibleTo(self.parentWidget()):
            return
        self._show_choosers()
        groups = self.setup.groups()
        self.waiting.setVisible(not groups)
        if groups != self._drawn:
            self._drawn = groups
            self._draw(groups)
        for name, tick in self.ticks.items():
            chosen = self.setup.request.get(name, self.setup.options.get(name))
            with signals_blocked(tick):
                tick.setChecked(chosen is not None)
            editor = self.editors[name]
            editor.enabled = chosen is not None
            if chosen is not None and editor.value != chosen:  # drawn anew, or set elsewhere
                with editor.changed.blocked():
                    editor.value = chosen
        self.reset.setVisible(any(tick.isChecked() for tick in self.ticks.values()))

    def showEvent(self, event: Any) -> None:
        """Draw what has changed while nobody looked."""
        super().showEvent(event)
        self.show_setup()

    # ---- inner ----

    def _make_choosers(self) -> QGridLayout:
        grid = QGridLayout()
        grid.setColumnStretch(1, 1)
        for row, name in enumerate(_CHOICES):
            chooser = QComboBox()
            chooser.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
            chooser.setMinimumContentsLength(6)
            chooser.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            chooser.activated.connect(partial(self._choose, name))
            self.choosers[name] = chooser
            grid.addWidget(QLabel(name.capitalize()), row, 0)
            grid.addWidget(chooser, row, 1)
        return grid

    def _show_choosers(self) -> None:
        offers = {"method": self.setup.methods, "network": self.setup.networks, "device": self.setup.devices}
        for name, chooser in self.choosers.items():
            entries = [("auto", "auto"), *offers[name]]
            with signals_blocked(chooser):
                if [chooser.itemData(index) for index in range(chooser.count())] != [entry for entry, _ in entries]:
                    chooser.clear()
                    for value, title in entries:
                        chooser.addItem(title, value)
                chooser.setCurrentIndex(max(0, chooser.findData(getattr(self.setup, name))))

    def _choose(self, name: str, index: int) -> None:
        self.setup.choose(**{name: self.choosers[name].itemData(index)})

    def _draw(self, groups: dict[str, tuple[Field, ...]]) -> None:
        while self._groups.count():
            self._groups.takeAt(0).widget().deleteLater()
        self.ticks, self.editors = {}, {}
        for title, rows in groups.items():
            folded = QCollapsible(title)
            folded.setDuration(0)
            folded.addWidget(self._group(rows))
            self._groups.addWidget(folded)

    def _group(self, rows: tuple[Field, ...]) -> QWidget:
        box = QWidget()
        grid = QGridLayout(box)
        grid.setContentsMargins(4, 0, 0, 4)
        grid.setVerticalSpacing(3)
        grid.setColumnStretch(1, 1)
        for number, field in enumerate(rows):
            tick, editor = QCheckBox(field.label), make_editor(field)
            editor.native.setMinimumWidth(70)
            editor.native.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            for widget in (tick, editor.native):
                widget.setToolTip(as_plain_tooltip(f"{field.help} Tick it to set it yourself."))
            tick.toggled.connect(partial(self._tick, field.name))
            editor.changed.connect(partial(self._edit, field.name))
            editor.enabled = False
            self.ticks[field.name], self.editors[field.name] = tick, editor
            grid.addWidget(tick, number, 0)
            grid.addWidget(editor.native, number, 1)
        return box

    def _tick(self, name: str, ticked: bool) -> None:
        self.editors[name].enabled = ticked
        self.setup.set_option(name, self.editors[name].value if ticked else None)

    def _edit(self, name: str, value: Any) -> None:
        if self.ticks[name].isChecked():
            self.setup.set_option(name, value)

    def _reset(self) -> None:
        for name in [name for name, tick in self.ticks.items() if tick.isChecked()]:
            self.setup.set_option(name, None)


def make_editor(field: Field) -> ValueWidget:
    """Make the widget that a field is edited in, with its default and bounds."""
    match field.kind:
        case "whole":
            low, high = _bounds(field, 0, 1_000_000_000)
            value = int(field.default) if field.default is not None else int(low)
            step = int(field.step) if field.step else 1
            editor = SpinBox(value=value, min=int(low), max=int(high), step=step, name=field.name)
            editor.native.setKeyboardTracking(False)
        case "number":
            low, high = _bounds(field, -1e9, 1e9)
            value = float(field.default) if field.default is not None else max(low, 1.0)
            editor = FloatSpinBox(value=value, min=low, max=high, name=field.name)
            editor.native.setDecimals(_decimals(value))
            editor.native.setStepType(QAbstractSpinBox.StepType.AdaptiveDecimalStepType)
            editor.native.setKeyboardTracking(False)
            editor.value = value
        case "yes or no":
            editor = CheckBox(value=bool(field.default), name=field.name, text="")
        case "choice":
            editor = ComboBox(value=field.default, choices=field.choices, name=field.name)
        case _:
            editor = LineEdit(value="" if field.default is None else str(field.default), name=field.name)
    return editor


def _decimals(value: float) -> int:
    """Return how many decimals a value is edited with: two more than it needs."""
    needed = next((places for places in range(7) if round(value, places) == value), 7)
    return max(3, needed + 2)


def _bounds(field: Field, low: float, high: float) -> tuple[float, float]:
    return (low if field.minimum is None else field.minimum, high if field.maximum is None else field.maximum)
