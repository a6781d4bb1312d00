"""What is written as TIFF opens elsewhere, with the size of its pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import ome_types
import pytest
import tifffile

from napari_semiseg.blocks import Box
from napari_semiseg.errors import InputError
from napari_semiseg.io import tiff
from napari_semiseg.io.images import open_image
from napari_semiseg.io.labels import read_labels
from napari_semiseg.io.pyramid import level_shapes
from napari_semiseg.io.tiff import Pixels, write_ome_tiff, write_tiff

SHAPE = (600, 1300)


def pixels(array: np.ndarray, **options: object) -> Pixels:
    """A pyramid by taking every second pixel."""
    channels = tuple(f"class {number}" for number in range(array.shape[0])) if array.ndim == 3 else ()

    def read(box: Box, level: int) -> np.ndarray:
        return array[..., :: 2**level, :: 2**level][(..., *box.slices)]

    return Pixels("image", array.dtype, level_shapes(SHAPE), read, channels, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    y, x = np.indices(SHAPE)
    return (((y // 40) % 2 * (x // 40) % 2) * (1 + (y // 80) * 20 + x // 80)).astype(np.uint32)


def test_an_ome_tiff_holds_every_series_level_and_pixel(tmp_path: Path, labels: np.ndarray) -> None:
    confidence = np.stack([(labels > 0) * np.uint8(200), (labels > 9) * np.uint8(100)])
    write_ome_tiff(tmp_path / "a.ome.tif", [pixels(labels), pixels(confidence)])

    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tif:
        assert [(series.axes, series.shape, series.dtype) for series in tif.series] == [
            ("YX", SHAPE, np.uint32),
            ("CYX", (2, *SHAPE), np.uint8),
        ]
        assert [level.shape for level in tif.series[0].levels] == [(600, 1300), (300, 650), (150, 325)]
        np.testing.assert_array_equal(tif.series[0].asarray(), labels)
        np.testing.assert_array_equal(tif.series[0].levels[1].asarray(), labels[::2, ::2])
        np.testing.assert_array_equal(tif.series[1].asarray(), confidence)
        assert tif.pages.first.is_tiled
    np.testing.assert_array_equal(
        open_image(f"{tmp_path / 'a.ome.tif'}[s=1,c=1]").read(Box(0, 0, *SHAPE))[..., 0], confidence[1]
    )


def test_its_xml_is_valid_and_says_size_place_and_names(tmp_path: Path, labels: np.ndarray) -> None:
    confidence = np.stack([(labels > 0) * np.uint8(200)] * 2)
    write_ome_tiff(tmp_path / "a.ome.tif", [pixels(confidence, mpp=0.25, translation=(100.0, -50.0))])

    ome = ome_types.from_tiff(tmp_path / "a.ome.tif", validate=True)
    image = ome.images[0].pixels
    assert ome.images[0].name == "image"
    assert [channel.name for channel in image.channels] == ["class 0", "class 1"]
    assert (image.physical_size_x, image.physical_size_y) == (0.25, 0.25)
    assert image.physical_size_x_unit is not None
    assert image.physical_size_x_unit.value == "µm"
    assert [(plane.position_y, plane.position_x) for plane in image.planes] == [(100.0, -50.0)] * 2
    assert image.planes[0].position_x_unit is not None
    assert image.planes[0].position_x_unit.value == "µm"


@pytest.mark.parametrize("mpp", [0.25, 0.4987, None])
def test_the_size_of_a_pixel_and_the_place_come_back(tmp_path: Path, labels: np.ndarray, mpp: float | None) -> None:
    write_ome_tiff(tmp_path / "a.ome.tif", [pixels(labels, mpp=mpp, translation=(12.5, -3.0))])
    assert open_image(tmp_path / "a.ome.tif").translation == (12.5, -3.0)
    assert open_image(tmp_path / "a.ome.tif", mpp=2.0).translation == ((12.5, -3.0) if mpp else (25.0, -6.0))
    write_tiff(tmp_path / "b.tif", pixels(labels.astype(np.uint16), mpp=mpp))

    for path in sorted(tmp_path.iterdir()):
        assert open_image(path).mpp == (None if mpp is None else pytest.approx(mpp, rel=1e-6))
    if mpp is not None:
        with tifffile.TiffFile(tmp_path / "b.tif") as tif:
            assert tif.pages.first.get_resolution("MICROMETER") == pytest.approx((1 / mpp, 1 / mpp), rel=1e-6)
            assert tif.series[0].levels[1].keyframe.get_resolution("MICROMETER")[0] == pytest.approx(
                0.5 / mpp, rel=1e-6
            )


def test_labels_are_read_back_by_us_and_others(tmp_path: Path, labels: np.ndarray) -> None:
    write_tiff(tmp_path / "a.tif", pixels(labels))

    np.testing.assert_array_equal(read_labels(tmp_path / "a.tif", expect_shape=SHAPE), labels)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), labels)


def test_large_files_are_bigtiff(tmp_path: Path, labels: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiff(tmp_path / "small.tif", pixels(labels))
    monkeypatch.setattr(tiff, "_BIG", 1_000_000)
    write_tiff(tmp_path / "large.tif", pixels(labels))

    for name, big in (("small.tif", False), ("large.tif", True)):
        with tifffile.TiffFile(tmp_path / name) as tif:
            assert tif.is_bigtiff is big
            np.testing.assert_array_equal(tif.asarray(), labels)


def test_writing_that_is_broken_off_leaves_nothing(tmp_path: Path, labels: np.ndarray) -> None:
    def enough(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_tiff(tmp_path / "a.tif", pixels(labels), enough)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_what_was_written_never_gets_its_name(tmp_path: Path, labels: np.ndarray) -> None:
    reads = iter(range(1000))

    def unsteady(box: Box, level: int) -> np.ndarray:
        return labels[:: 2**level, :: 2**level][box.slices] + np.uint32(next(reads) > 8)

    with pytest.raises(InputError, match="wrong when read back"):
        write_tiff(tmp_path / "a.tif", Pixels("a", labels.dtype, level_shapes(SHAPE), unsteady))
    assert list(tmp_path.iterdir()) == []


def test_progress_is_said_up_to_the_end(tmp_path: Path, labels: np.ndarray) -> None:
    said: list[tuple[int, int]] = []
    write_tiff(tmp_path / "a.tif", pixels(labels), lambda done, total: said.append((done, total)))

    assert [done for done, _ in said] == list(range(1, len(said) + 1))
    assert said[-1][0] == said[-1][1]
