"""Tiles as a row of thumbnails with their status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from qtpy.QtCore import QRectF, QSize, Qt, Signal
from qtpy.QtGui import QIcon, QImage, QPainter, QPixmap
from qtpy.QtWidgets import QAbstractItemView, QListView, QListWidget, QListWidgetItem, QWidget
from superqt.utils import signals_blocked

from napari_semiseg.app.painting import BACKGROUND_ID, FIRST_CLASS
from napari_semiseg.plugin.nucleus_colors import nucleus_color
from napari_semiseg.plugin.tile_frames import STATUS_COLORS
from napari_semiseg.plugin.widgets.look import draw_mark
from napari_semiseg.project.schema import Tile

SIDE = 52


class TileStrip(QListWidget):
    """A row of tiles; one is selected."""

    chosen = Signal(str)
    """A tile is gone to; also by a click on the one that is selected."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("semisegStrip")
        self.setViewMode(QListView.ViewMode.IconMode)
        self.setFlow(QListView.Flow.LeftToRight)
        self.setMovement(QListView.Movement.Static)
        self.setWrapping(False)
        self.setUniformItemSizes(True)
        self.setIconSize(QSize(SIDE, SIDE))
        self.setGridSize(QSize(SIDE + 8, SIDE + 8))
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._set_height()
        self._pictures: dict[str, np.ndarray] = {}
        self.itemSelectionChanged.connect(self._choose)
        self.itemClicked.connect(self._choose)

    def show_tiles(self, tiles: list[Tile], selected: str, words: dict[str, str]) -> None:
        """Show these tiles; `words` are their tooltips."""
        with signals_blocked(self):
            known = [self.item(row).data(Qt.ItemDataRole.UserRole) for row in range(self.count())]
            if known != [tile.id for tile in tiles]:
                self.clear()
                for tile in tiles:
                    item = QListWidgetItem()
                    item.setData(Qt.ItemDataRole.UserRole, tile.id)
                    item.setSizeHint(QSize(SIDE + 6, SIDE + 6))
                    self.addItem(item)
                self._set_height()
            for row, tile in enumerate(tiles):
                item = self.item(row)
                item.setToolTip(words.get(tile.id, tile.id))
                item.setData(Qt.ItemDataRole.AccessibleTextRole, words.get(tile.id, tile.id))
                item.setIcon(self.icon(tile))
                item.setSelected(tile.id == selected)
                if tile.id == selected:
                    self.setCurrentItem(item)
                    self.scrollToItem(item)

    def resizeEvent(self, event: Any) -> None:
        """Make room for the scroll bar where there are more tiles than fit."""
        super().resizeEvent(event)
        self._set_height()

    def _set_height(self) -> None:
        scrolls = self.count() * (SIDE + 8) > self.viewport().width()
        self.setFixedHeight(SIDE + 8 + 4 + (self.horizontalScrollBar().sizeHint().height() if scrolls else 0))

    def set_picture(self, tile: Tile, picture: np.ndarray) -> None:
        """Give a tile its thumbnail: uint8 (h, w, 3)."""
        self._pictures[tile.id] = picture
        for row in range(self.count()):
            if self.item(row).data(Qt.ItemDataRole.UserRole) == tile.id:
                self.item(row).setIcon(self.icon(tile))

    def pictured(self) -> set[str]:
        """Return the tiles that have a thumbnail."""
        return set(self._pictures)

    def forget(self) -> None:
        """Drop all thumbnails."""
        self._pictures.clear()
        self.clear()

    def wheelEvent(self, event: Any) -> None:
        """Move along the row with any wheel."""
        bar = self.horizontalScrollBar()
        bar.setValue(bar.value() - (event.angleDelta().y() or event.angleDelta().x()))
        event.accept()

    def _choose(self, *_: object) -> None:
        items = self.selectedItems()
        if items:
            self.chosen.emit(items[0].data(Qt.ItemDataRole.UserRole))

    def icon(self, tile: Tile) -> QIcon:
        """Return a tile's thumbnail with the mark of its state."""
        pixmap = QPixmap(SIDE, SIDE)
        pixmap.fill(Qt.GlobalColor.darkGray)
        painter = QPainter(pixmap)
        picture = self._pictures.get(tile.id)
        if picture is not None:
            height, width = picture.shape[:2]
            image = QImage(picture.data, width, height, 3 * width, QImage.Format.Format_RGB888)
            painter.drawImage(QRectF(0, 0, SIDE, SIDE), image)
        draw_mark(painter, tile.status, STATUS_COLORS[tile.status], QRectF(SIDE - 19, SIDE - 19, 17, 17))
        painter.end()
        icon = QIcon()
        for mode in (QIcon.Mode.Normal, QIcon.Mode.Selected):  # a selected one is not to be tinted
            icon.addPixmap(pixmap, mode)
        return icon


def thumbnail(
    pixels: np.ndarray,
    labels: np.ndarray | None = None,
    class_of: Mapping[int, int] = MappingProxyType({}),
    colors: Sequence[str] = (),
) -> np.ndarray:
    """Make a thumbnail: the image, with nuclei outlined in the color of their class.

    Parameters
    ----------
    pixels : array, (h, w, 3), uint8
    labels : array, (h, w), integer, or None
        What is painted.
    class_of : mapping of int to int
        Class of the nuclei, as on disk; one that is missing is of the first.
    colors : sequence of str
        Of the project's classes, #rrggbb.

    Returns
    -------
    array, uint8, (2 SIDE, 2 SIDE, 3)
    """
    side = 2 * SIDE
    rows = np.linspace(0, pixels.shape[0] - 1, side).round().astype(int)
    columns = np.linspace(0, pixels.shape[1] - 1, side).round().astype(int)
    small = np.ascontiguousarray(pixels[np.ix_(rows, columns)])
    if labels is not None:
        found = labels[np.ix_(rows, columns)]
        found = np.where(found == BACKGROUND_ID, 0, found)
        edge = np.zeros_like(found)  # the number whose outline it is
        for here, there, drawn in ((found[:-1], found[1:], edge[:-1]), (found[:, :-1], found[:, 1:], edge[:, :-1])):
            np.maximum(drawn, np.where(here != there, np.maximum(here, there), 0), out=drawn)
        for number in np.unique(edge[edge > 0]).tolist():
            color = nucleus_color(number, class_of.get(number, FIRST_CLASS), colors)
            small[edge == number] = np.round(255 * color[:3])
    return small
