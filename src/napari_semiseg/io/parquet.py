"""Tables as Apache Parquet: the types of the columns stay, and so does what the image's pixels are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
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


def write_parquet(path: str | Path, bands: Iterable[Mapping[str, NDArray[Any]]], place: Place) -> int:
    """Write columns, read them back, and only then give the file its name. A band of rows is one row group.

    Parameters
    ----------
    path : str or Path
        Replaced if it exists.
    bands : iterable of mappings of str to ndarray, (n,)
        One at least, asked for one by one; all with the same columns.
    place : Place
        Kept in the metadata of the file, under ``napari-semiseg``.

    Returns
    -------
    int
        Rows.

    Raises
    ------
    InputError
        If the disk is full or the place cannot be written.
    """
    digests: list[str] = []
    with atomic.staged(path) as temporary:
        writer: pq.ParquetWriter | None = None
        rows = 0
        try:
            for band in bands:
                group = pa.table({name: _array(values) for name, values in band.items()})
                if writer is None:
                    schema = group.schema.with_metadata({_OURS: json.dumps(place.as_json())})
                    writer = pq.ParquetWriter(temporary, schema, compression="zstd")
                writer.write_table(group.replace_schema_metadata(schema.metadata), row_group_size=max(1, len(group)))
                digests += [_digest(group)] if len(group) else []
                rows += len(group)
        finally:
            if writer is not None:
                writer.close()
        back = pq.ParquetFile(temporary)
        found = (back.read_row_group(number) for number in range(back.num_row_groups))
        if [_digest(group) for group in found if len(group)] != digests:
            raise OSError(5, "the disk gave back other numbers")
    return rows


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


def _digest(table: pa.Table) -> str:
    """Return a hash of all values of a table."""
    digest = hashlib.sha256()
    for name in table.column_names:
        values = table[name].to_numpy()
        digest.update(
            repr(values.tolist()).encode() if values.dtype == object else np.ascontiguousarray(values).tobytes()
        )
    return digest.hexdigest()


def _array(values: NDArray[Any]) -> pa.Array:
    if values.dtype == object:
        return pa.array(values, pa.string())
    return pa.array(values if values.dtype.isnative else values.astype(np.float64))
