"""Proposed nuclei for one tile, from the best that there is just now."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal
from scipy.ndimage import binary_opening
from skimage.measure import label
from skimage.morphology import disk

from napari_semiseg.app.session import Session
from napari_semiseg.blocks import Box
from napari_semiseg.errors import InputError
from napari_semiseg.events import Event, Failed, Warned, Written

LEAST_UM2, LEAST_PIXELS = 7.5, 125
"""Smallest nucleus that is proposed, in µm², or in pixels where their size is not known: what is smaller is seldom one,
and deleting it costs as much as drawing."""

_PURPOSE = "a tile"

Take = Callable[[NDArray[Any], tuple[int, int], Mapping[int, str]], object]
"""Is handed labels (h, w), where they begin (y, x) in pixels of level 0, and the names of their nuclei's classes by
number, as far as the network tells classes."""


class TileProposals:
    """Asks for the nuclei of a tile: the network that is being trained, the newest run, or else the threshold.

    Attributes
    ----------
    waiting : str
        Id of the tile whose nuclei were asked for; "" for none.
    """

    changed = Signal()

    def __init__(self, session: Session) -> None:
        self.session = session
        self.waiting = ""
        self._take: Take | None = None
        self._asked_of = ""  # the job of the training that was asked; "" where the engine is, as soon as it is free
        session.engine.received.connect(self._hear_training)
        session.engine.events["lost_job"].connect(self._give_up)
        session.project.closed.connect(self._give_up)
        session.image_changed.connect(self._give_up)

    def ask(self, tile_id: str, take: Take) -> None:
        """Have the nuclei of a tile found, and handed to `take`.

        A training answers between two steps. Another job is waited for, and a training that begins meanwhile is asked.

        Raises
        ------
        InputError
            If there is no such tile.
        """
        project, training = self.session.project, self.session.training
        tile, folder = project.tile(tile_id), project.folder
        if tile is None or folder is None:
            raise InputError("No tile is selected: click on one, or add one.")
        self.waiting, self._take = tile_id, take
        out = folder.predictions_dir / ".proposal"
        self._asked_of = training.job if training.answers else ""
        if self._asked_of:
            out.mkdir(parents=True, exist_ok=True)
            box = (tile.box.y0, tile.box.x0, tile.box.y1, tile.box.x1)
            self.session.engine.propose(tile.image, box, str(out / "nuclei.npy"))
        else:
            args: dict[str, Any] = {"image": folder.source_path(tile.image), "out": str(out), "box": list(tile.box)}
            args |= {"mpp": project.images[tile.image].mpp} if project.images[tile.image].mpp else {}
            if training.run is not None:
                device = training.setup.device
                args |= {"run": str(training.run)} | ({} if device == "auto" else {"device": device})
            self.session.ask("propose", args, self._hear, purpose=_PURPOSE)
        self.changed.emit()

    def end(self) -> None:
        """Hear nothing more."""
        self.waiting, self._take = "", None
        self.session.engine.received.disconnect(self._hear_training, missing_ok=True)

    def _hear_training(self, job: str, event: Event) -> None:
        """Take what the running training has found; where it ended before, or has just begun, ask again."""
        if self._take is None or not job:
            return
        if job == self._asked_of and isinstance(event, Warned):
            self._give_up()
        elif job == self._asked_of and isinstance(event, Written) and event.what == "nuclei":
            self._hear(event)
        elif self.session.training.asked_anew(job, event, self._asked_of):
            self.session.drop_errands("propose", _PURPOSE)
            self.ask(self.waiting, self._take)

    def _hear(self, event: Event) -> None:
        match event:
            case Written("nuclei", path, facts) if self._take is not None:
                take, tile_id = self._take, self.waiting
                self.waiting, self._take = "", None
                box = Box(*facts["box"])
                self.session.background.submit(
                    lambda: np.load(Path(path), allow_pickle=False),
                    lambda labels: self._hand_over(tile_id, take, labels, box, facts),
                    self._fail,
                )
                self.changed.emit()
            case Failed(message, _, detail):
                self._give_up()
                self.session.tell(message, "error", details=detail)

    def _hand_over(self, tile_id: str, take: Take, labels: NDArray[Any], box: Box, facts: Mapping[str, Any]) -> None:
        if self.session.project.selected != tile_id:
            return
        try:
            take(labels, (box.y0, box.x0), class_names(labels, facts))
        except InputError as error:
            self.session.tell(str(error), "warning")

    def _give_up(self) -> None:
        self.waiting, self._take = "", None
        self.changed.emit()

    def _fail(self, error: Exception) -> None:
        self.session.tell(f"The proposed nuclei cannot be read ({error}): ask for them again.", "error")


def class_names(labels: NDArray[Any], facts: Mapping[str, Any]) -> dict[int, str]:
    """Return the class of every nucleus by its number, as the event tells it that came with them; {} where it does not.

    Parameters
    ----------
    labels : array, (h, w), integer
    facts : mapping
        `classes`, their names, and `kinds`, the class of each nucleus in the order of the numbers, from 1.
    """
    names, kinds = facts.get("classes", ()), facts.get("kinds", ())
    numbers = np.unique(labels[labels > 0]).tolist() if kinds else []
    return {number: names[kind - 1] for number, kind in zip(numbers, kinds, strict=True)}


def without_specks(labels: NDArray[Any], mpp: float | None) -> NDArray[Any]:
    """Drop what is too small to be proposed, but for what the border of the array may have cut.

    Parameters
    ----------
    labels : array, (h, w), integer
        Not changed.
    mpp : float or None
        Pixel size, in µm.
    """
    ids, places, areas = np.unique(labels, return_inverse=True, return_counts=True)
    least = _least_pixels(mpp)
    at_border = np.concatenate([labels[[0, -1]].ravel(), labels[:, [0, -1]].ravel()])
    small = (areas < least) & ~np.isin(ids, at_border)
    return np.where(small[places].reshape(labels.shape), 0, labels)


def beside_paint(labels: NDArray[Any], painted: NDArray[np.bool_], mpp: float | None) -> NDArray[Any]:
    """Leave what is still to be named: a nucleus that is painted already is not proposed once more as its own rim.

    Parameters
    ----------
    labels : array, (h, w), integer
        Not changed.
    painted : array, (h, w), bool
    mpp : float or None
        Pixel size, in µm.

    Returns
    -------
    array, (h, w), integer
        Of a nucleus that is painted in part, each piece that could be a nucleus by itself, under a number of its own.
    """
    free = np.where(painted, 0, labels)
    parts = np.where(np.isin(free, labels[painted & (labels > 0)]), free, 0)
    if not parts.any():
        return free
    half = round(math.sqrt(_least_pixels(mpp) / math.pi) / 2)  # of the radius of the smallest nucleus
    solid = np.pad(parts > 0, half, mode="edge")  # the border of a tile is not that of a nucleus
    solid = binary_opening(solid, disk(half))[half : half + parts.shape[0], half : half + parts.shape[1]]  # type: ignore[no-untyped-call]
    pieces = label(np.where(solid, parts, 0), connectivity=1)  # type: ignore[no-untyped-call]
    pieces = without_specks(pieces, mpp)
    others = np.where(parts > 0, 0, free)
    return np.where(pieces > 0, pieces + others.max(), others)


def _least_pixels(mpp: float | None) -> float:
    return LEAST_PIXELS if mpp is None else LEAST_UM2 / mpp**2
