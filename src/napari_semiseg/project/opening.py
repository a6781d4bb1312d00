"""Finding a project on a disk that anything may have happened to, and putting it in order."""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from napari_semiseg import atomic
from napari_semiseg.errors import InputError
from napari_semiseg.project.image_paths import image_exists, require_portable
from napari_semiseg.project.lock import Holder
from napari_semiseg.project.recovery import Recovered, Recovery
from napari_semiseg.project.schema import NewerVersion, Project, Tile, parse_project
from napari_semiseg.project.tile_card import TILE_FILE, read_tile_file
from napari_semiseg.project.tile_files import compact, snapped, unsnapped

SUFFIX = ".semiseg"
PROJECT_FILE = "project.json"
PREVIOUS_FILE = "project.previous.json"
LOCK_FILE = "project.lock"
SUBFOLDERS = ("annotations", "images", "runs", "predictions")


class DamagedProject(InputError):
    """``project.json`` cannot be used.

    Attributes
    ----------
    can_restore : bool
        Whether the copy made at the last opening can be: see `ProjectFolder.restore`.
    """

    def __init__(self, message: str, *, can_restore: bool) -> None:
        super().__init__(message)
        self.can_restore = can_restore


def new_path(path: str | Path) -> Path:
    """Return the absolute path of a project to be made, with its suffix.

    Raises
    ------
    InputError
        If some disk or system could not hold that name.
    """
    target = absolute(path)
    if target.suffix != SUFFIX:
        target = target.with_name(target.name + SUFFIX)
    require_portable(target.name.removesuffix(SUFFIX))
    return target


def absolute(path: str | Path) -> Path:
    """Return an absolute path with links followed as far as they lead.

    Raises
    ------
    InputError
        If a link leads back to itself, or no file can have that name.
    """
    try:
        with contextlib.suppress(FileNotFoundError):
            return Path(path).resolve(strict=True)
        return Path(path).resolve()
    except RuntimeError:  # how Python before 3.13 says it
        raise InputError(f"{atomic.quoted(path)} is a link that leads back to itself: remove the link.") from None
    except ValueError:
        raise InputError(f"{atomic.quoted(path)} is no name that a file can have: choose another one.") from None
    except OSError as error:
        raise atomic.said(error, f"{atomic.quoted(path)} cannot be opened") from error


def existing_path(path: str | Path) -> Path:
    """Return the absolute path of a project folder; its ``project.json`` may be given too.

    Raises
    ------
    InputError
        If there is none, or one of its folders is a file or a link that leads elsewhere.
    """
    folder = absolute(path)
    if folder.name == PROJECT_FILE:
        folder = folder.parent
    try:
        mode = folder.stat().st_mode
    except OSError as error:
        raise atomic.said(error, f"The project {atomic.quoted(folder)} cannot be opened") from error
    if not stat.S_ISDIR(mode):
        raise InputError(
            f"{atomic.quoted(folder)} is no folder, but a project is one: choose a folder that ends in {SUFFIX}."
        )
    if not os.path.lexists(folder / PROJECT_FILE):
        raise InputError(f"{atomic.quoted(folder)} is no project: it has no {PROJECT_FILE}, so choose another folder.")
    for name in SUBFOLDERS:
        require_inside(folder, folder / name)
    return folder


def require_inside(root: Path, folder: Path) -> None:
    """Check that a folder of the project is one, or does not exist.

    Raises
    ------
    InputError
        If it is a file, or a link that leads out of the project.
    """
    if not os.path.lexists(folder):
        return
    real = absolute(folder)
    if not real.is_relative_to(root):
        raise InputError(f"{atomic.quoted(folder)} is a link that leads out of the project: put a folder there.")
    if not real.is_dir():
        raise InputError(f"{atomic.quoted(folder)} is no folder: move it away, so that a folder can be made there.")


def read_project(folder: Path) -> Project:
    """Read ``project.json``.

    Raises
    ------
    DamagedProject
        If it cannot be read as a project of this version or an older one.
    InputError
        If it was written by a newer version.
    """
    path = folder / PROJECT_FILE
    try:
        return _read(path)
    except NewerVersion:
        raise
    except InputError as error:
        can_restore = has_previous(folder)
        advice = f", or put {PREVIOUS_FILE}, the copy of the last opening, in its place" if can_restore else ""
        raise DamagedProject(f"{str(error).removesuffix('.')}{advice}.", can_restore=can_restore) from error


def has_previous(folder: Path) -> bool:
    """Whether the copy of ``project.json`` from the last opening can be read."""
    try:
        _read(folder / PREVIOUS_FILE)
    except InputError:
        return False
    return True


def _read(path: Path) -> Project:
    with atomic.open_regular(path) as file:
        data = file.read(atomic.MAX_JSON_BYTES + 1)
    if len(data) > atomic.MAX_JSON_BYTES:
        raise InputError(f"{atomic.quoted(path)} is larger than any project: put a copy of it back.")
    return parse_project(data, path)


def keep_previous(folder: Path) -> None:
    """Keep a copy of ``project.json``, which was just read without complaint.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    data = (folder / PROJECT_FILE).read_bytes()
    previous = folder / PREVIOUS_FILE
    if not previous.is_file() or previous.read_bytes() != data:
        atomic.write_bytes(previous, data)


def look(folder: Path, project: Project) -> Recovery:
    """Look for what concerns a reader too; change nothing."""
    missing = [source.name for source in project.images if not image_exists(folder, source)]
    return Recovery(missing_images=tuple(missing))


def recover(folder: Path, project: Project, stopped: Holder | None) -> tuple[Project, Recovery]:
    """Put a project in order, as its owner: list unlisted tiles, make snapshots of journals, delete half-written files.

    Nothing that a person painted is ever deleted, and nothing that goes wrong keeps the project from opening.
    """
    leftovers = _delete_leftovers(folder)
    project, adopted = _adopt(folder, project)
    tiles: list[Recovered] = []
    torn: dict[str, int] = {}
    damaged: list[str] = []
    for tile in project.tiles:
        place = folder / "annotations" / tile.id
        try:
            require_inside(folder, place)
            journals = unsnapped(place, tile.box.shape)
            if any(found.strokes or found.torn_bytes for _, found in journals):
                torn[tile.id] = sum(found.torn_bytes for _, found in journals)
                earlier = snapped(place, tile.box.shape)
                until = datetime.fromtimestamp(max(path.stat().st_mtime for path, _ in journals))
                now = compact(place, tile.box.shape).annotation
                count = sum(len(found.strokes) for _, found in journals)
                tiles.append(Recovered(tile.id, count, until, earlier, earlier.nuclei, now.nuclei))
        except (InputError, OSError) as error:
            damaged.append(str(error))
    found = Recovery(
        stopped=stopped,
        tiles=tuple(found for found in tiles if found.strokes) if stopped else (),
        torn={tile: count for tile, count in torn.items() if count},
        damaged=tuple(damaged),
        leftovers=leftovers,
        adopted=adopted,
    )
    return project, replace(found, missing_images=look(folder, project).missing_images)


def _delete_leftovers(folder: Path) -> tuple[str, ...]:
    deleted: list[str] = []
    places = [folder, folder / "images", folder / "annotations"]
    with contextlib.suppress(OSError):
        places += [place for place in (folder / "annotations").iterdir() if place.is_dir() and not place.is_symlink()]
    for path in (path for place in places for path in atomic.temporaries(place)):
        with contextlib.suppress(OSError):
            path.unlink()
            deleted.append(path.relative_to(folder).as_posix())
    return tuple(deleted)


def _adopt(folder: Path, project: Project) -> tuple[Project, tuple[str, ...]]:
    """List the tiles that have a folder but are not in ``project.json``, as after an older copy was put back."""
    known = {tile.id for tile in project.tiles}
    adopted: list[Tile] = []
    places: list[Path] = []
    with contextlib.suppress(OSError):
        places = sorted((folder / "annotations").iterdir())
    for place in places:
        if place.name in known or place.is_symlink() or not (place / TILE_FILE).is_file():
            continue
        with contextlib.suppress(InputError):  # not ours, or of an image that is gone: it stays where it lies
            tile = read_tile_file(place, project)
            if tile.id != place.name:
                continue
            painted = any(path.suffix in (".log", ".npz") for path in place.iterdir())
            adopted.append(tile.model_copy(update={"status": "sparse"}) if painted and tile.status == "empty" else tile)
    if not adopted:
        return project, ()
    values = {**dict(project), "tiles": (*project.tiles, *adopted)}
    try:
        return Project.checked(values, "the unlisted tiles"), tuple(tile.id for tile in adopted)
    except InputError:
        return project, ()
