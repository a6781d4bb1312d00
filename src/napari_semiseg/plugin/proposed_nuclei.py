"""Starting a tile from nuclei that were proposed for it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from napari_semiseg.app.painting import FIRST_CLASS
from napari_semiseg.app.session import Session
from napari_semiseg.app.tile_proposals import TileProposals, beside_paint, without_specks
from napari_semiseg.blocks import Box
from napari_semiseg.errors import InputError
from napari_semiseg.plugin.layers import classes_of, of_role, tag
from napari_semiseg.plugin.tile_layers import TileLayers
from napari_semiseg.project.schema import Tile

AROUND = 64
"""Pixels around a tile in which proposed nuclei are seen whole."""


class ProposedNuclei:
    """Puts proposed nuclei into the selected tile.

    Parameters
    ----------
    session : Session
    viewer : napari viewer
    layers : TileLayers
    proposals : TileProposals
    """

    def __init__(self, session: Session, viewer: Any, layers: TileLayers, proposals: TileProposals) -> None:
        self.session, self.viewer, self.layers, self.proposals = session, viewer, layers, proposals

    def get(self) -> None:
        """Take what is shown already, or ask the engine."""
        tile = self.session.project.tile(self.session.project.selected)
        if tile is None or tile.image != self.session.image_index or self.proposals.waiting:
            return
        shown = self._shown(tile)
        try:
            if shown is not None:
                self.take_over(shown.data, _origin(shown), classes_of(shown))
            else:
                self.proposals.ask(tile.id, self.take_over)
        except InputError as error:
            self.session.tell(str(error), "warning")

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
            If no tile is selected, or there is nothing to take.
        """
        tile = self.session.project.tile(self.session.project.selected)
        painted = self.layers.painted(self.session.project.selected)
        if tile is None or painted is None:
            raise InputError("No tile is selected: click on one, or add one.")
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
        count = painted.propose(part, dict(zip(ids.tolist(), kinds, strict=True)))
        self.layers.correct(True)
        return count


def _covers(layer: Any, tile: Tile) -> bool:
    """Whether a layer shows nuclei of a whole tile, pixel by pixel."""
    return (
        tag(layer).get("image", tile.image) == tile.image
        and tag(layer).get("downsample", 1) == 1
        and not layer.multiscale
        and Box.whole(layer.data.shape).shifted(*_origin(layer)).contains(tile.box)
    )


def _origin(layer: Any) -> tuple[int, int]:
    y, x = tag(layer).get("origin", (0, 0))
    return y, x
