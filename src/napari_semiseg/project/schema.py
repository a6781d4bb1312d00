"""What ``project.json`` holds, and how it is read from a file that anyone may have written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AwareDatetime, Field, field_validator, model_validator

from napari_semiseg import atomic
from napari_semiseg.blocks import Box
from napari_semiseg.config import Config
from napari_semiseg.errors import InputError
from napari_semiseg.project.tile_annotation import MAX_TILE_PIXELS

SCHEMA_VERSION: Final = 1
"""Version of ``project.json`` that is written, and the newest that is read."""

MAX_CLASSES = 124
"""Most classes of a project: on disk they are numbered from 2, and stay below 126 (`PROPOSED_AS`)."""

MAX_CLASS_NAME = 200
"""Longest name that a class is given, in characters."""

Status = Literal["empty", "sparse", "complete", "excluded"]
Role = Literal["auto", "training", "validation"]

RESERVED_NAMES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}
_LIMIT = 2**31 - 1
_Text = Annotated[str, Field(min_length=1, max_length=500)]


class NewerVersion(InputError):
    """A file of a format that only a newer version of this program reads."""


class ImageSource(Config):
    """Where an image lies.

    `path` is a URL, an absolute path, or a path relative to the project folder with forward slashes.
    """

    path: Annotated[str, Field(min_length=1, max_length=32_000)]
    name: _Text
    series: int = Field(0, ge=0, le=_LIMIT)
    level: int = Field(0, ge=0, le=100)
    axes: str = Field("YXC", pattern=r"^[A-Z]{2,6}$", description="Axes of the source, in OME letters.")
    mpp: float | None = Field(None, gt=0, le=1e6, description="Size of a pixel of level 0, in µm.")
    shape: tuple[int, int] | None = Field(
        None, description="Rows and columns of level 0; none where nobody has looked yet."
    )

    @field_validator("path")
    @classmethod
    def _no_nul(cls, path: str) -> str:
        if "\0" in path:
            raise ValueError("a path holds no NUL")
        return path

    @field_validator("shape")
    @classmethod
    def _some_pixels(cls, shape: tuple[int, int] | None) -> tuple[int, int] | None:
        if shape is not None and not all(1 <= side <= _LIMIT for side in shape):
            raise ValueError("an image has at least one pixel")
        return shape


class ClassSpec(Config):
    """A class of nuclei, as the user knows it."""

    name: _Text
    color: str = Field(pattern=r"^#[0-9a-f]{6}$", description="Red, green and blue as #rrggbb.")


class Tile(Config):
    """A rectangle that a person labels. `box` is in pixels of level 0 of its image."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")
    image: int = Field(ge=0, description="Index of the image.")
    box: Box
    status: Status = "empty"
    role: Role = "auto"
    judges: bool = Field(
        False, description="Whether the rule has set it aside for validation: where the role is auto, it stays so."
    )
    set_by: Annotated[str, Field(max_length=200)] = ""
    set_at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))

    @field_validator("id")
    @classmethod
    def _a_name_for_any_disk(cls, name: str) -> str:
        if name in RESERVED_NAMES:
            raise ValueError("Windows keeps that name for itself")
        return name

    @field_validator("box")
    @classmethod
    def _some_area(cls, box: Box) -> Box:
        if not (0 <= box.y0 < box.y1 <= _LIMIT and 0 <= box.x0 < box.x1 <= _LIMIT):
            raise ValueError("a tile has at least one pixel, inside its image")
        if box.area > MAX_TILE_PIXELS:
            raise ValueError(f"a tile has at most {math.isqrt(MAX_TILE_PIXELS)} x {math.isqrt(MAX_TILE_PIXELS)} pixels")
        return box

    @property
    def used(self) -> bool:
        """Whether a run may learn from it or judge itself by it."""
        return self.status in ("sparse", "complete")


CLASS_COLORS = ("#f0e442", "#56b4e9", "#009e73", "#e69f00", "#0072b2", "#d55e00", "#cc79a7")
"""Okabe and Ito's colors in the order that new classes take them: first those that brown and pink tissue has not."""

DEFAULT_CLASSES = (ClassSpec(name="nucleus", color=CLASS_COLORS[0]),)


def with_class(classes: Sequence[ClassSpec], name: str) -> tuple[ClassSpec, ...]:
    """Add a class, in the first color that fewest of the others have; a name that is too long is cut."""
    taken = [spec.color for spec in classes]
    name = name.strip()[:MAX_CLASS_NAME] or "unnamed"
    return (*classes, ClassSpec(name=name, color=min(CLASS_COLORS, key=taken.count)))


class Project(Config):
    """What ``project.json`` holds."""

    schema_version: Literal[1] = SCHEMA_VERSION
    written_by: Annotated[str, Field(max_length=100)] = ""
    images: Annotated[tuple[ImageSource, ...], Field(max_length=100_000)] = ()
    classes: Annotated[tuple[ClassSpec, ...], Field(min_length=1, max_length=MAX_CLASSES)] = DEFAULT_CLASSES
    tiles: Annotated[tuple[Tile, ...], Field(max_length=100_000)] = ()
    next_tile: int = Field(1, ge=1, le=_LIMIT, description="Number of the next tile: numbers are never used again.")

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if len({tile.id for tile in self.tiles}) != len(self.tiles):
            raise ValueError("two tiles have the same id")
        if len({spec.name for spec in self.classes}) != len(self.classes):
            raise ValueError("two classes have the same name")
        for tile in self.tiles:
            if tile.image >= len(self.images):
                raise ValueError(f"tile {tile.id} lies on image {tile.image}, but there are {len(self.images)} images")
            shape = self.images[tile.image].shape
            if shape is not None and not Box.whole(shape).contains(tile.box):
                raise ValueError(f"tile {tile.id} reaches outside its image")
        return self


def parse_project(data: bytes, path: Path) -> Project:
    """Read the bytes of a ``project.json``.

    Raises
    ------
    InputError
        If they were written by a newer version, or are not what a project holds.
    """
    where = atomic.quoted(path)
    values = atomic.parse_json(data, where)
    if not isinstance(values, dict):
        raise InputError(f"{where} holds no project: put a copy of it back.")
    _require_version(values.get("schema_version"), where)
    return Project.checked(values, where)


def dump_project(project: Project) -> dict[str, Any]:
    """Return what `write_json` writes."""
    return project.model_dump(mode="json")


def _require_version(version: object, where: str) -> None:
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise InputError(
            f"{where} names no version of the project format, so it cannot be read: put a copy of it back."
        )
    if version > SCHEMA_VERSION:
        raise NewerVersion(
            f"{where} was written by a newer version of napari-semiseg "
            f"(format {version}; this version reads up to {SCHEMA_VERSION}): "
            "update napari-semiseg to open it."
        )
