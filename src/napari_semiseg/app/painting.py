"""One layer to paint in, two arrays to keep: ids of nuclei, and classes.

A person paints in a single layer of whole numbers, so that undo is one history. Every nucleus has a number of its
own, and paint that says "this is background" has the number `BACKGROUND_ID`. Which class a number is of stands in a
table beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semiseg.project.tile_annotation import BACKGROUND, UNPAINTED, TileAnnotation

BACKGROUND_ID = 65_535
"""Number, in the layer, of paint that says background: the largest that napari can give a color of its own."""

LAYER_DTYPE = np.uint16
"""Type of the layer. A nucleus has a number below `BACKGROUND_ID`; on disk it is 32 bits."""

FIRST_CLASS = BACKGROUND + 1
"""Class, on disk, of a nucleus whose class nobody has chosen."""


def to_layer(annotation: TileAnnotation) -> tuple[NDArray[np.uint16], dict[int, int]]:
    """Turn an annotation into what is painted on.

    Parameters
    ----------
    annotation : TileAnnotation, (h, w)

    Returns
    -------
    labels : array, (h, w), uint16
        0 nothing, `BACKGROUND_ID` background, any other number a nucleus. The caller's own. Nuclei keep their numbers,
        unless one is too large: then they are numbered again from 1, in the same order.
    class_of : dict of int to int
        Class, as on disk (2 and up), of every nucleus. Where its pixels disagree the largest class counts.
    """
    ids, places = np.unique(annotation.instance, return_inverse=True)
    if ids[-1] >= BACKGROUND_ID:
        ids = np.arange(ids.size, dtype=np.uint32) + (0 if ids[0] == 0 else 1)
    places = places.reshape(annotation.shape)
    labels = ids.astype(LAYER_DTYPE)[places]
    painted = (labels > 0) & (annotation.classes > BACKGROUND)
    largest = np.full(ids.size, FIRST_CLASS, np.uint8)
    found = np.zeros(ids.size, np.uint8)
    np.maximum.at(found, places[painted], annotation.classes[painted])
    largest[found > 0] = found[found > 0]
    labels[(labels == 0) & (annotation.classes == BACKGROUND)] = BACKGROUND_ID
    return labels, {int(i): int(c) for i, c in zip(ids, largest, strict=True) if i > 0}


def from_layer(labels: NDArray[Any], class_of: Mapping[int, int]) -> TileAnnotation:
    """Turn what was painted into an annotation.

    Parameters
    ----------
    labels : array, (h, w), integer
        As `to_layer` gives it. Numbers that no brush paints, below 0 or above `BACKGROUND_ID`, count as nothing.
    class_of : mapping of int to int
        A nucleus that is missing here is of the first class.

    Returns
    -------
    TileAnnotation, (h, w)
        It shares nothing with `labels`.
    """
    background = labels == BACKGROUND_ID
    instance = np.where(background | (labels < 0) | (labels > BACKGROUND_ID), 0, labels).astype(np.uint32)
    ids, places = np.unique(instance, return_inverse=True)
    kinds = np.array([class_of.get(int(i), FIRST_CLASS) if i else UNPAINTED for i in ids], np.uint8)
    classes = kinds[places].reshape(labels.shape)
    classes[background] = BACKGROUND
    return TileAnnotation(instance, classes)


def next_id(labels: NDArray[Any]) -> int:
    """Return a number that no nucleus of this tile has."""
    nuclei = labels[(labels > 0) & (labels < BACKGROUND_ID)]
    return int(nuclei.max(initial=0)) + 1
