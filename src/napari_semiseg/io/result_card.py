"""What a result on disk says of itself, and what it is made of.

A result is one OME-Zarr per image. The root holds the confidence (uint8; axes c, y, x; one channel per class of nuclei;
255 is certain), ``labels/nuclei`` the instances (uint32; y, x) and, where there are several classes, ``labels/classes``
the class of each labeled pixel (uint8; 1 is the first class).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt

from napari_semiseg.config import Config
from napari_semiseg.errors import InputError
from napari_semiseg.io import limits, ome_metadata
from napari_semiseg.io.locate import is_folder
from napari_semiseg.io.read_zarr import PlainFiles, read_document

OURS = "napari-semiseg"
"""Attribute of the root that holds the card."""

Kind = Literal["confidence", "nuclei", "classes"]
State = Literal["missing", "unfinished", "complete", "foreign"]

KINDS: dict[Kind, str] = {"confidence": "", "nuclei": "labels/nuclei", "classes": "labels/classes"}
"""Where each kind lies within the result."""
DTYPES = {"confidence": np.uint8, "nuclei": np.uint32, "classes": np.uint8}


class ResultCard(Config):
    """What a result says of itself, in the attribute ``napari-semiseg`` of its root."""

    schema_version: Literal[1] = 1
    complete: bool = False
    version: ome_metadata.Version = "0.5"
    shape: tuple[PositiveInt, PositiveInt]
    classes: tuple[str, ...] = Field(min_length=1, max_length=255)
    mpp: PositiveFloat | None = None
    translation: tuple[float, float] = (0.0, 0.0)
    name: str = ""
    image: str = ""
    facts: dict[str, Any] = Field(default_factory=dict)


def read_card(path: Path) -> ResultCard:
    """Read what a result says of itself.

    Raises
    ------
    InputError
        If no result of ours lies there, or its card is broken.
    """
    if not is_folder(path):
        raise InputError(f"'{path}' is no result: name a folder ending in .ome.zarr that a prediction has written.")
    store = PlainFiles(path, read_only=True)
    document = read_document(store, "zarr.json", str(path))
    attributes = document.get("attributes") if document else read_document(store, ".zattrs", str(path))
    card = attributes.get(OURS) if isinstance(attributes, dict) else None
    if not isinstance(card, dict):
        raise InputError(
            f"'{path}' is no result of this program: name a folder ending in .ome.zarr that it has written."
        )
    checked = ResultCard.checked(card, f"'{path}'")
    limits.check_shape(checked.shape, str(path))
    return checked


def result_state(path: str | Path) -> State:
    """Say what lies at a path: nothing (or an empty folder), a result of ours, finished or not, or something else."""
    if not os.path.lexists(path) or _is_bare(Path(path)):
        return "missing"
    try:
        return "complete" if read_card(Path(path)).complete else "unfinished"
    except InputError:
        return "foreign"


def joined(*parts: str) -> str:
    """Return the key of a group or an array within a store."""
    return "/".join(part for part in parts if part)


def _is_bare(path: Path) -> bool:
    """Whether a folder holds nothing, but perhaps what a writer left that was killed before its first file."""
    return is_folder(path) and all(entry.name.startswith(".semiseg-") for entry in path.iterdir())
