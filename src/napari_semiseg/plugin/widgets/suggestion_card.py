"""The card of a place that is worth a tile."""

from __future__ import annotations

from functools import partial
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QFrame, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_semiseg.app.session import Session
from napari_semiseg.app.suggestions import Suggestion, Suggestions
from napari_semiseg.errors import InputError
from napari_semiseg.plugin.layers import look_at, pixels
from napari_semiseg.plugin.slide_view import SlideView
from napari_semiseg.plugin.strokes import Strokes
from napari_semiseg.plugin.widgets.look import plain_button
from napari_semiseg.plugin.widgets.tile_strip import thumbnail

PICTURE = 64
"""Side of the thumbnail of a suggested place, in pixels of the screen."""


class SuggestionCard(QFrame):
    """Shows the suggestion on offer with its reason, and takes it, or another, or none.

    The view goes to each place once, in another image too, and not while something is being drawn.

    Parameters
    ----------
    session : Session
    viewer : napari viewer
    view : SlideView
    suggestions : Suggestions
    strokes : Strokes

    Attributes
    ----------
    taken : signal of str
        The tile that was added.
    """

    taken = Signal(str)

    def __init__(
        self,
        session: Session,
        viewer: Any,
        view: SlideView,
        suggestions: Suggestions,
        strokes: Strokes,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.session, self.viewer, self.view, self.suggestions = session, viewer, view, suggestions
        self.strokes = strokes
        self._offer: Suggestion | None = None
        self._to_see = False
        self.setObjectName("semisegCard")
        self.why = QLabel()
        self.why.setTextFormat(Qt.TextFormat.PlainText)
        self.why.setWordWrap(True)
        self.look = QLabel()
        self.look.setFixedSize(PICTURE, PICTURE)
        self.take = QPushButton("Add this tile")
        self.take.clicked.connect(self.add_tile)
        self.skip = QPushButton("Show another")
        self.skip.clicked.connect(suggestions.skip)
        close = plain_button("✕", "No suggestion")
        close.clicked.connect(suggestions.drop)
        seen = QHBoxLayout()
        seen.addWidget(self.look)
        seen.addWidget(self.why, 1)
        row = QHBoxLayout()
        row.addWidget(self.take, 1)
        row.addWidget(self.skip)
        row.addWidget(close)
        column = QVBoxLayout(self)
        column.setContentsMargins(8, 5, 5, 5)
        column.setSpacing(3)
        column.addLayout(seen)
        column.addLayout(row)
        suggestions.changed.connect(self._show)
        self._show()

    def add_tile(self) -> None:
        """Add the tile on offer."""
        try:
            tile = self.suggestions.take()
        except InputError as error:
            self.session.tell(str(error), "warning")
        else:
            if tile is not None:
                self.taken.emit(tile.id)

    def _show(self) -> None:
        found = self.suggestions
        self.setVisible(found.current is not None)
        if found.current is not None:
            self.why.setText(found.words)
            self.skip.setVisible(found.left > 0)
        if found.current is not self._offer:
            self._offer = found.current
            self._to_see = self._offer is not None
            self._draw()
            self.settle()

    def settle(self) -> None:
        """Go to a new place, unless something is being drawn. The dock calls it often."""
        if not self._to_see or self._offer is None or self.strokes.unfinished:
            return
        self._to_see = False
        if not self._here:
            self.view.show_image(self._offer.image, then=partial(self._arrive, self._offer))
        elif self.view.placement is not None:
            look_at(self.viewer, self.view.placement, self._offer.box)

    @property
    def _here(self) -> bool:
        """Whether the place on offer lies in the image in view."""
        return self._offer is not None and self._offer.image == self.session.image_index

    def _arrive(self, wanted: Suggestion) -> None:
        """Go to the place on offer, once the image of the one that was on offer is in view."""
        self._to_see = self._here or self._offer is not wanted
        self._draw()
        self.settle()

    def _draw(self) -> None:
        """Draw the thumbnail of the place on offer, in the background: it may have to be read from a slide."""
        self.look.clear()
        layer = self.view.layer
        if layer is None or self._offer is None or not self._here:
            return
        box = self._offer.box

        def show(picture: Any) -> None:
            if self.suggestions.current is not None and self.suggestions.current.box == box:
                height, width = picture.shape[:2]
                image = QImage(picture.data, width, height, 3 * width, QImage.Format.Format_RGB888)
                self.look.setPixmap(QPixmap.fromImage(image.scaled(PICTURE, PICTURE)))

        def failed(error: Exception) -> None:
            self.session.tell(f"The suggested place cannot be drawn: {error}", "warning")

        self.session.pictures.submit(lambda: thumbnail(pixels(layer, box)), show, failed)
