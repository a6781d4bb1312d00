"""Measured nuclei, against scikit-image and against hand counts."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from skimage.color import hed2rgb, rgb2gray, rgb2hed
from skimage.measure import label, regionprops_table

from napari_semiseg.blocks import Box, cells
from napari_semiseg.errors import InputError
from napari_semiseg.io.columns import joined
from napari_semiseg.io.labels import read_labels
from napari_semiseg.io.nucleus import Place
from napari_semiseg.io.parquet import write_parquet
from napari_semiseg.io.table import MARGIN, Measurements, measure, write_csv


@pytest.fixture
def blobs() -> np.ndarray:
    """Touching, ragged, holed, tiny and border-crossing labels with gaps in their numbers."""
    noise = np.random.default_rng(3).random((120, 140))
    smooth = sum(np.roll(noise, (dy, dx), (0, 1)) for dy in range(-3, 4) for dx in range(-3, 4)) / 49
    labels = label(np.digitize(smooth, [0.47, 0.5, 0.53]) + 1, connectivity=1).astype(np.uint32) * 7
    labels[smooth < 0.47] = 0
    return labels


def in_blocks(labels: np.ndarray, size: int, **images: np.ndarray) -> dict[str, np.ndarray]:
    sums = Measurements(mpp=0.5)
    padded = np.pad(labels, MARGIN)
    for cell in cells(labels.shape, size):
        part = padded[Box(cell.y0, cell.x0, cell.y1 + 2 * MARGIN, cell.x1 + 2 * MARGIN).slices]
        sums.add(cell, part, **{name: image[cell.slices] for name, image in images.items()})
    return sums.columns()


def test_geometry_is_that_of_scikit_image(blobs: np.ndarray) -> None:
    ours = measure(blobs)
    names = ("label", "centroid", "area", "perimeter", "eccentricity", "bbox", "orientation")
    names += ("axis_major_length", "axis_minor_length")
    theirs = regionprops_table(blobs, properties=names)

    assert len(ours["label"]) > 50
    pairs = {
        "label": "label", "y_px": "centroid-0", "x_px": "centroid-1", "area_px": "area",
        "perimeter_px": "perimeter", "eccentricity": "eccentricity",
        "major_axis_px": "axis_major_length", "minor_axis_px": "axis_minor_length",
        "bbox_y0": "bbox-0", "bbox_x0": "bbox-1", "bbox_y1": "bbox-2", "bbox_x1": "bbox-3",
    }  # fmt: skip
    for name, other in pairs.items():
        np.testing.assert_allclose(ours[name], theirs[other], atol=1e-6, err_msg=name)
    long = ours["eccentricity"] > 0.3  # a circle points nowhere
    apart = (ours["orientation_deg"] - np.degrees(theirs["orientation"]) - 90 + 90) % 180 - 90
    np.testing.assert_allclose(apart[long], 0, atol=1e-6)


def test_rows_are_handed_out_as_soon_as_their_nuclei_have_ended(blobs: np.ndarray) -> None:
    whole = measure(blobs, mpp=0.5)
    sums, padded, bands = Measurements(mpp=0.5), np.pad(blobs, MARGIN), []
    held, promised = 0, 0.0
    for y in range(0, len(blobs), 16):
        for cell in cells((min(16, len(blobs) - y), blobs.shape[1]), 50):
            part = cell.shifted(y, 0)
            seen = padded[Box(part.y0, part.x0, part.y1 + 2 * MARGIN, part.x1 + 2 * MARGIN).slices]
            sums.add(part, seen)
        band, known = sums.take(y + 16)
        assert (band["bbox_y1"] < y + 16).all()
        assert (band["y_px"] >= promised).all()
        bands.append(band)
        promised = known
        held = max(held, len(band["label"]))
    bands.append(sums.columns())

    rows = joined(bands)
    order = np.argsort(rows["label"])
    assert held < len(whole["label"]) / 2
    for name, values in whole.items():
        np.testing.assert_allclose(rows[name][order], values, rtol=1e-9, atol=1e-6, err_msg=name)


def test_blocks_of_any_size_give_the_same_rows(blobs: np.ndarray) -> None:
    rng = np.random.default_rng(4)
    images = {
        "confidence": rng.integers(0, 256, blobs.shape, np.uint8),
        "rgb": rng.integers(0, 256, (*blobs.shape, 3), np.uint8),
    }
    whole = measure(blobs, images["rgb"], images["confidence"], 0.5)

    for size in (17, 64, 119):
        split = in_blocks(blobs, size, **images)
        assert list(split) == list(whole)
        for name, values in whole.items():
            np.testing.assert_allclose(split[name], values, rtol=1e-9, atol=1e-6, err_msg=f"{name} in blocks of {size}")


def test_far_from_the_origin_nothing_gets_lost() -> None:
    small = np.zeros((30, 30), np.uint32)
    small[5:20, 8:14] = 3
    sums = Measurements()
    sums.add(Box(900_000, 800_000, 900_015, 800_030), np.pad(small, MARGIN)[: 15 + 2 * MARGIN])
    sums.add(Box(900_015, 800_000, 900_030, 800_030), np.pad(small, MARGIN)[15:])
    there, here = sums.columns(), measure(small)

    assert there["y_px"][0] == here["y_px"][0] + 900_000
    assert there["eccentricity"][0] == pytest.approx(here["eccentricity"][0], abs=1e-9)
    assert there["perimeter_px"][0] == here["perimeter_px"][0]


def test_micrometers_follow_from_pixels_and_the_place_of_the_image() -> None:
    labels = np.zeros((20, 20), np.uint32)
    labels[4:8, 6:12] = 1
    columns = measure(labels, mpp=0.25, translation=(100.0, 200.0))

    assert (columns["y_px"][0], columns["x_px"][0]) == (5.5, 8.5)
    assert (columns["y_um"][0], columns["x_um"][0]) == (5.5 * 0.25 + 100, 8.5 * 0.25 + 200)
    assert columns["area_px"].tolist() == [24]
    assert columns["area_um2"].tolist() == [24 * 0.0625]
    assert columns["perimeter_um"][0] == columns["perimeter_px"][0] * 0.25
    assert not any(name.endswith(("um", "um2")) for name in measure(labels))


def test_confidence_is_the_mean_and_the_maximum_over_the_nucleus() -> None:
    labels = np.zeros((4, 6), np.uint32)
    labels[1, 1:4] = 5
    confidence = np.full((4, 6), 255, np.uint8)
    confidence[1, 1:4] = (51, 102, 204)
    columns = measure(labels, confidence=confidence)

    assert columns["confidence_mean"] == pytest.approx([119 / 255])
    assert columns["confidence_max"] == pytest.approx([0.8])


def test_hematoxylin_is_measured_in_optical_density() -> None:
    stain = np.zeros((8, 8, 3))
    stain[..., 0] = 0.15  # of skimage's unit, 6 decades: an optical density of 0.9
    rgb = np.rint(hed2rgb(stain) * 255).astype(np.uint8)
    columns = measure(np.ones((8, 8), np.uint32), rgb)

    assert columns["hematoxylin_od_mean"][0] == pytest.approx(0.9, abs=0.02)
    assert columns["hematoxylin_od_mean"][0] == pytest.approx(6 * rgb2hed(rgb)[..., 0].mean())


def test_intensity_and_stain_are_those_of_scikit_image() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)
    columns = measure(np.ones((9, 9), np.uint32), rgb)
    stains = 6 * rgb2hed(rgb)

    assert columns["intensity_mean"][0] == pytest.approx(255 * rgb2gray(rgb).mean())
    assert columns["intensity_sd"][0] == pytest.approx(255 * rgb2gray(rgb).std())
    assert columns["hematoxylin_od_sd"][0] == pytest.approx(stains[..., 0].std())
    assert columns["eosin_od_mean"][0] == pytest.approx(stains[..., 1].mean())


def test_a_gray_image_has_intensity_and_no_stain() -> None:
    columns = measure(np.ones((2, 2), np.uint32), np.full((2, 2, 3), 7, np.uint8), gray=True)

    assert columns["intensity_mean"].tolist() == [7]
    assert columns["intensity_sd"].tolist() == [0]
    assert "hematoxylin_od_mean" not in columns


def test_the_class_of_a_nucleus_is_that_of_most_of_its_pixels() -> None:
    labels = np.array([[1, 1, 1, 0, 2, 2, 3]], np.uint32)
    class_map = np.array([[2, 2, 1, 1, 1, 2, 0]], np.uint8)
    columns = measure(labels, class_map=class_map, classes=["tumor", "stroma"])

    assert columns["class"].tolist() == ["stroma", "tumor", ""]  # 2 is a tie: the first class; 3 has none


def test_without_nuclei_there_are_columns_and_no_rows() -> None:
    columns = measure(np.zeros((5, 5), np.uint32), mpp=1.0)

    assert {"label", "y_um", "area_px", "eccentricity", "bbox_x1"} <= set(columns)
    assert {len(values) for values in columns.values()} == {0}


@pytest.mark.parametrize("gray", [False, True])
def test_a_table_without_rows_has_the_columns_and_types_of_one_with_rows(tmp_path: Path, gray: bool) -> None:
    given = {
        "image": np.full((5, 5, 3), 99, np.uint8),
        "confidence": np.full((5, 5), 200, np.uint8),
        "class_map": np.ones((5, 5), np.uint8),
        "classes": ["tumor"],
        "mpp": 0.5,
        "gray": gray,
    }
    labels = np.zeros((5, 5), np.uint32)
    without = measure(labels, **given)
    labels[2, 2] = 1
    with_rows = measure(labels, **given)

    assert len(without["label"]) == 0
    assert {name: values.dtype for name, values in without.items()} == {
        name: values.dtype for name, values in with_rows.items()
    }
    schemas = []
    for columns in (without, with_rows):
        write_parquet(tmp_path / "x.parquet", [columns], Place(shape=(5, 5), mpp=0.5, translation=(0.0, 0.0)))
        schemas.append(pyarrow.parquet.read_schema(tmp_path / "x.parquet").remove_metadata())
    assert schemas[0] == schemas[1]


def test_a_single_pixel_is_a_circle() -> None:
    labels = np.zeros((5, 5), np.uint32)
    labels[2, 2] = 4_000_000_000
    columns = measure(labels)

    assert (columns["label"][0], columns["area_px"][0], columns["eccentricity"][0]) == (4_000_000_000, 1, 0)


def test_a_csv_reads_back_as_it_was_measured(tmp_path: Path, blobs: np.ndarray) -> None:
    columns = measure(blobs, mpp=0.25) | {
        "class": np.array(['a "b", c'] * len(np.unique(blobs[blobs > 0])), dtype=object)
    }
    write_csv(tmp_path / "a.csv", [columns])

    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(columns)
    assert [int(row["label"]) for row in rows] == columns["label"].tolist()
    np.testing.assert_allclose([float(row["y_um"]) for row in rows], columns["y_um"], rtol=1e-5)
    assert rows[0]["class"] == 'a "b", c'


def test_a_csv_where_none_can_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        write_csv(tmp_path / "none" / "a.csv", [measure(np.zeros((2, 2), np.uint32))])


def test_a_real_image_has_as_many_rows_as_nuclei(dataset: Callable[[str], Path]) -> None:
    labels = read_labels(sorted((dataset("monuseg") / "labels").iterdir())[0])

    assert len(measure(labels)["label"]) == len(np.unique(labels)) - 1
