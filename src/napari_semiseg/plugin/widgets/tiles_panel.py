"""Step 2: tiles, and what is painted in them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QMenu,
    QPushButton,
    QSizePolicy,
    QSpinBox,
    QToolButton,
    QVBoxLayout,
    QWidget,
    QWidgetAction,
)

from napari_semiseg.app.session import Session
from napari_semiseg.app.suggestions import Suggestions
from napari_semiseg.app.tile_proposals import TileProposals
from napari_semiseg.app.words import capital
from napari_semiseg.plugin.keys import Keys, ignoring_layer
from napari_semiseg.plugin.layers import look_at, role
from napari_semiseg.plugin.slide_view import SlideView
from napari_semiseg.plugin.strokes import Strokes
from napari_semiseg.plugin.tile_exchange import TileExchange
from napari_semiseg.plugin.tile_layers import TileLayers
from napari_semiseg.plugin.tile_marks import STATUS_WORDS
from napari_semiseg.plugin.tile_removal import TileRemoval
from napari_semiseg.plugin.tile_tool import TileTool
from napari_semiseg.plugin.widgets.class_actions import ClassActions
from napari_semiseg.plugin.widgets.look import hint, main_button, plain_button, say, sentences
from napari_semiseg.plugin.widgets.suggestion_card import SuggestionCard
from napari_semiseg.plugin.widgets.tile_box import TileBox
from napari_semiseg.plugin.widgets.tile_pictures import TilePictures
from napari_semiseg.plugin.widgets.tile_strip import TileStrip
from napari_semiseg.plugin.widgets.tile_table import Row, TileTable
from napari_semiseg.project.schema import Tile
from napari_semiseg.project.tile_annotation import Tally

_ALL_WAYS = ("suggest", "next_tile", "previous_tile")
_WITH_WAYS = {"tiles": _ALL_WAYS, "proposal": _ALL_WAYS, "annotation": _ALL_WAYS} | dict.fromkeys(
    ("nuclei", "confidence"), ("suggest",)
)
"""Roles of layers and the keys that lead from them to tiles. Those of a result have N and P from step 4."""


class TilesPanel(QWidget):
    """Shows the tiles of the image in view, adds and removes them, and chooses what is painted.

    Parameters
    ----------
    session : Session
    viewer : napari viewer
    view : SlideView
    layers : TileLayers
    suggestions : Suggestions
    proposals : TileProposals
    keys : Keys
    strokes : Strokes
    """

    changed = Signal()

    def __init__(
        self,
        session: Session,
        viewer: Any,
        view: SlideView,
        layers: TileLayers,
        suggestions: Suggestions,
        proposals: TileProposals,
        keys: Keys,
        strokes: Strokes,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.session, self.viewer, self.view, self.layers = session, viewer, view, layers
        self.suggestions, self.keys = suggestions, keys
        self.tool = TileTool(session, viewer, view)
        self.exchange = TileExchange(session, layers)
        self.removal = TileRemoval(session, layers, self.go_to)
        self.pictures = TilePictures(session, view, layers, self._show_picture, self)
        self.summary, self.done = "", False
        self._gone_to = ""
        self._scores: tuple[dict[str, float], ...] = ({}, {})

        self.reason = sentences("semisegReason")
        self.strip = TileStrip()
        self.strip.chosen.connect(self.go_to)
        self.table = TileTable()
        self.table.chosen.connect(self.go_to)
        self.suggest_waits = hint()
        self.suggestion = SuggestionCard(session, viewer, view, suggestions, strokes)
        self.suggestion.taken.connect(self._go_on_in)
        self.tile_box = TileBox(
            session, viewer, layers, proposals, keys, strokes, self.exchange.bring_back, self.removal.remove
        )
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(5)
        for part in (self.reason, self.strip, self.table):
            layout.addWidget(part)
        layout.addLayout(self._make_buttons())
        for part in (self.suggest_waits, self.suggestion, self.tile_box):
            layout.addWidget(part)
        layers.order = lambda: self.table.order() if self.as_table.isChecked() else []
        self._listen()
        self._show()

    def _listen(self) -> None:
        """Hear of what is shown here, and give keys to the layers that lead to tiles."""
        project = self.session.project
        for signal in (project.tiles_changed, project.selected_changed, project.opened, project.closed):
            signal.connect(self._show)
        self.view.changed.connect(self._show)
        self.session.training.curves_changed.connect(self._show_scores)
        self.session.image_changed.connect(self._show_image)
        self.tool.changed.connect(self._show_tool)
        self.keys.changed.connect(self._show_way)
        self.suggestions.changed.connect(self.show_waiting)
        self.viewer.layers.events.inserted.connect(self._on_inserted)
        for layer in self.viewer.layers:
            self._give_ways(layer)

    # ---- parts ----

    def _make_buttons(self) -> QHBoxLayout:
        self.add = main_button("Add tile", "Click here, then on the image: a small square to paint nuclei in")
        self.add.setCheckable(True)
        self.add.clicked.connect(self.tool.switch)
        self.add.setMinimumWidth(self.add.minimumSizeHint().width())
        self.add.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)  # no wider with more words
        self.suggest = QPushButton("Suggest next")
        self.suggest.setToolTip("Show the place that would teach the most, with the reason")
        self.suggest.clicked.connect(self._suggest)
        self.as_table = plain_button("☷", "Show the tiles as a table: sort it by a click on a heading")
        self.as_table.setCheckable(True)
        self.as_table.toggled.connect(self._show)
        self.more = plain_button("⋯", "Size of new tiles, removed tiles, classes")
        self.more.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.more.setMenu(self._make_menu())
        row = QHBoxLayout()
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.add, 1)
        for button in (self.suggest, self.as_table, self.more):
            row.addWidget(button)
        return row

    def _make_menu(self) -> QMenu:
        menu = QMenu(self)
        box = QWidget()
        line = QHBoxLayout(box)
        line.setContentsMargins(10, 4, 10, 4)
        self.side = QSpinBox()
        self.side.setRange(32, 4096)
        self.side.setSingleStep(50)
        self.side.setValue(self.tool.side)
        self.side.setSuffix(" px")
        self.side.valueChanged.connect(lambda value: setattr(self.tool, "side", value))
        line.addWidget(QLabel("Side of new tiles"))
        line.addWidget(self.side)
        action = QWidgetAction(menu)
        action.setDefaultWidget(box)
        menu.addAction(action)
        self.one_image = menu.addAction("Suggest in the image in view only")
        self.one_image.setCheckable(True)
        self.one_image.toggled.connect(lambda only: setattr(self.suggestions, "everywhere", not only))
        self.undo_remove = menu.addAction("Bring back the tile removed last", self.removal.bring_back_last)
        menu.addSeparator()
        self.classes = ClassActions(self.session, self.layers, menu)
        menu.aboutToShow.connect(self._prepare_menu)
        return menu

    # ---- showing ----

    def _tiles(self) -> list[Tile]:
        return [tile for tile in self.session.project.tiles if tile.image == self.session.image_index]

    def _why_not(self) -> str:
        if self.session.project.folder is not None and self.session.project.read_only:
            return "The project is open read-only, so nothing can be painted."
        if self.view.started:
            return ""
        if self.view.slide is None:
            return "Open an image first, in step 1."
        return f"Press {self.view.start_words} above first: tiles are kept in the project."

    def _show(self, *_: object) -> None:
        project = self.session.project
        why = self._why_not()
        tiles = self._tiles() if self.session.image_index is not None else []
        self.reason.setText(why or ("" if tiles else _FIRST_TILE))
        self.reason.setVisible(bool(why) or not tiles)
        self.add.setEnabled(not why)
        self.suggest.setEnabled(not why)
        self.more.setEnabled(not why)
        self.add.setToolTip(why or "Click here, then on the image: a small square to paint nuclei in")
        self.show_waiting()
        judges = project.validation
        words = {tile.id: self._words(tile, tile.id in judges) for tile in tiles}
        self.strip.show_tiles(tiles, project.selected, words)
        self.strip.setVisible(bool(tiles) and not self.as_table.isChecked())
        self.table.setVisible(bool(tiles) and self.as_table.isChecked())
        self.as_table.setVisible(bool(tiles))
        self._show_table(tiles, judges)
        tile = project.tile(project.selected)
        self.tile_box.setVisible(tile is not None and tile in tiles and not why)
        if tile is not None:
            self.tile_box.show_tile(tile, words.get(tile.id, tile.id))
        self.summary = project.words
        self.done = any(tile.used for tile in project.tiles)
        known = self.strip.pictured()
        self.pictures.draw({tile.id for tile in tiles if tile.id not in known})
        self.changed.emit()

    def _show_table(self, tiles: list[Tile], judges: set[str]) -> None:
        if not self.as_table.isChecked():
            return
        training = self.session.training
        scores = training.record.regions
        tallies = self.session.project.tallies
        rows = [
            Row(
                tile,
                tallies.get(tile.id, Tally()),
                tile.id in judges,
                scores.get(tile.id, math.nan),
                training.record.fits.get(tile.id, math.nan),
                tile.id in training.unseen,
            )
            for tile in tiles
        ]
        self.table.show_rows(rows, self.session.project.selected, {tile.id: self.strip.icon(tile) for tile in tiles})

    def _words(self, tile: Tile, judges: bool) -> str:
        count = self.session.project.counts.get(tile.id, 0)
        nuclei = f"{count} nucleus" if count == 1 else f"{count} nuclei"
        tally = self.session.project.tallies.get(tile.id)
        nuclei += f" · {tally.proposed} proposed" if tally and tally.proposed else ""
        note = " · for validation" if judges else ""
        return f"Tile {tile.id} · {tile.status}{note} · {nuclei} — {STATUS_WORDS[tile.status]}"

    def _show_scores(self) -> None:
        """Show new scores in the table; curves change far more often."""
        record = self.session.training.record
        scores = record.regions, record.fits
        if any(new is not old for new, old in zip(scores, self._scores, strict=True)):
            self._scores = scores
            self._renew_table()

    def _renew_table(self) -> None:
        if self.session.image_index is not None:
            self._show_table(self._tiles(), self.session.project.validation)

    def _show_image(self) -> None:
        self.strip.forget()
        self._show()

    def _show_tool(self) -> None:
        self.add.setChecked(self.tool.on)
        self.add.setText("Click on the image…" if self.tool.on else "Add tile")

    def _show_way(self) -> None:
        """Say what Suggest does, and its key where some layer has it."""
        keyed = any(role(layer) in _WITH_WAYS for layer in self.viewer.layers)
        by_key = f"; with a layer of ours selected: {self.keys.of('suggest')}" if keyed else ""
        self.suggest.setToolTip(self._why_not() or f"Show the place that would teach the most, with the reason{by_key}")

    def settle(self) -> None:
        """Do what waited for the end of a stroke. The dock calls it often."""
        self.tile_box.proposed.settle()
        self.suggestion.settle()

    def show_waiting(self) -> None:
        """Show whether something is being looked for, and what that waits for. The dock also calls it now and then."""
        self.tile_box.show_waiting()
        self.suggest.setText("Stop looking" if self.suggestions.waiting else "Suggest next")
        say(self.suggest_waits, self._suggest_words())
        self._show_way()

    def _suggest_words(self) -> str:
        """Say what a wish for a place waits for, or how far it is."""
        return capital(self.session.waits("suggest")) or (self.suggestions.looking if self.suggestions.waiting else "")

    def _show_picture(self, tile: Tile, picture: np.ndarray) -> None:
        self.strip.set_picture(tile, picture)
        self._renew_table()

    # ---- doing ----

    def _on_inserted(self, event: Any) -> None:
        self._give_ways(event.value)

    def _give_ways(self, layer: Any) -> None:
        """Bind the keys that lead to tiles, on layers that need not be painted in."""
        calls: dict[str, Callable[[], object]] = {
            "suggest": self._take_or_suggest,
            "next_tile": lambda: self.step(1),
            "previous_tile": lambda: self.step(-1),
        }
        names = _WITH_WAYS.get(role(layer), ())
        if names:
            self.keys.bind(layer, {name: ignoring_layer(calls[name]) for name in names})

    def _take_or_suggest(self) -> None:
        if why := self._why_not():
            self.session.tell(why)
        elif self.suggestions.current:
            self.suggestion.add_tile()
        else:
            self._suggest()

    def step(self, by: int) -> None:
        """Go to the next tile, or with -1 to the one before."""
        self.go_to(self.layers.step_to(by))

    def go_to(self, tile_id: str) -> None:
        """Bring a tile into view, close enough to paint in, select it and make it ready; its image is shown first."""
        project, self._gone_to = self.session.project, tile_id
        tile = project.tile(tile_id)
        if tile is None:
            return
        if tile.image != self.session.image_index:
            self.view.show_image(tile.image, then=lambda: self._arrive(tile_id))
            return
        project.select(tile_id)
        self.layers.make_ready(tile_id)
        if self.view.placement is not None:
            look_at(self.viewer, self.view.placement, tile.box)

    def _arrive(self, tile_id: str) -> None:
        """Go to a tile whose image is there now, if nobody has gone elsewhere since."""
        tile = self.session.project.tile(tile_id)
        if self._gone_to == tile_id and tile is not None and tile.image == self.session.image_index:
            self.go_to(tile_id)

    def _go_on_in(self, tile_id: str) -> None:
        """Go to a tile that was added in another image than the one in view."""
        tile = self.session.project.tile(tile_id)
        if tile is not None and tile.image != self.session.image_index:
            self.go_to(tile_id)

    def _prepare_menu(self) -> None:
        project = self.session.project
        self.undo_remove.setEnabled(bool(project.removed))
        self.one_image.setVisible(len(project.images) > 1)

    def _suggest(self) -> None:
        """Ask for places worth a tile; where that was done, wait for them no longer."""
        if self.suggestions.waiting:
            self.suggestions.cancel()
        else:
            self.suggestions.ask(self.tool.side)

    def end(self) -> None:
        """Let go of the viewer."""
        self.pictures.end()
        self.view.changed.disconnect(self._show, missing_ok=True)
        self.viewer.layers.events.inserted.disconnect(self._on_inserted)
        self.tool.end()


_FIRST_TILE = (
    "Add a tile and paint its nuclei, or go on without: training then needs no label at all. "
    "Three to five tiles already help much."
)
