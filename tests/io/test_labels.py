"""Labels are whole numbers; anything else is refused in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image as Pillow

from napari_semiseg.errors import InputError
from napari_semiseg.io.labels import as_labels, read_labels


@pytest.mark.parametrize(
    ("ending", "dtype"),
    [
        (ending, dtype)
        for ending in (".png", ".tif", ".zarr", ".npy")
        for dtype in ("uint8", "uint16", "uint32", "int32", ">u2")
        if ending != ".png" or dtype in ("uint8", "uint16")
    ],
)
def test_labels_come_back_as_they_were_saved(
    tmp_path: Path, discs: Callable[..., np.ndarray], ending: str, dtype: str
) -> None:
    labels = discs(6)
    values = labels.astype(dtype)
    path = tmp_path / f"labels{ending}"
    if ending == ".png":
        Pillow.fromarray(values).save(path)
    elif ending == ".tif":
        tifffile.imwrite(path, values, compression="zlib", byteorder=">" if dtype[0] == ">" else "<")
    elif ending == ".zarr":
        zarr.save_array(path, values.astype(values.dtype.newbyteorder("=")))
    else:
        np.save(path, values)
    read = read_labels(path, expect_shape=labels.shape)

    assert read.dtype == np.uint32
    np.testing.assert_array_equal(read, labels)


def test_a_palette_png_gives_its_numbers_and_not_its_colors(tmp_path: Path) -> None:
    picture = Pillow.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "P")
    picture.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0])
    picture.save(tmp_path / "p.png")

    assert read_labels(tmp_path / "p.png").tolist() == [[0, 1], [2, 1]]


def test_a_mask_is_one_label(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "m.tif", np.eye(8, dtype=bool), photometric="minisblack")

    assert read_labels(tmp_path / "m.tif").sum() == 8


def test_the_largest_id_fits(tmp_path: Path) -> None:
    assert as_labels(np.array([[2**32 - 1]], np.uint64), "a").tolist() == [[2**32 - 1]]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.ones((4, 4), np.float32), "whole numbers"),
        (np.ones((4, 4), np.complex64), "whole numbers"),
        (np.full((4, 4), -1, np.int16), "begin at 0"),
        (np.full((4, 4), 2**32, np.int64), "number the nuclei anew"),
        (np.ones((2, 4, 4), np.uint8), "rows and columns"),
    ],
)
def test_what_are_no_labels_is_refused(values: np.ndarray, words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        as_labels(values, "a.tif")
    assert "'a.tif'" in str(error.value)
    assert str(error.value).endswith(".")


def test_labels_of_another_shape_are_refused_with_both_shapes(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((10, 12), np.uint16))

    with pytest.raises(InputError, match=r"10 x 12 .* 10 x 13"):
        read_labels(tmp_path / "a.tif", expect_shape=(10, 13))


def test_color_images_and_jpegs_are_no_labels(tmp_path: Path) -> None:
    Pillow.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    Pillow.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.jpg")

    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(InputError, match="TIFF or PNG"):
            read_labels(path)


def test_python_objects_in_an_array_file_are_never_loaded(tmp_path: Path) -> None:
    canary = tmp_path / "canary"

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str, str]]:
            return (open, (str(canary), "w"))

    objects = np.empty((1, 1), object)
    objects[0, 0] = Bomb()
    np.save(tmp_path / "a.npy", objects, allow_pickle=True)

    with pytest.raises(InputError, match="never loaded"):
        read_labels(tmp_path / "a.npy")
    assert not canary.exists()


def test_an_array_file_that_claims_too_much_or_ends_early_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((100, 100), np.uint16))
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "short.npy").write_bytes(whole[:-10])
    huge = whole.replace(b"(100, 100), }    ", b"(999999, 999999), }")
    assert len(huge) > len(whole) - 20
    (tmp_path / "huge.npy").write_bytes(huge)
    (tmp_path / "odd.npy").write_bytes(whole.replace(b"(100, 100)", b"((100, 100"))
    (tmp_path / "text.npy").write_text("no array")

    for name in ("short.npy", "huge.npy", "odd.npy", "text.npy"):
        with pytest.raises(InputError, match=name):
            read_labels(tmp_path / name)


def test_the_labels_of_the_data_sets_hold_as_many_nuclei_as_published(dataset: Callable[[str], Path]) -> None:
    labels = sorted((dataset("monuseg") / "labels").iterdir())

    assert sum(len(np.unique(read_labels(path, expect_shape=(1000, 1000)))) - 1 for path in labels) == 23_655


def test_the_labels_of_an_ome_zarr_are_found_by_name(tmp_path: Path, discs: Callable[..., np.ndarray]) -> None:
    labels = discs(4)
    for name in ("cells", "nuclei", "glands"):
        zarr.save_array(tmp_path / "a.ome.zarr" / "labels" / name, labels * (1 + len(name)))

    np.testing.assert_array_equal(read_labels(tmp_path / "a.ome.zarr"), labels * 7)
    np.testing.assert_array_equal(read_labels(tmp_path / "a.ome.zarr" / "labels" / "cells"), labels * 6)
    (tmp_path / "a.ome.zarr" / "labels" / "nuclei").rename(tmp_path / "a.ome.zarr" / "labels" / "tubes")
    with pytest.raises(InputError, match="cells, glands, tubes"):
        read_labels(tmp_path / "a.ome.zarr")
