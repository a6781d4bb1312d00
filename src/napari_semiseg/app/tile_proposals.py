"""Proposed nuclei for one tile, from the best that there is just now."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
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
from napari_semiseg.events import Event, Failed, Finished, Unanswered, Written

LEAST_UM2, LEAST_PIXELS = 7.5, 125
"""Smallest nucleus that is proposed, in µm², or in pixels where their size is not known: what is smaller is seldom one,
and deleting it costs as much as drawing."""

Take = Callable[[NDArray[Any], tuple[int, int], Mapping[int, str]], object]
"""Is handed labels (h, w), where they begin (y, x) in pixels of level 0, and the names of their nuclei's classes by
number, as far as the network tells classes."""


@dataclass(frozen=True, eq=False)
class _Wish:
    """The nuclei of one tile, which were asked for.

    `asked_of` is the job of the training that was asked; "" where the engine is, as soon as it is free. `path` is where
    the answer will lie.
    """

    tile: str
    take: Take
    asked_of: str
    path: Path

    @property
    def purpose(self) -> str:
        return f"tile {self.tile}"


class TileProposals:
    """Asks for the nuclei of tiles: the network that is being trained, the newest run, or else the threshold.

    Of each tile at most one wish waits. It stays while other tiles or images are looked at.
    """

    changed = Signal()

    def __init__(self, session: Session) -> None:
        self.session = session
        self._wishes: dict[str, _Wish] = {}
        session.engine.received.connect(self._hear_training)
        session.engine.events["lost_job"].connect(self._note_lost)
        session.project.closed.connect(self._forget)
        session.project.tiles_changed.connect(self._forget)

    @property
    def waiting(self) -> tuple[str, ...]:
        """Ids of the tiles whose nuclei were asked for, in that order."""
        return tuple(self._wishes)

    def words(self, tile_id: str) -> str:
        """Say what the wish for a tile waits for: "waits for the segmentation, which is paused"; "" for nothing."""
        wish = self._wishes.get(tile_id)
        return self.session.waits("propose", purpose=wish.purpose) if wish else ""

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
        out = folder.predictions_dir / ".proposal" / tile_id
        wish = _Wish(tile_id, take, training.job if training.answers else "", out / "nuclei.npy")
        self._wishes[tile_id] = wish
        if wish.asked_of:
            out.mkdir(parents=True, exist_ok=True)
            box = (tile.box.y0, tile.box.x0, tile.box.y1, tile.box.x1)
            self.session.engine.propose(tile.image, box, str(wish.path))
        else:
            args: dict[str, Any] = {"image": folder.source_path(tile.image), "out": str(out), "box": list(tile.box)}
            args |= {"mpp": project.images[tile.image].mpp} if project.images[tile.image].mpp else {}
            if training.run is not None:
                device = training.setup.device
                args |= {"run": str(training.run)} | ({} if device == "auto" else {"device": device})
            self.session.ask("propose", args, partial(self._hear, wish), purpose=wish.purpose)
        self.changed.emit()

    def cancel(self, tile_id: str) -> None:
        """Want the nuclei of a tile no longer; nobody hears what is found in spite of it."""
        wish = self._wishes.pop(tile_id, None)
        if wish is not None:
            self.session.drop_errands("propose", wish.purpose)
            self.changed.emit()

    def end(self) -> None:
        """Hear nothing more."""
        self._wishes.clear()
        self.session.engine.received.disconnect(self._hear_training, missing_ok=True)
        self.session.engine.events["lost_job"].disconnect(self._note_lost, missing_ok=True)

    def _hear_training(self, job: str, event: Event) -> None:
        """Take what the running training has found; where it ended before, or has just begun, ask again."""
        if not job:
            return
        asked = [wish for wish in self._wishes.values() if wish.asked_of == job]
        if isinstance(event, Written | Unanswered):
            for wish in asked:
                if str(wish.path) == event.path:
                    self._hear(wish, event)
        for wish in [*self._wishes.values()]:
            if self.session.training.asked_anew(job, event, wish.asked_of):
                self.session.drop_errands("propose", wish.purpose)
                self.ask(wish.tile, wish.take)

    def _hear(self, wish: _Wish, event: Event) -> None:
        if self._wishes.get(wish.tile) is not wish:
            return
        match event:
            case Written("nuclei", path, facts):
                self._fetch(wish, Path(path), facts)
                self.cancel(wish.tile)
            case Failed(message, _, detail):
                self.cancel(wish.tile)
                self.session.tell(message, "error", details=detail)
            case Finished() | Unanswered():  # it was stopped, or has said why not
                self.cancel(wish.tile)

    def _fetch(self, wish: _Wish, path: Path, facts: Mapping[str, Any]) -> None:
        """Read an answer in the background, and hand it over."""
        folder, box = self.session.project.folder, Box(*facts["box"])

        def hand_over(labels: NDArray[Any]) -> None:
            if self.session.project.folder is not folder:
                return
            try:
                wish.take(labels, (box.y0, box.x0), class_names(labels, facts))
            except InputError as error:
                self.session.tell(str(error), "warning")

        self.session.background.submit(lambda: _read(path, wish.path), hand_over, self._fail)

    def _note_lost(self) -> None:
        """Wait no longer for a training that was lost. What waits for the engine waits on."""
        lost = self.session.engine.lost_job
        for wish in [*self._wishes.values()]:
            if lost is not None and wish.asked_of == lost.id:
                self.cancel(wish.tile)

    def _forget(self) -> None:
        """Want nothing any longer for tiles that are gone: removed, or closed with their project."""
        for tile_id in self.waiting:
            if self.session.project.tile(tile_id) is None:
                self.cancel(tile_id)

    def _fail(self, error: Exception) -> None:
        self.session.tell(f"The proposed nuclei cannot be read ({error}): ask for them again.", "error")


def _read(path: Path, ours: Path) -> NDArray[Any]:
    """Read the nuclei of an answer, and delete the files that were asked for: nobody needs them twice."""
    labels: NDArray[Any] = np.load(path, allow_pickle=False)
    for name in ("nuclei.npy", "confidence.npy"):
        ours.with_name(name).unlink(missing_ok=True)
    return labels


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
