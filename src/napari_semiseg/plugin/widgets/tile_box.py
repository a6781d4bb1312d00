"""The tile that is selected: what is painted in it, what it counts as, and where its first nuclei come from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtWidgets import QHBoxLayout, QMenu, QPushButton, QToolButton, QVBoxLayout, QWidget

from napari_semiseg.app.session import Session
from napari_semiseg.app.tile_proposals import TileProposals
from napari_semiseg.app.words import capital
from napari_semiseg.plugin.keys import Keys, ignoring_layer
from napari_semiseg.plugin.nucleus_at_cursor import NucleusAtCursor
from napari_semiseg.plugin.proposed_nuclei import ProposedNuclei
from napari_semiseg.plugin.strokes import Strokes
from napari_semiseg.plugin.tile_layers import TileLayers
from napari_semiseg.plugin.tile_marks import TileMarks
from napari_semiseg.plugin.widgets.look import hint, plain_button, say
from napari_semiseg.plugin.widgets.painting_help import PaintingHelp
from napari_semiseg.plugin.widgets.pen_row import PenRow
from napari_semiseg.plugin.widgets.step import ElidedLabel, as_plain_tooltip
from napari_semiseg.project.schema import Tile


class TileBox(QWidget):
    """Shows one tile, and does with it what is asked.

    Parameters
    ----------
    session : Session
    viewer : napari viewer
    layers : TileLayers
    proposals : TileProposals
    keys : Keys
    strokes : Strokes
    bring_back, remove : callable
        What the menu of the tile does besides: bring back what was put aside of it, and remove it.
    """

    def __init__(
        self,
        session: Session,
        viewer: Any,
        layers: TileLayers,
        proposals: TileProposals,
        keys: Keys,
        strokes: Strokes,
        bring_back: Callable[[], object],
        remove: Callable[[], object],
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.session, self.layers, self.keys = session, layers, keys
        self.below = NucleusAtCursor(session, viewer, layers)
        self.marks = TileMarks(session, layers)
        self.proposed = ProposedNuclei(session, viewer, layers, proposals, strokes)
        self.name = ElidedLabel()
        self.pens = PenRow(session, layers, keys)
        self.complete = QPushButton("Mark complete")
        self.complete.clicked.connect(self.marks.complete)
        self.from_proposal = QPushButton("Start from proposal")
        self.from_proposal.clicked.connect(self.proposed.get)
        self.more = plain_button("⋯", "More about this tile")
        self.more.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.more.setMenu(self._make_menu(bring_back, remove))
        self.waits = hint()
        self.help = PaintingHelp(session, layers, keys)
        row = QHBoxLayout()
        row.addWidget(self.complete, 1)
        row.addWidget(self.from_proposal, 1)
        row.addWidget(self.more)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 2, 0, 0)
        column.setSpacing(4)
        column.addWidget(self.name)
        column.addWidget(self.pens)
        column.addLayout(row)
        column.addWidget(self.waits)
        column.addWidget(self.help)
        layers.added.connect(self._give_keys)
        proposals.changed.connect(self.show_waiting)
        self.proposed.changed.connect(self.show_waiting)
        keys.changed.connect(self._show_keys)
        self._show_keys()

    def show_tile(self, tile: Tile, words: str) -> None:
        """Show a tile, and what is said of it: a name of it in short, a dash, and what it counts as."""
        self.name.setText(words.partition(" — ")[0])
        self.name.setToolTip(as_plain_tooltip(words))
        self.complete.setText("Mark as sparse" if tile.status == "complete" else "Mark complete")
        self.complete.setEnabled(tile.status != "excluded")

    def show_waiting(self) -> None:
        """Show whether nuclei are being looked for, and what that waits for."""
        tile_id = self.session.project.selected
        self.from_proposal.setText("Stop looking" if self.proposed.looking(tile_id) else "Start from proposal")
        say(self.waits, capital(self.proposed.words(tile_id)))

    def _make_menu(self, bring_back: Callable[[], object], remove: Callable[[], object]) -> QMenu:
        menu = QMenu(self)
        self.excluding = menu.addAction("Leave out of training", self.marks.exclude)
        self.judging = menu.addAction("Keep for validation", self.marks.judge)
        self.judging.setCheckable(True)
        menu.addSeparator()
        self.aside = menu.addAction("Bring back what was put aside", bring_back)
        menu.addAction("Remove this tile", remove)
        menu.aboutToShow.connect(self._prepare_menu)
        return menu

    def _prepare_menu(self) -> None:
        project = self.session.project
        tile = project.tile(project.selected)
        if tile is not None:
            self.excluding.setText("Use for training again" if tile.status == "excluded" else "Leave out of training")
            self.judging.setChecked(tile.id in project.validation)
            complete = tile.status == "complete"
            self.judging.setEnabled(complete)
            self.judging.setText("Keep for validation" if complete else "Keep for validation, once it is complete")
            self.aside.setVisible(project.folder.has_aside(tile.id))

    def _show_keys(self) -> None:
        key = self.keys.of
        self.complete.setToolTip(
            "Every nucleus of this tile is there: what is proposed is accepted, the rest is background "
            f"({key('complete')})"
        )
        self.from_proposal.setToolTip(
            "Get nuclei from the network, or before there is one from the threshold. They count once they are "
            f"accepted, one by one or all with “Mark complete” ({key('propose')})"
        )

    def _give_keys(self, layer: Any) -> None:
        """Bind the keys of a tile that can be painted in."""
        tiles = self.layers
        calls: dict[str, Callable[[], object]] = {
            "complete": self.marks.complete,
            "propose": self.proposed.get,
            "correct": lambda: tiles.correct(not tiles.correcting),
            "accept": self.below.accept,
            "reclass": self.below.reclass,
            "delete": self.below.delete,
            "new_nucleus": tiles.next_nucleus,
            "background": tiles.swap_background,
        }
        self.keys.bind(layer, {name: ignoring_layer(call) for name, call in calls.items()})
