"""Results on disk, written block by block, and never taken for complete before they are.

Until `ResultWriter.finish` the groups carry no OME metadata at all, so that no program takes them for an image; only we
know, by the attribute ``napari-semiseg``, what they will become and which parts are there. The metadata are written
last, in one move.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import zarr
from numcodecs import Blosc  # type: ignore[import-untyped]
from numpy.typing import NDArray
from zarr.codecs import BloscCodec
from zarr.storage import LocalStore

from napari_semiseg import atomic
from napari_semiseg.blocks import Box, cells
from napari_semiseg.errors import InputError
from napari_semiseg.io import limits, ome_metadata, pyramid
from napari_semiseg.io.claims import Claim
from napari_semiseg.io.locate import stem
from napari_semiseg.io.progress_log import ProgressLog, sync_file
from napari_semiseg.io.result import Result
from napari_semiseg.io.result_card import DTYPES, KINDS, OURS, Kind, ResultCard, joined, read_card, result_state

SHARD = 2048
"""Side of a shard (a file) of 0.5, in pixels. Blocks that are whole shards are written without being read first."""

_CHUNK, _CHUNK_V2 = 512, 1024
_EFFORT = 1  # of zstd: 3 takes a third longer to write and saves a tenth of the space


class ResultWriter:
    """Writes one result, in any order of rectangles and from any thread. Made by `create` or `open`.

    What was written survives the death of the process up to some seconds before it; `is_written` tells which rectangles
    are there.

    Attributes
    ----------
    path : Path
    card : ResultCard
    """

    def __init__(self, path: Path, card: ResultCard, claim: Claim) -> None:
        self.path, self.card = path, card
        self._claim = claim
        self._store = LocalStore(path)
        self._locks = {kind: threading.Lock() for kind in KINDS}
        self._arrays: dict[str, list[zarr.Array[Any]]] = {}
        self._progress = ProgressLog(path)

    @classmethod
    def create(
        cls,
        path: str | Path,
        shape: tuple[int, int],
        classes: Sequence[str],
        *,
        mpp: float | None = None,
        name: str = "",
        translation: tuple[float, float] = (0.0, 0.0),
        image: str = "",
        facts: Mapping[str, Any] | None = None,
        version: ome_metadata.Version = "0.5",
    ) -> Self:
        """Begin a result where nothing lies yet.

        Parameters
        ----------
        path : str or Path
            The folder to make, ``….ome.zarr``.
        shape : (int, int)
            Rows and columns of the image.
        classes : sequence of str
            Names of the classes of nuclei, without the background: the channels of the confidence.
        mpp : float, optional
            Size of a pixel in µm.
        name : str
            Name of the image; the file's, if empty.
        translation : (float, float)
            Place of the image's first pixel (y, x): in µm, or in pixels without `mpp`.
        image : str
            What the image was opened from, for exports that want its pixels.
        facts : mapping
            Whatever else should be known later (run, threshold, …), as JSON knows it.
        version : "0.5" or "0.4"
            Of OME-Zarr. 0.5 is Zarr 3 with shards, 0.4 is Zarr 2 without.

        Raises
        ------
        InputError
            If something lies there, another job writes there, or the place cannot be written or has no room.
        """
        path = Path(path)
        limits.check_shape(shape, str(path))
        claim = Claim(path)
        try:
            state = result_state(path)
            if state != "missing":
                hint = "resume or remove it" if state == "unfinished" else "choose another name or remove it"
                raise InputError(f"'{path}' is there already: {hint}.")
            values = {
                "shape": (int(shape[0]), int(shape[1])),
                "classes": tuple(classes),
                "mpp": mpp,
                "translation": translation,
                "name": name or stem(path),
                "image": _absolute(image),
                "facts": dict(facts or {}),
                "version": version,
            }
            card = ResultCard.checked(values, f"the result '{path}'")
            atomic.require_space(path, _expected_bytes(card), f"the result '{path.name}'")
            with _saying(path):
                path.mkdir(parents=True, exist_ok=True)
            writer = cls(path, card, claim)
            writer._write_card(card)
            return writer
        except BaseException:
            claim.release()
            raise

    @classmethod
    def open(cls, path: str | Path, gaps: Sequence[Box] = ()) -> Self:
        """Go on with an unfinished result, or change a complete one, which is unfinished from then on until `finish`.

        Parameters
        ----------
        path : str or Path
        gaps : sequence of Box
            Where a complete result has no confidence: there it counts as not written.

        Raises
        ------
        InputError
            If no result lies there, or another job writes there.
        """
        path = Path(path)
        claim = Claim(path)
        try:
            card = read_card(path)
            with _saying(path):
                for left in path.rglob("*.partial"):
                    left.unlink()  # half a chunk of a killed writer
            writer = cls(path, card, claim)
            if card.complete:
                writer._reopen(gaps)
            return writer
        except BaseException:
            claim.release()
            raise

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.card.shape

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes of nuclei."""
        return self.card.classes

    def write_confidence(self, box: Box, values: NDArray[np.uint8]) -> None:
        """Write probabilities of nucleus, 0 to 255.

        Parameters
        ----------
        box : Box
            Inside the image, in pixels.
        values : ndarray, uint8, (classes, h, w), or (h, w) with one class

        Raises
        ------
        InputError
            If the disk is full or gone. What was written before stays, and the result can be opened and gone on with.
        """
        self.write("confidence", box, values[None] if values.ndim == 2 and len(self.classes) == 1 else values)

    def write_nuclei(self, box: Box, labels: NDArray[np.uint32]) -> None:
        """Write instance labels, uint32 (h, w), 0 for none; see `write_confidence`."""
        self.write("nuclei", box, labels)

    def write_classes(self, box: Box, classes: NDArray[np.uint8]) -> None:
        """Write the class of every labeled pixel, uint8 (h, w): 0 none, 1 the first class; see `write_confidence`."""
        self.write("classes", box, classes)

    def write(self, kind: Kind, box: Box, values: NDArray[Any]) -> None:
        """Write any kind; see `write_confidence`.

        Raises
        ------
        ValueError
            If the rectangle leaves the image, or shape or type of `values` do not fit.
        """
        box = Box(*(int(value) for value in box))
        lead = (len(self.classes),) if kind == "confidence" else ()
        fits = values.shape == (*lead, *box.shape) and values.dtype == DTYPES[kind]
        if not fits or not Box.whole(self.shape).contains(box):
            raise ValueError(f"{kind} of {values.dtype} {values.shape} does not fit {box} of {self.shape}")
        files = self._put(kind, 0, box, values)
        with _saying(self.path):
            self._progress.add(kind, box, files)

    def write_levels(self, kind: Kind, cell: Box, values: NDArray[Any]) -> None:
        """Write a cell of the result at all levels, so that the result can be looked at while it grows.

        Confidence is at level 0 already; see `write_confidence`.

        Parameters
        ----------
        kind : {"confidence", "nuclei", "classes"}
        cell : Box
            One of the cells of `SHARD` pixels that the image is cut into: it holds whole shards down to level 2.
        values : ndarray
            Of level 0.
        """
        if kind != "confidence":
            self.write(kind, cell, values)
        if not self._has_levels(kind, cell):
            self._write_coarser(kind, cell, values)

    def mark_written(self, kind: Kind, box: Box) -> None:
        """Note that a rectangle is done though nothing was written: it stays 0. For background that was skipped."""
        self._levels(kind)
        self._progress.add(kind, Box(*box), [])

    def is_written(self, kind: Kind, box: Box) -> bool:
        """Whether exactly this rectangle, or the whole image at once, was written before."""
        return self._progress.has_of(kind, Box(*box), Box.whole(self.shape))

    def forget(self, kind: Kind) -> None:
        """Remove everything of a kind, to write it anew."""
        with self._locks[kind], _saying(self.path):
            self._progress.forget(kind, _levels_of(kind))
            self._arrays.pop(kind, None)
            if kind != "confidence":
                _remove(self.path / KINDS[kind])
            for level in range(len(pyramid.level_shapes(self.shape)) if kind == "confidence" else 0):
                _remove(self.path / str(level))

    def read(self, kind: Kind, box: Box) -> NDArray[Any]:
        """Read back what was written so far, (c, h, w) for confidence, (h, w) for the others."""
        array = self._levels(kind)[0]
        with self._locks[kind]:
            return np.asarray(array[(..., *Box(*box).slices)])

    def flush(self) -> None:
        """Make sure that what was written so far outlives a power cut."""
        with _saying(self.path):
            self._progress.flush()

    def finish(self) -> Result:
        """Build the pyramids, write the metadata that make it an OME-Zarr, and return it; see `finishing`."""
        for _ in self.finishing():
            pass
        return Result.open(self.path)

    def finishing(self) -> Iterator[tuple[int, int]]:
        """Do what `finish` does, and yield after each part how many of how many are done.

        Raises
        ------
        InputError
            If there is no confidence, the disk is full or what was written cannot be read back. The result is then
            still unfinished.
        """
        kinds = [kind for kind in KINDS if self._exists(kind)]
        if "confidence" not in kinds:
            raise InputError(f"'{self.path}' holds no confidence yet: run the prediction first.")
        levels = pyramid.level_shapes(self.shape)
        parts = [
            (kind, cell)
            for kind in (kinds if len(levels) > 1 else [])
            for cell in cells(self.shape, SHARD)
            if not self._has_levels(kind, cell)
        ]
        for done, (kind, cell) in enumerate(parts, start=1):
            self._write_coarser(kind, cell, self.read(kind, cell))
            yield done, len(parts)
        self.flush()
        with _saying(self.path):
            _sync_names(self.path)
        self._describe([kind for kind in kinds if kind != "confidence"], levels)
        self.close()

    def close(self) -> None:
        """Let others write. Without `finish` the result stays unfinished."""
        self._progress.close()
        self._claim.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- arrays

    def _levels(self, kind: Kind) -> list[zarr.Array[Any]]:
        """Return the arrays of all levels; they are made at the first call."""
        with self._locks[kind]:
            if kind not in self._arrays:
                levels = range(len(pyramid.level_shapes(self.shape)))
                with _saying(self.path):
                    arrays = [
                        self._opened(kind, level) if self._exists(kind, level) else self._made(kind, level)
                        for level in reversed(levels)  # level 0 comes last: where it is, all are
                    ]
                self._arrays[kind] = arrays[::-1]
            return self._arrays[kind]

    def _put(self, kind: Kind, level: int, box: Box, values: NDArray[Any]) -> list[Path]:
        """Write values, and return the files that hold them."""
        array = self._levels(kind)[level]
        with self._locks[kind], _saying(self.path):  # two rectangles may share a shard
            array[(..., *box.slices)] = values
        return _files_of(self.path / KINDS[kind] / str(level), box, array)

    def _has_levels(self, kind: Kind, cell: Box) -> bool:
        return self._progress.has_of(_levels_of(kind), cell, Box.whole(self.shape))

    def _write_coarser(self, kind: Kind, cell: Box, values: NDArray[Any]) -> None:
        """Write all levels of a cell but the finest."""
        files: list[Path] = []
        for level in range(1, len(pyramid.level_shapes(self.shape))):
            values = pyramid.halved_mean(values) if kind == "confidence" else pyramid.halved_mode(values)
            y, x = cell.y0 >> level, cell.x0 >> level
            files += self._put(kind, level, Box(y, x, y + values.shape[-2], x + values.shape[-1]), values)
        with _saying(self.path):
            self._progress.add(_levels_of(kind), cell, files)

    def _exists(self, kind: Kind, level: int = 0) -> bool:
        folder = self.path / KINDS[kind] / str(level)
        return (folder / "zarr.json").exists() or (folder / ".zarray").exists()

    def _opened(self, kind: Kind, level: int) -> zarr.Array[Any]:
        return zarr.open_array(self._store, path=joined(KINDS[kind], str(level)), mode="r+")

    def _made(self, kind: Kind, level: int) -> zarr.Array[Any]:
        rows, columns = pyramid.level_shapes(self.shape)[level]
        lead = (len(self.classes),) if kind == "confidence" else ()
        ones = (1,) * len(lead)
        axes = ("c", "y", "x")[-2 - len(lead) :]
        options: dict[str, Any] = {
            "store": self._store,
            "name": joined(KINDS[kind], str(level)),
            "dtype": DTYPES[kind],
            "fill_value": 0,
        }
        wide = np.dtype(DTYPES[kind]).itemsize > 1
        if self.card.version == "0.4":
            codec = Blosc(cname="zstd", clevel=_EFFORT, shuffle=Blosc.SHUFFLE if wide else Blosc.NOSHUFFLE)
            side = max(_CHUNK, min(_CHUNK_V2, SHARD >> level))
            options |= {"zarr_format": 2, "chunks": (*ones, side, side), "compressors": codec}
            options |= {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
        else:
            most = max(_CHUNK, SHARD >> level)  # so that a cell of level 0 holds whole shards of the next levels too
            shard = tuple(min(most, -(-side // _CHUNK) * _CHUNK) for side in (rows, columns))
            options |= {
                "zarr_format": 3,
                "chunks": (*ones, _CHUNK, _CHUNK),
                "shards": (*ones, *shard),
                "dimension_names": axes,
            }
            options |= {
                "compressors": BloscCodec(cname="zstd", clevel=_EFFORT, shuffle="shuffle" if wide else "noshuffle")
            }
        return zarr.create_array(shape=(*lead, rows, columns), overwrite=True, **options)

    # ---- metadata

    def _describe(self, labels: Sequence[Kind], levels: Sequence[tuple[int, int]]) -> None:
        """Write the metadata of every group, the root's last."""
        card, version = self.card, self.card.version
        if labels:
            self._write_group("labels", ome_metadata.labels_attributes(version, labels))
        for kind in labels:
            titles = card.classes if kind == "classes" else ()
            described = ome_metadata.label_attributes(version, kind, levels, card.mpp, card.translation, titles)
            self._write_group(KINDS[kind], described)
        self.card = card.model_copy(update={"complete": True})
        described = ome_metadata.image_attributes(version, card.name, levels, card.classes, card.mpp, card.translation)
        self._write_card(self.card, described)
        self._progress.remove()  # last: without it everything would be written again

    def _reopen(self, gaps: Sequence[Box]) -> None:
        """Take the completeness back before anything is changed."""
        card = self.card.model_copy(update={"complete": False})
        whole = Box.whole(card.shape)
        for kind in KINDS:
            if self._exists(kind):
                self._progress.add(kind, whole, [])
                self._progress.add(_levels_of(kind), whole, [])
        for gap in gaps:
            self._progress.take_out("confidence", gap)
            self._progress.take_out(_levels_of("confidence"), gap)
        self.flush()
        self._write_card(card)
        for kind in ("nuclei", "classes"):
            if self._exists(kind):
                self._write_group(KINDS[kind], {})
        self.card = card

    def _write_card(self, card: ResultCard, described: Mapping[str, Any] | None = None) -> None:
        self._write_group("", described or {}, {OURS: card.model_dump(mode="json")})

    def _write_group(self, key: str, described: Mapping[str, Any], more: Mapping[str, Any] | None = None) -> None:
        folder = self.path / key
        with _saying(self.path):
            folder.mkdir(parents=True, exist_ok=True)
        if self.card.version == "0.4":
            atomic.write_json(folder / ".zgroup", {"zarr_format": 2})
            atomic.write_json(folder / ".zattrs", {**described, **(more or {})})
            return
        attributes = {**({"ome": dict(described)} if described else {}), **(more or {})}
        atomic.write_json(folder / "zarr.json", {"zarr_format": 3, "node_type": "group", "attributes": attributes})


def discard_result(path: str | Path) -> None:
    """Remove a result of ours, finished or not.

    Raises
    ------
    InputError
        If something else lies there, someone writes there, or it cannot be removed.
    """
    path = Path(path)
    claim = Claim(path)
    try:
        if result_state(path) == "foreign":
            raise InputError(f"'{path}' is no result of this program and is left alone: remove it yourself.")
        trash = path.with_name(f".semiseg-{secrets.token_hex(6)}.removed")
        with _saying(path):
            if path.exists():
                path.rename(trash)  # gone at once: half a result is never seen under its name
                _remove(trash)
    finally:
        claim.release()


def _files_of(folder: Path, box: Box, array: zarr.Array[Any]) -> list[Path]:
    """List the files that hold a rectangle of an array of ours."""
    tall, wide = (array.shards or array.chunks)[-2:]
    root = folder if array.metadata.zarr_format == 2 else folder / "c"
    leads = [root / str(channel) for channel in range(array.shape[0])] if array.ndim == 3 else [root]
    rows, columns = range(box.y0 // tall, -(-box.y1 // tall)), range(box.x0 // wide, -(-box.x1 // wide))
    return [lead / str(row) / str(column) for lead in leads for row in rows for column in columns]


def _absolute(image: str) -> str:
    """Return a path that is found from any folder; URLs and names of layers in memory stay."""
    return str(Path(image).absolute()) if image and "://" not in image else image


def _expected_bytes(card: ResultCard) -> int:
    """Guess the size on disk, pyramids too: half of what confidences and an eighth of what labels take in memory."""
    pixels = card.shape[0] * card.shape[1]
    return int(pixels * (0.5 * len(card.classes) + 0.5) * 4 / 3)


def _levels_of(kind: str) -> str:
    """Return the word for the coarser levels of a kind in the log of what is written."""
    return f"{kind}-levels"


def _sync_names(path: Path) -> None:
    """Flush metadata and folders to the disk; chunks and shards have been, one by one."""
    for folder, _, files in os.walk(path, topdown=False):
        for name in files:
            if name.endswith(".json") or name.startswith(".z"):
                sync_file(Path(folder, name))
        atomic.sync_folder(folder)


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


@contextlib.contextmanager
def _saying(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise atomic.said(error, f"'{path}' cannot be written") from error
