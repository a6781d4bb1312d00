"""The images that paths and folders stand for."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from napari_semiseg.errors import InputError
from napari_semiseg.io.images import RASTERS, TIFFS
from napari_semiseg.io.locate import Location, check_folder, is_folder, locate
from napari_semiseg.io.read_slide import SLIDES

EXTENSIONS = (*RASTERS, *TIFFS, ".zarr", *SLIDES)
"""Endings of the files that are read."""

_UNREAD = (
    ".bmp",
    ".gif",
    ".webp",
    ".jp2",
    ".j2k",
    ".czi",
    ".nd2",
    ".lif",
    ".lsm",
    ".vsi",
    ".oib",
    ".oif",
    ".dcm",
    ".qptiff",
    ".isyntax",
    ".zip",
    ".ozx",
    ".npy",
    ".h5",
    ".ims",
)


def find_images(paths: Iterable[str | Path]) -> list[Path]:
    """List the images that files and folders stand for.

    Parameters
    ----------
    paths : iterable of str or Path
        Files (a choice in brackets stays), OME-Zarr folders, and folders, whose images are taken in the order of their
        names, without those of their subfolders. Hidden files and files that are no images are passed over in a folder.

    Returns
    -------
    list of Path
        In the order given; sorted by name within a folder.

    Raises
    ------
    InputError
        If nothing is there, a file is of a kind that is not read (also within a folder), or two images would share a
        name and so their results.
    """
    found: list[Path] = []
    for path in paths:
        location = locate(path)
        many = not location.is_url and is_folder(location.path) and not _is_zarr(Path(location.path))
        found += _in_folder(Path(location.path)) if many else [_single(path, location)]
    if not found:
        raise InputError("No image was named: name image files, or a folder that holds some.")
    _check_names(found)
    return found


def _single(path: str | Path, location: Location) -> Path:
    if not location.is_url and not os.path.lexists(location.path):
        raise InputError(f"There is no file '{location.path}': check the name and that its disk is connected.")
    if not location.path.lower().rstrip("/\\").endswith(EXTENSIONS) and not _is_zarr(Path(location.path)):
        raise InputError(f"'{location.path}' is of a kind that is not read: convert it to TIFF, PNG or OME-Zarr.")
    return Path(path)


def _in_folder(folder: Path) -> list[Path]:
    check_folder(folder)
    found = []
    for path in sorted(folder.iterdir()):
        ending = path.suffix.lower()
        if path.name.startswith("."):
            continue
        if ending in _UNREAD:
            raise InputError(
                f"'{path}' is of a kind that is not read: convert it to TIFF, PNG or OME-Zarr, or move it out of the "
                "folder."
            )
        if ending in EXTENSIONS and (path.is_file() or ending == ".zarr"):
            found.append(path)
    if not found:
        raise InputError(
            f"The folder '{folder}' holds no image: name a folder with PNG, JPEG, TIFF, OME-Zarr or slide files."
        )
    return found


def check_results(images: Iterable[str | Path]) -> None:
    """Make sure that images have results of different names: the planes of one file have not.

    Raises
    ------
    InputError
        If two would share a result.
    """
    if twins := _twins(images, lambda location: location.name):
        raise InputError(
            f"'{twins[0]}' and '{twins[1]}' are parts of one file, and their results would have the same name: "
            "predict one after the other, each into a folder of its own."
        )


def _check_names(paths: Sequence[Path]) -> None:
    """Results are named after images: names have to differ, on disks that ignore case and accents' spelling too."""
    if twins := _twins(paths, _on_any_disk):
        raise InputError(
            f"'{twins[0]}' and '{twins[1]}' have the same name, and so would their results: rename one of them."
        )


def _on_any_disk(location: Location) -> str:
    return unicodedata.normalize("NFC", location.name).casefold() + repr(sorted(location.chosen.items()))


def _twins(images: Iterable[str | Path], key: Callable[[Location], str]) -> tuple[str | Path, str | Path] | None:
    """Return the first two images that have the same key; None where each has another."""
    seen: dict[str, str | Path] = {}
    for image in images:
        found = key(locate(image))
        if found in seen:
            return seen[found], image
        seen[found] = image
    return None


def _is_zarr(path: Path) -> bool:
    return path.suffix.lower() == ".zarr" or any((path / name).exists() for name in ("zarr.json", ".zgroup", ".zarray"))
