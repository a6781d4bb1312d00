"""Nuclei one by one, the most doubtful first: accept, reject, back, undo."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from qtpy.QtWidgets import QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_semiseg.app.nuclei_review import NucleiReview
from napari_semiseg.app.session import Session
from napari_semiseg.plugin.keys import Keys
from napari_semiseg.plugin.layers import role
from napari_semiseg.plugin.nucleus_mark import NucleusMark
from napari_semiseg.plugin.result_layers import ResultLayers
from napari_semiseg.plugin.slide_view import SlideView
from napari_semiseg.plugin.tile_layers import TileLayers
from napari_semiseg.plugin.widgets.look import framed_button, plain_button
from napari_semiseg.plugin.widgets.step import ElidedLabel

_HELP = "Go through the nuclei, the most doubtful first: each word becomes a label"


class NucleiByDoubt(QWidget):
    """A button that begins, and what judges the nucleus that is looked at.

    The keys lie on the layers of the result. Where nobody goes through the nuclei, those that step lead from tile to
    tile instead.

    Parameters
    ----------
    session : Session
    viewer : napari viewer
    view : SlideView
    tiles : TileLayers
        Where words on nuclei are written down.
    keys : Keys
    results : ResultLayers
        Whose layer of nuclei takes the keys.

    Attributes
    ----------
    step_tile : callable
        Goes to the tile so many places on.
    """

    def __init__(
        self,
        session: Session,
        viewer: Any,
        view: SlideView,
        tiles: TileLayers,
        keys: Keys,
        results: ResultLayers,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.session, self.viewer, self.tiles, self.keys, self.results = session, viewer, tiles, keys, results
        self.nuclei = NucleiReview(session)
        self.mark = NucleusMark(session, viewer, view)
        self.step_tile: Callable[[int], object] = lambda by: None
        self.begin = QPushButton("Nuclei by doubt")
        self.begin.clicked.connect(self.nuclei.ask)
        self.judging = self._make_judging()
        self.words = ElidedLabel()
        self.words.setObjectName("semisegHint")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(3)
        for widget in (self.begin, self.judging, self.words):
            column.addWidget(widget)
        self.nuclei.changed.connect(self._show)
        session.review.changed.connect(self._show_words)
        viewer.layers.events.inserted.connect(self._give_keys)
        keys.changed.connect(self._show_keys)
        self._show_keys()
        self._show()

    def end(self) -> None:
        """Let go of the viewer and of the models."""
        self.session.review.changed.disconnect(self._show_words, missing_ok=True)
        self.viewer.layers.events.inserted.disconnect(self._give_keys)
        self.keys.changed.disconnect(self._show_keys, missing_ok=True)
        self.nuclei.end()
        self.mark.end()

    def _make_judging(self) -> QWidget:
        judging = QWidget()
        self.back = plain_button("◂", "The one before")
        self.accept = QPushButton("✓ Accept")
        self.reject = QPushButton("✕ Reject")
        self.undo = framed_button("Undo")
        self.back.clicked.connect(partial(self.nuclei.step, -1))
        self.accept.clicked.connect(partial(self._decide, True))
        self.reject.clicked.connect(partial(self._decide, False))
        self.undo.clicked.connect(self.nuclei.take_back)
        row = QHBoxLayout(judging)
        row.setContentsMargins(0, 0, 0, 0)
        for widget, width in ((self.back, 0), (self.accept, 1), (self.reject, 1), (self.undo, 0)):
            row.addWidget(widget, width)
        return judging

    def _decide(self, accepted: bool, *_: object) -> None:
        self.nuclei.decide(accepted, self.tiles.decide)

    def _step(self, by: int) -> None:
        if self.nuclei.current is not None:
            self.nuclei.step(by)
        else:
            self.step_tile(by)

    def _give_keys(self, event: Any) -> None:
        if role(event.value) in ("nuclei", "confidence"):
            calls = {
                "accept": lambda _: self._decide(True),
                "delete": lambda _: self._decide(False),
                "next_tile": lambda _: self._step(1),
                "previous_tile": lambda _: self._step(-1),
                "take_back": lambda _: self.nuclei.take_back(),
            }
            self.keys.bind(event.value, calls)

    def _show(self) -> None:
        found, begun = self.nuclei, self.nuclei.current is not None
        self.begin.setText("Looking…" if found.waiting else "Nuclei by doubt")
        self.begin.setEnabled(not found.waiting and not found.why_not)
        self.begin.setToolTip(found.why_not or _HELP)
        self.begin.setVisible(not begun)
        begins = begun and self.judging.isHidden()
        self.judging.setVisible(begun)
        self.undo.setEnabled(found.can_take_back)
        self._show_words()
        self.mark.show(found.current)
        if begins:
            self._take_keys()

    def _show_words(self) -> None:
        self.words.setText(self.nuclei.words)
        self.words.setVisible(bool(self.nuclei.words))

    def _show_keys(self) -> None:
        for button, name, does in (
            (self.accept, "accept", "This is a nucleus"),
            (self.reject, "delete", "There is no nucleus here"),
            (self.undo, "take_back", "Take the last word back"),
        ):
            button.setToolTip(f"{does}; with the layer of nuclei selected: {self.keys.of(name)}")

    def _take_keys(self) -> None:
        """Choose the layer that has the keys, and a button that lets them through: the next key counts."""
        if self.results.nuclei is not None and self.results.nuclei in self.viewer.layers:
            self.viewer.layers.selection.active = self.results.nuclei
        self.accept.setFocus()
