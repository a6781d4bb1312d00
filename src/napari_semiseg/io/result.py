"""Results on disk, read; see `napari_semiseg.io.result_card` for what they hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
import zarr
from numpy.typing import NDArray

from napari_semiseg.blocks import Box
from napari_semiseg.errors import InputError
from napari_semiseg.io import pyramid
from napari_semiseg.io.read_zarr import PlainFiles, open_array
from napari_semiseg.io.result_card import DTYPES, KINDS, Kind, ResultCard, joined, read_card


class Result:
    """A result that can be read, also while it is being written. Made by `open`.

    Attributes
    ----------
    path : Path
    card : ResultCard
    """

    def __init__(self, path: Path, card: ResultCard) -> None:
        self.path, self.card = path, card
        self._store = PlainFiles(path, read_only=True)
        self._arrays: dict[tuple[str, int], zarr.Array[Any]] = {}

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a result for reading.

        Raises
        ------
        InputError
            If no result of ours lies there, or it is broken.
        """
        result = cls(Path(path), read_card(Path(path)))
        for kind in result.kinds if result.complete else []:
            for level in range(len(result.levels)):
                result._array(kind, level)
        return result

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.card.shape

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes of nuclei."""
        return self.card.classes

    @property
    def mpp(self) -> float | None:
        """Size of a pixel, in µm."""
        return self.card.mpp

    @property
    def translation(self) -> tuple[float, float]:
        """Place of the first pixel (y, x): in µm, or in pixels where `mpp` is None."""
        return self.card.translation

    @property
    def complete(self) -> bool:
        """Whether it was finished."""
        return self.card.complete

    @property
    def kinds(self) -> list[Kind]:
        """What it holds so far, of ``confidence``, ``nuclei`` and ``classes``."""
        folders: dict[Kind, Path] = {
            "confidence": self.path / "0",
            "nuclei": self.path / "labels/nuclei/0",
            "classes": self.path / "labels/classes/0",
        }
        return [
            kind for kind, folder in folders.items() if (folder / "zarr.json").exists() or (folder / ".zarray").exists()
        ]

    @property
    def levels(self) -> list[tuple[int, int]]:
        """Rows and columns of every level. While a result is unfinished, parts of each are still 0."""
        return pyramid.level_shapes(self.shape)

    def confidence(self, box: Box, level: int = 0) -> NDArray[np.uint8]:
        """Read the probability of each class of nuclei, 0 to 255.

        Parameters
        ----------
        box : Box
            Inside the image, in pixels of the level.
        level : int

        Returns
        -------
        ndarray, uint8, (classes, h, w)
        """
        return self.read("confidence", box, level)

    def nucleus_confidence(self, box: Box, level: int = 0) -> NDArray[np.uint8]:
        """Read the probability of any nucleus, 0 to 255, (h, w): the sum over the classes."""
        values = self.confidence(box, level)
        summed = values[0] if len(values) == 1 else np.minimum(values.sum(0, dtype=np.uint16), 255)
        return np.asarray(summed, np.uint8)

    def nuclei(self, box: Box, level: int = 0) -> NDArray[np.uint32]:
        """Read instance labels, uint32 (h, w).

        Raises
        ------
        InputError
            If it holds none.
        """
        return self.read("nuclei", box, level)

    def pixel_classes(self, box: Box, level: int = 0) -> NDArray[np.uint8]:
        """Read the class of every labeled pixel, uint8 (h, w): 0 none, 1 the first of `classes`."""
        return self.read("classes", box, level)

    def read(self, kind: Kind, box: Box, level: int = 0) -> NDArray[Any]:
        """Read any kind; see `confidence`."""
        if kind not in self.kinds:
            raise InputError(f"'{self.path}' holds no {kind}: predict with it first.")
        array = self._array(kind, level)
        box = Box(*(int(value) for value in box))
        if not Box.whole(array.shape[-2:]).contains(box):
            raise ValueError(f"{box} does not lie in level {level} of {self.path}, which is {array.shape[-2:]}")
        try:
            return np.asarray(array[(..., *box.slices)])
        except InputError:
            raise
        except Exception as error:  # codecs raise types of their own
            raise InputError(f"A part of '{self.path}' is damaged ({str(error)[:80]}): predict it again.") from error

    def _array(self, kind: Kind, level: int) -> zarr.Array[Any]:
        if (kind, level) not in self._arrays:
            array = open_array(self._store, joined(KINDS[kind], str(level)), str(self.path))
            lead = (len(self.classes),) if kind == "confidence" else ()
            if array.shape != (*lead, *self.levels[level]) or array.dtype != DTYPES[kind]:
                raise InputError(
                    f"The {kind} of '{self.path}' has another shape or type than it says: predict it again."
                )
            self._arrays[kind, level] = array
        return self._arrays[kind, level]
