"""OME-Zarr 0.1 to 0.5, from a folder or a URL, and plain Zarr arrays.

The metadata are read by us, under limits, before Zarr sees them; levels that are broken are left out as long as the
finest one is whole.
"""

from __future__ import annotations

import logging
import math
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import zarr
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore

from napari_semiseg.atomic import parse_json, read_json
from napari_semiseg.errors import InputError
from napari_semiseg.io import limits
from napari_semiseg.io.bounded_codecs import bounded
from napari_semiseg.io.locate import Location, check_folder
from napari_semiseg.io.source import ArraySource, choose_plane

_log = logging.getLogger(__name__)
_MICRONS = {
    "angstrom": 1e-4, "picometer": 1e-6, "nanometer": 1e-3, "micrometer": 1.0, "micron": 1.0, "um": 1.0, "µm": 1.0,
    "millimeter": 1e3, "centimeter": 1e4, "meter": 1e6,
}  # fmt: skip
_MAX_LEVELS = 64


class PlainFiles(LocalStore):
    """A folder of which only plain files of believable length are read: no pipe, no device, nothing endless."""

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return the bytes of a key, None where there is no such file."""
        try:
            found = (self.root / key).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        if stat.S_ISREG(found.st_mode):
            limits.check_bytes(found.st_size if byte_range is None else 0, str(self.root / key), "The stored chunk")
        elif not stat.S_ISDIR(found.st_mode):
            raise InputError(
                f"'{self.root / key}' is no plain file but a pipe or device: copy the OME-Zarr again from its source."
            )
        return await super().get(key, prototype or default_buffer_prototype(), byte_range)


def open_zarr(location: Location, *, series: int = 0) -> ArraySource:
    """Open one two-dimensional image of an OME-Zarr, or a Zarr array.

    Parameters
    ----------
    location : Location
        A folder or URL; ``c``, ``z``, ``t`` choose a plane and ``s`` an image of a converted file (bioformats2raw
        layout).
    series : int
        The image where `location` chooses none.

    Raises
    ------
    InputError
        If it is no OME-Zarr, claims too much, refers outside of itself, or holds no two-dimensional image.
    """
    where = location.path
    if where.lower().rstrip("/").endswith((".zip", ".ozx")):
        raise InputError(f"'{where}' is a zipped Zarr and only folders are read: unpack it first.")
    store = _store(location)
    series = location.chosen.get("s", series)
    attributes, version = group_attributes(store, "", where)
    if attributes is None:
        array, axes = _plain_array(store, where)
        return ArraySource([array], choose_plane(axes, array.shape, location), None)
    prefix = ""
    if "multiscales" not in attributes and "bioformats2raw.layout" in attributes:
        prefix = str(series)
        attributes, version = group_attributes(store, prefix, where)
        if attributes is None:
            raise InputError(
                f"'{where}' has no series {series}: choose one that is there, for example {location.with_choice('s')}."
            )
    return _open_multiscale(store, prefix, attributes, version, location)


def group_attributes(store: Store, prefix: str, where: str) -> tuple[dict[str, Any] | None, int]:
    """Return the OME attributes of a group, and its Zarr format (2 or 3).

    For an array, or where nothing is, the attributes are None.

    Raises
    ------
    InputError
        If the metadata are too long, nested too deep or no JSON.
    """
    document = read_document(store, _join(prefix, "zarr.json"), where)
    if document is not None:
        if document.get("node_type") != "group":
            return None, 3
        attributes = _mapping(document.get("attributes"))
        return {**attributes, **_mapping(attributes.get("ome"))}, 3
    if read_document(store, _join(prefix, ".zgroup"), where) is None:
        return None, 2
    return read_document(store, _join(prefix, ".zattrs"), where) or {}, 2


def read_document(store: Store, key: str, where: str) -> dict[str, Any] | None:
    """Read a JSON object of a store under limits; None where it is missing."""
    if isinstance(store, LocalStore):
        path = store.root / key
        if not path.exists():
            return None
        document = read_json(path, max_bytes=limits.MAX_JSON_BYTES)
    else:
        data = sync(store.get(key, default_buffer_prototype()))
        if data is None:
            return None
        if len(data) > limits.MAX_JSON_BYTES:
            raise InputError(
                f"The metadata of '{where}' are longer than {limits.MAX_JSON_BYTES / 2**20:g} MiB: export it again."
            )
        document = parse_json(data.to_bytes(), f"'{where}'")
    if not isinstance(document, dict):
        raise InputError(f"'{where}' has metadata ({key}) that are no JSON object: export it again.")
    return document


def open_array(store: Store, key: str, where: str) -> zarr.Array[Any]:
    """Open an array of a store after a look at what it claims, with codecs that stop where a chunk should end.

    Raises
    ------
    InputError
        If it is missing, claims too much, or has a type or codec that is not read.
    """
    document = read_document(store, _join(key, "zarr.json"), where) or read_document(
        store, _join(key, ".zarray"), where
    )
    if document is None or document.get("node_type", "array") != "array":
        raise InputError(f"'{where}' has no array '{key or '.'}': copy it again with all its files.")
    _check_claims(document, where)
    try:
        array = zarr.open_array(store, path=key, mode="r", zarr_format=document.get("zarr_format", 3))
    except Exception as error:  # a parser of hostile text: whatever it raises means the same here
        raise InputError(
            f"The array '{key or '.'}' of '{where}' cannot be opened ({str(error)[:80]}): export it again."
        ) from error
    if array.dtype.kind not in "buif":
        raise InputError(
            f"'{where}' holds pixels of type {array.dtype}: convert it to integers or floating point numbers."
        )
    limits.check_bytes(limits.bytes_of(array.chunks, array.dtype), where, "A chunk", limits.MAX_CHUNK_BYTES)
    if array.shards is not None:
        limits.check_bytes(limits.bytes_of(array.shards, array.dtype), where, "A shard")
    return bounded(array, where)


def _check_claims(document: Mapping[str, Any], where: str) -> None:
    shape = document.get("shape")
    if (
        not isinstance(shape, list)
        or not all(type(side) is int and side >= 0 for side in shape)
        or not 2 <= len(shape) <= limits.MAX_AXES
    ):
        raise InputError(f"'{where}' does not say its shape, or has not 2 to {limits.MAX_AXES} axes: export it again.")
    limits.check_shape(shape[-2:], where)
    if max(shape) > limits.MAX_SIDE:
        raise InputError(
            f"'{where}' claims an axis of {max(shape):,} pixels and {limits.MAX_SIDE:,} are the most: the file is "
            "broken."
        )
    grid = _mapping(_mapping(document.get("chunk_grid")).get("configuration"))
    chunks = document.get("chunks", grid.get("chunk_shape"))
    if (
        not isinstance(chunks, list)
        or len(chunks) != len(shape)
        or not all(type(side) is int and side > 0 for side in chunks)
    ):
        raise InputError(f"'{where}' has chunks of no size, or does not say it: export it again.")
    limits.check_bytes(math.prod(chunks), where, "A chunk")


def _open_multiscale(
    store: Store, prefix: str, attributes: Mapping[str, Any], version: int, location: Location
) -> ArraySource:
    where = location.path
    if "plate" in attributes or "well" in attributes:
        raise InputError(
            f"'{where}' is a plate or well: name one image inside it, for example {where.rstrip('/')}/A/1/0."
        )
    multiscale = _first(attributes.get("multiscales"))
    datasets = multiscale.get("datasets")
    if not isinstance(datasets, list) or not 1 <= len(datasets) <= _MAX_LEVELS:
        raise InputError(
            f"'{where}' is a Zarr group but no OME-Zarr image: name the group that holds 'multiscales', or an array."
        )
    arrays = _levels(store, prefix, datasets, version, where)
    axes = _axes(multiscale, arrays[0].ndim, where)
    layout = choose_plane(axes, arrays[0].shape, location)
    scale, translation = _transform(multiscale, datasets[0], len(axes), where)
    unit = _unit(multiscale, axes)
    y, x = axes.index("Y"), axes.index("X")
    if unit is None:
        return ArraySource(arrays, layout, None, (translation[y] / scale[y], translation[x] / scale[x]))
    return ArraySource(arrays, layout, unit * (scale[y] + scale[x]) / 2, (translation[y] * unit, translation[x] * unit))


def _levels(store: Store, prefix: str, datasets: Sequence[Any], version: int, where: str) -> list[zarr.Array[Any]]:
    """Open the finest level, and each coarser one that is whole."""
    arrays: list[zarr.Array[Any]] = []
    for number, dataset in enumerate(datasets):
        try:
            array = open_array(store, _join(prefix, _inside(dataset, where)), where)
            if array.metadata.zarr_format != version:
                raise InputError(f"'{where}' mixes Zarr 2 and 3: export it again.")
            if arrays and (
                array.ndim != arrays[0].ndim
                or array.shape[-2:] >= arrays[-1].shape[-2:]
                or array.dtype != arrays[0].dtype
            ):
                raise InputError(f"Level {number} of '{where}' does not fit the level before it: export it again.")
        except InputError as error:
            if not arrays:
                raise
            _log.warning("a level is left out: %s", error)
            continue
        arrays.append(array)
    return arrays


def _inside(dataset: Any, where: str) -> str:
    """Return a dataset's path, which has to stay inside the file."""
    path = dataset.get("path") if isinstance(dataset, dict) else None
    parts = PurePosixPath(path).parts if isinstance(path, str) else ("..",)
    if (
        not isinstance(path, str)
        or "\\" in path
        or ":" in path
        or "\0" in path
        or path.startswith("/")
        or ".." in parts
    ):
        raise InputError(f"'{where}' refers to data outside of itself ({str(path)[:40]!r}): export it again.")
    return path.strip("/") if parts else ""


def _axes(multiscale: Mapping[str, Any], ndim: int, where: str) -> str:
    """Return the axes' letters: named ones (0.3 and later), or the last of TCZYX (0.1 and 0.2)."""
    listed = _list(multiscale.get("axes"))
    names = [axis.get("name") if isinstance(axis, dict) else axis for axis in listed] or list("tczyx"[5 - ndim :])
    if len(names) != ndim or not all(isinstance(name, str) and len(name) == 1 for name in names):
        raise InputError(
            f"'{where}' has axes that do not fit its array: export it again with axes named t, c, z, y and x."
        )
    return "".join(str(name) for name in names).upper()


def _transform(
    multiscale: Mapping[str, Any], dataset: Mapping[str, Any], ndim: int, where: str
) -> tuple[list[float], list[float]]:
    """Return scale and translation of the finest level, those of the whole image included."""
    scale, translation = [1.0] * ndim, [0.0] * ndim
    for step in [
        *_list(dataset.get("coordinateTransformations")),
        *_list(multiscale.get("coordinateTransformations")),
    ]:
        kind = step.get("type") if isinstance(step, dict) else None
        if kind not in ("scale", "translation"):
            continue
        values: Any = step.get(kind)
        if not (
            isinstance(values, list)
            and len(values) == ndim
            and all(isinstance(v, int | float) and math.isfinite(v) for v in values)
        ):
            raise InputError(f"'{where}' has a {kind} that does not fit its axes: export it again.")
        if kind == "scale":
            if min(values) <= 0:
                raise InputError(f"'{where}' has a pixel size of {min(values):g}: export it again with positive sizes.")
            scale = [a * b for a, b in zip(scale, values, strict=True)]
            translation = [a * b for a, b in zip(translation, values, strict=True)]
        else:
            translation = [a + b for a, b in zip(translation, values, strict=True)]
    return scale, translation


def _unit(multiscale: Mapping[str, Any], axes: str) -> float | None:
    """Return the unit of rows and columns in µm, None where it is not said."""
    listed = [_mapping(axis) for axis in _list(multiscale.get("axes"))]
    units = {str(listed[axes.index(axis)].get("unit")).lower() for axis in "YX"} if len(listed) == len(axes) else set()
    return _MICRONS.get(units.pop()) if len(units) == 1 else None


def _plain_array(store: Store, where: str) -> tuple[zarr.Array[Any], str]:
    if read_document(store, "zarr.json", where) is None and read_document(store, ".zarray", where) is None:
        raise InputError(f"'{where}' holds neither OME-Zarr nor a Zarr array: name the folder that ends in .zarr.")
    array = open_array(store, "", where)
    return array, array_axes(array.shape, where)


def array_axes(shape: Sequence[int], where: str) -> str:
    """Guess the axes of an array that does not name them: channels are a first or last axis of 1, 3 or 4.

    Raises
    ------
    InputError
        If the array is no gray, RGB or RGBA image.
    """
    if len(shape) == 2:
        return "YX"
    if len(shape) == 3 and shape[-1] in (1, 3, 4):
        return "YXS"
    if len(shape) == 3 and shape[0] in (1, 3, 4):
        return "SYX"
    sizes = " x ".join(str(side) for side in shape)
    raise InputError(
        f"'{where}' is an array of {sizes} and images of rows, columns and 1, 3 or 4 channels are read: choose one "
        "plane of it."
    )


def _store(location: Location) -> Store:
    if not location.is_url:
        return PlainFiles(check_folder(Path(location.path)), read_only=True)
    try:
        from zarr.storage import FsspecStore

        return FsspecStore.from_url(location.path, read_only=True)
    except ImportError:
        raise InputError(
            f"'{location.path}' lies on the network: to read it, run pip install 'zarr[remote]' aiohttp."
        ) from None
    except Exception as error:
        raise InputError(
            f"'{location.path}' cannot be reached ({str(error)[:80]}): check the address and the network."
        ) from error


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _first(listed: Any) -> Mapping[str, Any]:
    return _mapping(listed[0]) if _list(listed) else {}


def _join(*parts: str) -> str:
    return "/".join(part for part in parts if part)
