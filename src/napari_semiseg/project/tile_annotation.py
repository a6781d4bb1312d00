"""What a person painted in one tile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_semiseg.errors import InputError

UNPAINTED = 0
"""Class of a pixel that nobody painted."""

BACKGROUND = 1
"""Class of a pixel painted as background; the classes of nuclei follow from 2."""

PROPOSED_AS = 128
"""Added to the class that a nucleus was proposed with and that nobody has accepted: it is kept, and nothing is learned
from it. So a class of the project is below 126."""

PROPOSED = 254
"""Class of a nucleus that was proposed without a class, and that nobody has accepted."""

MAX_CLASS = 254
"""Largest class on disk. 255 means "ignore" in tensors and is refused here."""

ACCEPTED_FROM, ACCEPTED_TO = 30_000, 45_000
"""Ids, the last one excluded, of nuclei that were proposed and accepted; a nucleus of any other id was drawn."""

MAX_INSTANCE = 2**31 - 1
"""Largest id of a nucleus: what a signed 32-bit layer can hold too."""

MAX_TILE_PIXELS = 2**24
"""Largest tile: 4096 x 4096. Painting on more is slow, and a tile is meant to be finished by a person."""


@dataclass(frozen=True)
class Tally:
    """How the nuclei of a tile came about.

    Attributes
    ----------
    drawn : int
        Painted by hand, or corrected.
    accepted : int
        Proposed, and accepted.
    proposed : int
        Proposed, and neither accepted nor deleted.
    """

    drawn: int = 0
    accepted: int = 0
    proposed: int = 0

    @property
    def nuclei(self) -> int:
        """Those that count."""
        return self.drawn + self.accepted


@dataclass(frozen=True, eq=False)
class TileAnnotation:
    """What a person painted in one tile.

    Attributes
    ----------
    instance : array, (h, w), uint32
        Ids of nuclei; 0 where none is painted.
    classes : array, (h, w), uint8
        0 unpainted, 1 background, 2 and up the project's classes in their order; from `PROPOSED_AS` on nobody has said
        yet whether there is a nucleus. A nucleus whose class is unpainted is one of the first class.
    """

    instance: NDArray[np.uint32]
    classes: NDArray[np.uint8]

    @classmethod
    def empty(cls, shape: tuple[int, int]) -> Self:
        """Return an annotation with nothing painted."""
        return cls(np.zeros(shape, np.uint32), np.zeros(shape, np.uint8))

    @classmethod
    def checked(cls, instance: ArrayLike | None, classes: ArrayLike | None, shape: tuple[int, int], where: str) -> Self:
        """Build from arrays that anyone may have made.

        Parameters
        ----------
        instance, classes : array_like, (h, w), integer, or None
            None is unpainted. The result owns its arrays.
        shape : tuple of int
            Rows and columns of the tile.
        where : str
            Layer or file they come from, for the message.

        Raises
        ------
        InputError
            If they have another shape, no integer type, negative values, an id over 2**31 - 1 or a class over 254.
        """
        empty = cls.empty(shape)
        return cls(
            empty.instance if instance is None else checked_instance(instance, shape, where).copy(),
            empty.classes if classes is None else checked_classes(classes, shape, where).copy(),
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        height, width = self.instance.shape
        return height, width

    @property
    def nuclei(self) -> int:
        """Number of distinct nuclei that were drawn or accepted."""
        return self.tally.nuclei

    @property
    def undecided(self) -> NDArray[np.bool_]:
        """Where nobody has said yet whether there is a nucleus, (h, w)."""
        return self.classes >= PROPOSED_AS

    @property
    def largest_class(self) -> int:
        """Largest class that something is painted or proposed as, 2 and up for nuclei; 0 where there is nothing."""
        kinds = np.where(self.undecided, self.classes - PROPOSED_AS, self.classes)
        return int(kinds.max(initial=0, where=self.classes != PROPOSED))

    @property
    def tally(self) -> Tally:
        """How many nuclei were drawn, accepted as proposed, or not decided on yet."""
        ids = np.unique(np.where(self.undecided, 0, self.instance))
        accepted = int(np.count_nonzero((ids >= ACCEPTED_FROM) & (ids < ACCEPTED_TO)))
        proposed = np.unique(self.instance[self.undecided])
        return Tally(int(np.count_nonzero(ids)) - accepted, accepted, int(np.count_nonzero(proposed)))

    def copy(self) -> TileAnnotation:
        """Return a copy that shares nothing."""
        return TileAnnotation(self.instance.copy(), self.classes.copy())

    def equals(self, other: TileAnnotation) -> bool:
        """Whether every pixel agrees."""
        return np.array_equal(self.instance, other.instance) and np.array_equal(self.classes, other.classes)


def checked_instance(array: ArrayLike, shape: tuple[int, int], where: str) -> NDArray[np.uint32]:
    """Return ids of nuclei as uint32; see `TileAnnotation.checked`."""
    return _checked(array, shape, where, "nuclei", MAX_INSTANCE).astype(np.uint32, copy=False)


def checked_classes(array: ArrayLike, shape: tuple[int, int], where: str) -> NDArray[np.uint8]:
    """Return classes as uint8; see `TileAnnotation.checked`."""
    return _checked(array, shape, where, "classes", MAX_CLASS).astype(np.uint8, copy=False)


def require_kind(array: NDArray[Any], shape: tuple[int, int], where: str, what: str) -> None:
    """Check shape and type alone, which takes no time.

    Raises
    ------
    InputError
        If one is wrong.
    """
    if array.dtype.kind not in "iu":
        raise InputError(
            f"The {what} in {where} have the type {array.dtype}, but ids "
            "are whole numbers: give a labels layer or an integer image."
        )
    if array.shape != shape:
        said = " x ".join(str(size) for size in array.shape) or "one number"
        raise InputError(
            f"The {what} in {where} have the size {said}, but the tile is "
            f"{shape[0]} x {shape[1]} pixels: give labels of the tile's own size."
        )


def _checked(array: ArrayLike, shape: tuple[int, int], where: str, what: str, largest: int) -> NDArray[Any]:
    found = np.asarray(array)
    require_kind(found, shape, where, what)
    low, high = int(found.min(initial=0)), int(found.max(initial=0))
    if low < 0:
        raise InputError(
            f"The {what} in {where} hold {low}, but ids begin at 0, which is nothing painted: number them from 1."
        )
    if high > largest:
        raise InputError(
            f"The {what} in {where} hold {high}, but {largest} is the largest there can be: number them again from 1."
        )
    return found
