"""What keys do to the nucleus below the mouse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from napari_semiseg.app import corrections
from napari_semiseg.app.corrections import Correction
from napari_semiseg.app.painting import FIRST_CLASS
from napari_semiseg.app.session import Session
from napari_semiseg.plugin.tile_layers import TileLayers


class NucleusAtCursor:
    """Corrects the nucleus of the selected tile that is below the mouse, if there is one.

    Parameters
    ----------
    session : Session
    viewer : napari viewer
    layers : TileLayers
    """

    def __init__(self, session: Session, viewer: Any, layers: TileLayers) -> None:
        self.session, self.viewer, self.layers = session, viewer, layers

    def accept(self) -> None:
        """Accept it, where it is proposed."""
        self._correct(corrections.accept)

    def delete(self) -> None:
        """Delete it."""
        self._correct(corrections.delete)

    def reclass(self) -> None:
        """Give it the next class, by which a proposed one is accepted.

        One that was proposed without a class gets the one that is painted with.
        """
        painted = self.layers.painted(self.session.project.selected)
        if painted is None:
            return
        number = painted.number_at(self.viewer.cursor.position)
        before = painted.class_of.get(number, 0)
        after = FIRST_CLASS + (before - FIRST_CLASS + 1) % len(self.session.project.classes) if before else 0
        painted.apply(corrections.reclass(painted.layer.data, number), after)

    def _correct(self, correction: Callable[[np.ndarray, int], Correction | None]) -> None:
        painted = self.layers.painted(self.session.project.selected)
        if painted is not None:
            painted.apply(correction(painted.layer.data, painted.number_at(self.viewer.cursor.position)))
