"""Nuclei of the result one after the other, the most doubtful first: each is accepted or rejected with one key.

A word on a nucleus is a label: it goes into the tile that holds the nucleus, or into a new one around it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_semiseg.app.project_model import TILE_SIDE
from napari_semiseg.app.session import Session
from napari_semiseg.blocks import Box
from napari_semiseg.errors import InputError
from napari_semiseg.events import Event, Failed, Written
from napari_semiseg.io.result import Result
from napari_semiseg.project.schema import Tile

MARGIN = 8
"""Pixels between a nucleus and the border of a tile that is made for it, at least."""

Paint = Callable[[str, Box, NDArray[np.bool_], bool], object]


@dataclass(frozen=True)
class DoubtfulNucleus:
    """A nucleus of a result.

    Attributes
    ----------
    number : int
        Its label there.
    doubt : float
        Mean entropy of its pixels, in bits.
    center : (float, float)
        y, x in pixels of level 0.
    box : Box
        Around it.
    """

    number: int
    doubt: float
    center: tuple[float, float]
    box: Box


class NucleiReview:
    """Goes through the nuclei of the result in view.

    Attributes
    ----------
    nuclei : list of DoubtfulNucleus
        The most doubtful first.
    place : int
        The one that is looked at; -1 before the first.
    waiting : bool
        Whether the engine is at it.
    """

    changed = Signal()

    def __init__(self, session: Session) -> None:
        self.session = session
        self.nuclei: list[DoubtfulNucleus] = []
        self.place = -1
        self.waiting = False
        self._said: dict[int, bool] = {}
        session.review.result_changed.connect(self.forget)

    @property
    def current(self) -> DoubtfulNucleus | None:
        """The one that is looked at."""
        return self.nuclei[self.place] if 0 <= self.place < len(self.nuclei) else None

    @property
    def words(self) -> str:
        """Where one stands: "3 of 200 · 93 % doubt · 2 accepted, 0 rejected"."""
        if self.current is None:
            return ""
        accepted = sum(self._said.values())
        return (
            f"{self.place + 1} of {len(self.nuclei)} · {round(100 * self.current.doubt)} % doubt · "
            f"{accepted} accepted, {len(self._said) - accepted} rejected"
        )

    def ask(self) -> None:
        """Have the nuclei found, as soon as the engine is free, and go to the first."""
        result, folder = self.session.review.result, self.session.project.folder
        if result is None or folder is None or self.waiting:
            return
        self.waiting = True
        out = folder.predictions_dir / ".doubtful.npy"
        self.session.ask("doubtful", {"source": str(result), "out": str(out)}, self._hear)
        self.changed.emit()

    def step(self, by: int) -> None:
        """Go on, or back with -1."""
        if self.nuclei:
            self.place = (self.place + by) % len(self.nuclei)
            self.changed.emit()

    def decide(self, accepted: bool, paint: Paint) -> None:
        """Say that the nucleus is one, or that there is none, and go to the next.

        Parameters
        ----------
        accepted : bool
        paint : callable
            Paints into a tile: its id, a rectangle in pixels of the tile, the nucleus's pixels in it, `accepted`.
        """
        nucleus, result, image = self.current, self.session.review.result, self.session.image_index
        if nucleus is None or result is None or image is None or self.session.project.read_only:
            return
        self._said[nucleus.number] = accepted

        def read() -> NDArray[np.bool_]:
            return np.asarray(Result.open(result).nuclei(nucleus.box) == nucleus.number)

        def done(mask: NDArray[np.bool_]) -> None:
            if self.session.image_index != image:
                return
            try:
                tile = self._tile(image, nucleus)
                paint(tile.id, nucleus.box.shifted(-tile.box.y0, -tile.box.x0), mask, accepted)
            except InputError as error:
                self.session.tell(str(error), "warning")

        self.session.background.submit(read, done, self._fail)
        self.step(1)

    def forget(self) -> None:
        """Forget the nuclei: there are others."""
        self.nuclei, self.place, self.waiting = [], -1, False
        self._said.clear()
        self.changed.emit()

    def end(self) -> None:
        """Hear nothing more."""
        self.session.review.result_changed.disconnect(self.forget, missing_ok=True)

    def _tile(self, image: int, nucleus: DoubtfulNucleus) -> Tile:
        """Return a tile that holds a nucleus and takes corrections, or make one."""
        project = self.session.project
        for tile in project.tiles:
            open_to_it = tile.status in ("empty", "sparse", "complete") and tile.id not in project.validation
            if tile.image == image and open_to_it and tile.box.contains(nucleus.box):
                return tile
        side = max(TILE_SIDE, *(length + 2 * MARGIN for length in nucleus.box.shape))
        return project.add_tile(image, center=nucleus.center, side=side, select=False)

    def _hear(self, event: Event) -> None:
        match event:
            case Written("doubtful", path, _):
                self.session.background.submit(lambda: np.load(path, allow_pickle=False), self._take, self._fail)
            case Failed(message, _, detail):
                self.waiting = False
                self.session.tell(message, "error", details=detail)
                self.changed.emit()

    def _take(self, table: NDArray[Any]) -> None:
        self.waiting = False
        self.nuclei = [
            DoubtfulNucleus(int(row[0]), float(row[1]), (float(row[2]), float(row[3])), Box(*map(int, row[4:8])))
            for row in table
        ]
        self.place = 0 if self.nuclei else -1
        if not self.nuclei:
            self.session.tell("There is no nucleus in this result.")
        self.changed.emit()

    def _fail(self, error: Exception) -> None:
        if not isinstance(error, InputError | OSError | ValueError):
            raise error
        self.waiting = False
        self.session.tell(f"The nuclei cannot be looked at ({error}): segment again.", "error")
        self.changed.emit()
