"""Where pixels come from: one protocol for arrays, files, slides and Zarr, and the memory they may share."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from napari_semiseg.blocks import Box
from napari_semiseg.errors import InputError
from napari_semiseg.io.locate import Location


class Source(Protocol):
    """Raw pixels of one two-dimensional image at several levels.

    Attributes
    ----------
    levels : list of (int, int)
        Rows and columns of each level, finest first.
    channels : int
        1 gray, 3 RGB, 4 RGB with alpha.
    dtype : numpy.dtype
        Native byte order.
    mpp : float or None
        Size of a pixel of level 0, in µm.
    translation : (float, float)
        Where the file puts the image's first pixel (y, x): in µm, or in pixels where `mpp` is None.
    """

    levels: list[tuple[int, int]]
    channels: int
    dtype: np.dtype
    mpp: float | None
    translation: tuple[float, float]

    def read(self, box: Box, level: int) -> NDArray[Any]:
        """Return the pixels of `box`, which lies inside the level, as (h, w, channels)."""
        ...

    def close(self) -> None:
        """Let go of files and memory; a later `read` opens them again."""
        ...


class DecodedCache:
    """Decoded pieces of files, the least recently used dropped first. Safe to share between images and threads.

    Parameters
    ----------
    max_bytes : int
        Bytes kept at most. A piece larger than that is made again each time.
    """

    def __init__(self, max_bytes: int = 2**28) -> None:
        self.max_bytes = max_bytes
        self._pieces: OrderedDict[Hashable, NDArray[Any]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """Return the piece `key`; `make` it where it is not here. The array is shared: read only."""
        with self._lock:
            piece = self._pieces.get(key)
            if piece is not None:
                self._pieces.move_to_end(key)
                return piece
        piece = make()
        piece.flags.writeable = False
        with self._lock:
            if key not in self._pieces and piece.nbytes <= self.max_bytes:
                self._pieces[key] = piece
                self._bytes += piece.nbytes
            while self._bytes > self.max_bytes:
                self._bytes -= self._pieces.popitem(last=False)[1].nbytes
        return piece

    @property
    def held_bytes(self) -> int:
        """Bytes held now."""
        return self._bytes

    def drop(self, owner: Hashable) -> None:
        """Forget the pieces whose key is a tuple that begins with `owner`."""
        with self._lock:
            for key in [key for key in self._pieces if isinstance(key, tuple) and key[0] is owner]:
                self._bytes -= self._pieces.pop(key).nbytes


@dataclass(frozen=True)
class Layout:
    """How the axes of an array become rows, columns and channels.

    Attributes
    ----------
    axes : str
        One upper-case letter per axis, for example ``"TCZYX"``.
    index : mapping of str to int
        Index of every axis that is fixed.
    channel_axis : str
        The axis that holds the channels, ``""`` for none.
    channels : int
        1, 3 or 4.
    """

    axes: str
    index: Mapping[str, int]
    channel_axis: str
    channels: int

    def cut(self, array: Any, box: Box) -> NDArray[Any]:
        """Return the pixels of `box` as (h, w, channels) from anything that can be sliced."""
        rows, columns = box.slices
        where = {"Y": rows, "X": columns, **self.index}
        piece = np.asarray(array[tuple(where.get(axis, slice(None)) for axis in self.axes)])
        left = [axis for axis in self.axes if axis not in self.index]
        if not self.channel_axis:
            return piece.transpose([left.index("Y"), left.index("X")])[..., None]
        return piece.transpose([left.index("Y"), left.index("X"), left.index(self.channel_axis)])


def choose_plane(axes: str, shape: Sequence[int], location: Location, *, alpha: bool = False) -> Layout:
    """Decide which two-dimensional image of an array is meant, or say how to choose one.

    Parameters
    ----------
    axes : str
        One letter per axis; ``Y`` and ``X`` must be there. ``S`` (samples of a pixel) or ``C`` are channels.
    shape : sequence of int
    location : Location
        Its `chosen` fixes axes.
    alpha : bool
        Whether a fourth channel is an alpha channel. It is one for samples of a pixel, not for four separate channels.

    Raises
    ------
    InputError
        For volumes, time series, and 2 or more than 4 channels where nothing was chosen, and for a choice that is not
        there.
    """
    axes = axes.upper()
    sizes = dict(zip(axes, (int(side) for side in shape), strict=True))
    name = location.path
    if "Y" not in sizes or "X" not in sizes or len(sizes) != len(axes):
        raise InputError(
            f"'{name}' has the axes {axes or 'none'} and no plain rows and columns: save it as a two-dimensional image."
        )
    chosen = {letter.upper(): value for letter, value in location.chosen.items() if letter != "s"}  # s is the series
    if "C" in chosen and "C" not in sizes and "S" in sizes:
        chosen["S"] = chosen.pop("C")
    for axis in chosen:
        if axis not in sizes or axis in "YX":
            known = ", ".join(other.lower() for other in sizes if other not in "YX").replace("s", "c") or "none"
            raise InputError(f"'{name}' has no axis '{axis.lower()}' to choose along: it has {known}.")
    index: dict[str, int] = {}
    for axis, size in sizes.items():
        if axis in "YX":
            continue
        if axis in chosen:
            if chosen[axis] >= size:
                raise InputError(f"'{name}' has no {axis.lower()}={chosen[axis]}: it can be 0 to {size - 1}.")
            index[axis] = chosen[axis]
        elif size == 1:
            index[axis] = 0
    for axis, size in sizes.items():
        if axis not in "YXCS" and axis not in index:
            kind = {"Z": "planes", "T": "time points"}.get(axis, "pages")
            raise InputError(
                f"'{name}' has {size} {kind} and two-dimensional images are read: "
                f"choose one, for example {location.with_choice(axis.lower())}."
            )
    free = [axis for axis in "CS" if axis in sizes and axis not in index]
    channels = sizes[free[0]] if free else 1
    if len(free) > 1 or channels not in ((1, 3, 4) if alpha or free == ["S"] else (1, 3)):
        count = " x ".join(str(sizes[axis]) for axis in free)
        raise InputError(
            f"'{name}' has {count} channels and gray, RGB and RGBA images are read: choose one, for example "
            f"{location.with_choice('c')}."
        )
    return Layout(axes, index, free[0] if free else "", channels)


class ArraySource:
    """Arrays, or anything that can be sliced and has `shape` and `dtype`: NumPy, Dask, Zarr, a memory map.

    Parameters
    ----------
    arrays : sequence
        The levels, finest first.
    layout : Layout
    mpp : float or None
    translation : (float, float)
    """

    def __init__(
        self, arrays: Sequence[Any], layout: Layout, mpp: float | None, translation: tuple[float, float] = (0.0, 0.0)
    ) -> None:
        y, x = layout.axes.index("Y"), layout.axes.index("X")
        self.levels = [(int(array.shape[y]), int(array.shape[x])) for array in arrays]
        self.channels = layout.channels
        self.dtype = np.dtype(arrays[0].dtype).newbyteorder("=")
        self.mpp = mpp
        self.translation = translation
        self._arrays = arrays
        self._layout = layout

    def read(self, box: Box, level: int) -> NDArray[Any]:
        """Return the pixels of `box` as (h, w, channels)."""
        return self._layout.cut(self._arrays[level], box)

    def close(self) -> None:
        """Do nothing: the arrays belong to whoever made them."""
