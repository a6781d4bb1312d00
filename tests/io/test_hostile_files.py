"""Files that lie, loop or explode: one sentence, soon, and without the memory that they ask for."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import struct
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import psutil
import pytest
import tifffile
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from zarr.codecs import GzipCodec, ZstdCodec

from napari_semiseg.blocks import Box
from napari_semiseg.errors import InputError
from napari_semiseg.io.images import open_image
from napari_semiseg.io.labels import read_labels

SMALL = Box(0, 0, 16, 16)


@pytest.fixture(autouse=True)
def soon_and_small() -> Iterator[None]:
    """Every case ends within seconds and takes no memory to speak of."""
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    yield
    assert time.process_time() - begun < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # kB


def opened_or_refused(path: Path) -> Any:
    """Open a file that may be taken either way; whatever else it raises is a defect."""
    with contextlib.suppress(InputError):
        image = open_image(path)
        for level, shape in enumerate(image.levels):
            image.read(SMALL.intersect(Box.whole(shape)), level)
        return image
    return None


def refused(path: Path, match: str | None = None, read: Callable[[Any], Any] = lambda image: image.read(SMALL)) -> str:
    begun = time.process_time()
    with pytest.raises(InputError, match=match) as error:
        read(open_image(path))
    assert time.process_time() - begun < 2
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith(".")
    assert len(text) < 600
    return text


# ---- TIFF

SHORT, LONG, LONG8 = 3, 4, 16


def tiff(
    *tags: tuple[int, int, int, int], following: int = 0, count: int | None = None, tail: bytes = bytes(4096)
) -> bytes:
    """A little-endian TIFF of one directory at offset 8; a tag is (code, type, count, value or offset)."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    return (
        struct.pack("<2sHI", b"II", 42, 8)
        + struct.pack("<H", count or len(tags))
        + entries
        + struct.pack("<I", following)
        + tail
    )


def page(width: int = 16, height: int = 16, **changes: tuple[int, int, int]) -> list[tuple[int, int, int, int]]:
    """The tags of an uncompressed gray page of one strip at offset 400."""
    tags = {
        "256": (LONG, 1, width), "257": (LONG, 1, height), "258": (SHORT, 1, 8), "259": (SHORT, 1, 1), "262": (SHORT, 1,
        1), "273": (LONG, 1, 400), "277": (SHORT, 1, 1), "278": (LONG, 1, height), "279": (LONG, 1, width * height %
        2**32),
    }  # fmt: skip
    return [(int(code), *tag) for code, tag in (tags | {code.strip("_"): tag for code, tag in changes.items()}).items()]


def test_the_page_that_the_hostile_ones_are_made_of_is_sound(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(*page()))

    assert open_image(tmp_path / "a.tif").read(SMALL).shape == (16, 16, 3)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("3 million pixels a side", tiff(*page(3_000_000, 3_000_000))),
        ("more pixels than bytes", tiff(*page(60_000, 60_000))),
        ("no pixel", tiff(*page(0, 16))),
        ("a page that follows itself", tiff(*page(), following=8)),
        ("65,535 samples a pixel", tiff(*page(_277=(SHORT, 1, 65_535)))),
        ("65,535 tags", tiff(*page(), count=65_535)),
        ("tiles of no size", tiff(*page(_322=(LONG, 1, 0), _323=(LONG, 1, 0)))),
        ("tiles of which none is there", tiff(*page(_322=(LONG, 1, 16), _323=(LONG, 1, 16), width=160, height=160))),
        ("strips of no size", tiff(*page(_278=(LONG, 1, 0)))),
        ("a strip behind the end", tiff(*page(_273=(LONG, 1, 4_000_000_000)))),
        ("a strip longer than the file", tiff(*page(_259=(SHORT, 1, 8), _279=(LONG, 1, 4_000_000_000)))),
        ("a tag of 16 GiB", tiff(*page(), (270, 2, 4_000_000_000, 400))),
        ("a tag of 4 billion numbers", tiff(*page(_258=(SHORT, 4_000_000_000, 400)))),
        ("a list of pages that holds itself", tiff(*page(), (330, LONG, 1, 8))),
        ("a directory behind the end", struct.pack("<2sHI", b"II", 42, 4_000_000_000) + bytes(100)),
        ("an unknown compression", tiff(*page(_259=(SHORT, 1, 12_345)))),
        ("no strip", tiff(*[tag for tag in page() if tag[0] not in (273, 279)])),
        ("half a header", b"II*\0\x08"),
        ("a BigTIFF of 10^18 tags", struct.pack("<2sHHHQQ", b"II", 43, 8, 0, 16, 10**18) + bytes(100)),
        ("values of 4096 bits", tiff(*page(_258=(SHORT, 1, 4096)))),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_tiff_that_lies_is_refused(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / "a.tif").write_bytes(data)

    if name == "a list of pages that holds itself":  # sound but for that: it may also be passed over
        with_ring = open_image(tmp_path / "a.tif")
        assert with_ring.levels[0] == (16, 16)
        return
    refused(tmp_path / "a.tif")


def test_pages_in_a_ring_are_refused(tmp_path: Path) -> None:
    first = tiff(*page(), following=5000)
    second = tiff(*page(), following=8)[8:]
    (tmp_path / "a.tif").write_bytes(first.ljust(5000, b"\0")[:5000] + second)

    refused(tmp_path / "a.tif", "in a ring")


def test_a_million_pages_are_refused(tmp_path: Path) -> None:
    data = bytearray(struct.pack("<2sHI", b"II", 42, 8))
    for number in range(100_001):
        data += struct.pack("<HI", 0, 8 + 6 * (number + 1))
    (tmp_path / "a.tif").write_bytes(data + bytes(6))

    refused(tmp_path / "a.tif", "pages")


@pytest.mark.parametrize("compression", ["zlib", "zstd", "lzw", "jpeg", "jpeg2000", "webp"])
def test_damaged_tiles_are_said_when_they_are_read(tmp_path: Path, compression: str) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", rgb, compression=compression, photometric="rgb", tile=(64, 64))
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        offset, count = tif.pages.first.dataoffsets[0], tif.pages.first.databytecounts[0]
    data = bytearray((tmp_path / "a.tif").read_bytes())
    data[offset + 2 : offset + count] = bytes(count - 2)
    (tmp_path / "a.tif").write_bytes(data)

    refused(tmp_path / "a.tif", "damaged")
    with pytest.raises(InputError):
        read_labels(tmp_path / "a.tif")


def test_a_tile_that_claims_more_than_its_size_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    rgb = np.zeros((64, 64, 3), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", rgb, compression="jpeg", photometric="rgb", tile=(64, 64))
    data = (tmp_path / "a.tif").read_bytes()
    at = data.index(b"\xff\xc0")  # start of frame: length, precision, height, width
    (tmp_path / "a.tif").write_bytes(data[: at + 5] + struct.pack(">HH", 65_500, 65_500) + data[at + 9 :])

    refused(tmp_path / "a.tif", "claims far more than 64 x 64 pixels")


@pytest.mark.parametrize("kind", ["deflate", "zstd", "png"])
def test_a_decompression_bomb_is_refused(tmp_path: Path, kind: str) -> None:
    side = 12_000
    path = tmp_path / ("a.png" if kind == "png" else "a.tif")
    if kind == "png":
        rows = zlib.compress(bytes((side + 1) * side), 9)
        chunks = [(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)), (b"IDAT", rows), (b"IEND", b"")]
        body = b"".join(
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
            for name, data in chunks
        )
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    else:
        packed = (
            zlib.compress(bytes(side * side), 9) if kind == "deflate" else imagecodecs.zstd_encode(bytes(side * side))
        )
        code = 8 if kind == "deflate" else 50_000
        tags = page(side, side, _259=(SHORT, 1, code), _279=(LONG, 1, len(packed)))
        path.write_bytes(tiff(*tags, tail=b"").ljust(400, b"\0") + packed)

    refused(path, "1000-fold")


# ---- OME-XML

OME = (
    '<?xml version="1.0"?>{doctype}<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">{extra}'
    '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="{order}" Type="uint8" {sizes} '
    'PhysicalSizeX="{pixel}" PhysicalSizeY="0.5"><TiffData/></Pixels></Image></OME>'
)
SIZES = 'SizeX="16" SizeY="16" SizeZ="1" SizeC="1" SizeT="1"'


def with_xml(path: Path, xml: bytes) -> Path:
    path.write_bytes(tiff(*page(), (270, 2, len(xml), 1000), tail=b"").ljust(1000, b"\0") + xml)
    return path


def xml(doctype: str = "", extra: str = "", order: str = "XYCZT", sizes: str = SIZES, pixel: str = "0.5") -> bytes:
    return OME.format(doctype=doctype, extra=extra, order=order, sizes=sizes, pixel=pixel).encode() + b"\0"


def laughs() -> str:
    """Nine entities, each ten times the one before."""
    names = "abcdefghij"
    entities = [f'<!ENTITY {names[n + 1]} "{("&" + names[n] + ";") * 10}">' for n in range(9)]
    return '<!DOCTYPE OME [<!ENTITY a "ha">' + "".join(entities) + "]>"


def test_the_xml_that_the_hostile_ones_are_made_of_is_sound(tmp_path: Path) -> None:
    assert open_image(with_xml(tmp_path / "a.ome.tif", xml())).mpp == 0.5


@pytest.mark.parametrize(
    "text",
    [
        xml(doctype=laughs(), extra="<Description>&j;</Description>"),
        xml(doctype='<!DOCTYPE OME [<!ENTITY x SYSTEM "file:///etc/passwd">]>', extra="<Description>&x;</Description>"),
        xml(doctype='<!DOCTYPE OME SYSTEM "http://127.0.0.1:9/x.dtd">'),
        xml(extra=f"<!--{'-=' * 9_000_000}-->"),
    ],
    ids=["billion laughs", "external entity", "external DTD", "comment of 18 MB"],
)
def test_xml_that_would_expand_or_reach_out_is_refused(tmp_path: Path, text: bytes) -> None:
    refused(with_xml(tmp_path / "a.ome.tif", text), "description")


@pytest.mark.parametrize(
    "text",
    [
        xml()[:300] + b"\0",
        xml().replace(b"Image:0", b"Image\xff\xfe:0"),
        xml(sizes='SizeY="16" SizeZ="1" SizeC="1" SizeT="1"'),
        xml(sizes=SIZES.replace('"16"', '"sixteen"')),
        xml(sizes=SIZES.replace('SizeX="16"', 'SizeX="99999999999999"')),
        xml(order="QWERT"),
        xml(order=""),
        xml(pixel="-1"),
        xml(pixel="nan"),
        xml(pixel="1e999"),
        xml(extra="<Image/><Image><Pixels/></Image>"),
        b"<OME/>\0",
        b"<" * 100_000 + b"\0",
        b"<a>" * 100_000 + b"\0",
    ],
    ids=range(14),
)
def test_broken_xml_is_refused_or_passed_over(tmp_path: Path, text: bytes) -> None:
    image = opened_or_refused(with_xml(tmp_path / "a.ome.tif", text))

    assert image is None or image.shape == (16, 16)
    assert image is None or image.mpp in (None, 0.5)


def test_other_files_that_an_ome_tiff_names_are_not_opened(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "other.tif", np.full((16, 16), 200, np.uint8))
    inside = tmp_path / "inside"
    inside.mkdir()
    text = xml().replace(
        b"<TiffData/>", b'<TiffData IFD="0"><UUID FileName="../other.tif">urn:uuid:1</UUID></TiffData>'
    )

    assert open_image(with_xml(inside / "a.ome.tif", text)).read(SMALL).max() < 200


# ---- OME-Zarr


def make_zarr(
    path: Path, *, zarr_format: int = 3, compressors: Any = "auto", levels: int = 2, shards: Any = None
) -> Path:
    group = zarr.create_group(path, zarr_format=zarr_format)  # type: ignore[arg-type]
    for level in range(levels):
        side = 64 >> level
        data = np.random.default_rng(level).integers(0, 256, (1, side, side), np.uint8)
        group.create_array(str(level), data=data, chunks=(1, 16, 16), shards=shards, compressors=compressors)
    multiscales = {
        "version": "0.4",
        "axes": [{"name": name} for name in "cyx"],
        "datasets": [
            {"path": str(n), "coordinateTransformations": [{"type": "scale", "scale": [1, 2**n, 2**n]}]}
            for n in range(levels)
        ],
    }
    group.attrs.update(
        {"multiscales": [multiscales]}
        if zarr_format == 2
        else {"ome": {"version": "0.5", "multiscales": [multiscales]}}
    )
    return path


def change(path: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))


def datasets(document: dict[str, Any]) -> list[dict[str, Any]]:
    return document["attributes"]["ome"]["multiscales"][0]["datasets"]  # type: ignore[no-any-return]


def grid(document: dict[str, Any]) -> dict[str, Any]:
    return document["chunk_grid"]["configuration"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_the_zarr_that_the_hostile_ones_are_made_of_is_sound(tmp_path: Path, zarr_format: int) -> None:
    assert open_image(make_zarr(tmp_path / "a.zarr", zarr_format=zarr_format)).levels == [(64, 64), (32, 32)]


@pytest.mark.parametrize(
    "edit",
    [
        lambda a: a.update(shape=[1, 10**18, 10**18]),
        lambda a: a.update(shape=[10**18, 64, 64]),
        lambda a: a.update(shape=[1, 64]),
        lambda a: a.update(shape=[1, -64, 64]),
        lambda a: a.update(shape=["1", 64, 64]),
        lambda a: a.update(shape=None),
        lambda a: a.update(shape=[1] * 30 + [64, 64]),
        lambda a: a.update(
            shape=[1, 900_000, 900_000],
            chunk_grid={"name": "regular", "configuration": {"chunk_shape": [1, 900_000, 900_000]}},
        ),
        lambda a: grid(a).update(chunk_shape=[1, 0, 16]),
        lambda a: grid(a).update(chunk_shape=[16]),
        lambda a: a.update(chunk_grid="regular"),
        lambda a: a.update(codecs=[{"name": "bytes"}, {"name": "pickle"}]),
        lambda a: a.update(codecs=[]),
        lambda a: a.update(codecs="zstd"),
        lambda a: a.update(data_type="complex128"),
        lambda a: a.update(data_type="string"),
        lambda a: a.update(data_type={"name": "numpy.datetime64"}),
        lambda a: a.update(node_type="group"),
        lambda a: a.update(zarr_format=7),
        lambda a: a.clear(),
    ],
    ids=range(20),
)
def test_an_array_that_lies_is_refused(tmp_path: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    path = make_zarr(tmp_path / "a.zarr", levels=1)
    change(path / "0" / "zarr.json", edit)

    refused(path)


@pytest.mark.parametrize(
    "edit",
    [
        lambda g: datasets(g)[0].update(path="../b.zarr/0"),
        lambda g: datasets(g)[0].update(path="/etc"),
        lambda g: datasets(g)[0].update(path="C:\\x"),
        lambda g: datasets(g)[0].update(path="0/../../b.zarr/0"),
        lambda g: datasets(g)[0].update(path=5),
        lambda g: datasets(g)[0].pop("path"),
        lambda g: datasets(g)[0].update(path="nothing"),
        lambda g: datasets(g)[0]["coordinateTransformations"][0].update(scale=[1, -1, 1]),
        lambda g: datasets(g)[0]["coordinateTransformations"][0].update(scale=[1, 0, 1]),
        lambda g: datasets(g)[0]["coordinateTransformations"][0].update(scale=[1, 1]),
        lambda g: datasets(g)[0]["coordinateTransformations"][0].update(scale="1"),
        lambda g: datasets(g).clear(),
        lambda g: datasets(g).extend([{"path": "0"}] * 1000),
        lambda g: g["attributes"]["ome"]["multiscales"][0].update(axes=["c", "y"]),
        lambda g: g["attributes"]["ome"]["multiscales"][0].update(axes=[{"name": "c"}, {"name": "q"}, {"name": "x"}]),
        lambda g: g["attributes"]["ome"].update(multiscales=5),
        lambda g: g["attributes"].update(ome=[1]),
        lambda g: g.update(attributes=7),
        lambda g: g["attributes"]["ome"].update(plate={}),
    ],
    ids=range(19),
)
def test_metadata_that_point_elsewhere_or_nowhere_are_refused(
    tmp_path: Path, edit: Callable[[dict[str, Any]], None]
) -> None:
    make_zarr(tmp_path / "b.zarr", levels=1)
    path = make_zarr(tmp_path / "a.zarr", levels=1)
    change(path / "zarr.json", edit)

    refused(path)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a": NaN}',
        '{"zarr_format": 3, "zarr_format": 3}',
        "",
        "[]",
        '"a"',
        " " * 17_000_000 + "{}",
        "\ud83d",
    ],
)
def test_metadata_that_are_no_plain_object_are_refused(tmp_path: Path, text: str) -> None:
    path = make_zarr(tmp_path / "a.zarr")
    (path / "zarr.json").write_bytes(text.encode("utf-8", "surrogatepass"))

    refused(path)


def test_a_level_that_is_broken_is_left_out(tmp_path: Path) -> None:
    for name, harm in (
        ("missing", lambda level: shutil.rmtree(level)),
        (
            "other version",
            lambda level: (
                shutil.rmtree(level),
                zarr.create_array(level, shape=(1, 32, 32), dtype="uint8", zarr_format=2),
            ),
        ),
        ("larger", lambda level: change(level / "zarr.json", lambda a: a.update(shape=[1, 128, 128]))),
    ):
        path = make_zarr(tmp_path / f"{name}.zarr")
        harm(path / "1")
        assert open_image(path).levels == [(64, 64)]
        shutil.rmtree(path / "0")
        refused(path)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("codec", ["zstd", "zstd without size", "gzip"])
def test_a_chunk_that_grows_beyond_its_shape_is_refused(tmp_path: Path, zarr_format: int, codec: str) -> None:
    packed = {
        "zstd": lambda: imagecodecs.zstd_encode(bytes(2**29)),
        "zstd without size": lambda: _zstd_of_zeros(2**29),
        "gzip": lambda: zlib.compress(bytes(2**27), 9, wbits=31),
    }[codec]()
    if zarr_format == 2:
        import numcodecs

        compressors: Any = numcodecs.GZip() if codec == "gzip" else numcodecs.Zstd()
    else:
        compressors = GzipCodec() if codec == "gzip" else ZstdCodec()
    path = make_zarr(tmp_path / "a.zarr", zarr_format=zarr_format, compressors=compressors, levels=1)
    chunk = path / "0" / ("c/0/0/0" if zarr_format == 3 else "0.0.0")
    assert chunk.exists()
    chunk.write_bytes(packed)

    refused(path, "decodes to more than its 256 bytes")


def _zstd_of_zeros(size: int) -> bytes:
    """A zstd frame without a content size, of blocks that repeat one byte (RFC 8878)."""
    blocks = size // 2**17
    repeated = b"".join(
        ((2**17 << 3) | (1 << 1) | (n == blocks - 1)).to_bytes(3, "little") + b"\0" for n in range(blocks)
    )
    return b"\x28\xb5\x2f\xfd" + bytes([0, 0x38]) + repeated


def test_blosc_that_claims_too_much_is_refused(tmp_path: Path) -> None:
    path = make_zarr(tmp_path / "a.zarr", compressors=zarr.codecs.BloscCodec(cname="zstd"), levels=1)
    chunk = path / "0" / "c" / "0" / "0" / "0"
    data = bytearray(chunk.read_bytes())
    data[4:8] = struct.pack("<I", 2**31 - 1)
    chunk.write_bytes(data)

    refused(path, "decodes to more")


@pytest.mark.parametrize("at", [-1, -8, -20, 0])
def test_a_corrupt_shard_is_said(tmp_path: Path, at: int) -> None:
    path = make_zarr(tmp_path / "a.zarr", levels=1, shards=(1, 64, 64), compressors=zarr.codecs.BloscCodec())
    shard = path / "0" / "c" / "0" / "0" / "0"
    data = bytearray(shard.read_bytes())
    for position in range(len(data)) if at == 0 else [at]:
        data[position] ^= 0xFF
    shard.write_bytes(data)

    refused(path)


def test_pipes_and_endless_files_inside_a_zarr_are_refused(tmp_path: Path) -> None:
    path = make_zarr(tmp_path / "a.zarr", levels=1)
    chunk = path / "0" / "c" / "0" / "0" / "0"
    chunk.unlink()
    os.mkfifo(chunk)
    refused(path, "pipe or device")
    chunk.unlink()
    chunk.symlink_to("/dev/zero")
    refused(path, "pipe or device")


def test_a_zipped_store_is_never_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zarr.zip", "w") as archive:
        archive.writestr("../escaped.txt", "x")
        archive.writestr("zarr.json", "{}")

    refused(tmp_path / "a.zarr.zip", "unpack it first")
    assert not (tmp_path.parent / "escaped.txt").exists()


# ---- any damage


@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=6), st.integers(0, 3))
def test_any_bytes_of_a_tiff_may_be_wrong(
    tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[int, int]], kind: int
) -> None:
    folder = tmp_path_factory.getbasetemp() / "fuzzed"
    folder.mkdir(exist_ok=True)
    base = folder / f"base{kind}.ome.tif"
    if not base.exists():
        options = [
            {},
            {"compression": "zlib", "tile": (16, 16)},
            {"compression": "jpeg", "tile": (32, 32)},
            {"planarconfig": "separate"},
        ][kind]
        values = np.random.default_rng(0).integers(0, 256, (3, 48, 40) if kind == 3 else (48, 40, 3), np.uint8)
        with tifffile.TiffWriter(base, ome=True) as tif:
            tif.write(values, subifds=1, photometric="rgb", **options)
            tif.write(
                values[..., ::2, ::2] if kind == 3 else values[::2, ::2], subfiletype=1, photometric="rgb", **options
            )
    data = bytearray(base.read_bytes())
    for position, value in edits:
        data[position % len(data)] = value
    (folder / "a.tif").write_bytes(data)
    opened_or_refused(folder / "a.tif")


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_value_in_zarr_metadata_may_be_wrong(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp() / "fuzzed.zarr"
    if not folder.exists():
        make_zarr(folder, levels=2, shards=(1, 32, 32), compressors=ZstdCodec())
    name = data.draw(st.sampled_from(["zarr.json", "0/zarr.json", "1/zarr.json"]))
    before = (folder / name).read_text()
    document = json.loads(before)
    holder, key = data.draw(st.sampled_from(_places(document)))
    holder[key] = data.draw(
        st.one_of(
            st.none(), st.booleans(), st.integers(-5, 2**70), st.floats(), st.text(max_size=5), st.just([]), st.just({})
        )
    )
    (folder / name).write_text(json.dumps(document))
    try:
        opened_or_refused(folder)
    finally:
        (folder / name).write_text(before)


def _places(document: Any) -> list[tuple[Any, Any]]:
    if isinstance(document, dict):
        return [(document, key) for key in document] + [
            place for value in document.values() for place in _places(value)
        ]
    if isinstance(document, list):
        return [(document, index) for index in range(len(document))] + [
            place for value in document for place in _places(value)
        ]
    return []


def test_few_file_handles_are_enough(tmp_path: Path) -> None:
    """A folder of images, and a Zarr of many chunks, under a limit of 64 open files."""
    rgb = np.zeros((64, 64, 3), np.uint8)
    for number in range(40):
        Pillow.fromarray(rgb).save(tmp_path / f"{number}.png")
        tifffile.imwrite(tmp_path / f"t{number}.tif", rgb, photometric="rgb", compression="zlib", tile=(16, 16))
    path = make_zarr(tmp_path / "a.zarr")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = psutil.Process().num_fds()
    resource.setrlimit(resource.RLIMIT_NOFILE, (held + 40, hard))
    try:
        images = [open_image(file) for file in sorted(tmp_path.iterdir())]
        for image in images:
            image.read(Box(0, 0, 64, 64))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert open_image(path).shape == (64, 64)
    assert len(images) == 81
