"""Saving strokes as they are painted, on a thread of its own: the caller never waits for a disk."""

from __future__ import annotations

import atexit
import contextlib
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from napari_semiseg import atomic
from napari_semiseg.blocks import Box
from napari_semiseg.errors import InputError
from napari_semiseg.project.journal_file import JournalFile
from napari_semiseg.project.strokes import Layer, Patch, encode
from napari_semiseg.project.tile_annotation import checked_classes, checked_instance
from napari_semiseg.project.tile_files import compact, new_journal, next_number

__all__ = ["JournalWriter", "SaveStatus", "WriterOptions"]

_log = logging.getLogger(__name__)
_MOST_OPEN = 8
_FIRST_RETRY_S, _LAST_RETRY_S = 0.25, 4.0
_COMPACT_AGAIN_S = 60.0


@dataclass(frozen=True)
class WriterOptions:
    """When the writer does what.

    Attributes
    ----------
    sync_every_s : float
        Longest time from a stroke to the flush to the disk itself, in seconds. The file is written at once in any case.
    compact_strokes, compact_bytes : int
        Size of a tile's journal from which a snapshot is made, once nothing was painted for `idle_s` seconds.
    """

    sync_every_s: float = 0.25
    compact_strokes: int = 256
    compact_bytes: int = 2**20
    idle_s: float = 2.0


@dataclass(frozen=True)
class SaveStatus:
    """How far saving has come.

    Attributes
    ----------
    unsaved : int
        Strokes that are not yet on the disk.
    oldest_s : float
        Age of the oldest of them, in seconds; 0 where there is none.
    saved_s_ago : float or None
        Time since a stroke was last flushed to the disk, in seconds.
    failure : str or None
        Why saving fails at the moment, in one sentence. The strokes are kept in memory and tried again.
    """

    unsaved: int
    oldest_s: float
    saved_s_ago: float | None
    failure: str | None


@dataclass(frozen=True)
class _Recorded:
    tile_id: str
    shape: tuple[int, int]
    patches: tuple[tuple[Layer, Box, NDArray[Any]], ...]
    at: float
    nbytes: int


@dataclass(frozen=True)
class _Payload:
    data: bytes
    recorded: _Recorded


@dataclass
class _Tile:
    """What the writing thread knows of a tile."""

    folder: Path
    shape: tuple[int, int]
    file: JournalFile | None = None
    pending: deque[_Payload] = field(default_factory=deque)
    written: list[_Payload] = field(
        default_factory=list
    )  # kept until flushed: if that fails, nobody knows what is there
    compacting: bool = False
    wishes: list[Future[bool]] = field(default_factory=list)  # who waits for a snapshot
    strokes: int = 0
    bytes: int = 0
    compact_after: float = 0.0

    @property
    def quiet(self) -> bool:
        """Whether everything is on the disk and nobody reads or deletes files."""
        return not (self.pending or self.written or self.compacting)


class JournalWriter:
    """Appends strokes to the journals of tiles.

    `record` takes microseconds and does no input or output. A thread codes the strokes, writes them at once (safe
    from a kill), and flushes them within a quarter of a second (safe from a power cut). Where writing fails, strokes
    stay in memory, `status` says why, and it is tried again, into a new file.

    Parameters
    ----------
    folder : Path
        ``annotations/``; each tile has a folder there, named by its id.
    shape_of : callable
        Rows and columns of a tile by its id; raises InputError for an unknown tile.
    owned : callable
        Whether this process still owns the project: without that, no file is deleted.
    options : WriterOptions
    """

    def __init__(
        self,
        folder: Path,
        shape_of: Callable[[str], tuple[int, int]],
        *,
        owned: Callable[[], bool] = lambda: True,
        options: WriterOptions | None = None,
    ) -> None:
        self.folder = folder
        self.options = options or WriterOptions()
        self._shape_of = shape_of
        self._owned = owned
        self._jobs: queue.SimpleQueue[_Recorded | Callable[[], None]] = queue.SimpleQueue()
        self._slow_jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._unsaved: deque[_Recorded] = deque()
        self._unsaved_bytes = 0
        self._saved_at: float | None = None
        self._failure: str | None = None
        self._failures = 0
        self._closed = False
        # from here on the writing thread's own
        self._tiles: dict[str, _Tile] = {}
        self._flushing = False
        self._hurry = False
        self._painted_at = 0.0
        self._flushed_at = 0.0
        self._retry_at = 0.0
        self._retry_delay = _FIRST_RETRY_S
        self._end_by: float | None = None
        self._thread = threading.Thread(target=self._run, name="annotation journal", daemon=True)
        self._slow_thread = threading.Thread(target=self._run_slow, name="annotation flush", daemon=True)
        self._thread.start()
        self._slow_thread.start()
        atexit.register(self.close)

    def record(self, tile_id: str, box: Box, layer: Layer, patch: NDArray[Any]) -> None:
        """Journal new values of a rectangle of one layer.

        Parameters
        ----------
        tile_id : str
        box : Box
            In the tile's own pixels.
        layer : {"instance", "class"}
        patch : array, (h, w) of `box`, integer
            Copied before this returns.

        Raises
        ------
        InputError
            If the tile is unknown, `box` is not inside it, or the values are no annotation.
        """
        self.record_stroke(tile_id, [(layer, box, patch)])

    def record_stroke(self, tile_id: str, patches: Sequence[tuple[Layer, Box, NDArray[Any]]]) -> None:
        """Journal several rectangles that are saved together or not at all; see `record`."""
        shape = self._shape_of(tile_id)
        copies = tuple((layer, box, _copied(layer, box, patch, shape, tile_id)) for layer, box, patch in patches)
        if not copies:
            return
        recorded = _Recorded(tile_id, shape, copies, time.monotonic(), sum(patch.nbytes for _, _, patch in copies))
        with self._changed:
            if self._closed:
                raise InputError("The project was closed, so nothing more can be saved into it: open it again.")
            self._unsaved.append(recorded)
            self._unsaved_bytes += recorded.nbytes
            self._jobs.put(recorded)

    @property
    def status(self) -> SaveStatus:
        """How far saving has come; may be asked from any thread at any time."""
        now = time.monotonic()
        with self._changed:
            return SaveStatus(
                unsaved=len(self._unsaved),
                oldest_s=now - self._unsaved[0].at if self._unsaved else 0.0,
                saved_s_ago=None if self._saved_at is None else now - self._saved_at,
                failure=self._failure,
            )

    @property
    def unsaved_bytes(self) -> int:
        """Memory that strokes not yet on the disk may hold, in bytes, before coding."""
        with self._changed:
            return self._unsaved_bytes

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Wait until all that was recorded is on the disk; whether that was done. A disk that fails ends the wait."""
        failures: list[int] = []

        def job() -> None:
            failures.append(self._failures)
            self._hurry_up()

        with self._changed:
            target = set(map(id, self._unsaved))
            if target and not self._closed:
                self._jobs.put(job)

            def saved() -> bool:
                return target.isdisjoint(map(id, self._unsaved))

            self._changed.wait_for(lambda: saved() or (bool(failures) and self._failures > failures[0]), timeout_s)
            return saved()

    def compact(self, tile_id: str, timeout_s: float = 30.0) -> bool:
        """Make a snapshot of a tile now; whether that was done. A disk that fails ends the wait."""
        shape = self._shape_of(tile_id)
        wish: Future[bool] = Future()

        def job() -> None:
            self._tile(tile_id, shape).wishes.append(wish)
            self._hurry_up()

        with self._changed:
            if self._closed:
                return False
            self._jobs.put(job)
        try:
            return wish.result(timeout_s)
        except TimeoutError:
            return False

    def close(self, timeout_s: float = 3.0) -> bool:
        """Save what is left, make snapshots, and end the threads; whether everything is on the disk."""
        with self._changed:
            first, self._closed = not self._closed, True
        if first:
            atexit.unregister(self.close)
            deadline = time.monotonic() + timeout_s
            self._jobs.put(lambda: self._end(deadline))
        self._thread.join(timeout_s + 0.5)
        self._slow_thread.join(0 if self._thread.is_alive() else 0.5)
        return self.status.unsaved == 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- the writing thread: never waits for a disk to flush ----

    def _run(self) -> None:
        while not self._ended():
            try:
                self._receive()
                self._write()
                self._flush()
                self._make_snapshots()
            except Exception:  # a defect must not end the saving of everything that follows
                _log.exception("The annotation journal met a defect.")
                self._said("Saving met a defect of this program: save a copy of the layers, and look at the log.")
                time.sleep(_FIRST_RETRY_S)
        for tile in self._tiles.values():
            self._close_file(tile)
        self._slow_jobs.put(None)

    def _ended(self) -> bool:
        if self._end_by is None:
            return False
        return time.monotonic() > self._end_by or all(
            tile.quiet and not tile.wishes and not self._flushing for tile in self._tiles.values()
        )

    def _receive(self) -> None:
        """Wait until something is due, and take all there is."""
        with contextlib.suppress(queue.Empty):
            job = self._jobs.get(timeout=self._wait_s())
            while True:
                if isinstance(job, _Recorded):
                    self._painted_at = time.monotonic()
                    self._tile(job.tile_id, job.shape).pending.append(_Payload(_coded(job), job))
                else:
                    self._write()
                    job()
                job = self._jobs.get_nowait()

    def _wait_s(self) -> float | None:
        tiles, now = self._tiles.values(), time.monotonic()
        due = [] if self._end_by is None else [self._end_by + 0.001]
        if any(tile.pending for tile in tiles):
            due.append(self._retry_at)
        if any(tile.written for tile in tiles) and not self._flushing:
            due.append(now if self._hurry else self._flushed_at + self.options.sync_every_s)
        long = [tile for tile in tiles if self._is_long(tile) and tile.quiet]
        due += [max(self._painted_at + self.options.idle_s, tile.compact_after) for tile in long]
        return max(0.0, min(due) - now) if due else None

    def _tile(self, tile_id: str, shape: tuple[int, int]) -> _Tile:
        if tile_id not in self._tiles:
            self._tiles[tile_id] = _Tile(self.folder / tile_id, shape)
        return self._tiles[tile_id]

    def _hurry_up(self) -> None:
        self._hurry = True
        self._retry_at = 0.0

    def _end(self, deadline: float) -> None:
        self._end_by = deadline
        for tile in self._tiles.values():
            if tile.strokes or tile.pending:
                tile.wishes.append(Future())
        self._hurry_up()

    def _write(self) -> None:
        if time.monotonic() < self._retry_at:
            return
        for tile in self._tiles.values():
            try:
                self._write_tile(tile)
            except (OSError, InputError) as error:
                self._fail(tile, error)

    def _write_tile(self, tile: _Tile) -> None:
        while tile.pending:
            if tile.file is None:
                self._close_others(tile)
                tile.folder.mkdir(exist_ok=True)
                tile.file = new_journal(tile.folder, tile.shape)
            tile.file.append(tile.pending[0].data)
            payload = tile.pending.popleft()
            tile.written.append(payload)
            tile.strokes += 1
            tile.bytes += len(payload.data)

    def _close_others(self, tile: _Tile) -> None:
        """Keep few files open: a system may allow only some."""
        idle = [other for other in self._tiles.values() if other.file and other is not tile and not other.written]
        for other in idle[: max(0, len(idle) - _MOST_OPEN + 1)]:
            self._close_file(other)

    def _close_file(self, tile: _Tile) -> None:
        file, tile.file = tile.file, None
        if file is not None:
            with contextlib.suppress(OSError):  # a network drive may say here what it could not write: `written` has it
                file.close()

    def _fail(self, tile: _Tile, error: OSError | InputError) -> None:
        """Begin again with a new file later: after a failed write or flush nobody knows what the old one holds."""
        self._close_file(tile)
        tile.pending.extendleft(reversed(tile.written))
        tile.written.clear()
        self._hurry = False
        self._retry_at = time.monotonic() + self._retry_delay
        self._retry_delay = min(2 * self._retry_delay, _LAST_RETRY_S)
        doing = f"What was painted is kept in memory and cannot be saved in {atomic.quoted(tile.folder)} yet"
        self._said(str(atomic.said(error, doing)) if isinstance(error, OSError) else str(error))
        for wish in tile.wishes:
            wish.set_result(False)
        tile.wishes.clear()

    def _said(self, failure: str) -> None:
        _log.warning("%s", failure)
        with self._changed:
            self._failure = failure
            self._failures += 1
            self._changed.notify_all()

    def _flush(self) -> None:
        """Let the other thread flush what was written, unless it still does."""
        if self._flushing or not (self._hurry or time.monotonic() >= self._flushed_at + self.options.sync_every_s):
            return
        parts: list[tuple[_Tile, list[_Payload], Callable[[], None]]] = []
        for tile in self._tiles.values():
            if tile.file is not None and tile.written:
                try:
                    parts.append((tile, list(tile.written), tile.file.flusher()))
                except OSError as error:
                    self._fail(tile, error)
        if not parts:
            self._hurry = False
            return
        self._flushing = True

        def flush() -> None:
            results = [(tile, payloads, _error_of(flusher)) for tile, payloads, flusher in parts]
            self._jobs.put(lambda: self._flushed(results))

        self._slow_jobs.put(flush)

    def _flushed(self, results: list[tuple[_Tile, list[_Payload], OSError | None]]) -> None:
        self._flushing = False
        self._flushed_at = time.monotonic()
        for tile, payloads, error in results:
            if error is None:
                done = set(map(id, payloads))
                tile.written = [payload for payload in tile.written if id(payload) not in done]
                self._saved({id(payload.recorded) for payload in payloads})
            elif tile.written:  # otherwise they were given to a new file already
                self._fail(tile, error)

    def _saved(self, done: set[int]) -> None:
        self._retry_delay = _FIRST_RETRY_S
        failing = any(tile.pending for tile in self._tiles.values())
        with self._changed:
            self._unsaved = deque(recorded for recorded in self._unsaved if id(recorded) not in done)
            self._unsaved_bytes = sum(recorded.nbytes for recorded in self._unsaved)
            self._saved_at = time.monotonic()
            if not failing:
                self._failure = None
            self._changed.notify_all()

    def _is_long(self, tile: _Tile) -> bool:
        return tile.strokes >= self.options.compact_strokes or tile.bytes >= self.options.compact_bytes

    def _make_snapshots(self) -> None:
        now = time.monotonic()
        idle = now >= self._painted_at + self.options.idle_s
        for tile in self._tiles.values():
            if tile.quiet and (tile.wishes or (idle and self._is_long(tile) and now >= tile.compact_after)):
                self._make_snapshot(tile)

    def _make_snapshot(self, tile: _Tile) -> None:
        """Let the other thread make a snapshot of the journals so far; what is painted meanwhile begins a new one."""
        self._close_file(tile)
        below = next_number(tile.folder)
        tile.compacting = True
        tile.strokes = tile.bytes = 0
        wishes, tile.wishes = tile.wishes, []

        def make() -> None:
            done = self._owned()
            if done:
                try:
                    compact(tile.folder, tile.shape, below=below)
                except (OSError, InputError) as error:  # nothing is lost: the journals hold it all
                    _log.warning("%s", error)
                    done = False
                except Exception:
                    _log.exception("Making a snapshot met a defect.")
                    done = False
            self._jobs.put(lambda: self._made(tile, wishes, done))

        self._slow_jobs.put(make)

    def _made(self, tile: _Tile, wishes: list[Future[bool]], done: bool) -> None:
        tile.compacting = False
        if not done:
            tile.compact_after = time.monotonic() + _COMPACT_AGAIN_S
        for wish in wishes:
            wish.set_result(done)

    # ---- the other thread: may wait for the disk ----

    def _run_slow(self) -> None:
        while (job := self._slow_jobs.get()) is not None:
            job()


def _error_of(function: Callable[[], None]) -> OSError | None:
    try:
        function()
    except OSError as error:
        return error
    return None


def _copied(layer: Layer, box: Box, patch: NDArray[Any], shape: tuple[int, int], tile_id: str) -> NDArray[Any]:
    if box.area == 0 or not Box.whole(shape).contains(box):
        raise InputError(
            f"The stroke {tuple(box)} does not lie inside tile {tile_id} of "
            f"{shape[0]} x {shape[1]} pixels: paint inside."
        )
    check = checked_instance if layer == "instance" else checked_classes
    return np.array(check(patch, box.shape, f"tile {tile_id}"))


def _coded(recorded: _Recorded) -> bytes:
    return encode([Patch.of(layer, box, patch) for layer, box, patch in recorded.patches])
