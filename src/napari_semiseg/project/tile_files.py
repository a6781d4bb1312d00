"""The files of one tile: snapshots and journals that are numbered, and how they become one annotation.

``snapshot-N`` holds everything that the journals before N hold. So the annotation is the newest snapshot that can be
read, and on top of it all journals from its number on, in order. A snapshot is made by writing ``snapshot-N+1`` whole
and only then deleting files; a kill in between leaves a journal that the snapshot already contains and that its
number excludes. The snapshot before the newest and its journals are kept too, so that one damaged file loses nothing.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from napari_semiseg import atomic
from napari_semiseg.errors import InputError
from napari_semiseg.project.journal_file import JournalFile, Replay, replay
from napari_semiseg.project.snapshot import DamagedSnapshot, read_snapshot, write_snapshot
from napari_semiseg.project.tile_annotation import TileAnnotation

_NAME = re.compile(r"(snapshot|journal)-(\d{6,12})\.(npz|log)")
_ASIDE = "aside-"
_ATTEMPTS = 50
_T = TypeVar("_T")


@dataclass(frozen=True)
class TornJournal:
    """A journal whose end could not be read."""

    path: Path
    bytes: int


@dataclass(frozen=True)
class Loaded:
    """An annotation and what it was made of.

    Attributes
    ----------
    annotation : TileAnnotation
    strokes : int
        Strokes that were in journals only.
    torn : tuple of TornJournal
    damaged : tuple of Path
        Newer snapshots that could not be read; an older one and its journals stood in without loss.
    """

    annotation: TileAnnotation
    strokes: int
    torn: tuple[TornJournal, ...]
    damaged: tuple[Path, ...]


def load(folder: Path, shape: tuple[int, int], *, below: int | None = None) -> Loaded:
    """Read the annotation of a tile as it is on disk now, also while another process paints and takes snapshots.

    Parameters
    ----------
    folder : Path
        The tile's folder. Without one, nothing is painted.
    shape : tuple of int
        Rows and columns of the tile.
    below : int, optional
        Read only journals with a number less than this.

    Raises
    ------
    InputError
        If snapshots exist and none can be read, or a file is of a newer version or another tile.
    """
    return _steady(folder, lambda: _load(folder, shape, below))


def unsnapped(folder: Path, shape: tuple[int, int]) -> list[tuple[Path, Replay]]:
    """Return the journals that no snapshot contains yet. No snapshot is read."""

    def read() -> list[tuple[Path, Replay]]:
        snapshots, journals = _listed(folder)
        newest = max(snapshots, default=0)
        return [(path, replay(path, shape)) for number, path in sorted(journals.items()) if number >= newest]

    return _steady(folder, read)


def snapped(folder: Path, shape: tuple[int, int]) -> TileAnnotation:
    """Return what the newest snapshot that can be read holds; nothing without one.

    Raises
    ------
    InputError
        If snapshots exist and none can be read.
    """
    return _steady(folder, lambda: _newest_snapshot(_listed(folder)[0], shape)[0])


def set_aside(folder: Path, annotation: TileAnnotation) -> Path:
    """Keep an annotation beside the others, where nothing reads or deletes it but `kept_aside`; return the file.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    path = folder / f"{_ASIDE}{datetime.now():%Y%m%d-%H%M%S-%f}.npz"
    write_snapshot(path, annotation)
    return path


def kept_aside(folder: Path, shape: tuple[int, int]) -> TileAnnotation | None:
    """Return what was set aside last; None where nothing was.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    newest = max(folder.glob(f"{_ASIDE}*.npz"), default=None)
    return None if newest is None else read_snapshot(newest, shape)


def compact(folder: Path, shape: tuple[int, int], *, below: int | None = None) -> Loaded:
    """Make a snapshot, and delete what two snapshots contain. Only for whoever owns the project.

    A kill at any point loses nothing and doubles nothing.

    Parameters
    ----------
    folder : Path
    shape : tuple of int
    below : int, optional
        `next_number` at a moment when no journal was open: the snapshot holds what was painted until then, and a
        journal begun since may be written meanwhile. By default now.

    Raises
    ------
    InputError
        If it cannot be written; everything is then as it was.
    """
    number = next_number(folder) if below is None else below
    loaded = load(folder, shape, below=number)
    snapshots, journals = _listed(folder)
    usable = {found for found, path in snapshots.items() if path not in loaded.damaged}
    previous = max(usable, default=0)
    if not any(previous <= journal < number for journal in journals) and not loaded.damaged:
        return loaded
    for path in loaded.damaged:  # first, since the newest of them may have the same number
        _set_aside(path)
    write_snapshot(folder / f"snapshot-{number:06d}.npz", loaded.annotation)
    for old, path in [*snapshots.items(), *journals.items()]:
        if old < previous:
            _discard(path, shape)
    return loaded


def new_journal(folder: Path, shape: tuple[int, int]) -> JournalFile:
    """Begin a journal after all that exists.

    Raises
    ------
    OSError
        If it cannot be written.
    InputError
        If the folder is a link, which may lead out of the project.
    """
    if folder.is_symlink():
        raise InputError(f"Nothing is saved in {atomic.quoted(folder)}, because it is a link: put a folder there.")
    return JournalFile(folder / f"journal-{next_number(folder):06d}.log", shape)


def next_number(folder: Path) -> int:
    """Return a number larger than any in use, from 1."""
    snapshots, journals = _listed(folder)
    return max([*snapshots, *(number + 1 for number in journals)], default=1)


def _discard(path: Path, shape: tuple[int, int]) -> None:
    """Delete a file that two snapshots contain, but keep what was never read: it may be worth something to somebody."""
    with contextlib.suppress(OSError, InputError):  # held by a reader on Windows: its number excludes it all the same
        if path.suffix == ".log" and replay(path, shape).torn_bytes:
            _set_aside(path)
        else:
            path.unlink()


def _set_aside(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.rename(path.with_name(f"{path.name}.damaged"))


def _load(folder: Path, shape: tuple[int, int], below: int | None) -> Loaded:
    snapshots, journals = _listed(folder)
    annotation, base, damaged = _newest_snapshot(snapshots, shape)
    strokes, torn = 0, []
    for _, path in sorted(item for item in journals.items() if item[0] >= base and (below is None or item[0] < below)):
        found = replay(path, shape)
        for stroke in found.strokes:
            for patch in stroke:
                patch.apply(annotation)
        strokes += len(found.strokes)
        if found.torn_bytes:
            torn.append(TornJournal(path, found.torn_bytes))
    return Loaded(annotation, strokes, tuple(torn), damaged)


def _newest_snapshot(
    snapshots: dict[int, Path], shape: tuple[int, int]
) -> tuple[TileAnnotation, int, tuple[Path, ...]]:
    damaged: list[Path] = []
    first: DamagedSnapshot | None = None
    for number in sorted(snapshots, reverse=True):
        try:
            return read_snapshot(snapshots[number], shape), number, tuple(damaged)
        except DamagedSnapshot as error:
            damaged.append(snapshots[number])
            first = first or error
    if first is not None:
        raise first
    return TileAnnotation.empty(shape), 0, ()


def _listed(folder: Path) -> tuple[dict[int, Path], dict[int, Path]]:
    """Return snapshots and journals by number."""
    kinds: dict[str, dict[int, Path]] = {"snapshot": {}, "journal": {}}
    try:
        names = [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        names = []
    except OSError as error:
        raise atomic.said(error, f"The annotations in {atomic.quoted(folder)} cannot be read") from error
    for name in names:
        match = _NAME.fullmatch(name)
        if match and (match[1] == "snapshot") == (match[3] == "npz"):
            kinds[match[1]][int(match[2])] = folder / name
    return kinds["snapshot"], kinds["journal"]


def _steady(folder: Path, read: Callable[[], _T]) -> _T:
    """Read again if the owner deleted a file that was just listed."""
    for attempt in range(_ATTEMPTS):
        try:
            return read()
        except (FileNotFoundError, InputError) as error:
            # What opens files tells of a missing one in a sentence, and of the cause with it.
            if not isinstance(error, FileNotFoundError) and not isinstance(error.__cause__, FileNotFoundError):
                raise
            time.sleep(0.002 * attempt)
    raise InputError(
        f"The annotations in {atomic.quoted(folder)} change faster than "
        "they can be read: close other programs that use them."
    )
