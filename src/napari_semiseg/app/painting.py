"""One layer to paint in, two arrays to keep: ids of nuclei, and classes.

A person paints in a single layer of whole numbers, so that undo is one history. Every nucleus has a number of its
own, and paint that says "this is background" has the number `BACKGROUND_ID`. Which class a number is of stands in a
table beside it. How a nucleus came about is told by its number alone, so that undo covers that too: drawn ones have
small numbers, those from `ACCEPTED_FROM` on were proposed and accepted, those from `PROPOSED_FROM` on await a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semiseg.errors import InputError
from napari_semiseg.project.tile_annotation import (
    ACCEPTED_FROM,
    ACCEPTED_TO,
    BACKGROUND,
    PROPOSED,
    PROPOSED_AS,
    UNPAINTED,
    TileAnnotation,
)

BACKGROUND_ID = 65_535
"""Number, in the layer, of paint that says background: the largest that napari can give a color of its own."""

PROPOSED_FROM = ACCEPTED_TO
"""Numbers from here on, below `BACKGROUND_ID`, are nuclei that were proposed and not accepted yet."""

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
        unless one is too large: then they are numbered again from 1, in the same order. Proposed ones are numbered
        from `PROPOSED_FROM` on.
    class_of : dict of int to int
        Class, as on disk (2 and up), of every nucleus. Where its pixels disagree the largest class counts. Of a
        proposed one the class that it was proposed with, 0 for none.

    Raises
    ------
    InputError
        If there are more nuclei than numbers.
    """
    ids, places = np.unique(annotation.instance, return_inverse=True)
    places = places.reshape(annotation.shape)
    proposed = np.zeros(ids.size, bool)
    proposed[places[annotation.undecided & (annotation.instance > 0)]] = True
    numbers = _numbers(ids, proposed)
    labels = numbers.astype(LAYER_DTYPE)[places]
    painted = (labels > 0) & (annotation.classes > BACKGROUND) & (annotation.undecided == proposed[places])
    largest = np.zeros(ids.size, np.uint8)
    np.maximum.at(largest, places[painted], annotation.classes[painted])
    largest[proposed] = np.where(largest == PROPOSED, 0, largest - PROPOSED_AS)[proposed]
    largest[~proposed & (largest == 0)] = FIRST_CLASS
    labels[(labels == 0) & (annotation.classes == BACKGROUND)] = BACKGROUND_ID
    return labels, {int(i): int(c) for i, c in zip(numbers, largest, strict=True) if i > 0}


def from_layer(labels: NDArray[Any], class_of: Mapping[int, int]) -> TileAnnotation:
    """Turn what was painted into an annotation.

    Parameters
    ----------
    labels : array, (h, w), integer
        As `to_layer` gives it. Numbers that no brush paints, below 0 or above `BACKGROUND_ID`, count as nothing.
        Those from `PROPOSED_FROM` on await a word, whatever `class_of` says.
    class_of : mapping of int to int
        A nucleus that is missing here is of the first class, or where it is proposed, of none.

    Returns
    -------
    TileAnnotation, (h, w)
        It shares nothing with `labels`.
    """
    background = labels == BACKGROUND_ID
    instance = np.where(background | (labels < 0) | (labels > BACKGROUND_ID), 0, labels).astype(np.uint32)
    ids, places = np.unique(instance, return_inverse=True)
    kinds = np.array([_kind(int(i), class_of) for i in ids], np.uint8)
    classes = kinds[places].reshape(labels.shape)
    classes[background] = BACKGROUND
    return TileAnnotation(instance, classes)


def next_id(labels: NDArray[Any], class_of: Mapping[int, int] | None = None, kind: int = 0) -> int:
    """Return a number that no drawn nucleus of this tile has.

    Nor has one had it that was of another class than `kind`, as `class_of` knows: undo may bring that one back.
    """
    had = [number for number, other in (class_of or {}).items() if other != kind]
    return int(drawn_numbers(np.append(labels, np.array(had, labels.dtype)) if had else labels, 1)[0])


def drawn_numbers(labels: NDArray[Any], count: int) -> NDArray[np.int64]:
    """Return some numbers that no drawn nucleus of this tile has."""
    return _free(labels, 1, ACCEPTED_FROM, count)


def accepted_numbers(labels: NDArray[Any], count: int) -> NDArray[np.int64]:
    """Return some numbers that no accepted nucleus of this tile has."""
    return _free(labels, ACCEPTED_FROM, ACCEPTED_TO, count)


def proposed_numbers(labels: NDArray[Any], count: int) -> NDArray[np.int64]:
    """Return some numbers that no proposed nucleus of this tile has."""
    return _free(labels, PROPOSED_FROM, BACKGROUND_ID, count)


def is_proposed(number: int) -> bool:
    """Whether a number is that of a nucleus that nobody has accepted yet."""
    return PROPOSED_FROM <= number < BACKGROUND_ID


def _free(labels: NDArray[Any], start: int, stop: int, count: int) -> NDArray[np.int64]:
    """Return numbers in a range that no pixel has: those after the largest, as long as there are enough."""
    largest = int(labels.max(initial=start - 1, where=(labels >= start) & (labels < stop)))
    if largest + count < stop:
        return np.arange(largest + 1, largest + 1 + count)
    free = np.setdiff1d(np.arange(start, stop), labels)[:count]
    if free.size < count:
        raise InputError("This tile holds as many nuclei as can be told apart: go on in a smaller tile.")
    return free


def _kind(number: int, class_of: Mapping[int, int]) -> int:
    if number == 0:
        return UNPAINTED
    if not is_proposed(number):
        return class_of.get(number, FIRST_CLASS)
    kind = class_of.get(number, 0)
    return PROPOSED_AS + kind if kind else PROPOSED


def _numbers(ids: NDArray[np.uint32], proposed: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the number in the layer of each id."""
    numbers = ids.astype(np.int64)
    told = (numbers > 0) & ~proposed
    if numbers[told].max(initial=0) >= PROPOSED_FROM:
        numbers[told] = np.arange(1, np.count_nonzero(told) + 1)
    if (numbers[proposed] < PROPOSED_FROM).any() or numbers[proposed].max(initial=0) >= BACKGROUND_ID:
        numbers[proposed] = np.arange(PROPOSED_FROM, PROPOSED_FROM + np.count_nonzero(proposed))
    if np.count_nonzero(told) >= PROPOSED_FROM or np.count_nonzero(proposed) > BACKGROUND_ID - PROPOSED_FROM:
        raise InputError("A tile holds more nuclei than can be told apart when painting: divide it into smaller tiles.")
    return numbers
