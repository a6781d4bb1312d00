"""Maps that travel between processes as ``.npy`` files: whole or not at all, never a pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semiseg import atomic
from napari_semiseg.errors import InputError


def write_npy(path: str | Path, array: NDArray[Any]) -> None:
    """Write an array; a reader sees the file before or after, never between.

    Raises
    ------
    InputError
        If the disk is full or the place cannot be written.
    """
    with atomic.staged(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def map_npy(path: str | Path) -> NDArray[np.uint8]:
    """Open a map of confidence, uint8 (classes, h, w), without reading it: (h, w) becomes (1, h, w).

    Raises
    ------
    InputError
        If it is missing, damaged, or holds anything else.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"'{path}' cannot be read as a map of confidence ({error}): predict it again.") from None
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or array.size == 0:
        raise InputError(f"'{path}' holds {array.dtype} {array.shape} and no map of confidence: predict it again.")
    return np.asanyarray(array if array.ndim == 3 else array[None])
