"""Pictures of what goes on inside a method, laid over an image: what they are, and the file that carries them.

A method makes them, a file in the run folder holds them, the dock and the report show them. One file is one look at
one rectangle; it is written whole or not at all, and read without a pickle and within bounds.
"""

from __future__ import annotations

import colorsys
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from napari_semiseg import atomic
from napari_semiseg.config import Config
from napari_semiseg.errors import InputError

MAX_BYTES = 256_000_000
"""Largest file that is read: more than all maps of a rectangle of 2048 x 2048 pixels have."""
MAX_MAPS = 64

Color: TypeAlias = tuple[int, int, int]


@dataclass(frozen=True)
class Meaning:
    """What a number of a map, or a color of a picture, stands for."""

    words: str
    color: Color


@dataclass(frozen=True)
class Categories:
    """A map of kinds.

    Attributes
    ----------
    values : ndarray, (h, w), uint8
        Over the whole of the image that was shown, on any grid; 0 is nothing, and is not drawn.
    meanings : mapping of int to Meaning
        For each number but 0.
    """

    values: NDArray[np.uint8]
    meanings: Mapping[int, Meaning]


@dataclass(frozen=True)
class Amount:
    """A map of how much.

    Attributes
    ----------
    values : ndarray, (h, w), float
        Over the whole of the image that was shown, on any grid; NaN where nothing is known, and nothing is drawn.
    low, high : float
        Ends of the scale; what lies beyond is shown as the end.
    words : str
        What the ends mean.
    """

    values: NDArray[np.floating[Any]]
    low: float
    high: float
    words: str

    def shares(self) -> NDArray[np.float64]:
        """Return where on the scale each value lies, in [0, 1]; 0 where nothing is known."""
        known = np.nan_to_num(np.asarray(self.values, np.float64), nan=self.low)
        return ((known - self.low) / max(self.high - self.low, 1e-12)).clip(0, 1)


@dataclass(frozen=True)
class Colors:
    """A map whose colors tell likes from unlikes.

    Attributes
    ----------
    values : ndarray, (h, w, 3), uint8
        Over the whole of the image that was shown, on any grid.
    words : str
    """

    values: NDArray[np.uint8]
    words: str


@dataclass(frozen=True)
class Boxes:
    """Rectangles.

    Attributes
    ----------
    corners : ndarray, (n, 4), float
        y0, x0, y1, x1, in pixels of the image that was shown.
    kinds : ndarray, (n,), uint8
    meanings : mapping of int to Meaning
        For each kind.
    """

    corners: NDArray[np.floating[Any]]
    kinds: NDArray[np.uint8]
    meanings: Mapping[int, Meaning]


@dataclass(frozen=True)
class Plot:
    """A picture that lies over no image.

    Attributes
    ----------
    values : ndarray, (h, w, 3), uint8
    words : str
    """

    values: NDArray[np.uint8]
    words: str


Diagnostic: TypeAlias = Categories | Amount | Colors | Boxes | Plot


@dataclass(frozen=True)
class Place:
    """Which rectangle of an image was shown, and how large its pixels were then.

    Attributes
    ----------
    y, x : float
        Corner, in level-0 pixels.
    height, width : int
        Of what was shown, in its own pixels.
    pixel : float
        Level-0 pixels per pixel of what was shown.
    """

    y: float
    x: float
    height: int
    width: int
    pixel: float = 1.0


@dataclass(frozen=True)
class Look:
    """One look inside: maps by name, over a place of an image, at a step.

    Attributes
    ----------
    show : str
        What was asked for.
    step : int
    place : Place
    maps : mapping of str to Diagnostic
    numbers : mapping of str to float
        What was counted beside.
    """

    show: str
    step: int
    place: Place
    maps: Mapping[str, Diagnostic]
    numbers: Mapping[str, float] = field(default_factory=dict)


class _Swatch(Config):
    words: str = Field(max_length=500)
    color: tuple[int, int, int]


class _MapCard(Config):
    name: str = Field(max_length=200)
    kind: Literal["categories", "amount", "colors", "boxes", "plot"]
    words: str = Field("", max_length=500)
    low: float = 0.0
    high: float = 1.0
    meanings: dict[int, _Swatch] = Field(default_factory=dict, max_length=256)


class _Card(Config):
    show: str = Field(max_length=100)
    step: int = Field(ge=0)
    y: float
    x: float
    height: int = Field(ge=1, le=1_000_000)
    width: int = Field(ge=1, le=1_000_000)
    pixel: float = Field(gt=0)
    maps: list[_MapCard] = Field(max_length=MAX_MAPS)
    numbers: dict[str, float] = Field(default_factory=dict, max_length=MAX_MAPS)


def color_of(hue: float) -> Color:
    """Return one of the colors around the circle, for a hue in [0, 1): kinds that have no color of their own."""
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.65, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def write_look(path: Path, look: Look) -> None:
    """Write a look into one ``.npz`` file, atomically. Amounts are kept in 254 steps."""
    arrays: dict[str, NDArray[Any]] = {}
    cards = []
    for number, (name, item) in enumerate(look.maps.items()):
        card, parts = _packed(name, item)
        cards.append(card)
        arrays |= {f"{number}-{part}": values for part, values in parts.items()}
    whole = _Card(show=look.show, step=look.step, **vars(look.place), maps=cards, numbers=dict(look.numbers))
    arrays["card"] = np.frombuffer(json.dumps(whole.model_dump(mode="json")).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(path, buffer.getvalue())


def read_look(path: Path) -> Look:
    """Read a look from its file. Not for the GUI thread.

    Raises
    ------
    InputError
        If it is gone, too large, or no such file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MAX_BYTES:
                raise InputError(f"{path} is larger than {MAX_BYTES:,} bytes, and no look inside a method: ask again.")
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        card = _Card.checked(atomic.parse_json(arrays["card"].tobytes(), str(path)), str(path))
        maps = {each.name: _unpacked(each, number, arrays) for number, each in enumerate(card.maps)}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} holds no look inside a method ({error}): ask for it again.") from None
    place = Place(card.y, card.x, card.height, card.width, card.pixel)
    return Look(card.show, card.step, place, maps, card.numbers)


def _packed(name: str, item: Diagnostic) -> tuple[_MapCard, dict[str, NDArray[Any]]]:
    match item:
        case Categories(values, meanings):
            return _MapCard(name=name, kind="categories", meanings=_swatches(meanings)), {"values": values}
        case Amount(values, low, high, words):
            kept = 1 + np.rint(254 * item.shares()).astype(np.uint8)  # 0 is for what is not known
            kept[np.isnan(values)] = 0
            return _MapCard(name=name, kind="amount", low=low, high=high, words=words), {"values": kept}
        case Colors(values, words):
            return _MapCard(name=name, kind="colors", words=words), {"values": values}
        case Boxes(corners, kinds, meanings):
            card = _MapCard(name=name, kind="boxes", meanings=_swatches(meanings))
            return card, {"corners": np.asarray(corners, np.float32).reshape(-1, 4), "kinds": kinds}
        case Plot(values, words):
            return _MapCard(name=name, kind="plot", words=words), {"values": values}


def _unpacked(card: _MapCard, number: int, arrays: Mapping[str, NDArray[Any]]) -> Diagnostic:
    meanings = {kind: Meaning(swatch.words, swatch.color) for kind, swatch in card.meanings.items()}
    if card.kind == "boxes":
        corners, kinds = arrays[f"{number}-corners"], arrays[f"{number}-kinds"]
        _require(corners.ndim == 2 and corners.shape[1:] == (4,) and corners.dtype == np.float32)
        _require(kinds.shape == corners.shape[:1] and kinds.dtype == np.uint8 and bool(np.isfinite(corners).all()))
        return Boxes(corners, kinds, meanings)
    values = arrays[f"{number}-values"]
    colored = card.kind in ("colors", "plot")
    _require(values.dtype == np.uint8 and values.size > 0 and values.shape[2:] == ((3,) if colored else ()))
    _require(values.ndim == (3 if colored else 2))
    match card.kind:
        case "categories":
            return Categories(values, meanings)
        case "amount":
            share = (values.astype(np.float32) - 1) / 254
            known = card.low + share * (card.high - card.low)
            return Amount(np.where(values > 0, known, np.nan), card.low, card.high, card.words)
        case "colors":
            return Colors(values, card.words)
        case _:
            return Plot(values, card.words)


def _require(holds: bool) -> None:
    if not holds:
        raise ValueError("an array of another shape or type")


def _swatches(meanings: Mapping[int, Meaning]) -> dict[int, _Swatch]:
    return {int(kind): _Swatch(words=each.words, color=each.color) for kind, each in meanings.items()}
