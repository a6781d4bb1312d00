"""The scores of two runs side by side, the better one of each in bold."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QGridLayout, QLabel, QWidget

from napari_semiseg.app.comparison import Scores

_UNFAIR = "Something may have been learned from these tiles: that flatters whoever did."
_NO_TILE = "No tile of this image is complete, so nobody can say which one is better."


class ScoreTable(QWidget):
    """A small table; nothing can be done with it."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 2, 0, 2)
        self._grid.setHorizontalSpacing(14)
        self._grid.setVerticalSpacing(1)
        self._grid.setColumnStretch(0, 1)

    def show_scores(self, scores: Sequence[Scores]) -> None:
        """Show these, or say that there is nothing to judge by."""
        while self._grid.count():
            old = self._grid.takeAt(0).widget()
            old.hide()  # it is deleted some time later, and would lie below the new one until then
            old.deleteLater()
        if not scores:
            self._grid.addWidget(_label(_NO_TILE, dim=True), 0, 0, 1, 3)
            return
        row = 0
        for group in scores:
            title = _label(group.title, "" if group.judges else _UNFAIR, dim=True)
            self._put(row, title, _label("this run", dim=True), _label("other", dim=True))
            for score in group.rows:
                row += 1
                this = _label(score.this, score.means, bold=score.better == "this")
                other = _label(score.other, score.means, bold=score.better == "other")
                self._put(row, _label(score.name, score.means), this, other)
            row += 1

    def texts(self) -> list[str]:
        """Return what is shown, from left to right and from top to bottom."""
        return [self._grid.itemAt(place).widget().text() for place in range(self._grid.count())]

    def _put(self, row: int, name: QLabel, *values: QLabel) -> None:
        self._grid.addWidget(name, row, 0)
        for column, value in enumerate(values, start=1):
            value.setWordWrap(False)
            value.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            self._grid.addWidget(value, row, column)


def _label(text: str, tip: str = "", *, dim: bool = False, bold: bool = False) -> QLabel:
    label = QLabel(text)
    label.setTextFormat(Qt.TextFormat.PlainText)
    label.setWordWrap(True)
    label.setToolTip(tip)
    if dim:
        label.setObjectName("semisegHint")
    font = label.font()
    font.setBold(bold)
    label.setFont(font)
    return label
