"""What opens as an image, what it gives, and what is refused in one sentence."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image as Pillow

from napari_semiseg.blocks import Box
from napari_semiseg.errors import InputError, ReadError
from napari_semiseg.io.find_images import find_images
from napari_semiseg.io.images import from_array, open_image
from napari_semiseg.io.source import DecodedCache

WHOLE = Box(0, 0, 40, 56)


@pytest.fixture
def rgb() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)


def one_sentence(error: pytest.ExceptionInfo[InputError]) -> str:
    text = str(error.value)
    assert "\n" not in text, text
    assert text.endswith("."), text
    assert ": " in text, text
    return text


# ---- formats


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.ome.tif", "a.ome.zarr"])
def test_a_color_image_comes_back_pixel_by_pixel(tmp_path: Path, rgb: np.ndarray, name: str) -> None:
    path = tmp_path / name
    if name.endswith("png"):
        Pillow.fromarray(rgb).save(path)
    elif name.endswith("zarr"):
        write_ome_zarr(path, np.moveaxis(rgb, -1, 0))
    else:
        tifffile.imwrite(path, rgb, tile=(16, 16), compression="zlib", photometric="rgb")
    image = open_image(path)

    assert (image.name, image.shape, image.gray) == ("a", (40, 56), False)
    np.testing.assert_array_equal(image.read(WHOLE), rgb)
    np.testing.assert_array_equal(image.read(Box(7, 13, 31, 50)), rgb[7:31, 13:50])


def test_a_jpeg_comes_back_nearly(tmp_path: Path) -> None:
    smooth = np.tile(np.linspace(0, 255, 56).astype(np.uint8)[None, :, None], (40, 1, 3))
    Pillow.fromarray(smooth).save(tmp_path / "a.jpg", quality=95)

    assert np.abs(open_image(tmp_path / "a.jpg").read(WHOLE).astype(int) - smooth).max() <= 6


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "zlib"},
        {"compression": "lzw", "predictor": True},
        {"compression": "zstd", "tile": (16, 32)},
        {"compression": "packbits", "rowsperstrip": 7},
        {"planarconfig": "separate", "compression": "zlib", "tile": (16, 16)},
        {"planarconfig": "separate"},
        {"byteorder": ">", "compression": "zlib"},
        {"bigtiff": True},
        {},
    ],
    ids=str,
)
def test_every_common_layout_of_tiff_gives_the_same_pixels(
    tmp_path: Path, rgb: np.ndarray, options: dict[str, Any]
) -> None:
    separate = options.get("planarconfig") == "separate"
    tifffile.imwrite(tmp_path / "a.tif", np.moveaxis(rgb, -1, 0) if separate else rgb, photometric="rgb", **options)

    np.testing.assert_array_equal(open_image(tmp_path / "a.tif").read(Box(3, 5, 39, 56)), rgb[3:39, 5:56])


def test_a_jpeg_compressed_tiff_is_decoded_to_rgb(tmp_path: Path) -> None:
    flat = np.full((64, 64, 3), (200, 60, 120), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", flat, photometric="rgb", compression="jpeg", tile=(32, 32))

    assert np.abs(open_image(tmp_path / "a.tif").read(Box(0, 0, 64, 64)).astype(int) - flat).max() <= 4


def test_a_pyramid_shows_its_levels_whatever_holds_it(tmp_path: Path, rgb: np.ndarray) -> None:
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as tif:
        tif.write(rgb, subifds=1, photometric="rgb", tile=(16, 16))
        tif.write(rgb[::2, ::2], subfiletype=1, photometric="rgb", tile=(16, 16))
    write_ome_zarr(tmp_path / "a.ome.zarr", np.moveaxis(rgb, -1, 0), levels=2)

    for path in sorted(tmp_path.iterdir()):
        image = open_image(path)
        assert image.levels == [(40, 56), (20, 28)]
        assert image.downsamples == [(1, 1), (2, 2)]
        np.testing.assert_array_equal(image.read(Box(2, 3, 12, 20), level=1), rgb[::2, ::2][2:12, 3:20])


def test_gray_is_repeated_and_said(tmp_path: Path) -> None:
    gray = np.arange(60, dtype=np.uint8).reshape(6, 10)
    Pillow.fromarray(gray).save(tmp_path / "g.png")
    image = open_image(tmp_path / "g.png")

    assert image.gray
    np.testing.assert_array_equal(image.read(Box(0, 0, 6, 10)), np.repeat(gray[..., None], 3, -1))


@pytest.mark.parametrize("kind", ["png", "tif", "array"])
def test_rgba_is_laid_on_white(tmp_path: Path, kind: str) -> None:
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[0, 0] = (100, 0, 0, 255)
    pixels[0, 1] = (0, 0, 0, 51)
    if kind == "png":
        Pillow.fromarray(pixels).save(tmp_path / "a.png")
    if kind == "tif":
        tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", extrasamples=["unassalpha"])
    image = from_array(pixels, "a") if kind == "array" else open_image(tmp_path / f"a.{kind}")

    assert image.read(Box(0, 0, 1, 3)).tolist() == [[[100, 0, 0], [204, 204, 204], [255, 255, 255]]]


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_an_opaque_channel_beside_colors_makes_them_no_darker(dtype: type) -> None:
    rgb = np.random.default_rng(0).integers(0, 4096, (40, 56, 3)).astype(dtype)  # as of a camera of 12 bits
    opaque = np.full((40, 56, 1), np.iinfo(dtype).max if dtype is np.uint16 else 1, dtype)
    image = from_array(np.concatenate([rgb, opaque], -1), "a")

    np.testing.assert_array_equal(image.read(WHOLE), from_array(rgb, "b").read(WHOLE))


def test_palette_images_show_their_colors(tmp_path: Path) -> None:
    picture = Pillow.fromarray(np.array([[0, 1], [1, 0]], np.uint8), "P")
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.save(tmp_path / "p.png")

    assert open_image(tmp_path / "p.png").read(Box(0, 0, 1, 2)).tolist() == [[[10, 20, 30], [200, 100, 50]]]


def test_where_zero_is_white_gray_is_turned_over(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "w.tif", np.array([[0, 255]], np.uint8), photometric="miniswhite")

    assert open_image(tmp_path / "w.tif").read(Box(0, 0, 1, 2))[..., 0].tolist() == [[255, 0]]


def test_a_slide_opens_with_its_pixel_size(dataset: Callable[[str], Path]) -> None:
    pytest.importorskip("openslide", reason="OpenSlide is an extra")
    image = open_image(dataset("slides") / "images" / "CMU-1-Small-Region.svs")

    assert image.shape == (2967, 2220)
    assert image.mpp == pytest.approx(0.499)
    part = image.read(Box(-10, 100, 90, 300))
    assert part.shape == (100, 200, 3)
    np.testing.assert_array_equal(part[:10], part[20:10:-1])  # reflected at the upper border
    assert image.read(Box(1000, 1000, 1200, 1200)).std() > 20  # tissue


def test_without_openslide_the_message_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openslide", None)
    (tmp_path / "a.svs").write_bytes(b"II*\0")

    with pytest.raises(InputError, match=r"pip install 'napari-semiseg\[wsi\]'") as error:
        open_image(tmp_path / "a.svs")
    one_sentence(error)


# ---- pixel size


@pytest.mark.parametrize(
    ("options", "mpp"),
    [
        ({"ome": True, "metadata": {"PhysicalSizeX": 0.25, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.25}}, 0.25),
        ({"ome": True, "metadata": {"PhysicalSizeX": 250, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.25}}, 0.25),
        ({"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}, 0.5),
        ({"resolution": (50800, 50800), "resolutionunit": "INCH"}, 0.5),
        ({"imagej": True, "resolution": (4, 4), "metadata": {"unit": "um"}}, 0.25),
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, None),
        ({}, None),
    ],
    ids=str,
)
def test_the_pixel_size_is_read_from_wherever_tiff_keeps_it(
    tmp_path: Path, options: dict[str, Any], mpp: float | None
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8), np.uint8), **options)
    image = open_image(tmp_path / "a.tif")

    assert image.mpp == (None if mpp is None else pytest.approx(mpp))
    assert open_image(tmp_path / "a.tif", mpp=0.7).mpp == 0.7


def test_scale_translation_and_unit_of_ome_zarr_become_micrometers(tmp_path: Path) -> None:
    write_ome_zarr(
        tmp_path / "a.zarr", np.zeros((1, 8, 8), np.uint8), scale=500.0, translation=2000.0, unit="nanometer"
    )
    image = open_image(tmp_path / "a.zarr")

    assert image.mpp == pytest.approx(0.5)
    assert image.translation == pytest.approx((2.0, 2.0))


@pytest.mark.parametrize("mpp", [0.0, -1.0, float("nan"), float("inf")])
def test_a_pixel_size_that_none_can_have_is_refused(mpp: float) -> None:
    with pytest.raises(InputError, match="pixel size of 'a'"):
        from_array(np.zeros((4, 4), np.uint8), "a", mpp=mpp)


# ---- rectangles


@pytest.mark.parametrize(
    "box", [Box(-9, -3, 20, 60), Box(30, 40, 70, 56), Box(-100, -100, 140, 156), Box(50, 60, 55, 70)], ids=str
)
def test_outside_lies_the_reflection_of_the_whole_image(rgb: np.ndarray, box: Box) -> None:
    margin = 120
    padded = np.pad(rgb, ((margin, margin), (margin, margin), (0, 0)), mode="reflect")

    np.testing.assert_array_equal(from_array(rgb, "a").read(box), padded[box.shifted(margin, margin).slices])


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (31, 31)])
def test_the_smallest_images_can_be_read_with_any_margin(shape: tuple[int, int]) -> None:
    values = np.arange(shape[0] * shape[1], dtype=np.uint8).reshape(shape)

    assert from_array(values, "a").read(Box.whole(shape).grown(20)).shape == (shape[0] + 40, shape[1] + 40, 3)


def test_what_is_read_belongs_to_the_caller(rgb: np.ndarray) -> None:
    image = from_array(rgb, "a")
    before = rgb.copy()
    image.read(WHOLE)[:] = 0

    np.testing.assert_array_equal(rgb, before)


def test_an_overview_is_the_mean_of_squares(rgb: np.ndarray) -> None:
    small = from_array(rgb, "a").overview(max_side=14)

    assert small.shape == (10, 14, 3)
    expected = rgb.reshape(10, 4, 14, 4, 3).mean((1, 3))
    assert np.abs(small - expected).max() <= 0.5 + 1e-4


def test_a_request_beyond_the_memory_is_refused_before_it_is_made(rgb: np.ndarray) -> None:
    with pytest.raises(InputError, match="at most 2 GiB"):
        from_array(rgb, "a").read(Box(0, 0, 50_000, 50_000))


# ---- pixel types


@pytest.mark.parametrize(
    "dtype", ["uint16", "int32", "float32", "float64", ">u2", ">f4", "float16", "uint32", "int8", "int64"]
)
def test_other_types_are_stretched_over_0_to_255(dtype: str) -> None:
    ramp = np.linspace(0, 100, 10_000).reshape(100, 100).astype(dtype)
    part = from_array(ramp, "a").read(Box(0, 0, 100, 100))[..., 0]

    assert part.min() == 0
    assert part.max() == 255
    expected = (np.linspace(0, 100, 10_000).reshape(100, 100) - 0.1) / 99.8 * 255
    assert np.abs(part - np.clip(expected, 0, 255)).max() < 5


def test_a_few_hot_pixels_do_not_darken_the_rest() -> None:
    values = np.tile(np.arange(200, dtype=np.uint16), (200, 1))
    values[0, :5] = 65_535

    assert from_array(values, "a").read(Box(1, 0, 2, 200))[0, 100, 0] == pytest.approx(128, abs=2)


def test_every_block_is_scaled_alike() -> None:
    values = np.random.default_rng(1).normal(1000, 200, (700, 900)).astype(np.float32)
    image = from_array(values, "a")
    whole = image.read(Box(0, 0, 700, 900))

    np.testing.assert_array_equal(image.read(Box(300, 300, 400, 500)), whole[300:400, 300:500])


def test_16_bit_color_keeps_its_hue_and_its_black() -> None:
    values = np.full((32, 32, 3), (20_000, 10_000, 0), np.uint16)
    values[:16] = 40_000
    part = from_array(values, "a").read(Box(0, 0, 32, 32))

    assert part[0, 0].tolist() == [255, 255, 255]
    assert part[31, 0].tolist() == [128, 64, 0]


def test_floats_from_0_to_1_are_taken_as_colors() -> None:
    values = np.full((8, 8, 3), 0.6, np.float32)

    assert from_array(values, "a").read(Box(0, 0, 1, 1)).tolist() == [[[153, 153, 153]]]


def test_bool_becomes_black_and_white() -> None:
    assert from_array(np.eye(2, dtype=bool), "a").read(Box(0, 0, 2, 2))[..., 0].tolist() == [[255, 0], [0, 255]]


@pytest.mark.parametrize(
    "values",
    [
        np.full((9, 9), np.nan),
        np.full((9, 9), np.inf),
        np.full((9, 9), 7.0),
        np.array([[np.nan, np.inf, -np.inf, 1.0, 2.0]] * 3),
        np.array([[5e-324, 1e-320, 0.0]] * 3),
        np.array([[-1.7e308, 1.7e308, 0.0]] * 3),
        np.array([[np.iinfo(np.int64).max, np.iinfo(np.int64).min, 0]] * 3),
    ],
    ids=["nan", "inf", "constant", "mixed", "denormal", "huge", "int64"],
)
def test_strange_numbers_give_a_picture_without_a_warning(values: np.ndarray) -> None:
    part = from_array(values, "a").read(Box.whole(values.shape))

    assert part.dtype == np.uint8
    assert part.shape == (*values.shape, 3)


def test_infinity_is_white_and_minus_infinity_black() -> None:
    values = np.tile(np.linspace(0, 1, 100), (10, 1))
    values[0, :3] = (np.inf, -np.inf, np.nan)

    assert from_array(values, "a").read(Box(0, 0, 1, 3))[0, :, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("dtype", ["complex64", "U3", object])
def test_pixels_without_order_are_refused(dtype: Any) -> None:
    with pytest.raises(InputError, match="pixels of type") as error:
        from_array(np.zeros((4, 4), dtype), "layer 1")
    one_sentence(error)


# ---- what is no two-dimensional image


@pytest.mark.parametrize(
    "shape", [(5, 40, 56), (2, 40, 56), (40, 56, 2), (40, 56, 5), (2, 3, 40, 56), (10,), (2, 2, 2, 8, 8)]
)
def test_volumes_and_odd_channels_in_memory_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="choose one plane") as error:
        from_array(np.zeros(shape, np.uint8), "stack")
    assert "stack" in one_sentence(error)


@pytest.mark.parametrize(
    ("axes", "shape", "choice"),
    [
        ("ZYX", (5, 40, 56), "[z=0]"),
        ("TYX", (5, 40, 56), "[t=0]"),
        ("CYX", (2, 40, 56), "[c=0]"),
        ("CYX", (4, 40, 56), "[c=0]"),
        ("CYX", (7, 40, 56), "[c=0]"),
        ("TZCYX", (2, 3, 2, 40, 56), "[t=0]"),
    ],
)
def test_stacks_are_refused_with_the_words_that_choose(
    tmp_path: Path, axes: str, shape: tuple[int, ...], choice: str
) -> None:
    tifffile.imwrite(
        tmp_path / "s.ome.tif", np.zeros(shape, np.uint8), metadata={"axes": axes}, photometric="minisblack"
    )
    write_ome_zarr(tmp_path / "s.ome.zarr", np.zeros(shape, np.uint8), axes=axes.lower())

    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(InputError) as error:
            open_image(path)
        assert path.name + choice in one_sentence(error)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_the_chosen_plane_is_the_one_that_is_read(tmp_path: Path, compression: str | None) -> None:
    stack = np.random.default_rng(2).integers(0, 256, (3, 4, 2, 24, 20), np.uint8)
    options = {"metadata": {"axes": "TZCYX"}, "compression": compression, "photometric": "minisblack"}
    tifffile.imwrite(tmp_path / "s.ome.tif", stack, **options)
    write_ome_zarr(tmp_path / "s.ome.zarr", stack, axes="tzcyx")

    for path in sorted(tmp_path.iterdir()):
        image = open_image(f"{path}[t=2,z=1,c=1]")
        assert image.name == "s"
        assert image.gray
        np.testing.assert_array_equal(image.read(Box(0, 0, 24, 20))[..., 0], stack[2, 1, 1])
        with pytest.raises(InputError, match="it can be 0 to 3"):
            open_image(f"{path}[t=2,z=4,c=1]")
        with pytest.raises(InputError, match="no axis 'q'"):
            open_image(f"{path}[t=2,z=0,c=1,q=0]")


def test_one_channel_of_a_color_image_can_be_chosen(tmp_path: Path, rgb: np.ndarray) -> None:
    Pillow.fromarray(rgb).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "a.tif", rgb, photometric="rgb", compression="zlib")

    for path in sorted(tmp_path.iterdir()):
        np.testing.assert_array_equal(open_image(f"{path}[c=1]").read(WHOLE)[..., 0], rgb[..., 1])


def test_one_series_of_several_can_be_chosen(tmp_path: Path, rgb: np.ndarray) -> None:
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as tif:
        tif.write(rgb, photometric="rgb")
        tif.write(rgb[:20], photometric="rgb")

    assert open_image(tmp_path / "a.ome.tif", series=1).shape == (20, 56)
    assert open_image(f"{tmp_path / 'a.ome.tif'}[s=1]").shape == (20, 56)
    with pytest.raises(InputError, match="no series 2"):
        open_image(tmp_path / "a.ome.tif", series=2)


def test_a_file_whose_name_ends_in_brackets_is_itself(tmp_path: Path, rgb: np.ndarray) -> None:
    Pillow.fromarray(rgb).save(tmp_path / "a[c=1].png")

    assert open_image(tmp_path / "a[c=1].png").shape == (40, 56)


# ---- arrays


def test_a_list_of_arrays_is_a_pyramid(rgb: np.ndarray) -> None:
    image = from_array([rgb, rgb[::2, ::2]], "a")

    assert image.levels == [(40, 56), (20, 28)]


def test_channels_may_come_first(rgb: np.ndarray) -> None:
    np.testing.assert_array_equal(from_array(np.moveaxis(rgb, -1, 0), "a").read(WHOLE), rgb)


def test_only_the_part_that_is_asked_for_is_computed() -> None:
    dask = pytest.importorskip("dask.array")
    seen: list[tuple[int, ...]] = []

    def chunk(block_info: Any = None) -> np.ndarray:
        location = block_info[None]["chunk-location"]
        seen.append(location)
        if location == (0, 1):
            raise RuntimeError("no such tile")
        return np.full((4000, 4000), 10 * location[0] + location[1], np.uint8)

    sides = (4000,) * 50
    lazy = dask.map_blocks(chunk, chunks=(sides, sides), dtype=np.uint8, meta=np.zeros((0, 0), np.uint8))
    image = from_array(lazy, "lazy")  # 200,000 x 200,000 pixels
    seen.clear()

    assert image.shape == (200_000, 200_000)
    assert image.read(Box(20_050, 50, 20_060, 60))[0, 0, 0] == 50
    assert seen == [(5, 0)]
    with pytest.raises(ReadError, match=r"'lazy' cannot be read .no such tile."):
        image.read(Box(0, 4000, 10, 4010))


# ---- files that are not there, or not images


def test_what_is_no_plain_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "text.tif").write_text("no image")
    (tmp_path / "what.xyz").write_text("no image")
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04")
    (tmp_path / "folder.zarr").mkdir()
    for name in (
        "pipe.png",
        "loop.png",
        "empty.png",
        "text.png",
        "text.tif",
        "what.xyz",
        "gone.tif",
        "a.zip",
        "folder.zarr",
    ):
        with pytest.raises(InputError, match=name.replace(".", r"\.")) as error:
            open_image(tmp_path / name)
        one_sentence(error)
    with pytest.raises(InputError, match="cannot be opened"):
        open_image(tmp_path / ("long" * 100 + ".png"))


@pytest.mark.parametrize(
    "name", ["Übersicht ñ 😀.png", "-leading.png", "two words.png", "trailing..png", "a" * 240 + ".png"]
)
def test_any_name_that_a_disk_can_hold_works(tmp_path: Path, rgb: np.ndarray, name: str) -> None:
    Pillow.fromarray(rgb).save(tmp_path / name)

    assert open_image(tmp_path / name).name == name[:-4]


def test_a_file_that_vanishes_is_said_when_it_is_read(tmp_path: Path, rgb: np.ndarray) -> None:
    tifffile.imwrite(tmp_path / "a.tif", rgb, photometric="rgb", compression="zlib")
    image = open_image(tmp_path / "a.tif")
    (tmp_path / "a.tif").unlink()

    with pytest.raises(ReadError, match="cannot be read any more"):
        image.read(WHOLE)


def test_a_source_that_comes_back_is_read_after_all(rgb: np.ndarray) -> None:
    class Shaky:
        shape, dtype, failures = rgb.shape, rgb.dtype, 2

        def __getitem__(self, index: Any) -> np.ndarray:
            if self.failures:
                self.failures -= 1
                raise TimeoutError("no answer")
            return rgb[index]

    np.testing.assert_array_equal(from_array(Shaky(), "a").read(WHOLE), rgb)


def test_no_file_stays_open(tmp_path: Path, rgb: np.ndarray) -> None:
    pytest.importorskip("psutil")
    import psutil

    for number in range(80):
        tifffile.imwrite(tmp_path / f"{number}.tif", rgb, photometric="rgb", compression="zlib" if number % 2 else None)
    before = psutil.Process().num_fds()
    images = [open_image(path) for path in find_images([tmp_path])]
    for image in images:
        image.read(WHOLE)

    assert psutil.Process().num_fds() <= before + 2


def test_shared_memory_for_decoded_pixels_is_bounded(tmp_path: Path, rgb: np.ndarray) -> None:
    cache = DecodedCache(max_bytes=3 * rgb.nbytes)
    for number in range(6):
        Pillow.fromarray(rgb).save(tmp_path / f"{number}.png")
        image = open_image(tmp_path / f"{number}.png", cache=cache)
        np.testing.assert_array_equal(image.read(WHOLE), rgb)

    assert 0 < cache.held_bytes <= 3 * rgb.nbytes
    image.close()
    assert cache.held_bytes == 2 * rgb.nbytes


def test_a_series_is_another_image_than_the_first_and_is_opened_again_by_its_source(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as tif:
        for value in (20, 200):
            tif.write(np.full((40, 56, 3), value, np.uint8), photometric="rgb")
    first, second = (open_image(tmp_path / "a.ome.tif", series=number) for number in (0, 1))

    assert (first.name, second.name) == ("a", "a")
    assert first.fingerprint() != second.fingerprint()
    assert first.source == str(tmp_path / "a.ome.tif")
    again = open_image(second.source)
    assert again.read(WHOLE).max() == 200
    assert again.fingerprint() == second.fingerprint()
    assert open_image(f"{tmp_path / 'a.ome.tif'}[s=0]", series=1).read(WHOLE).max() == 20


# ---- fingerprints


def test_a_fingerprint_is_the_same_until_the_file_changes(tmp_path: Path, rgb: np.ndarray) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, rgb, photometric="rgb")
    first = open_image(path).fingerprint()
    os.utime(path, (1, 1))

    assert open_image(path).fingerprint() == first
    changed = rgb.copy()
    changed[20, 20, 0] ^= 1
    tifffile.imwrite(path, changed, photometric="rgb")
    assert open_image(path).fingerprint() != first


def test_arrays_and_zarr_folders_have_fingerprints_too(tmp_path: Path, rgb: np.ndarray) -> None:
    write_ome_zarr(tmp_path / "a.zarr", np.moveaxis(rgb, -1, 0))
    write_ome_zarr(tmp_path / "b.zarr", np.moveaxis(rgb, -1, 0)[:, ::-1])

    assert from_array(rgb, "a").fingerprint() == from_array(rgb.copy(), "b").fingerprint()
    assert from_array(rgb, "a").fingerprint() != from_array(rgb[::-1], "a").fingerprint()
    assert open_image(tmp_path / "a.zarr").fingerprint() != open_image(tmp_path / "b.zarr").fingerprint()


# ---- lists of files


def test_a_folder_stands_for_its_images_in_order(tmp_path: Path, rgb: np.ndarray) -> None:
    for name in ("b.png", "a.PNG", ".hidden.png"):
        Pillow.fromarray(rgb).save(tmp_path / name)
    write_ome_zarr(tmp_path / "c.ome.zarr", np.moveaxis(rgb, -1, 0))
    (tmp_path / "README.txt").touch()
    (tmp_path / "labels").mkdir()

    assert [path.name for path in find_images([tmp_path])] == ["a.PNG", "b.png", "c.ome.zarr"]
    assert find_images([f"{tmp_path / 'b.png'}[c=0]", tmp_path / "a.PNG"]) == [
        Path(f"{tmp_path / 'b.png'}[c=0]"),
        tmp_path / "a.PNG",
    ]


@pytest.mark.parametrize(
    "names", [["a.czi"], ["a.png", "b.nd2"], ["notes.txt"], ["a.png", "a.tif"], ["a.png", "A.PNG.jpg", "A.png.png"]]
)
def test_what_cannot_be_read_in_a_folder_is_never_passed_over_silently(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).touch()

    with pytest.raises(InputError) as error:
        find_images([tmp_path])
    one_sentence(error)


def test_a_file_that_is_not_there_is_refused_and_so_is_nothing(tmp_path: Path) -> None:
    for paths in ([tmp_path / "gone.png"], [], [tmp_path]):
        with pytest.raises(InputError):
            find_images(paths)


def test_names_that_differ_only_in_their_spelling_of_an_accent_are_twins(tmp_path: Path, rgb: np.ndarray) -> None:
    for name in ("é.png", "e\u0301.png"):
        Pillow.fromarray(rgb).save(tmp_path / name)

    with pytest.raises(InputError, match="same name"):
        find_images([tmp_path])


def write_ome_zarr(
    path: Path,
    pixels: np.ndarray,
    *,
    axes: str = "cyx",
    levels: int = 1,
    scale: float = 1.0,
    translation: float = 0.0,
    unit: str | None = None,
) -> None:
    """Write a plain OME-Zarr 0.5 as any other program would."""
    group = zarr.create_group(path, zarr_format=3)
    spatial = [axis in "zyx" for axis in axes]
    transforms = [
        {"type": "scale", "scale": [scale if space else 1.0 for space in spatial]},
        {"type": "translation", "translation": [translation if space else 0.0 for space in spatial]},
    ]
    kinds = {"t": "time", "c": "channel"}
    named = [
        {"name": axis, "type": kinds.get(axis, "space")} | ({"unit": unit} if unit and axis in "yx" else {})
        for axis in axes
    ]
    datasets = [{"path": str(level), "coordinateTransformations": transforms} for level in range(levels)]
    for level in range(levels):
        step = 2**level
        group.create_array(
            str(level),
            data=np.ascontiguousarray(pixels[..., ::step, ::step]),
            chunks=(1,) * (pixels.ndim - 2) + (16, 16),
        )
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": named, "datasets": datasets}]}


# ---- other places for OME-Zarr


def test_one_image_of_a_converted_file_can_be_chosen(tmp_path: Path, rgb: np.ndarray) -> None:
    root = zarr.create_group(tmp_path / "a.zarr", zarr_format=3)
    root.attrs["ome"] = {"version": "0.5", "bioformats2raw.layout": 3}
    write_ome_zarr(tmp_path / "a.zarr" / "0", np.moveaxis(rgb, -1, 0))
    write_ome_zarr(tmp_path / "a.zarr" / "1", np.moveaxis(rgb[:20], -1, 0))

    assert open_image(tmp_path / "a.zarr").shape == (40, 56)
    assert open_image(tmp_path / "a.zarr", series=1).shape == (20, 56)
    assert open_image(f"{tmp_path / 'a.zarr'}[s=1]").shape == (20, 56)
    with pytest.raises(InputError, match="no series 2"):
        open_image(tmp_path / "a.zarr", series=2)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_plain_zarr_array_is_an_image(tmp_path: Path, rgb: np.ndarray, zarr_format: int) -> None:
    zarr.save_array(tmp_path / "a.zarr", rgb, zarr_format=zarr_format)

    np.testing.assert_array_equal(open_image(tmp_path / "a.zarr").read(WHOLE), rgb)


def test_ome_zarr_is_read_over_the_network(tmp_path: Path, rgb: np.ndarray) -> None:
    pytest.importorskip("aiohttp", reason="reading over the network is an extra")
    write_ome_zarr(tmp_path / "a.ome.zarr", np.moveaxis(rgb, -1, 0), levels=2)
    with served(tmp_path) as address:
        image = open_image(f"{address}/a.ome.zarr")
        assert (image.name, image.levels) == ("a", [(40, 56), (20, 28)])
        np.testing.assert_array_equal(image.read(WHOLE), rgb)
        for wrong in (f"{address}/b.ome.zarr", f"{address}/a.tif"):
            with pytest.raises(InputError):
                open_image(wrong)


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on this machine."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
