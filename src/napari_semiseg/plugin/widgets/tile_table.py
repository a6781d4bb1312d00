"""The tiles of an image as a table that can be sorted: picture, state, nuclei, score, who said so and when."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QIcon
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableWidget, QTableWidgetItem, QWidget
from superqt.utils import signals_blocked

from napari_semiseg.project.schema import Tile
from napari_semiseg.project.tile_annotation import Tally

COLUMNS = ("Tile", "State", "Nuclei", "Score", "Set by", "When")
_ID = Qt.ItemDataRole.UserRole
_ORDER = Qt.ItemDataRole.UserRole + 1
_ICON = 34
_HIGHEST = 210  # of the table, in pixels: with more tiles it scrolls


@dataclass(frozen=True)
class Row:
    """What the table says of a tile.

    Attributes
    ----------
    tile : Tile
    tally : Tally
    judges : bool
        Whether it is set aside to judge by.
    score : float
        Dice of the best network on it, NaN where it was not judged by.
    fit : float
        Dice of the present network on it where it learns from it, NaN where that is not known.
    changed : bool
        Whether the training that runs, or was last, has not seen it as it is now.
    """

    tile: Tile
    tally: Tally
    judges: bool = False
    score: float = math.nan
    fit: float = math.nan
    changed: bool = False

    def cells(self) -> list[tuple[str, Any]]:
        """Return text and order of each column."""
        counted = f"{self.tally.nuclei}" + (f" + {self.tally.proposed}?" if self.tally.proposed else "")
        state = self.tile.status + (" · validation" if self.judges else "") + (" · new" if self.changed else "")
        score = f"{self.score:.2f}" if math.isfinite(self.score) else "–"
        if math.isfinite(self.fit) and not self.judges:
            score = f"{self.fit:.2f} learned"
        when = self.tile.set_at.astimezone()
        return [
            (self.tile.id, (len(self.tile.id), self.tile.id)),
            (state, state),
            (counted, (self.tally.nuclei, self.tally.proposed)),
            (score, self._worth),
            (self.tile.set_by, self.tile.set_by),
            (f"{when:%d %b %H:%M}", self.tile.set_at.timestamp()),
        ]

    @property
    def words(self) -> str:
        """What the numbers of nuclei and the score mean."""
        made = f"{self.tally.drawn} drawn, {self.tally.accepted} accepted as proposed, {self.tally.proposed} undecided"
        if math.isfinite(self.score):
            return f"{made}; Dice {self.score:.3f}, nothing was learned from it"
        if math.isfinite(self.fit):
            return (
                f"{made}; Dice {self.fit:.3f}: how well the network gives back what it learned here, not how good it "
                "is. Where that is low, look whether these labels contradict the others."
            )
        return f"{made}; not scored yet"

    @property
    def _worth(self) -> float:
        """What the score is sorted by: those that judge first, then those that only show what was learned."""
        if math.isfinite(self.score):
            return 2 + self.score
        return 1 + self.fit if math.isfinite(self.fit) else 0.0


class _Cell(QTableWidgetItem):
    def __lt__(self, other: QTableWidgetItem) -> bool:
        return bool(self.data(_ORDER) < other.data(_ORDER))


class TileTable(QTableWidget):
    """A row for each tile; one is selected."""

    chosen = Signal(str)
    """A tile is gone to; also by a click on the one that is selected."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(0, len(COLUMNS), parent)
        self.setObjectName("semisegTable")
        self.setHorizontalHeaderLabels(COLUMNS)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setIconSize(QSize(_ICON, _ICON))
        self.setShowGrid(False)
        self.verticalHeader().hide()
        self.verticalHeader().setDefaultSectionSize(_ICON + 4)
        self.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        self.setFixedHeight(_HIGHEST)
        self.setSortingEnabled(True)
        self.sortByColumn(0, Qt.SortOrder.AscendingOrder)
        self._shown: list[Row] = []
        self.itemSelectionChanged.connect(self._choose)
        self.itemClicked.connect(self._choose)

    def show_rows(self, rows: Sequence[Row], selected: str, icons: Mapping[str, QIcon]) -> None:
        """Show these rows, in the order that was chosen last."""
        with signals_blocked(self):
            if list(rows) != self._shown:
                self._shown = list(rows)
                self.setSortingEnabled(False)
                self.setRowCount(len(rows))
                for number, row in enumerate(rows):
                    for column, (text, order) in enumerate(row.cells()):
                        self.setItem(number, column, self._cell(text, order, row))
                self.setSortingEnabled(True)
                lines = len(rows) * self.verticalHeader().defaultSectionSize()
                bars = self.horizontalHeader().sizeHint().height() + self.horizontalScrollBar().sizeHint().height()
                self.setFixedHeight(min(_HIGHEST, lines + bars + 2 * self.frameWidth()))
            for number in range(self.rowCount()):
                item = self.item(number, 0)
                tile_id = item.data(_ID)
                item.setIcon(icons.get(tile_id, QIcon()))
                if tile_id == selected and self.currentRow() != number:
                    self.setCurrentCell(number, 0)
                    self.scrollToItem(item)

    def order(self) -> list[str]:
        """Return the tiles from top to bottom: what N and P go through."""
        return [self.item(number, 0).data(_ID) for number in range(self.rowCount())]

    def _cell(self, text: str, order: Any, row: Row) -> QTableWidgetItem:
        cell = _Cell(text)
        cell.setData(_ID, row.tile.id)
        cell.setData(_ORDER, order)
        cell.setToolTip(row.words)
        return cell

    def _choose(self, *_: object) -> None:
        items = self.selectedItems()
        if items:
            self.chosen.emit(items[0].data(_ID))
