"""Label images: whole numbers, one per nucleus, 0 for background."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from napari_semiseg.blocks import Box
from napari_semiseg.errors import InputError
from napari_semiseg.io import limits
from napari_semiseg.io.images import open_source
from napari_semiseg.io.locate import Location, check_file, locate

_MAX_ID = np.iinfo(np.uint32).max


def read_labels(path: str | Path, *, expect_shape: Sequence[int] | None = None) -> NDArray[np.uint32]:
    """Read an instance label image, or a class map.

    Parameters
    ----------
    path : str or Path
        TIFF, PNG, OME-Zarr or ``.npy``. Of an OME-Zarr with labels, the labels ``nuclei`` are read, or else the only
        ones it has; other ones by their own path (``result.ome.zarr/labels/cells``).
    expect_shape : (int, int), optional
        Rows and columns of the image that they belong to.

    Returns
    -------
    ndarray, uint32, (h, w)

    Raises
    ------
    InputError
        If the file is missing or broken, holds floating point or negative numbers, ids beyond 32 bits, colors, or has
        another shape.
    """
    where = str(path)
    values = _read_npy(where) if where.lower().endswith(".npy") else _read_image(labels_of(locate(path)))
    labels = as_labels(values, where)
    if expect_shape is not None and labels.shape != tuple(int(side) for side in expect_shape[:2]):
        raise InputError(
            f"The labels '{where}' have {labels.shape[0]} x {labels.shape[1]} pixels and their image has "
            f"{expect_shape[0]} x {expect_shape[1]}: give the labels of that image."
        )
    return labels


def as_labels(values: NDArray[Any], where: str) -> NDArray[np.uint32]:
    """Make sure that an array holds labels, and return it as uint32.

    Parameters
    ----------
    values : ndarray, (h, w), any whole numbers or bool
    where : str
        File or layer, for the message.

    Raises
    ------
    InputError
    """
    if values.dtype.kind not in "bui":
        raise InputError(
            f"The labels '{where}' are of type {values.dtype} and labels are whole numbers: save them as uint16 or "
            "uint32."
        )
    if values.ndim != 2:
        raise InputError(
            f"The labels '{where}' have {values.ndim} axes and labels have rows and columns: save one two-dimensional "
            "plane."
        )
    if values.size and values.dtype.kind == "i" and int(values.min()) < 0:
        raise InputError(
            f"The labels '{where}' go down to {int(values.min())} and labels begin at 0: replace the negative ones."
        )
    if values.size and values.dtype.itemsize > 4 and int(values.max()) > _MAX_ID:
        raise InputError(
            f"The labels '{where}' go up to {int(values.max())} and {_MAX_ID} is the most: number the nuclei anew from "
            "1."
        )
    return values.astype(np.uint32)


def _read_image(location: Location) -> NDArray[Any]:
    if location.path.lower().endswith((".jpg", ".jpeg")):
        raise InputError(
            f"The labels '{location.path}' are a JPEG, which changes the numbers: save them as TIFF or PNG."
        )
    source = open_source(location, raw=True)
    if source.channels != 1:
        raise InputError(
            f"The labels '{location.path}' are a color image: save one number per nucleus as a gray TIFF or PNG."
        )
    whole = Box.whole(source.levels[0])
    limits.check_bytes(whole.area * max(4, source.dtype.itemsize), location.path, "The label image")
    try:
        return np.array(source.read(whole, 0)[..., 0])
    except InputError:
        raise
    except Exception as error:  # codecs raise types of their own
        raise InputError(
            f"The labels '{location.path}' cannot be read ({str(error)[:80]}): copy them again from their source."
        ) from error
    finally:
        source.close()


def labels_of(location: Location) -> Location:
    """Go from an OME-Zarr image to its labels: those named ``nuclei``, or the only ones it has."""
    folder = Path(location.path) / "labels"
    if location.is_url or not folder.is_dir():
        return location
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    name = "nuclei" if "nuclei" in names else names[0] if len(names) == 1 else None
    if name is None:
        found = ", ".join(names) or "none"
        raise InputError(
            f"'{location.path}' has the labels {found}: name those you mean, for example "
            f"{folder / (names or ['nuclei'])[0]}."
        )
    return Location(str(folder / name), location.chosen)


def _read_npy(where: str) -> NDArray[Any]:
    path = check_file(where)
    with path.open("rb") as file:
        try:
            version = npy.read_magic(file)
            header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, _, dtype = header(file)
        except Exception:  # the header is parsed as Python text, which fails in many ways
            raise InputError(f"'{where}' is not a NumPy array file: save the labels as TIFF or PNG.") from None
        if dtype.hasobject:
            raise InputError(
                f"'{where}' holds Python objects, which could run foreign code and are never loaded: save it as plain "
                "numbers."
            )
        decoded = limits.bytes_of(shape, dtype)
        limits.check_bytes(decoded, where, "The label image")
        if path.stat().st_size - file.tell() < decoded:
            raise InputError(f"'{where}' ends before its numbers do: copy it again from its source.")
    return np.load(path, allow_pickle=False)  # type: ignore[no-any-return]
