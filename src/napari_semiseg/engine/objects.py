"""What is made of the confidence in a result: nuclei, or the class of every pixel. Free of torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from napari_semiseg.blocks import Box, cells
from napari_semiseg.io.result_writer import ResultWriter
from napari_semiseg.postprocess.classes import pixel_classes
from napari_semiseg.postprocess.merge import CELL, BlockwiseSplit, SplitRule


class Objects(ABC):
    """Something that is made cell by cell of the confidence in a result, each cell as soon as what it sees is there.

    Cells are computed in threads beside the prediction and written by one more, in the order in which they became
    possible; with them go all their levels, of the confidence too, so that a result can be looked at while it grows.
    Use it as a context manager.

    Parameters
    ----------
    writer : ResultWriter
    margin : int
        Pixels that a cell sees beyond itself.
    threads : int
        Cells that are computed at the same time. What comes out does not depend on it.

    Attributes
    ----------
    done, total : int
        Cells.
    """

    def __init__(self, writer: ResultWriter, margin: int, threads: int = 1) -> None:
        self._writer, self._margin, self._threads = writer, margin, threads
        self._waiting = {(cell.y0 // CELL, cell.x0 // CELL): cell for cell in cells(writer.shape, CELL)}
        self._missing: dict[tuple[int, int], int] = {}  # blocks, by place of a cell
        self._ready: deque[Box] = deque()
        self._going: deque[Future[None]] = deque()
        self.done, self.total = 0, len(self._waiting)
        self._makers = ThreadPoolExecutor(threads, "split")
        self._keeper = ThreadPoolExecutor(1, "keep cells")

    @property
    def count(self) -> int:
        """Nuclei found so far."""
        return 0

    @abstractmethod
    def make(self, cell: Box) -> Any:
        """Compute a cell. Called from several threads."""

    @abstractmethod
    def keep(self, cell: Box, made: Any) -> None:
        """Write what was made of a cell. Called for one after the other."""

    def expect(self, blocks: Iterable[Box]) -> None:
        """Note which blocks of confidence are still to come, and begin with the cells that need none of them."""
        self._missing = dict.fromkeys(self._waiting, 0)
        for block in blocks:
            for place in self._near(block):
                self._missing[place] += 1
        for place in [place for place, missing in self._missing.items() if not missing]:
            self._ready.append(self._waiting.pop(place))
        self._go_on()

    def arrived(self, block: Box) -> None:
        """Note that a block of confidence is in the result."""
        for place in self._near(block):
            self._missing[place] -= 1
            if not self._missing[place]:
                self._ready.append(self._waiting.pop(place))
        self._go_on()

    def finish(self) -> Iterator[None]:
        """Wait for the cells that can be made, and yield after each."""
        while self._going or self._ready:
            self._go_on()
            if self._going:
                self._going.popleft().result()
                self.done += 1
            yield

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ready.clear()
        self._makers.shutdown(cancel_futures=True)
        self._keeper.shutdown(cancel_futures=True)

    def _near(self, block: Box) -> list[tuple[int, int]]:
        """Return the places of the cells that wait and see something of a block."""
        y0, x0, y1, x1 = block.grown(self._margin)
        rows, columns = range(y0 // CELL, (y1 - 1) // CELL + 1), range(x0 // CELL, (x1 - 1) // CELL + 1)
        return [(row, column) for row in rows for column in columns if (row, column) in self._waiting]

    def _go_on(self) -> None:
        """Hand out cells, but only a few ahead: what is made of them waits in memory."""
        while self._going and self._going[0].done():
            self._going.popleft().result()
            self.done += 1
        while self._ready and len(self._going) <= self._threads:
            cell = self._ready.popleft()
            self._going.append(self._keeper.submit(self._keep_made, cell, self._makers.submit(self.make, cell)))

    def _keep_made(self, cell: Box, made: Future[Any]) -> None:
        self.keep(cell, made.result())


class Nuclei(Objects):
    """Nuclei, and their classes where there are several."""

    def __init__(self, writer: ResultWriter, rule: SplitRule, threads: int = 1) -> None:
        self._work = BlockwiseSplit(lambda box: writer.read("confidence", box), writer.shape, rule)
        super().__init__(writer, rule.halo, threads)

    @property
    def count(self) -> int:
        """See `Objects`."""
        return self._work.nuclei

    def make(self, cell: Box) -> Any:
        """See `Objects`."""
        return self._work.split(cell)

    def keep(self, cell: Box, made: Any) -> None:
        """See `Objects`."""
        nuclei = self._work.number(cell, made)
        self._writer.write_levels("nuclei", cell, nuclei.labels)
        if nuclei.classes is not None:
            self._writer.write_levels("classes", cell, nuclei.classes)
        self._writer.write_levels("confidence", cell, nuclei.confidence)


class PixelClasses(Objects):
    """The class of every pixel, without nuclei."""

    def __init__(self, writer: ResultWriter, threshold: float, threads: int = 1) -> None:
        self._threshold = threshold
        super().__init__(writer, 0, threads)

    def make(self, cell: Box) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """See `Objects`."""
        confidence = self._writer.read("confidence", cell)
        return confidence, pixel_classes(confidence, self._threshold)

    def keep(self, cell: Box, made: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> None:
        """See `Objects`."""
        confidence, classes = made
        self._writer.write_levels("classes", cell, classes)
        self._writer.write_levels("confidence", cell, confidence)


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
