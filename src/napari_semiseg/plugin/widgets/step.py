"""The frame of one step of the dock: a number, a title, what it has come to, a tick; it folds."""

from __future__ import annotations

from html import escape
from typing import Protocol

from qtpy.QtCore import QEvent, Qt, Signal
from qtpy.QtGui import QFontMetrics
from qtpy.QtWidgets import QFrame, QHBoxLayout, QLabel, QSizePolicy, QToolButton, QVBoxLayout, QWidget

from napari_semiseg.plugin.widgets.look import repolish


class Panel(Protocol):
    """What the dock asks of a panel, which is a QWidget.

    Attributes
    ----------
    summary : str
        What the step has come to, in one line, shown beside its title also when it is folded.
    done : bool
        Whether it has its tick.
    changed : Signal
        Emitted without arguments when one of them is another.
    """

    summary: str
    done: bool
    changed: Signal

    def end(self) -> None:
        """Let go of viewer and models, while the viewer lives on without the dock."""


class ElidedLabel(QLabel):
    """One line of plain text that gives way, with all of it as its tooltip."""

    def __init__(self, text: str = "", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self._whole = ""
        self.setText(text)

    def text(self) -> str:
        """Return all of the text, shown or not."""
        return self._whole

    def setText(self, text: str) -> None:
        """Show a text; a line break becomes a space."""
        self._whole = " ".join(str(text)[:2000].split())
        self.setToolTip(as_plain_tooltip(self._whole))
        self._elide()

    def resizeEvent(self, event) -> None:
        """Cut the text anew."""
        super().resizeEvent(event)
        self._elide()

    def _elide(self) -> None:
        metrics = QFontMetrics(self.font())
        indent = metrics.horizontalAdvance("x") // 2 if self.frameWidth() else 0  # what Qt leaves free at one side
        room = max(0, self.contentsRect().width() - indent - 2)
        super().setText(metrics.elidedText(self._whole, Qt.TextElideMode.ElideRight, room))


class Column(QWidget):
    """What lies in a scroll area, at least as high as its wrapped lines need: Qt would rather cut them than scroll.

    Attributes
    ----------
    least_width_changed : Signal
        Emitted with the width in pixels below which something of it would be cut off, when it is another.
    """

    least_width_changed = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._least_width = 0

    def event(self, event: QEvent) -> bool:
        """Ask for more height, or less, whenever something in it may have changed."""
        done = super().event(event)
        if event.type() in (QEvent.Type.LayoutRequest, QEvent.Type.Resize) and self.layout() is not None:
            self.setMinimumHeight(max(0, self.layout().minimumHeightForWidth(self.width())))
            if self._least_width != (least := self.layout().minimumSize().width()):
                self._least_width = least
                self.least_width_changed.emit(least)
        return done


def as_plain_tooltip(text: str) -> str:
    """Return a text that Qt does not take for HTML, whatever it holds, and wraps."""
    return f"<qt>{escape(text, quote=False)}</qt>" if text else ""


class StepBox(QFrame):
    """A step of the dock around its panel.

    Parameters
    ----------
    number : int
    title : str
    panel : QWidget
        A `Panel`.
    """

    def __init__(self, number: int, title: str, panel: QWidget, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("semisegStep")
        self.panel = panel
        self._digit = str(number)
        self._done: bool | None = None
        self.number = QLabel(self._digit)
        self.number.setObjectName("semisegNumber")
        self.number.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.number.setFixedSize(20, 20)
        self.toggle = QToolButton()
        self.toggle.setObjectName("semisegTitle")
        self.toggle.setText(title)
        self.toggle.setCheckable(True)
        self.toggle.setChecked(True)
        self.toggle.setToolTip(f"Fold or unfold “{title}”")
        self.toggle.toggled.connect(self._fold)
        self.summary = ElidedLabel()
        self.summary.setObjectName("semisegSummary")
        self.summary.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self._header = QWidget()
        header = QHBoxLayout(self._header)
        header.setContentsMargins(6, 4, 8, 4)
        header.setSpacing(6)
        header.addWidget(self.number)
        header.addWidget(self.toggle)
        header.addWidget(self.summary, 1)
        self._body = QWidget()
        body = QVBoxLayout(self._body)
        body.setContentsMargins(8, 2, 8, 8)
        body.addWidget(panel)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(self._header)
        layout.addWidget(self._body)
        panel.changed.connect(self._show_state)
        self._show_state()

    @property
    def open(self) -> bool:
        """Whether the step is unfolded."""
        return self.toggle.isChecked()

    def set_open(self, unfolded: bool) -> None:
        """Fold or unfold."""
        self.toggle.setChecked(unfolded)

    def mouseReleaseEvent(self, event) -> None:
        """Fold or unfold with a click anywhere on the header."""
        if event.position().y() <= self._header.height():
            self.toggle.toggle()
        super().mouseReleaseEvent(event)

    def _fold(self, unfolded: bool) -> None:
        self._body.setVisible(unfolded)

    def _show_state(self) -> None:
        self.summary.setText(self.panel.summary)
        done = bool(self.panel.done)
        if done == self._done:  # a new style has the whole dock laid out and painted again
            return
        self._done = done
        self.number.setProperty("done", done)
        self.number.setText("✓" if done else self._digit)
        repolish(self.number)
