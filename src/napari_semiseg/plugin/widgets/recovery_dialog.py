"""What was brought back after a program ended without closing its project, and whether it is to stay."""

from __future__ import annotations

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QDialog,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_semiseg.project.recovery import Recovery

COLUMNS = ("Tile", "Strokes", "Last stroke", "Nuclei before", "Nuclei now")
_TILE = Qt.ItemDataRole.UserRole
_WORDS = (
    "Everything that was painted is here. The strokes in these tiles were in no snapshot yet, so look whether they are "
    "as you left them: a click on a row shows its tile. Keep what is ticked; a tile without a tick is put back as it "
    "was before. What is put back is kept too: the menu ⋯ of the tile brings it back."
)


class RecoveryDialog(QDialog):
    """Lists the tiles with recovered strokes. It waits for nobody, and closing it keeps everything.

    Parameters
    ----------
    recovery : Recovery
    parent : QWidget
    """

    chosen = Signal(str)
    """A tile is to be looked at."""
    put_back = Signal(list)
    """These tiles are to be as they were before."""

    def __init__(self, recovery: Recovery, parent: QWidget) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle("Strokes that were brought back")
        self.resize(560, 320)
        self.words = QLabel(" ".join([*recovery.sentences(), _WORDS]))
        self.words.setTextFormat(Qt.TextFormat.PlainText)
        self.words.setWordWrap(True)
        self.table = QTableWidget(len(recovery.tiles), len(COLUMNS))
        self.table.setHorizontalHeaderLabels(COLUMNS)
        self.table.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        self.table.setSelectionBehavior(QTableWidget.SelectionBehavior.SelectRows)
        self.table.verticalHeader().hide()
        self.table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        for row, found in enumerate(recovery.tiles):
            texts = (found.tile, found.strokes, f"{found.until:%d %b %H:%M:%S}", found.before, found.now)
            for column, text in enumerate(texts):
                item = QTableWidgetItem(str(text))
                item.setData(_TILE, found.tile)
                if column == 0:
                    item.setFlags(item.flags() | Qt.ItemFlag.ItemIsUserCheckable)
                    item.setCheckState(Qt.CheckState.Checked)
                self.table.setItem(row, column, item)
        self.table.itemChanged.connect(self._show)
        self.table.itemSelectionChanged.connect(self._choose)
        self.table.itemClicked.connect(self._choose)
        self.keep = QPushButton()
        self.keep.setDefault(True)
        self.keep.clicked.connect(self._done)
        row = QHBoxLayout()
        row.addStretch(1)
        row.addWidget(self.keep)
        layout = QVBoxLayout(self)
        layout.addWidget(self.words)
        layout.addWidget(self.table, 1)
        layout.addLayout(row)
        self._show()

    @property
    def unticked(self) -> list[str]:
        """Tiles that are to be as they were before."""
        items = [self.table.item(row, 0) for row in range(self.table.rowCount())]
        return [item.data(_TILE) for item in items if item.checkState() != Qt.CheckState.Checked]

    def _show(self, *_: object) -> None:
        back, every = len(self.unticked), self.table.rowCount()
        kept = "Put all back" if back == every else f"Keep {every - back}, put {back} back"
        self.keep.setText("Keep everything" if not back else kept)

    def _choose(self, *_: object) -> None:
        items = self.table.selectedItems()
        if items:
            self.chosen.emit(items[0].data(_TILE))

    def _done(self) -> None:
        unticked = self.unticked
        self.close()
        if unticked:
            self.put_back.emit(unticked)
