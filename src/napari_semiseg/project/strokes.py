"""A stroke as it is journaled: rectangles of new pixel values, run-length coded."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from napari_semiseg.blocks import Box
from napari_semiseg.project.tile_annotation import MAX_TILE_PIXELS, TileAnnotation

Layer = Literal["instance", "class"]

_LAYERS: tuple[Layer, ...] = get_args(Layer)
_DTYPES: dict[str, np.dtype[Any]] = {"instance": np.dtype("<u4"), "class": np.dtype("u1")}
_LENGTH = np.dtype("<u4")
_PATCH = struct.Struct("<BIIIII")  # layer, y0, x0, y1, x1, number of runs

MAX_PAYLOAD = 64 + MAX_TILE_PIXELS * (2 * _LENGTH.itemsize + 4 + 1)
"""Largest coded stroke, in bytes: both layers of the largest tile, no two neighboring pixels alike."""


class DamagedStroke(ValueError):
    """The bytes are no stroke of this tile."""


@dataclass(frozen=True, eq=False)
class Patch:
    """New values for a rectangle of one layer of a tile.

    Absolute values, not differences: to apply a patch twice is to apply it once.

    Attributes
    ----------
    layer : {"instance", "class"}
    box : Box
        In the tile's own pixels.
    lengths, values : array, (R,), uint32 and the layer's type
        Runs of equal values in row-major order; lengths are at least 1 and sum to the area of `box`.
    """

    layer: Layer
    box: Box
    lengths: NDArray[np.uint32]
    values: NDArray[Any]

    @classmethod
    def of(cls, layer: Layer, box: Box, array: NDArray[Any]) -> Patch:
        """Code the values of a rectangle. `array` has the shape of `box` and is not kept."""
        flat = np.ascontiguousarray(array, _DTYPES[layer]).ravel()
        starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
        lengths = np.diff(np.append(starts, flat.size)).astype(_LENGTH)
        return cls(layer, box, lengths, flat[starts])

    def array(self) -> NDArray[Any]:
        """Return the values of the rectangle, (h, w)."""
        return np.repeat(self.values, self.lengths).reshape(self.box.shape)

    def apply(self, annotation: TileAnnotation) -> None:
        """Paint into `annotation`, in place."""
        target = annotation.instance if self.layer == "instance" else annotation.classes
        target[self.box.slices] = self.array()


Stroke = tuple[Patch, ...]
"""What is saved together or not at all: of a stroke that changed ids and classes, never one without the other."""


def encode(patches: Sequence[Patch]) -> bytes:
    """Return a stroke as bytes."""
    parts: list[bytes] = []
    for patch in patches:
        parts += [
            _PATCH.pack(_LAYERS.index(patch.layer), *patch.box, len(patch.lengths)),
            patch.lengths.astype(_LENGTH).tobytes(),
            patch.values.astype(_DTYPES[patch.layer]).tobytes(),
        ]
    return b"".join(parts)


def decode(payload: bytes, shape: tuple[int, int]) -> Stroke:
    """Read a stroke of a tile of that shape. Nothing is allocated that the payload does not hold.

    Raises
    ------
    DamagedStroke
        If the bytes are not what `encode` writes for such a tile.
    """
    patches: list[Patch] = []
    offset = 0
    while offset < len(payload):
        patch, offset = _decode_patch(payload, offset, shape)
        patches.append(patch)
    return tuple(patches)


def _decode_patch(payload: bytes, offset: int, shape: tuple[int, int]) -> tuple[Patch, int]:
    if len(payload) - offset < _PATCH.size:
        raise DamagedStroke("too short")
    number, y0, x0, y1, x1, runs = _PATCH.unpack_from(payload, offset)
    offset += _PATCH.size
    box = Box(y0, x0, y1, x1)
    if number >= len(_LAYERS) or not (y0 < y1 and x0 < x1 and Box.whole(shape).contains(box)):
        raise DamagedStroke("outside the tile")
    layer = _LAYERS[number]
    end = offset + runs * (_LENGTH.itemsize + _DTYPES[layer].itemsize)
    if end > len(payload):
        raise DamagedStroke("too short")
    lengths = np.frombuffer(payload, _LENGTH, runs, offset)
    values = np.frombuffer(payload, _DTYPES[layer], runs, offset + lengths.nbytes)
    if int(lengths.sum(dtype=np.uint64)) != box.area or not lengths.all():
        raise DamagedStroke("of another size than it says")
    return Patch(layer, box, lengths, values), end
