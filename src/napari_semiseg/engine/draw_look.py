"""A look inside a method as a picture for a report: a map over the image that it is of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semiseg.blocks import Box
from napari_semiseg.engine import pictures
from napari_semiseg.engine.report import Picture
from napari_semiseg.io.diagnostics import Amount, Boxes, Categories, Colors, Diagnostic, Meaning, Place

OPACITY = 0.6


def drawn(item: Diagnostic, image: pictures.RGB, place: Place, caption: str) -> Picture:
    """Draw a map over the image, (h, w, 3), that shows its place."""
    match item:
        case Categories(values, meanings):
            return Picture(_over(image, values, meanings), caption, _legend(meanings))
        case Amount(values, low, high, words):
            colored = _fitted(pictures.in_colors(np.rint(255 * item.shares()).astype(np.uint8)), image.shape[:2])
            known = _fitted(np.isfinite(values), image.shape[:2])
            scale = f" {words}: dark {low:.3g}, bright {high:.3g}."
            return Picture(np.where(known[..., None], colored, image), caption + scale)
        case Colors(values, words):
            return Picture(_fitted(values, image.shape[:2]), f"{caption} {words.capitalize()}.")
        case Boxes(corners, kinds, meanings):
            framed = image
            for kind, meaning in meanings.items():
                boxes = [Box(*np.rint(each * place.pixel).astype(int).tolist()) for each in corners[kinds == kind]]
                framed = pictures.with_frames(framed, boxes, meaning.color)
            return Picture(framed, caption, _legend(meanings))
        case _:
            return Picture(item.values, f"{caption} {item.words.capitalize()}.")


def _over(image: pictures.RGB, values: NDArray[np.uint8], meanings: Mapping[int, Meaning]) -> pictures.RGB:
    kinds = _fitted(values, image.shape[:2])
    mixed = image.astype(np.float32)
    for kind, meaning in meanings.items():
        where = kinds == kind
        mixed[where] += OPACITY * (np.array(meaning.color, np.float32) - mixed[where])
    return mixed.round().astype(np.uint8)


def _fitted(values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Bring a map to the size of its image, each cell as large as it is."""
    rows, columns = ((np.arange(side) * have) // side for side, have in zip(shape, values.shape[:2], strict=True))
    return values[np.ix_(rows, columns)]


def _legend(meanings: Mapping[int, Meaning]) -> dict[str, tuple[int, int, int]]:
    return {meaning.words: meaning.color for meaning in meanings.values()}
