"""The project folder: the one owner of what a person painted, chose and got."""

from __future__ import annotations

import atexit
import contextlib
import getpass
import os
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from napari_semiseg import __version__, atomic
from napari_semiseg.blocks import Box
from napari_semiseg.errors import InputError
from napari_semiseg.project import opening
from napari_semiseg.project.annotations import load_annotation
from napari_semiseg.project.autosave import Autosave
from napari_semiseg.project.image_paths import OpenedImage, distinct_name, located, stored_path, with_series
from napari_semiseg.project.journal import JournalWriter, WriterOptions
from napari_semiseg.project.lock import ProjectLock
from napari_semiseg.project.recovery import Recovery
from napari_semiseg.project.schema import (
    DEFAULT_CLASSES,
    MAX_CLASSES,
    ClassSpec,
    ImageSource,
    Project,
    Role,
    Status,
    Tile,
    dump_project,
)
from napari_semiseg.project.stored_array import write_array
from napari_semiseg.project.tile_annotation import BACKGROUND, MAX_TILE_PIXELS, TileAnnotation
from napari_semiseg.project.tile_card import move_image, next_tile_number, read_tile_file, write_tile_file
from napari_semiseg.project.tile_files import kept_aside, set_aside
from napari_semiseg.project.tiles import judge_at, settled


class ProjectFolder:
    """A project on disk. Make one with `create` or `open`; use it as a context, or `close` it.

    What changes ``project.json`` is on the disk when the method returns; if it cannot be written, nothing has
    changed. Annotations go through `autosave` or `journal` and never wait. All methods may be called from any thread.

    Attributes
    ----------
    path : Path
        The folder, absolute.
    read_only : bool
        Whether it was opened to be looked at: then nothing is written, not even a lock.
    recovery : Recovery
        What was found on opening.
    """

    def __init__(self, path: Path, project: Project, recovery: Recovery, lock: ProjectLock | None) -> None:
        self.path = path
        self.read_only = lock is None
        self.recovery = recovery
        self._project = project
        self._lock = lock
        self._mutex = threading.RLock()
        self._journal: JournalWriter | None = None
        self._autosave: Autosave | None = None
        if lock is not None:
            atexit.register(self.close)

    # ---- making, opening, closing ----

    @classmethod
    def create(cls, path: str | Path, *, classes: Sequence[ClassSpec] = DEFAULT_CLASSES) -> Self:
        """Make a project and open it.

        Parameters
        ----------
        path : path
            The folder to make; ``.semiseg`` is added where it is missing. Its parent exists.
        classes : sequence of ClassSpec
            Classes of nuclei, at least one.

        Raises
        ------
        InputError
            If something lies there already, or the name or place will not do.
        """
        folder = opening.new_path(path)
        try:
            folder.mkdir(exist_ok=True)
            names = [path.name for path in folder.iterdir()]
            strangers = [name for name in names if not name.startswith((".semiseg-", opening.LOCK_FILE))]
        except FileExistsError:
            raise InputError(f"{atomic.quoted(folder)} exists and is no folder: choose another name.") from None
        except OSError as error:
            raise atomic.said(error, f"The project {atomic.quoted(folder)} cannot be made") from error
        if opening.PROJECT_FILE in strangers:
            raise InputError(f"{atomic.quoted(folder)} is a project already: open it, or choose another name.")
        if strangers:
            raise InputError(f"{atomic.quoted(folder)} exists and is not empty: choose another name.")
        lock = ProjectLock.acquire(folder / opening.LOCK_FILE)
        try:
            project = Project.checked({"classes": tuple(classes), "written_by": _VERSION}, "the new project")
            atomic.write_json(folder / opening.PROJECT_FILE, dump_project(project))
            return cls(folder, project, Recovery(), lock)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def open(cls, path: str | Path, read_only: bool = False, *, take_over: bool = False) -> Self:
        """Open a project.

        Parameters
        ----------
        path : path
            The folder, or its ``project.json``.
        read_only : bool
            Look only: also while another process has it open, and on disks that cannot be written.
        take_over : bool
            Take it from a process on another computer that, as the user says, no longer has it open.

        Raises
        ------
        LockHeld
            If another process has it open; it can be opened read-only.
        DamagedProject
            If ``project.json`` cannot be read; see `restore`.
        InputError
            If it is no project, was written by a newer version, or the place cannot be written.
        """
        folder = opening.existing_path(path)
        if read_only:
            project = opening.read_project(folder)
            return cls(folder, project, opening.look(folder, project), None)
        try:
            atomic.require_writable(folder)
        except InputError as error:
            raise InputError(f"{str(error).removesuffix('.')}; or open the project read-only.") from error
        lock = ProjectLock.acquire(folder / opening.LOCK_FILE, take_over=take_over)
        try:
            project = opening.read_project(folder)
            opening.keep_previous(folder)
            found, recovery = opening.recover(folder, project, lock.recovered)
            opened = cls(folder, project, recovery, lock)
            if found != project:
                opened._replace(tiles=found.tiles)
            return opened
        except BaseException:
            lock.release()
            raise

    @classmethod
    def restore(cls, path: str | Path) -> Self:
        """Put the ``project.json`` of the last opening in the place of a damaged one, and open the project.

        The damaged one is kept. Tiles that were added since are found by their annotations.

        Raises
        ------
        InputError
            If there is no such copy, or the project cannot be opened.
        """
        folder = opening.existing_path(path)
        if not opening.has_previous(folder):
            raise InputError(
                f"{atomic.quoted(folder)} has no copy of {opening.PROJECT_FILE} "
                "that can be read: put one back from a backup."
            )
        lock = ProjectLock.acquire(folder / opening.LOCK_FILE)
        try:
            stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
            (folder / opening.PROJECT_FILE).replace(folder / f"project.damaged-{stamp}.json")
            atomic.write_bytes(folder / opening.PROJECT_FILE, (folder / opening.PREVIOUS_FILE).read_bytes())
        except OSError as error:
            raise atomic.said(error, f"{atomic.quoted(folder / opening.PROJECT_FILE)} cannot be put back") from error
        finally:
            lock.release()
        return cls.open(folder)

    def close(self) -> bool:
        """Save what is left and give the project back; whether all is on the disk. Takes at most some seconds."""
        with self._mutex:
            autosave, journal, lock = self._autosave, self._journal, self._lock
            self._autosave = self._journal = self._lock = None
            self.read_only = True
        saved = autosave.close() if autosave else True
        saved = (journal.close() if journal else True) and saved
        if lock:
            lock.release()
            atexit.unregister(self.close)
        return saved

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def reload(self) -> None:
        """Read ``project.json`` again: for a reader, when another process has changed it.

        Raises
        ------
        InputError
            If it cannot be read.
        """
        with self._mutex:
            self._project = opening.read_project(self.path)

    def save(self) -> None:
        """Write ``project.json``. Every method that changes something does so by itself.

        Raises
        ------
        InputError
            If it cannot be written, or the project was opened read-only or taken over by another process.
        """
        self._replace()

    # ---- what it holds ----

    @property
    def name(self) -> str:
        """The folder's name without its suffix."""
        return self.path.name.removesuffix(opening.SUFFIX)

    @property
    def project(self) -> Project:
        """All that ``project.json`` holds."""
        return self._project

    @property
    def images(self) -> tuple[ImageSource, ...]:
        """Images, in the order they were added: tiles refer to them by index."""
        return self._project.images

    @property
    def classes(self) -> tuple[ClassSpec, ...]:
        """Classes of nuclei; the first is 2 on disk and 1 in tensors."""
        return self._project.classes

    @property
    def tiles(self) -> tuple[Tile, ...]:
        """Tiles, in the order they were added."""
        return self._project.tiles

    def tile(self, tile_id: str) -> Tile:
        """Return a tile by its id.

        Raises
        ------
        InputError
            If there is none.
        """
        for tile in self._project.tiles:
            if tile.id == tile_id:
                return tile
        raise InputError(
            f"The project {atomic.quoted(self.path)} has no tile {tile_id!r:.60}: it may have been removed."
        )

    # ---- images ----

    def add_image(
        self,
        source: str | Path | OpenedImage,
        *,
        name: str | None = None,
        mpp: float | None = None,
        shape: tuple[int, int] | None = None,
        series: int = 0,
        level: int = 0,
        axes: str = "YXC",
    ) -> int:
        """Add an image by where it lies. Nothing is copied.

        Parameters
        ----------
        source : path, URL, or an opened image
            An opened image brings its name, shape and pixel size. The path of a file beside or inside the project is
            stored relative to it, so that both can be moved together.
        name : str, optional
            Shown to the user, and the stem of its results; the file's stem by default, made distinct.
        mpp : float, optional
            Size of a pixel of level 0, in µm.
        shape : tuple of int, optional
            Rows and columns of level 0. Without it tiles cannot be checked against the image.
        series, level, axes
            Which part of the source.

        Returns
        -------
        int
            Its index. An image that is there already is not added twice.

        Raises
        ------
        InputError
            If it cannot be stored.
        """
        if not isinstance(source, (str, Path)):
            name = name or source.name
            mpp = source.mpp if mpp is None else mpp
            shape = source.shape if shape is None else shape
            source = source.source
        path = stored_path(self.path, source)
        with self._mutex:
            for index, known in enumerate(self.images):
                if (known.path, known.series) == (path, series):
                    return index
            stem = name or Path(path.rstrip("/").rsplit("/", 1)[-1]).name.split(".")[0]
            values = {
                "path": path,
                "name": distinct_name(stem, [image.name for image in self.images]),
                "mpp": mpp,
                "shape": shape,
                "series": series,
                "level": level,
                "axes": axes,
            }
            image = ImageSource.checked(values, f"the image {atomic.quoted(path)}")
            self._replace(images=(*self.images, image))
            return len(self.images) - 1

    def add_array(self, array: Any, name: str, mpp: float | None = None) -> int:
        """Write an image that exists only in memory into the project, once.

        `stored_array.array_bytes` says before how large it will be.

        Parameters
        ----------
        array : array_like, (h, w) or (h, w, 3) or (h, w, 4)
            May be lazy: it is read in pieces of 512 x 512.
        name : str
        mpp : float, optional
            Size of a pixel, in µm.

        Returns
        -------
        int
            Its index.

        Raises
        ------
        InputError
            If it is no image or there is no room for it.
        """
        with self._mutex:
            self._require_owned()
            folder = self._made("images")
            stem = distinct_name(name, [path.name.split(".")[0] for path in folder.iterdir()])[:60]
            path = folder / f"{stem}.ome.tif"
            if os.path.lexists(path):
                raise InputError(f"{atomic.quoted(path)} exists already: give the image another name.")
            shape = write_array(path, array, name, mpp)
            return self.add_image(path, name=name, mpp=mpp, shape=shape, axes="YX" if len(array.shape) == 2 else "YXC")

    def source_path(self, index: int) -> str:
        """Return where an image lies, as it can be opened: an absolute path or a URL, with its series if that is not 0.

        Raises
        ------
        InputError
            If there is no such image.
        """
        if not 0 <= index < len(self.images):
            raise InputError(
                f"The project {atomic.quoted(self.path)} has {len(self.images)} "
                f"images, so there is no number {index}: add it first."
            )
        image = self.images[index]
        return with_series(located(self.path, image.path), image.series)

    def relink_image(self, index: int, source: str | Path) -> None:
        """Say where an image lies now. Nothing is opened: `app.lost_images` looks whether it is that image.

        Raises
        ------
        InputError
            If there is no such image, or it cannot be stored.
        """
        self.source_path(index)
        path = stored_path(self.path, source)
        with self._mutex:
            self._require_owned()
            images = list(self.images)
            move_image(self.path, index, images[index].path, path)
            images[index] = images[index].model_copy(update={"path": path})
            self._replace(images=tuple(images))

    # ---- classes ----

    def set_classes(self, classes: Sequence[ClassSpec]) -> None:
        """Rename, recolor or add classes. What is painted refers to them by their order.

        Raises
        ------
        InputError
            If a class that somebody painted would be gone, two have the same name, or there are more than can be told
            apart.
        """
        _require_told_apart(classes)
        with self._mutex:
            if len(classes) < len(self.classes):
                for tile in self.tiles:
                    used = self.newest_annotation(tile.id).largest_class - BACKGROUND
                    if used > len(classes):
                        raise InputError(
                            f"The class {self.classes[used - 1].name!r} is painted or proposed in tile {tile.id}: "
                            "paint it over, or delete what is proposed, before removing it."
                        )
            self._replace(classes=tuple(classes))

    # ---- tiles ----

    def add_tile(self, image: int, box: Box | tuple[int, int, int, int]) -> Tile:
        """Add a rectangle to be labeled.

        Parameters
        ----------
        image : int
            Index of its image.
        box : Box
            In pixels of level 0. The part outside the image is cut off.

        Returns
        -------
        Tile
            Empty, with an id that no other tile of this project ever had.

        Raises
        ------
        InputError
            If nothing of it lies in the image, it is larger than 2**24 pixels, or it would lie on a tile that is set
            aside for validation.
        """
        with self._mutex:
            self._require_owned()
            self.source_path(image)
            source = self.images[image]
            box = Box(*(int(side) for side in box))
            whole = Box(0, 0, 2**31 - 1, 2**31 - 1) if source.shape is None else Box.whole(source.shape)
            inside = box.intersect(whole)
            if inside.height <= 0 or inside.width <= 0:
                raise InputError(
                    f"The tile {tuple(box)} does not touch the image {source.name!r:.100}: draw it on the image."
                )
            if inside.area > MAX_TILE_PIXELS:
                raise InputError(
                    f"A tile of {inside.height} x {inside.width} pixels is too large "
                    "to be labeled: draw one of at most 4096 x 4096."
                )
            if judge := judge_at(self.tiles, image, inside):
                raise InputError(
                    f"A tile there would lie on tile {judge.id}, which is kept for validation: place it beside that "
                    "one, or give that one to training first."
                )
            number = next_tile_number(self.path, self._project)
            tile = Tile(id=f"t{number:04d}", image=image, box=inside, set_by=_user())
            folder = self._made("annotations") / tile.id
            with _told(f"{atomic.quoted(folder)} cannot be made"):
                folder.mkdir()
                atomic.sync_folder(folder.parent)
            write_tile_file(folder, tile, source)
            self._replace(tiles=(*self.tiles, tile), next_tile=number + 1)
            return tile

    def set_status(self, tile_id: str, status: Status, *, by: str | None = None) -> Tile:
        """Say what a tile's unpainted pixels mean.

        Parameters
        ----------
        tile_id : str
        status : {"empty", "sparse", "complete", "excluded"}
        by : str, optional
            Who says so; the user who is logged in by default.

        Returns
        -------
        Tile
            The tile as it is now.

        Raises
        ------
        InputError
            If there is no such tile or status, or it cannot be written.
        """
        return self._change_tile(
            tile_id, {"status": status, "set_by": _user() if by is None else by, "set_at": datetime.now(UTC)}
        )

    def set_role(self, tile_id: str, role: Role) -> Tile:
        """Say whether a tile is for training or for validation, or let the rule decide; see `tiles.validation_tiles`.

        Raises
        ------
        InputError
            If there is no such tile or role, or it cannot be written.
        """
        return self._change_tile(tile_id, {"role": role, "judges": False})

    def remove_tile(self, tile_id: str) -> None:
        """Remove a tile. Its annotation is kept in ``annotations/removed/``, and `restore_tile` brings it back.

        Raises
        ------
        InputError
            If there is no such tile, or its annotation cannot be saved before.
        """
        with self._mutex:
            self._require_owned()
            tile = self.tile(tile_id)
            folder = self.tile_folder(tile_id)
            self._let_go(tile_id)
            removed = self._made("annotations/removed")
            with _told(f"The tile {tile_id} cannot be removed"):
                folder.mkdir(exist_ok=True)
                write_tile_file(folder, tile, self.images[tile.image])
                self._replace(tiles=tuple(other for other in self.tiles if other.id != tile_id))
                folder.rename(removed / tile_id)  # killed before this, the tile is found again on opening

    def restore_tile(self, tile_id: str) -> Tile:
        """Bring back a tile that was removed, with all that was painted in it.

        Raises
        ------
        InputError
            If it was not removed, or its image is gone.
        """
        with self._mutex:
            self._require_owned()
            place = self.path / "annotations" / "removed" / Path(tile_id).name
            tile = read_tile_file(place, self._project)
            with _told(f"The tile {tile_id} cannot be brought back"):
                place.rename(self.path / "annotations" / tile.id)
            self._replace(tiles=(*self.tiles, tile))
            return tile

    # ---- annotations ----

    def tile_folder(self, tile_id: str) -> Path:
        """Return where a tile's files lie.

        Raises
        ------
        InputError
            If there is no such tile, or its folder leads out of the project.
        """
        folder = self.path / "annotations" / self.tile(tile_id).id
        opening.require_inside(self.path, folder)
        return folder

    def annotation(self, tile_id: str) -> TileAnnotation:
        """Read what is on the disk now; see `annotations.load_annotation`."""
        return load_annotation(self, tile_id)

    def newest_annotation(self, tile_id: str) -> TileAnnotation:
        """Return what was handed over last of a tile, also where it is not on the disk yet.

        Raises
        ------
        InputError
            If there is no such tile, or it cannot be read.
        """
        return self.annotation(tile_id) if self._autosave is None else self._autosave.newest(tile_id)

    def write_annotation(
        self, tile_id: str, instance: ArrayLike | None = None, classes: ArrayLike | None = None
    ) -> None:
        """Replace a tile's annotation, as by importing labels or taking over a proposal; on the disk when this returns.

        Parameters
        ----------
        tile_id : str
        instance, classes : array_like, (h, w), integer, or None
            A layer that is None stays as it is.

        Raises
        ------
        InputError
            If the arrays are no annotation of that tile (`TileAnnotation.checked`), or cannot be written.
        """
        tile = self.tile(tile_id)
        checked = TileAnnotation.checked(instance, classes, tile.box.shape, f"tile {tile_id}")
        whole = Box.whole(tile.box.shape)
        patches: list[tuple[Any, Box, np.ndarray[Any, Any]]] = []
        if instance is not None:
            patches.append(("instance", whole, checked.instance))
        if classes is not None:
            patches.append(("class", whole, checked.classes))
        self._save_all()
        self.journal.record_stroke(tile_id, patches)
        if not self.journal.flush(30.0):
            raise InputError(
                self.journal.status.failure
                or f"The annotation of tile {tile_id} is not saved yet: wait and look again."
            )
        self.autosave.forget(tile_id)

    def set_aside(self, tile_id: str) -> None:
        """Keep what is painted in a tile now, before something takes it away: `kept_aside` returns it.

        Raises
        ------
        InputError
            If there is no such tile, or it cannot be written.
        """
        self._require_owned()
        set_aside(self.tile_folder(tile_id), self.newest_annotation(tile_id))

    def has_aside(self, tile_id: str) -> bool:
        """Whether something was set aside of a tile."""
        return any(self.tile_folder(tile_id).glob("aside-*.npz"))

    def kept_aside(self, tile_id: str) -> TileAnnotation | None:
        """Return what was set aside of a tile last; None where nothing was.

        Raises
        ------
        InputError
            If there is no such tile, or it cannot be read.
        """
        return kept_aside(self.tile_folder(tile_id), self.tile(tile_id).box.shape)

    @property
    def journal(self) -> JournalWriter:
        """The writer of strokes, with its thread; made when first asked for.

        Raises
        ------
        InputError
            If the project was opened read-only.
        """
        return self.start_journal()

    @property
    def autosave(self) -> Autosave:
        """What takes whole layers once a second, with its thread; made when first asked for.

        Raises
        ------
        InputError
            If the project was opened read-only.
        """
        with self._mutex:
            if self._autosave is None:
                self._autosave = Autosave(self.journal, self.annotation, self._shape_of)
            return self._autosave

    def start_journal(self, options: WriterOptions | None = None) -> JournalWriter:
        """Return the writer of strokes; `options` count if it was not asked for before."""
        with self._mutex:
            if self._journal is None:
                lock = self._require_owned()
                folder = self._made("annotations")
                self._journal = JournalWriter(folder, self._shape_of, owned=lambda: lock.held, options=options)
            return self._journal

    # ---- runs and results ----

    @property
    def runs_dir(self) -> Path:
        """Where runs lie, newest last by name."""
        return self.path / "runs"

    @property
    def predictions_dir(self) -> Path:
        """Where results lie."""
        return self.path / "predictions"

    def prediction_path(self, index: int) -> Path:
        """Return where the result of an image lies or will lie."""
        self.source_path(index)
        return self.predictions_dir / f"{self.images[index].name}.ome.zarr"

    def new_run_dir(self) -> Path:
        """Make a folder for a run, named by the time.

        Raises
        ------
        InputError
            If the project was opened read-only or the folder cannot be made.
        """
        self._require_owned()
        runs = self._made("runs")
        stamp = datetime.now().strftime("%Y-%m-%d-%H%M%S")
        for suffix in ("", *(f"-{number}" for number in range(2, 1000))):
            with contextlib.suppress(FileExistsError), _told(f"A run folder in {atomic.quoted(runs)} cannot be made"):
                (runs / f"{stamp}{suffix}").mkdir()
                return runs / f"{stamp}{suffix}"
        raise InputError(f"{atomic.quoted(runs)} holds a thousand runs of this second: try again.")

    # ---- inner ----

    def _shape_of(self, tile_id: str) -> tuple[int, int]:
        return self.tile(tile_id).box.shape

    def _require_owned(self) -> ProjectLock:
        if self._lock is None:
            raise InputError(
                f"The project {atomic.quoted(self.path)} is open read-only, so "
                "nothing can be changed: open it for writing."
            )
        if not self._lock.held:
            raise InputError(
                f"The project {atomic.quoted(self.path)} was taken over by "
                "another program: close it here and open it again."
            )
        return self._lock

    def _replace(self, **changes: Any) -> None:
        """Write a changed project; if that fails, nothing has changed."""
        with self._mutex:
            self._require_owned()
            values: Mapping[str, Any] = {**dict(self._project), "written_by": _VERSION, **changes}
            project = Project.checked(values, f"the project {atomic.quoted(self.path)}")
            atomic.write_json(self.path / opening.PROJECT_FILE, dump_project(project))
            self._project = project

    def _change_tile(self, tile_id: str, changes: Mapping[str, Any]) -> Tile:
        """Change a tile. The others stay set aside for validation, or not: what was chosen is written down before."""
        with self._mutex:
            before = settled(self.tiles)
            known = next((tile for tile in before if tile.id == tile_id), None) or self.tile(tile_id)
            changed = Tile.checked({**dict(known), **changes}, f"tile {tile_id}")
            self._replace(tiles=settled([changed if tile.id == tile_id else tile for tile in before]))
            return self.tile(tile_id)

    def _let_go(self, tile_id: str) -> None:
        """Save a tile and close its files."""
        self._save_all()
        if self._autosave is not None:
            self._autosave.forget(tile_id)
        if self._journal is not None and not self._journal.compact(tile_id):
            reason = (
                self._journal.status.failure
                or f"The annotation of tile {tile_id} is not saved yet: wait and try again."
            )
            raise InputError(reason)

    def _save_all(self) -> None:
        """Wait until what was handed over is on the disk; InputError where it does not get there."""
        if self._autosave is not None and not self._autosave.flush():
            raise InputError(
                self._autosave.status.failure or "What was painted is not on the disk yet: wait and try again."
            )

    def _made(self, name: str) -> Path:
        folder = self.path / name
        opening.require_inside(self.path, folder)
        with _told(f"{atomic.quoted(folder)} cannot be made"):
            folder.mkdir(parents=True, exist_ok=True)
        return folder


def _require_told_apart(classes: Sequence[ClassSpec]) -> None:
    names = [spec.name for spec in classes]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"There is a class “{twice:.60}” already: give this one another name.")
    if len(names) > MAX_CLASSES:
        raise InputError(f"A project has at most {MAX_CLASSES} classes, and these are {len(names)}: keep fewer.")


@contextlib.contextmanager
def _told(doing: str) -> Any:
    """Say an operating system's error as one sentence. Of an existing file the caller knows more."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        raise atomic.said(error, doing) from error


def _user() -> str:
    try:
        return getpass.getuser()[:200]
    except (OSError, KeyError):  # no such account, as in some containers
        return ""


_VERSION = f"napari-semiseg {__version__}"
