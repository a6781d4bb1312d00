"""From whole layers, handed over once a second, to strokes in a journal."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from napari_semiseg.blocks import Box
from napari_semiseg.errors import InputError
from napari_semiseg.project.journal import JournalWriter, SaveStatus
from napari_semiseg.project.strokes import Layer
from napari_semiseg.project.tile_annotation import TileAnnotation, checked_classes, checked_instance, require_kind

_log = logging.getLogger(__name__)

_MOST_UNSAVED_BYTES = 2**27
"""While more than this waits for a disk, only the newest layers are kept and compared later: memory stays bounded."""


@dataclass(frozen=True)
class _Handed:
    tile_id: str
    instance: NDArray[Any] | None
    classes: NDArray[Any] | None
    at: float


class Autosave:
    """Journals what changed in a layer since it was last handed over, however it changed: paint, fill, erase, undo.

    `submit` only puts the arrays into a mailbox; where several wait for the same tile, the newest counts. A thread
    compares them with what was journaled last and records the rectangle that differs.

    Parameters
    ----------
    writer : JournalWriter
    saved : callable
        The annotation of a tile as it is on the disk; asked once a tile, on the thread.
    shape_of : callable
        Rows and columns of a tile by its id; raises InputError for an unknown one.
    """

    def __init__(
        self,
        writer: JournalWriter,
        saved: Callable[[str], TileAnnotation],
        shape_of: Callable[[str], tuple[int, int]],
    ) -> None:
        self._writer = writer
        self._saved = saved
        self._shape_of = shape_of
        self._wake = threading.Condition()
        self._mail: dict[str, _Handed] = {}
        self._busy: _Handed | None = None
        self._ending = False
        self._failures: dict[str, str] = {}
        self._baseline: dict[str, TileAnnotation] = {}  # the thread's own, but for `forget`
        self._thread = threading.Thread(target=self._run, name="annotation autosave", daemon=True)
        self._thread.start()

    def submit(
        self, tile_id: str, *, instance: NDArray[Any] | None = None, classes: NDArray[Any] | None = None
    ) -> None:
        """Hand over the layers of a tile as they are now. Takes microseconds.

        Parameters
        ----------
        tile_id : str
        instance, classes : array, (h, w), integer, or None
            Copies that the caller does not touch again. None where that layer did not change.

        Raises
        ------
        InputError
            If the tile is unknown, or an array has another shape than the tile or no integer type. Values are checked
            on the thread and reported by `status`.
        """
        shape = self._shape_of(tile_id)
        for array, what in ((instance, "nuclei"), (classes, "classes")):
            if array is not None:
                require_kind(array, shape, f"tile {tile_id}", what)
        with self._wake:
            if self._ending:
                raise InputError("The project was closed, so nothing more can be saved into it: open it again.")
            waiting = self._mail.get(tile_id)
            if waiting is not None:  # the age is that of what waits longest
                instance = waiting.instance if instance is None else instance
                classes = waiting.classes if classes is None else classes
            self._mail[tile_id] = _Handed(tile_id, instance, classes, waiting.at if waiting else time.monotonic())
            self._wake.notify_all()

    def newest(self, tile_id: str) -> TileAnnotation:
        """Return a tile's annotation as it was handed over last, whether or not that is on the disk yet.

        Raises
        ------
        InputError
            If the tile is unknown, cannot be read, or what was handed over is no annotation.
        """
        with self._wake:
            waiting = [each for each in (self._busy, self._mail.get(tile_id)) if each and each.tile_id == tile_id]
            known = self._baseline.get(tile_id)
            annotation = known.copy() if known else None
        annotation = annotation or self._saved(tile_id)
        for handed in waiting:  # the older one first
            instance = annotation.instance if handed.instance is None else handed.instance
            classes = annotation.classes if handed.classes is None else handed.classes
            annotation = TileAnnotation.checked(instance, classes, annotation.shape, f"tile {tile_id}")
        return annotation

    @property
    def status(self) -> SaveStatus:
        """How far saving has come; may be asked from any thread. Waiting layers count as one stroke each."""
        status = self._writer.status
        with self._wake:
            waiting = [*self._mail.values(), *([self._busy] if self._busy else [])]
            return replace(
                status,
                unsaved=status.unsaved + len(waiting),
                oldest_s=max([status.oldest_s, *(time.monotonic() - handed.at for handed in waiting)]),
                failure=next(iter(self._failures.values()), status.failure),
            )

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Wait until all that was handed over is on the disk; whether that was done in time."""
        deadline = time.monotonic() + timeout_s
        with self._wake:
            self._wake.notify_all()
            taken = self._wake.wait_for(lambda: not self._mail and not self._busy, timeout_s) and not self._failures
        return self._writer.flush(max(0.0, deadline - time.monotonic())) and taken

    def forget(self, tile_id: str) -> None:
        """Compare with the disk again next time: the tile was changed or removed by another way."""
        with self._wake:
            self._wake.wait_for(lambda: not self._busy, 5.0)
            self._mail.pop(tile_id, None)
            self._baseline.pop(tile_id, None)
            self._failures.pop(tile_id, None)

    def close(self, timeout_s: float = 3.0) -> bool:
        """Save what is left and end the thread; the writer stays open. Whether everything is on the disk."""
        done = self.flush(timeout_s)
        with self._wake:
            self._ending = True
            self._wake.notify_all()
        self._thread.join(timeout_s)
        return done

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- the thread ----

    def _run(self) -> None:
        while True:
            with self._wake:
                self._busy = None
                self._wake.notify_all()
                self._wake.wait_for(lambda: self._ending or bool(self._mail))
                if self._ending:
                    return
                if self._writer.unsaved_bytes > _MOST_UNSAVED_BYTES:
                    self._wake.wait(0.1)
                    continue
                tile_id = next(iter(self._mail))
                self._busy = handed = self._mail.pop(tile_id)
            self._save(handed)

    def _save(self, handed: _Handed) -> None:
        tile_id = handed.tile_id
        try:
            self._record(handed)
        except InputError as error:
            self._failed(tile_id, str(error))
        except Exception:  # a defect must not end the saving of everything that follows
            _log.exception("Autosave met a defect.")
            self._failed(
                tile_id,
                "Saving the annotations met a defect of this program: save a copy of the layers and look at the log.",
            )
        else:
            with self._wake:
                self._failures.pop(tile_id, None)

    def _failed(self, tile_id: str, sentence: str) -> None:
        _log.warning("%s", sentence)
        with self._wake:
            self._failures[tile_id] = sentence

    def _record(self, handed: _Handed) -> None:
        tile_id = handed.tile_id
        shape = self._shape_of(tile_id)
        baseline = self._baseline.get(tile_id)
        if baseline is None:
            baseline = self._baseline[tile_id] = self._saved(tile_id)
        where = f"tile {tile_id}"
        patches: list[tuple[Layer, Box, NDArray[Any]]] = []
        if handed.instance is not None:
            ids = checked_instance(handed.instance, shape, where)
            patches += _difference("instance", baseline.instance, ids)
        if handed.classes is not None:
            kinds = checked_classes(handed.classes, shape, where)
            patches += _difference("class", baseline.classes, kinds)
        self._writer.record_stroke(tile_id, patches)
        with self._wake:
            for layer, box, patch in patches:
                (baseline.instance if layer == "instance" else baseline.classes)[box.slices] = patch


def _difference(layer: Layer, old: NDArray[Any], new: NDArray[Any]) -> list[tuple[Layer, Box, NDArray[Any]]]:
    """Return the smallest rectangle that holds every changed pixel, or nothing."""
    changed = old != new
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    if rows.size == 0:
        return []
    box = Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
    return [(layer, box, new[box.slices])]
