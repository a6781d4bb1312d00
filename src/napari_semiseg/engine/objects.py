"""What is made of the confidence in a result: nuclei, or the class of every pixel. Free of torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from napari_semiseg.blocks import cells
from napari_semiseg.io.ome_zarr import ResultWriter
from napari_semiseg.postprocess.classes import pixel_classes
from napari_semiseg.postprocess.merge import CELL, BlockwiseSplit, SplitRule


class Objects(Protocol):
    """Something that is written cell by cell, as far as the confidence is there.

    Attributes
    ----------
    count : int
        Nuclei found so far.
    done, total : int
        Cells.
    """

    count: int
    done: int
    total: int

    def advance(self, rows: int) -> Iterator[None]:
        """Write the cells that depend on nothing below the first `rows` rows, and yield after each."""


class Nuclei:
    """Nuclei, and their classes where there are several."""

    def __init__(self, writer: ResultWriter, rule: SplitRule, threads: int = 1) -> None:
        self._writer, self._threads = writer, threads
        self._work = BlockwiseSplit(lambda box: writer.read("confidence", box), writer.shape, rule)
        self.count, self.done, self.total = 0, 0, self._work.total

    def advance(self, rows: int) -> Iterator[None]:
        """See `Objects`."""
        for cell in self._work.advance(rows, threads=self._threads):
            self._writer.write_nuclei(cell.keep, cell.labels)
            if cell.classes is not None:
                self._writer.write_classes(cell.keep, cell.classes)
            self.count, self.done = self._work.nuclei, self._work.done
            yield


class PixelClasses:
    """The class of every pixel, without nuclei."""

    def __init__(self, writer: ResultWriter, threshold: float) -> None:
        self._writer, self._threshold = writer, threshold
        self._cells = cells(writer.shape, CELL)
        self.count, self.done, self.total = 0, 0, len(self._cells)

    def advance(self, rows: int) -> Iterator[None]:
        """See `Objects`."""
        while self.done < self.total and (cell := self._cells[self.done]).y1 <= rows:
            confidence = self._writer.read("confidence", cell)
            self._writer.write_classes(cell, pixel_classes(confidence, self._threshold))
            self.done += 1
            yield


def forget_objects(writer: ResultWriter) -> None:
    """Remove nuclei and classes, to write them anew from the confidence."""
    writer.forget("nuclei")
    writer.forget("classes")


def note(writer: ResultWriter, facts: dict[str, Any]) -> None:
    """Add facts to those that the result will keep once it is finished."""
    writer.card = writer.card.model_copy(update={"facts": {**writer.card.facts, **facts}})


def split_facts(rule: SplitRule) -> dict[str, Any]:
    """Return how nuclei were split, in the words that results keep."""
    return {
        "semantic": False,
        "threshold": rule.threshold,
        "strength": rule.strength,
        "min_area": rule.min_area,
    }
