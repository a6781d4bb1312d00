"""The file beside each annotation that says which tile it is: an annotation without a project can be taken in again."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

from napari_semiseg import atomic
from napari_semiseg.errors import InputError
from napari_semiseg.project.schema import ImageSource, Project, Tile

TILE_FILE = "tile.json"
_TILE_NUMBER = re.compile(r"t(\d{1,9})")


def next_tile_number(folder: Path, project: Project) -> int:
    """Return a number that no tile has, listed, unlisted or removed."""
    names = [tile.id for tile in project.tiles]
    for place in (folder / "annotations", folder / "annotations" / "removed"):
        with contextlib.suppress(OSError):
            names += [path.name for path in place.iterdir()]
    numbers = [int(match[1]) for name in names if (match := _TILE_NUMBER.match(name))]
    return max([project.next_tile, *(number + 1 for number in numbers)])


def write_tile_file(folder: Path, tile: Tile, source: ImageSource) -> None:
    """Write beside the annotation of a tile which tile it is.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    atomic.write_json(folder / TILE_FILE, {"tile": tile.model_dump(mode="json"), "image_path": source.path})


def move_image(folder: Path, index: int, before: str, after: str) -> None:
    """Have the tiles of an image name it by its new path, the removed ones too: by that they are brought back.

    Raises
    ------
    InputError
        If one of their files cannot be written.
    """
    places = (folder / "annotations", folder / "annotations" / "removed")
    for path in (path for place in places for path in sorted(place.glob(f"*/{TILE_FILE}"))):
        values: Any = None
        with contextlib.suppress(InputError):  # not ours: it stays as it is
            values = atomic.read_json(path) if not path.parent.is_symlink() else None
        tile = values.get("tile") if isinstance(values, dict) else None
        if isinstance(tile, dict) and (tile.get("image"), values.get("image_path")) == (index, before):
            atomic.write_json(path, {**values, "image_path": after})


def read_tile_file(folder: Path, project: Project) -> Tile:
    """Read which tile an annotation belongs to.

    Raises
    ------
    InputError
        If that cannot be read, or its image is not in the project.
    """
    path = folder / TILE_FILE
    values = atomic.read_json(path)
    fields: Any = values.get("tile") if isinstance(values, dict) else None
    if not isinstance(fields, dict):
        raise InputError(f"{atomic.quoted(path)} describes no tile: draw the tile again.")
    tile = Tile.checked(fields, atomic.quoted(path))
    images = [index for index, source in enumerate(project.images) if source.path == values.get("image_path")]
    if not images:
        raise InputError(f"{atomic.quoted(path)} names an image that is not in the project: add the image first.")
    return tile.model_copy(update={"image": tile.image if tile.image in images else images[0]})
