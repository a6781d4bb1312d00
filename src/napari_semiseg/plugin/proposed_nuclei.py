"""Starting a tile from nuclei that were proposed for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
from psygnal import Signal

from napari_semiseg.app.painting import FIRST_CLASS
from napari_semiseg.app.session import Session
from napari_semiseg.app.tile_proposals import TileProposals, beside_paint, without_specks
from napari_semiseg.blocks import Box
from napari_semiseg.errors import InputError
from napari_semiseg.plugin.layers import classes_of, of_role, tag
from napari_semiseg.plugin.strokes import Strokes
from napari_semiseg.plugin.tile_layers import TileLayers
from napari_semiseg.project.schema import Tile

AROUND = 64
"""Pixels around a tile in which proposed nuclei are seen whole."""


@dataclass(frozen=True)
class _Answer:
    """Nuclei that were found for a tile and are not in it yet; `drawn` is `Strokes.drawn` when they were asked for."""

    labels: np.ndarray
    origin: tuple[int, int]
    classes: Mapping[int, str]
    drawn: int


class ProposedNuclei:
    """Puts proposed nuclei into tiles: never during a stroke, and never into another tile than they were asked for.

    Parameters
    ----------
    session : Session
    viewer : napari viewer
    layers : TileLayers
    proposals : TileProposals
    strokes : Strokes
    """

    changed = Signal()
    """Something that was found waits, or no longer waits, to be put into its tile."""

    def __init__(
        self, session: Session, viewer: Any, layers: TileLayers, proposals: TileProposals, strokes: Strokes
    ) -> None:
        self.session, self.viewer, self.layers, self.proposals = session, viewer, layers, proposals
        self.strokes = strokes
        self._answers: dict[str, _Answer] = {}  # by tile: they wait for the end of a stroke, or for the tile's layer
        session.project.closed.connect(self._forget)

    def get(self) -> None:
        """Take for the selected tile what is shown already, or ask the engine; where it was asked, ask no longer."""
        tile = self.session.project.tile(self.session.project.selected)
        if tile is None or tile.image != self.session.image_index:
            return
        if self.looking(tile.id):
            self.proposals.cancel(tile.id)
            self._drop(tile.id)
            return
        shown = self._shown(tile)
        keep = partial(self._keep, tile.id, self.strokes.drawn - self.strokes.drawing)  # what is begun is painted since
        try:
            self._check_editable(tile.id)
            if shown is not None:
                keep(shown.data, _origin(shown), classes_of(shown))
            else:
                self.proposals.ask(tile.id, keep)
        except InputError as error:
            self.session.tell(str(error), "warning")

    def looking(self, tile_id: str) -> bool:
        """Whether nuclei were asked for a tile and are not in it yet."""
        return tile_id in self.proposals.waiting or tile_id in self._answers

    def words(self, tile_id: str) -> str:
        """Say what the wish for nuclei of a tile waits for, as `Session.waits`; "" where that is for nothing."""
        there = tile_id in self._answers and self.strokes.unfinished
        return "waits for the end of your stroke" if there else self.proposals.words(tile_id)

    def settle(self) -> None:
        """Put what was found into its tile, if that is there and nothing is being drawn. The dock calls it often."""
        if not self._answers or self.strokes.unfinished:
            return
        for tile_id in [*self._answers]:
            if self.session.project.tile(tile_id) is None:
                self._drop(tile_id)
            elif self.layers.painted(tile_id) is not None:
                self._put(tile_id, self._answers[tile_id])
                self._drop(tile_id)

    def _forget(self) -> None:
        self._answers.clear()

    def _drop(self, tile_id: str) -> None:
        if self._answers.pop(tile_id, None) is not None:
            self.changed.emit()

    def _keep(
        self, tile_id: str, drawn: int, labels: np.ndarray, origin: tuple[int, int], classes: Mapping[int, str]
    ) -> None:
        self._answers[tile_id] = _Answer(labels, origin, classes, drawn)
        self.changed.emit()
        self.settle()

    def _put(self, tile_id: str, answer: _Answer) -> None:
        """Put nuclei that were asked for into their tile; who has gone elsewhere or paints meanwhile goes on so."""
        try:
            count = self._propose(tile_id, answer.labels, answer.origin, answer.classes)
        except InputError as error:
            where = "" if tile_id == self.session.project.selected else f"Tile {tile_id}: "
            self.session.tell(f"{where}{error}", "warning")
            return
        here = tile_id == self.session.project.selected
        if here and answer.drawn == self.strokes.drawn:
            self.layers.correct(True)
            return
        nuclei = f"{count} nucleus is" if count == 1 else f"{count} nuclei are"
        how = "press “correct” to go through them" if here else "go there to correct them"
        self.session.tell(f"{nuclei} proposed in tile {tile_id} now: {how}.")

    def _shown(self, tile: Tile) -> Any:
        """Return the layer with the best nuclei that are shown of a tile; None where the engine has better ones."""
        training = self.session.training
        if training.young:
            roles: tuple[str, ...] = ("nuclei", "proposal")  # of an earlier run, or else of the threshold
        else:
            roles = () if training.active else ("nuclei",) if training.run is not None else ("proposal",)
        shown = (layer for role in roles for layer in of_role(self.viewer, role))
        return next((layer for layer in shown if _covers(layer, tile)), None)

    def take_over(
        self, labels: np.ndarray, origin: tuple[int, int], classes: Mapping[int, str] = MappingProxyType({})
    ) -> int:
        """Put proposed nuclei into the selected tile where nothing is painted; undo takes it back.

        They count for nothing until they are accepted, one by one or all with `TileMarks.complete`.

        Parameters
        ----------
        labels : array, (h, w), integer
            Nuclei of a part of the image that holds the tile.
        origin : (y, x)
            Where that part begins, in pixels of level 0.
        classes : mapping of int to str
            Name of the class of a nucleus by its number. One that is not in it, or of a class that the project does not
            have, becomes one of the class that is painted with as it is accepted.

        Returns
        -------
        int
            How many nuclei were put there.

        Raises
        ------
        InputError
            If no tile is selected, nothing can be written into it, or there is nothing to take.
        """
        count = self._propose(self.session.project.selected, labels, origin, classes)
        self.layers.correct(True)
        return count

    def _propose(self, tile_id: str, labels: np.ndarray, origin: tuple[int, int], classes: Mapping[int, str]) -> int:
        """Put nuclei into a tile, and return how many."""
        tile, painted = self.session.project.tile(tile_id), self.layers.painted(tile_id)
        if tile is None or painted is None:
            raise InputError("No tile is selected: click on one, or add one.")
        self._check_editable(tile_id)
        there = tile.box.shifted(-origin[0], -origin[1])
        seen = there.grown(AROUND).intersect(Box.whole(labels.shape))
        mpp = self.session.project.images[tile.image].mpp
        part = without_specks(np.asarray(labels[seen.slices]), mpp)[there.shifted(-seen.y0, -seen.x0).slices]
        part = beside_paint(part, painted.layer.data > 0, mpp)
        where = np.nonzero(part)
        if not where[0].size:
            raise InputError("Nothing is proposed where this tile is still unpainted: paint by hand.")
        ids, first = np.unique(part[where], return_index=True)
        known = {spec.name: FIRST_CLASS + index for index, spec in enumerate(self.session.project.classes)}
        found = labels[there.slices][tuple(axis[first] for axis in where)]  # as numbered there: pieces are renumbered
        kinds = [known.get(classes.get(old, ""), 0) for old in found.tolist()]
        return painted.propose(part, dict(zip(ids.tolist(), kinds, strict=True)))

    def _check_editable(self, tile_id: str) -> None:
        """Raise `InputError` where nothing can be written into a tile's layer."""
        layer = self.layers.layer(tile_id)
        if layer is not None and not layer.editable:
            raise InputError(
                "The layer of this tile cannot be edited, so no nuclei are put there: make it editable again."
            )


def _covers(layer: Any, tile: Tile) -> bool:
    """Whether a layer shows nuclei of a whole tile, pixel by pixel and not as outlines."""
    return (
        tag(layer).get("image", tile.image) == tile.image
        and tag(layer).get("downsample", 1) == 1
        and not layer.multiscale
        and not tag(layer).get("outlines")
        and Box.whole(layer.data.shape).shifted(*_origin(layer)).contains(tile.box)
    )


def _origin(layer: Any) -> tuple[int, int]:
    y, x = tag(layer).get("origin", (0, 0))
    return y, x
