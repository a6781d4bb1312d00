"""Nuclei of the result one after the other, the most doubtful first: each is accepted or rejected with one key.

A word on a nucleus is a label: it goes into the tile that holds the nucleus, or into a new one around it. Where
something is painted already, or a tile is complete or excluded, nothing is asked. And no new tile reaches into a
complete one: those that are set aside judge a training only as long as nothing of them is learned from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_semiseg.app.project_model import TILE_SIDE, square
from napari_semiseg.app.session import Session
from napari_semiseg.app.words import capital
from napari_semiseg.blocks import Box
from napari_semiseg.errors import InputError
from napari_semiseg.events import Event, Failed, Written
from napari_semiseg.io.result import Result
from napari_semiseg.project.annotations import IGNORE, training_labels
from napari_semiseg.project.folder import ProjectFolder
from napari_semiseg.project.schema import Tile
from napari_semiseg.project.tile_annotation import BACKGROUND

MARGIN = 8
"""Pixels between a nucleus and the border of a tile that is made for it, at least."""
MOST = 200
"""Nuclei that are gone through before the next training would know better."""
_FOUND = 4 * MOST
"""… and those that are asked for, since something is said of some already."""

TakeBack = Callable[[], object]


class Paint(Protocol):
    """Writes a word on a nucleus into a tile: see `NucleiReview.decide`."""

    def __call__(self, tile_id: str, box: Box, mask: NDArray[np.bool_], accepted: bool, kind: int) -> TakeBack | None:
        """Return what takes it back; None where nothing was painted. Raises `InputError` where nothing can be."""
        ...


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


@dataclass(frozen=True)
class Word:
    """What was said of a nucleus, and what takes that back."""

    accepted: bool
    take_back: TakeBack


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
        self._said: dict[int, Word] = {}
        self._round = 0
        session.review.result_changed.connect(self.forget)
        session.review.split_changed.connect(self.forget)
        session.image_changed.connect(self.forget)  # its result is another one, which comes a moment later

    @property
    def why_not(self) -> str:
        """Why the nuclei cannot be gone through, in words; "" if they can."""
        if self.session.review.result is None:
            return "Segment first: there are no nuclei to judge yet."
        if self.session.project.read_only:
            return "The project is open read-only, so no label can be made in it."
        return ""

    @property
    def current(self) -> DoubtfulNucleus | None:
        """The one that is looked at."""
        return self.nuclei[self.place] if 0 <= self.place < len(self.nuclei) else None

    @property
    def words(self) -> str:
        """Where one stands: "3 of 200 · 93 % doubt · 2 accepted, 0 rejected"; or what the engine does before."""
        if self.current is None:
            return (capital(self.session.waits("doubtful")) or "Looking for doubt…") if self.waiting else ""
        accepted = sum(word.accepted for word in self._said.values())
        said = self._said.get(self.current.number)
        this = "" if said is None else " · this one accepted" if said.accepted else " · this one rejected"
        return (
            f"{self.place + 1} of {len(self.nuclei)} · {round(100 * self.current.doubt)} % doubt · "
            f"{accepted} accepted, {len(self._said) - accepted} rejected{this}"
        )

    @property
    def can_take_back(self) -> bool:
        """Whether some word can be taken back."""
        return bool(self._said)

    def ask(self) -> None:
        """Have the nuclei found, as soon as the engine is free, and go to the first."""
        result, folder = self.session.review.result, self.session.project.folder
        if self.why_not or result is None or folder is None or self.waiting:
            return
        self.waiting = True
        out = folder.predictions_dir / ".doubtful.npy"
        asked = self._round
        args = {"source": str(result), "out": str(out), "n": _FOUND}
        self.session.ask("doubtful", args, lambda event: self._hear(asked, event))
        self.changed.emit()

    def step(self, by: int) -> None:
        """Go on, or back with -1."""
        if self.nuclei:
            self.place = (self.place + by) % len(self.nuclei)
            self.changed.emit()

    def decide(self, accepted: bool, paint: Paint) -> None:
        """Say that the nucleus is one, or that there is none, and go to the next. Of two words the later one holds.

        Parameters
        ----------
        accepted : bool
        paint : callable
            Paints into a tile: its id, a rectangle in pixels of the tile, the nucleus's pixels in it, `accepted`, and
            the class as on disk that the result gives it (0 where it tells none); returns what takes that back, None
            where nothing was painted.
        """
        nucleus, result, image = self.current, self.session.review.result, self.session.image_index
        if self.why_not or nucleus is None or result is None or image is None:
            return
        asked, folder = self._round, self.session.project.folder

        def read() -> tuple[NDArray[np.bool_], str]:
            found = Result.open(result)
            mask = np.asarray(found.nuclei(nucleus.box) == nucleus.number)
            return mask, class_of(found, nucleus.box, mask)

        def done(found: tuple[NDArray[np.bool_], str]) -> None:
            mask, title = found
            here = (self.session.project.folder, self.session.image_index) == (folder, image)
            if here and _fills(mask):
                write = partial(paint, kind=self._kind(title))
                self._write(nucleus, image, mask, accepted, write, asked)

        self.session.background.submit(read, done, self._fail)
        self.step(1)

    def take_back(self) -> None:
        """Take the last word back, and look at its nucleus again."""
        if not self._said or self.session.project.read_only:
            return
        number, word = self._said.popitem()
        word.take_back()
        self.place = next(place for place, nucleus in enumerate(self.nuclei) if nucleus.number == number)
        self.changed.emit()

    def forget(self) -> None:
        """Forget the nuclei: there are others, or soon will be. What was said stays in the tiles."""
        self._round += 1
        self.nuclei, self.place, self.waiting = [], -1, False
        self._said.clear()
        self.changed.emit()

    def end(self) -> None:
        """Hear nothing more."""
        self.session.review.result_changed.disconnect(self.forget, missing_ok=True)
        self.session.review.split_changed.disconnect(self.forget, missing_ok=True)
        self.session.image_changed.disconnect(self.forget, missing_ok=True)

    def _kind(self, title: str) -> int:
        """Return the number, on disk, of a class of the project by its name; 0 where it has none of that name."""
        names = [spec.name.casefold() for spec in self.session.project.classes]
        return BACKGROUND + 1 + names.index(title.casefold()) if title.casefold() in names else 0

    def _write(
        self,
        nucleus: DoubtfulNucleus,
        image: int,
        mask: NDArray[np.bool_],
        accepted: bool,
        paint: Callable[[str, Box, NDArray[np.bool_], bool], TakeBack | None],
        asked: int,
    ) -> None:
        """Write a word into its tile, in the place of one that was said of this nucleus before."""
        before = self._said.pop(nucleus.number, None)
        if before is not None:
            before.take_back()
        try:
            tile = self._tile(image, nucleus)
            take_back = paint(tile.id, nucleus.box.shifted(-tile.box.y0, -tile.box.x0), mask, accepted)
        except InputError as error:
            self.session.tell(str(error), "warning")
            self.changed.emit()
            return
        if take_back is None:
            self.session.tell("You have painted there already, and your paint stays as it is.")
        elif asked == self._round:
            self._said[nucleus.number] = Word(accepted, take_back)
        self.changed.emit()

    def _tile(self, image: int, nucleus: DoubtfulNucleus) -> Tile:
        """Return a tile that holds a nucleus and takes corrections, or make one beside the complete ones."""
        project = self.session.project
        tiles = [tile for tile in project.tiles if tile.image == image]
        for tile in tiles:
            if tile.status in ("empty", "sparse") and tile.box.contains(nucleus.box):
                return tile
        side = max(TILE_SIDE, *(length + 2 * MARGIN for length in nucleus.box.shape))
        box = square(nucleus.center, side, project.images[image].shape)
        for tile in tiles:
            if tile.status == "complete":
                box = beside(box, tile.box, nucleus.box)
        return project.add_tile(image, box=box, select=False)

    def _hear(self, asked: int, event: Event) -> None:
        if asked != self._round:
            return
        folder = self.session.project.folder
        match event:
            case Written("doubtful", path, _) if folder is not None:
                tiles = [tile for tile in self.session.project.tiles if tile.image == self.session.image_index]
                read = partial(read_doubtful, Path(path), folder, tiles)
                self.session.background.submit(read, lambda found: self._take(asked, *found), self._fail)
            case Failed(message, _, detail):
                self.waiting = False
                self.session.tell(message, "error", details=detail)
                self.changed.emit()

    def _take(self, asked: int, nuclei: list[DoubtfulNucleus], every: int) -> None:
        if asked != self._round:
            return
        self.waiting = False
        self.nuclei = nuclei[:MOST]
        self.place = 0 if self.nuclei else -1
        if not every:
            self.session.tell("There is no nucleus in this result.")
        elif not self.nuclei:
            self.session.tell("You have labeled the nuclei that are most in doubt already: train again, then segment.")
        self.changed.emit()

    def _fail(self, error: Exception) -> None:
        self.waiting = False
        self.session.tell(f"The nuclei cannot be looked at ({error}): segment again.", "error")
        self.changed.emit()


def read_doubtful(path: Path, folder: ProjectFolder, tiles: Sequence[Tile]) -> tuple[list[DoubtfulNucleus], int]:
    """Read a table of nuclei, and leave out those of which everything is said. Not for the GUI thread.

    Parameters
    ----------
    path : Path
        What `engine.review.doubtful` has written.
    folder : ProjectFolder
    tiles : sequence of Tile
        Those of the image.

    Returns
    -------
    list of DoubtfulNucleus
        Neither in a complete or an excluded tile, nor with paint in the middle.
    int
        How many the table holds.

    Raises
    ------
    InputError, OSError, ValueError, EOFError
        If the table or an annotation cannot be read.
    """
    found = [
        DoubtfulNucleus(int(row[0]), float(row[1]), (float(row[2]), float(row[3])), Box(*map(int, row[4:8])))
        for row in np.load(path, allow_pickle=False)
    ]
    closed = [tile.box for tile in tiles if tile.status in ("complete", "excluded")]
    painted = [
        (tile.box, training_labels(tile, folder.annotation(tile.id)) != IGNORE)
        for tile in tiles
        if tile.status == "sparse"
    ]

    def open_to_words(nucleus: DoubtfulNucleus) -> bool:
        y, x = (round(value) for value in nucleus.center)
        middle = Box(y, x, y + 1, x + 1)
        return not any(box.intersect(nucleus.box).area for box in closed) and not any(
            box.contains(middle) and known[y - box.y0, x - box.x0] for box, known in painted
        )

    return [nucleus for nucleus in found if open_to_words(nucleus)], len(found)


def class_of(result: Result, box: Box, mask: NDArray[np.bool_]) -> str:
    """Return the name of the class that most pixels of a nucleus have in a result; "" where it tells no classes.

    Parameters
    ----------
    result : Result
    box : Box
    mask : array, (h, w) of `box`, bool
    """
    if "classes" not in result.kinds:
        return ""
    votes = np.bincount(result.pixel_classes(box)[mask], minlength=2)
    most = int(votes[1:].argmax()) if votes[1:].any() else -1
    return result.classes[most] if 0 <= most < len(result.classes) else ""


def _fills(mask: NDArray[np.bool_]) -> bool:
    """Whether a nucleus reaches all four sides of its rectangle: else the result is another one by now."""
    return bool(all(side.any() for side in (mask[0], mask[-1], mask[:, 0], mask[:, -1])))


def beside(box: Box, other: Box, kept: Box) -> Box:
    """Cut a rectangle so that it does not reach into another one, and still holds a third: as little as does it.

    Where the other two share pixels the rectangle is returned as it is.
    """
    if not box.intersect(other).area or kept.intersect(other).area:
        return box
    cuts = (
        Box(other.y1, box.x0, box.y1, box.x1),
        Box(box.y0, box.x0, other.y0, box.x1),
        Box(box.y0, other.x1, box.y1, box.x1),
        Box(box.y0, box.x0, box.y1, other.x0),
    )
    return max((cut for cut in cuts if cut.contains(kept)), key=lambda cut: cut.area)
