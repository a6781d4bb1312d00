"""Parquet: opened with pandas, read back with its types and the place of its image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from napari_semiseg.errors import InputError
from napari_semiseg.io.columns import taken
from napari_semiseg.io.nucleus import Place
from napari_semiseg.io.parquet import read_parquet, write_parquet
from napari_semiseg.io.table import measure

PLACE = Place(name="field", shape=(4, 6), mpp=0.25, translation=(10.0, -3.5), classes=("tumor",))


def test_the_table_of_an_image_comes_back_with_its_types(tmp_path: Path) -> None:
    labels = np.array([[1, 1, 0, 0, 7, 7]] * 4, np.uint32)
    columns = measure(labels, mpp=0.25, class_map=(labels > 0).astype(np.uint8), classes=["tumor"])
    write_parquet(tmp_path / "x.parquet", [columns], PLACE)
    place, back = read_parquet(tmp_path / "x.parquet")
    frame = pd.read_parquet(tmp_path / "x.parquet")

    assert place == PLACE
    assert list(back) == list(columns) == list(frame.columns)
    for name, values in columns.items():
        assert back[name].dtype == values.dtype
        np.testing.assert_array_equal(back[name], values)
    assert frame["class"].tolist() == ["tumor", "tumor"]


def test_bands_become_row_groups_and_one_table(tmp_path: Path) -> None:
    labels = np.kron(np.arange(1, 9).reshape(8, 1), np.ones((3, 4), int)).astype(np.uint32)
    whole = measure(labels)
    written = write_parquet(tmp_path / "x.parquet", (taken(whole, slice(n, n + 3)) for n in range(0, 8, 3)), PLACE)

    assert written == len(whole["label"]) == 8
    assert pq.ParquetFile(tmp_path / "x.parquet").num_row_groups == 3
    for name, values in read_parquet(tmp_path / "x.parquet")[1].items():
        np.testing.assert_array_equal(values, whole[name])


def test_a_table_without_rows_keeps_its_columns(tmp_path: Path) -> None:
    write_parquet(tmp_path / "x.parquet", [measure(np.zeros((3, 3), np.uint32))], Place())

    assert len(pd.read_parquet(tmp_path / "x.parquet")) == 0


def test_what_is_no_parquet_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1 no")

    with pytest.raises(InputError, match=r"x\.parquet"):
        read_parquet(tmp_path / "x.parquet")
