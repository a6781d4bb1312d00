"""The prediction of one image: what is there already, its blocks, its nuclei, and its result on disk."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from napari_semiseg import atomic
from napari_semiseg.blocks import Box
from napari_semiseg.engine.infer import BlockwiseNetwork, at_image, weights_digest
from napari_semiseg.engine.memory import out_of_memory
from napari_semiseg.engine.objects import Nuclei, Objects, PixelClasses, forget_objects, note, split_facts
from napari_semiseg.engine.predictor import Predictor
from napari_semiseg.engine.progress import BlockProgress
from napari_semiseg.errors import InputError, ReadError
from napari_semiseg.events import Event, Progressed, Warned, Written
from napari_semiseg.io.images import Image
from napari_semiseg.io.rescale import scale_of
from napari_semiseg.io.result import Result
from napari_semiseg.io.result_card import result_state
from napari_semiseg.io.result_writer import ResultWriter, discard_result
from napari_semiseg.postprocess.instances import smallest_area
from napari_semiseg.postprocess.merge import SplitRule
from napari_semiseg.postprocess.tissue import LARGE, OVERVIEW, TissueMask, find_tissue

SMALLEST_BLOCK = 128
"""Side of a block, in pixels, below which lack of memory is no longer answered by smaller blocks."""
WRITES_AHEAD = 3
"""Blocks that may wait to be written."""
GONE = 32
"""Blocks of which none can be read at another try either: the file is gone, rather than damaged."""


@dataclass(frozen=True)
class Wanted:
    """What a prediction is asked for, the same for all its images; see `PredictRequest`."""

    run: str
    threshold: float
    strength: float = 0.5
    min_area: int | None = None
    min_area_um2: float | None = None
    semantic: bool = False
    block: int = 1024
    glass: bool = False
    gaps: bool = False
    overwrite: bool = False


Compute = Callable[[BlockwiseNetwork, Image, Iterable[Box]], Iterator[tuple[Box, NDArray[np.uint8] | InputError]]]
"""How blocks are predicted: `BlockwiseNetwork.predict` here, or `Cluster.predict` elsewhere."""

Found = Literal["nothing", "unfinished", "complete", "other nuclei", "replaced"]
"""What lies at the result's place: nothing; a part of what is wanted, or all but gaps that are to be tried again; all;
its confidence with nuclei split in another way; something that may be replaced."""


class ImagePrediction:
    """One image: looks at what is there when made, does what is missing in `events`.

    Parameters
    ----------
    image : Image
    index : int
        Its number in the job.
    path : Path
        Its result.
    predictor : Predictor
        In evaluation mode while `events` runs.
    wanted : Wanted
    progress : BlockProgress
    compute : Compute

    Attributes
    ----------
    blocks : int
        How many there are to predict, those that lie on disk already included.
    nuclei : int
        How many were found.
    done : bool
        Whether the result is complete.
    unread : list of str
        Sentences on parts that could not be read, for which the result stays unfinished.

    Raises
    ------
    InputError
        If something else lies at the result's place, or the pixel sizes do not fit.
    """

    def __init__(
        self,
        image: Image,
        index: int,
        path: Path,
        predictor: Predictor,
        wanted: Wanted,
        progress: BlockProgress,
        compute: Compute = BlockwiseNetwork.predict,
    ) -> None:
        self.image, self.index, self.path = image, index, path
        self.nuclei, self.done = 0, False
        self.unread: list[str] = []
        self._predictor, self._wanted, self._progress, self._compute = predictor, wanted, progress, compute
        scale = scale_of(image, predictor.mpp)
        self._network = BlockwiseNetwork(predictor.network, predictor.device, predictor.divisor, predictor.reach, scale)
        self._tissue = _tissue(image, wanted)
        self._key = self._confidence_key()
        self._gaps: list[Box] = []
        self._found = self._look()
        self._began = False
        self._block = wanted.block
        self._left = self._plan()
        self.blocks = len(self._left)

    def events(self) -> Iterator[Event]:
        """Predict, write, split and finish; end early where the job is asked to."""
        if self._found == "complete":
            self.nuclei = int(Result.open(self.path).card.facts.get("nuclei", 0))
            but = ", but for what could not be read: --overwrite tries that again" if self._gaps else ""
            yield Warned(f"'{self.path}' is complete already and was kept{but}.")
        else:
            yield from self._look_at_whole()
            if self.unread:
                return
            with self._open() as writer, self._objects(writer) as objects:
                yield from self._predict(writer, objects)
                if self.unread or self._progress.ends():
                    return
                yield from self._split(objects)
                if self._progress.ends():
                    return
                self.nuclei = objects.count
                yield from self._finish(writer)
        self.done = True
        yield Written("ome-zarr", str(self.path), {"image": self.image.name, "nuclei": self.nuclei})

    def discard(self) -> None:
        """Remove the result if this job began it."""
        if self._began:
            discard_result(self.path)
            self.done, self.nuclei = False, 0

    # ---- what is there, and what is missing

    def _look(self) -> Found:
        state = result_state(self.path)
        if state == "missing":
            return "nothing"
        if state == "foreign":
            raise InputError(f"'{self.path}' is there already and is no result of a prediction: choose another --out.")
        card = Result.open(self.path).card
        if card.facts.get("confidence") != self._key or card.shape != self.image.shape:
            if self._wanted.overwrite:
                return "replaced"
            raise InputError(
                f"'{self.path}' holds the result of another run or another image: choose another --out, or remove it."
            )
        self._gaps = [Box(*gap) for gap in card.facts.get("gaps", [])]
        if state == "unfinished" or (self._gaps and self._wanted.overwrite):
            return "unfinished"
        return "complete" if card.facts.get("split") == self._split_facts() else "other nuclei"

    def _confidence_key(self) -> str:
        """Return a hash of all that the confidence depends on."""
        network = self._network
        depends_on = {
            "weights": weights_digest(network.network),
            "image": self.image.fingerprint(),
            "scale": network.scale,
            "mpp": self.image.mpp,
            "block": self._wanted.block if network.reach is None else None,
            "glass": self._wanted.glass,
        }
        return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()

    def _split_facts(self) -> dict[str, Any]:
        if self._wanted.semantic:
            return {"semantic": True, "threshold": self._wanted.threshold}
        return split_facts(self._rule())

    def _rule(self) -> SplitRule:
        wanted = self._wanted
        mpp = self.image.mpp or self._predictor.mpp
        least = smallest_area(mpp, wanted.min_area, wanted.min_area_um2)
        return SplitRule(wanted.threshold, wanted.strength, least, mpp)

    def _plan(self) -> dict[Box, None]:
        if self._found in ("complete", "other nuclei"):
            return {}
        whole = Box.whole(self.image.shape)
        blocks = self._network.plan(whole, self._block)
        return {box: None for box in blocks if self._tissue is None or self._tissue.any_in(box)}

    def _open(self) -> ResultWriter:
        if self._found in ("unfinished", "other nuclei"):
            writer = ResultWriter.open(self.path, self._gaps)
            forget_objects(writer)  # they come of the whole confidence, and cost little beside it
            return writer
        if self._found == "replaced":
            discard_result(self.path)
        atomic.make_folder(self.path.parent)
        writer = ResultWriter.create(
            self.path,
            self.image.shape,
            self._predictor.classes[1:],
            mpp=self.image.mpp,
            name=self.image.name,
            translation=self.image.translation,
            image=self.image.source,
            facts={"confidence": self._key, "unread": self._unread(), "gaps": []},
        )
        self._began = True
        return writer

    # ---- confidence

    def _look_at_whole(self) -> Iterator[Event]:
        """Let the network look at the image as a whole, where it does; say what could not be seen."""
        try:
            at_image(self._network.network, self.image, self._network.scale)
        except ReadError as error:
            self.unread.append(str(error))
            return
        if self.image.unread:
            y0, x0, y1, x1 = self.image.unread[0]
            yield Warned(
                f"Parts of '{self.image.name}' cannot be read, the first in rows {y0} to {y1} "
                f"and columns {x0} to {x1}: what the whole image tells is taken from the others."
            )
        if self._found == "unfinished" and Result.open(self.path).card.facts.get("unread", []) != self._unread():
            self._begin_anew()
            yield Warned(
                f"Other parts of '{self.image.name}' can be read than when '{self.path}' was begun: it is predicted "
                "from its beginning."
            )

    def _begin_anew(self) -> None:
        self._found, self._gaps, before = "replaced", [], self.blocks
        self._left = self._plan()
        self.blocks = len(self._left)
        self._progress.total += self.blocks - before

    def _unread(self) -> list[list[int]]:
        return [list(box) for box in self.image.unread]

    def _predict(self, writer: ResultWriter, objects: Objects) -> Iterator[Event]:
        if not self._left and self._found != "other nuclei":
            writer.mark_written("confidence", Box.whole(self.image.shape))  # nothing but glass
        yield from self._skip_written(writer)
        objects.expect(self._left)
        failed, gone = (yield from self._predict_left(writer, objects)), False
        if failed and not self._progress.ends():
            yield Warned(f"{len(failed)} blocks of '{self.image.name}' could not be read and are tried again at last.")
            failed, gone = yield from self._try_again(writer, objects)
        if failed and not self._progress.ends():
            yield from self._leave_gaps(failed, gone, objects)
        if self._found != "other nuclei":
            note(writer, {"gaps": [list(box) for box in sorted(failed)]})

    def _try_again(
        self, writer: ResultWriter, objects: Objects
    ) -> Generator[Event, None, tuple[dict[Box, InputError], bool]]:
        """Predict what could not be read in ever smaller blocks, so that little is lost around a damaged part.

        Returns what still cannot be read, and whether the image itself seems to be gone.
        """
        size = self._block
        patience = math.inf if self._gaps else GONE  # those are known to be damaged
        while True:
            left = len(self._left)
            failed = yield from self._predict_left(writer, objects, patience)
            gone = len(failed) == left >= patience
            if not failed or gone or size <= SMALLEST_BLOCK or self._progress.ends():
                return failed, gone
            size = max(SMALLEST_BLOCK, size // 2)
            self._cut(size, writer)
            objects.expect(self._left)

    def _leave_gaps(self, failed: Mapping[Box, InputError], gone: bool, objects: Objects) -> Iterator[Event]:
        """Complete the result without what cannot be read, if that was asked for; otherwise say what is missing."""
        reason = next(iter(failed.values()))
        which = f"{len(failed)} of {self.blocks} blocks of '{self.image.name}' could not be read"
        if gone or not (self._wanted.gaps or self._gaps):
            hint = "" if gone else ", or with --gaps to complete it without them"
            self.unread.append(
                f"{which}, and all others are in '{self.path}': predict it again to go on{hint}. {reason}"
            )
            return
        for box in failed:  # not marked as written: a prediction that breaks off now tries them again
            del self._left[box]
            objects.arrived(box)
        yield Warned(f"{which}: nuclei are missing there. Segmenting once more tries them again. {reason}")

    def _skip_written(self, writer: ResultWriter) -> Iterator[Event]:
        written = [box for box in self._left if writer.is_written("confidence", box)]
        for box in written:
            del self._left[box]
            self._progress.done += 1
        if self._left and written:
            yield Progressed("blocks found", len(written), self.blocks)

    def _predict_left(
        self, writer: ResultWriter, objects: Objects, patience: float = math.inf
    ) -> Generator[Event, None, dict[Box, InputError]]:
        """Predict the blocks that are left, smaller ones where memory is short; return those that cannot be read.

        Where none of the first `patience` can be read, the others are not tried, and returned with them.
        """
        while True:
            try:
                return (yield from self._pass(writer, objects, patience))
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                yield self._smaller_blocks(writer)
                objects.expect(self._left)
            except FloatingPointError:
                raise InputError(
                    f"The network of '{self._wanted.run}' answers with values that are no numbers: train it again."
                ) from None

    def _pass(
        self, writer: ResultWriter, objects: Objects, patience: float
    ) -> Generator[Event, None, dict[Box, InputError]]:
        failed: dict[Box, InputError] = {}
        pending: deque[tuple[Box, Future[None]]] = deque()
        with ThreadPoolExecutor(1, "write") as disk:
            for box, values in self._compute(self._network, self.image, self._in_order()):
                if isinstance(values, InputError):
                    failed[box] = values
                else:
                    patience = math.inf
                    pending.append((box, disk.submit(self._store, writer, box, values)))
                yield from self._stored(pending, WRITES_AHEAD, objects)
                yield from self._progress.asked()
                if self._progress.ends() or len(failed) >= patience:
                    break
            yield from self._stored(pending, 0, objects)
        if len(failed) >= patience:
            failed = dict.fromkeys(self._left, next(iter(failed.values()))) | failed
        return failed

    def _in_order(self) -> Iterator[Box]:
        """Yield the blocks that are left row by row, or nearest first to what is looked at."""
        left, focus = deque(self._left), None
        while left:
            if self._progress.focus is not focus:
                focus = self._progress.focus
                if focus is not None and focus.image == self.index:
                    y, x = _center(Box(*focus.box))
                    left = deque(sorted(left, key=lambda box: np.hypot(*np.subtract(_center(box), (y, x)))))
            yield left.popleft()

    def _store(self, writer: ResultWriter, box: Box, values: NDArray[np.uint8]) -> None:
        if self._tissue is not None and not self._tissue.all_in(box):
            values = values * self._tissue.part(box)
        writer.write_confidence(box, values)

    def _stored(self, pending: deque[tuple[Box, Future[None]]], at_most: int, objects: Objects) -> Iterator[Event]:
        """Count what has been written, and wait until at most so many blocks are not."""
        while pending and (len(pending) > at_most or pending[0][1].done()):
            box, written = pending.popleft()
            written.result()
            del self._left[box]
            objects.arrived(box)
            yield self._progress.block_done(self.index, box)

    def _smaller_blocks(self, writer: ResultWriter) -> Warned:
        if self._block <= SMALLEST_BLOCK:
            raise InputError(
                f"There is not even memory for blocks of {self._block} pixels: close other programs, or add "
                "--device cpu. What was predicted so far is kept."
            )
        self._block = max(SMALLEST_BLOCK, self._block // 2)
        self._cut(self._block, writer)
        if self._network.device.type == "cuda":
            torch.cuda.empty_cache()
        return Warned(f"There was not enough memory: the prediction goes on with blocks of {self._block} pixels.")

    def _cut(self, size: int, writer: ResultWriter) -> None:
        """Cut the blocks that are left into smaller ones, of which some may be there from an earlier time."""
        parts = (part for box in self._left for part in self._network.plan(box, size))
        smaller = {part: None for part in parts if not writer.is_written("confidence", part)}
        more = len(smaller) - len(self._left)
        self.blocks += more
        self._progress.total += more
        self._left = smaller

    # ---- nuclei, and the end

    def _objects(self, writer: ResultWriter) -> Objects:
        on_cpu = self._network.device.type == "cpu"  # where the network takes all cores
        threads = 1 if on_cpu else min(4, os.cpu_count() or 1)
        if self._wanted.semantic:
            return PixelClasses(writer, self._wanted.threshold, threads)
        return Nuclei(writer, self._rule(), threads)

    def _split(self, objects: Objects) -> Iterator[Event]:
        for _ in objects.finish():
            yield Progressed("splitting nuclei", objects.done, objects.total)
            yield from self._progress.asked()
            if self._progress.ends():
                return

    def _finish(self, writer: ResultWriter) -> Iterator[Event]:
        facts = {
            "split": self._split_facts(),
            "nuclei": self.nuclei,
            "run": self._wanted.run,
            "step": self._predictor.step,
            "block": self._block,
            "whole_image_network": self._network.reach is None,
            "scale": self._network.scale,
        }
        note(writer, facts)
        for done, total in writer.finishing():
            yield Progressed("building pyramids", done, total)
        Result.open(self.path)  # reads all of its metadata back


def _tissue(image: Image, wanted: Wanted) -> TissueMask | None:
    if wanted.glass or image.gray or max(image.shape) <= LARGE:
        return None
    mask = find_tissue(image.overview(OVERVIEW), image.shape)
    return mask.including(image.unread)  # whether there is tissue in them nobody can say


def _center(box: Box) -> tuple[float, float]:
    return (box.y0 + box.y1) / 2, (box.x0 + box.x1) / 2
