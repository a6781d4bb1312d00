"""Tables as columns: arrays of equal length by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Columns = dict[str, NDArray[Any]]
"""One array, (n,) or (n, k), for each name."""


def joined(tables: Sequence[Columns]) -> Columns:
    """Return the rows of several tables of the same columns, one after the other."""
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}


def taken(table: Columns, rows: NDArray[Any] | slice) -> Columns:
    """Return some rows: a mask, numbers of rows, or a slice."""
    return {name: values[rows] for name, values in table.items()}
