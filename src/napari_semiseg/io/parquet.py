"""Tables as Apache Parquet: the types of the columns stay, and so does what the image's pixels are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from napari_semiseg import atomic
from napari_semiseg.errors import InputError
from napari_semiseg.io.locate import check_file
from napari_semiseg.io.nucleus import Place

_OURS = b"napari-semiseg"


def write_parquet(path: str | Path, columns: Mapping[str, NDArray[Any]], place: Place) -> None:
    """Write columns, read them back, and only then give the file its name.

    Parameters
    ----------
    path : str or Path
        Replaced if it exists.
    columns : mapping of str to ndarray, (n,)
    place : Place
        Kept in the metadata of the file, under ``napari-semiseg``.

    Raises
    ------
    InputError
        If the disk is full or the place cannot be written.
    """
    written = pa.table({name: _array(values) for name, values in columns.items()})
    written = written.replace_schema_metadata({_OURS: json.dumps(place.as_json())})
    with atomic.staged(path) as temporary:
        pq.write_table(written, temporary, compression="zstd")
        if not pq.read_table(temporary).equals(written, check_metadata=True):
            raise OSError(5, "the disk gave back other numbers")


def read_parquet(path: str | Path) -> tuple[Place, dict[str, NDArray[Any]]]:
    """Read what `write_parquet` has written, or any other table of numbers and text.

    Raises
    ------
    InputError
        If the file is missing or is no Parquet.
    """
    check_file(path)
    try:
        table = pq.read_table(path)
        columns = {name: table[name].to_numpy() for name in table.column_names}
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"'{path}' is no Parquet file, or damaged: export it again.") from error
    said = (table.schema.metadata or {}).get(_OURS)
    return Place.from_json(atomic.parse_json(said, f"'{path}'"), str(path)) if said else Place(), columns


def _array(values: NDArray[Any]) -> pa.Array:
    if values.dtype == object:
        return pa.array(values, pa.string())
    return pa.array(values if values.dtype.isnative else values.astype(np.float64))
