"""Results: what others read from them, and what is there after any death."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import yaozarrs
import zarr
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader

from napari_semiseg import atomic
from napari_semiseg.blocks import Box, cells
from napari_semiseg.errors import InputError
from napari_semiseg.io.images import open_image
from napari_semiseg.io.labels import read_labels
from napari_semiseg.io.result import Result
from napari_semiseg.io.result_card import result_state
from napari_semiseg.io.result_writer import SHARD, ResultWriter

SHAPE = (700, 1100)
WHOLE = Box(0, 0, *SHAPE)


@pytest.fixture(scope="module")
def confidence() -> np.ndarray:
    y, x = np.indices(SHAPE)
    return (127 + 127 * np.sin(y / 9) * np.cos(x / 7)).astype(np.uint8)


@pytest.fixture(scope="module")
def nuclei() -> np.ndarray:
    y, x = np.indices(SHAPE)
    inside = (y % 25 - 12) ** 2 + (x % 25 - 12) ** 2 <= 81
    return (inside * (1 + (y // 25) * (SHAPE[1] // 25) + x // 25)).astype(np.uint32)


def written(path: Path, confidence: np.ndarray, nuclei: np.ndarray | None = None, **options: object) -> Result:
    with ResultWriter.create(path, SHAPE, ["nucleus"], **options) as writer:  # type: ignore[arg-type]
        for cell in cells(SHAPE, 256):
            writer.write_confidence(cell, confidence[cell.slices])
            if nuclei is not None:
                writer.write_nuclei(cell, nuclei[cell.slices])
        return writer.finish()


def write_all(writer: ResultWriter, confidence: np.ndarray, boxes: list[Box]) -> None:
    for box in boxes:
        writer.write_confidence(box, confidence[box.slices])


@pytest.mark.parametrize("version", ["0.5", "0.4"])
def test_what_was_written_in_blocks_is_read_back_whole(
    tmp_path: Path, confidence: np.ndarray, nuclei: np.ndarray, version: str
) -> None:
    result = written(tmp_path / "a.ome.zarr", confidence, nuclei, version=version)

    assert result.complete
    assert result.kinds == ["confidence", "nuclei"]
    np.testing.assert_array_equal(result.confidence(WHOLE)[0], confidence)
    np.testing.assert_array_equal(result.nuclei(WHOLE), nuclei)
    np.testing.assert_array_equal(result.nuclei(Box(100, 200, 300, 301)), nuclei[100:300, 200:301])


@pytest.mark.parametrize("version", ["0.5", "0.4"])
def test_the_file_satisfies_the_specification(
    tmp_path: Path, confidence: np.ndarray, nuclei: np.ndarray, version: str
) -> None:
    path = written(tmp_path / "a.ome.zarr", confidence, nuclei, version=version, mpp=0.25).path

    group = yaozarrs.validate_zarr_store(path)
    assert group.ome_version() == version
    yaozarrs.validate_zarr_store(path / "labels" / "nuclei")


@pytest.mark.parametrize("version", ["0.5", "0.4"])
def test_the_reference_reader_sees_image_labels_scale_translation_and_units(
    tmp_path: Path, confidence: np.ndarray, nuclei: np.ndarray, version: str
) -> None:
    path = written(
        tmp_path / "a.ome.zarr", confidence, nuclei, version=version, mpp=0.25, translation=(100.0, 50.0)
    ).path

    nodes = {node.zarr.basename(): node for node in Reader(parse_url(path))()}
    image, labels = nodes["a.ome.zarr"], nodes["nuclei"]
    np.testing.assert_array_equal(np.asarray(image.data[0])[0], confidence)
    np.testing.assert_array_equal(np.asarray(labels.data[0]), nuclei)
    assert [axis.get("unit") for axis in image.metadata["axes"]] == [None, "micrometer", "micrometer"]
    assert image.metadata["coordinateTransformations"][0] == [
        {"type": "scale", "scale": [1.0, 0.25, 0.25]},
        {"type": "translation", "translation": [0.0, 100.0, 50.0]},
    ]
    assert labels.metadata["coordinateTransformations"][1] == [
        {"type": "scale", "scale": [0.5, 0.5]},
        {"type": "translation", "translation": [100.125, 50.125]},
    ]


@pytest.mark.parametrize("mpp", [0.25, None])
def test_scale_and_translation_come_back(tmp_path: Path, confidence: np.ndarray, mpp: float | None) -> None:
    path = written(tmp_path / "a.ome.zarr", confidence, mpp=mpp, translation=(3.5, -7.0), facts={"run": "r1"}).path
    image = open_image(path)

    assert (image.mpp, image.translation) == (mpp, pytest.approx((3.5, -7.0)))
    assert (Result.open(path).mpp, Result.open(path).translation) == (mpp, (3.5, -7.0))
    assert Result.open(path).card.facts == {"run": "r1"}


def test_the_image_is_found_from_any_folder(
    tmp_path: Path, confidence: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert written(Path("a.ome.zarr"), confidence, image="b.tif[c=1]").card.image == str(tmp_path / "b.tif[c=1]")
    assert written(Path("c.ome.zarr"), confidence, image="https://x/b.zarr").card.image == "https://x/b.zarr"
    assert written(Path("d.ome.zarr"), confidence).card.image == ""


def test_levels_are_means_of_confidence_and_modes_of_labels(
    tmp_path: Path, confidence: np.ndarray, nuclei: np.ndarray
) -> None:
    result = written(tmp_path / "a.ome.zarr", confidence, nuclei)

    assert result.levels == [(700, 1100), (350, 550), (175, 275)]
    half = Box(0, 0, 350, 550)
    mean = confidence.reshape(350, 2, 550, 2).mean((1, 3))
    assert np.abs(result.confidence(half, level=1)[0] - mean).max() <= 0.5
    squares = nuclei.reshape(350, 2, 550, 2).swapaxes(1, 2).reshape(-1, 4)
    for square, value in list(zip(squares, result.nuclei(half, level=1).ravel(), strict=True))[::97]:
        counts = [(square == candidate).sum() for candidate in square]
        assert value == square[int(np.argmax(counts))]
    assert set(np.unique(result.nuclei(Box(0, 0, 175, 275), level=2))) <= set(np.unique(nuclei))


def test_several_classes_are_channels_and_a_label_image_with_names(tmp_path: Path) -> None:
    classes = np.zeros(SHAPE, np.uint8)
    classes[:100] = 2
    with ResultWriter.create(tmp_path / "a.ome.zarr", SHAPE, ["tumor", "stroma"]) as writer:
        writer.write_confidence(WHOLE, np.stack([np.full(SHAPE, 200, np.uint8), np.full(SHAPE, 100, np.uint8)]))
        writer.write_classes(WHOLE, classes)
        writer.write_nuclei(WHOLE, classes.astype(np.uint32))
        result = writer.finish()

    assert result.confidence(Box(0, 0, 1, 1)).ravel().tolist() == [200, 100]
    assert result.nucleus_confidence(Box(0, 0, 1, 1)).tolist() == [[255]]
    np.testing.assert_array_equal(result.pixel_classes(WHOLE), classes)
    group = zarr.open_group(result.path / "labels" / "classes", mode="r")
    assert [entry["class"] for entry in group.attrs["ome"]["image-label"]["properties"]] == ["tumor", "stroma"]
    yaozarrs.validate_zarr_store(result.path)


def test_our_own_reader_of_images_and_labels_reads_results(
    tmp_path: Path, confidence: np.ndarray, nuclei: np.ndarray
) -> None:
    path = written(tmp_path / "a.ome.zarr", confidence, nuclei).path

    np.testing.assert_array_equal(open_image(path).read(WHOLE)[..., 0], confidence)
    np.testing.assert_array_equal(read_labels(path, expect_shape=SHAPE), nuclei)


def test_a_shard_is_one_file(tmp_path: Path, confidence: np.ndarray, nuclei: np.ndarray) -> None:
    path = written(tmp_path / "a.ome.zarr", confidence, nuclei).path

    chunks = [file for file in path.rglob("*") if file.is_file() and file.name.isdecimal()]
    assert len(chunks) == 2 * 3  # two arrays of three levels


def test_empty_parts_take_no_file(tmp_path: Path) -> None:
    with ResultWriter.create(tmp_path / "a.ome.zarr", (9000, 9000), ["nucleus"]) as writer:
        writer.write_confidence(Box(0, 0, 2048, 2048), np.zeros((2048, 2048), np.uint8))
        writer.mark_written("confidence", Box(2048, 0, 4096, 2048))

        assert writer.is_written("confidence", Box(2048, 0, 4096, 2048))
        assert not [file for file in writer.path.rglob("*") if file.name.isdecimal() and file.is_file()]
        assert not writer.read("confidence", Box(2000, 0, 4096, 2048)).any()


def test_blocks_that_share_a_shard_may_come_from_many_threads(tmp_path: Path, confidence: np.ndarray) -> None:
    with ResultWriter.create(tmp_path / "a.ome.zarr", SHAPE, ["nucleus"]) as writer:

        def write(part: list[Box]) -> None:
            for cell in part:
                writer.write_confidence(cell, confidence[cell.slices])

        boxes = cells(SHAPE, 100)
        threads = [threading.Thread(target=write, args=(boxes[number::4],)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        np.testing.assert_array_equal(writer.read("confidence", WHOLE)[0], confidence)


# ---- unfinished results


def test_an_unfinished_result_is_an_image_to_nobody_but_us(tmp_path: Path, confidence: np.ndarray) -> None:
    path = tmp_path / "a.ome.zarr"
    with ResultWriter.create(path, SHAPE, ["nucleus"]) as writer:
        writer.write_confidence(WHOLE, confidence)

    assert result_state(path) == "unfinished"
    assert not Result.open(path).complete
    np.testing.assert_array_equal(Result.open(path).confidence(WHOLE)[0], confidence)  # a preview may look
    assert list(Reader(parse_url(path))()) == []
    with pytest.raises(ValueError, match="OME-Zarr version"):
        yaozarrs.validate_zarr_store(path)
    with pytest.raises(InputError, match="no OME-Zarr image"):
        open_image(path)


def test_an_unfinished_result_goes_on_where_it_stopped(tmp_path: Path, confidence: np.ndarray) -> None:
    path = tmp_path / "a.ome.zarr"
    blocks = cells(SHAPE, 256)
    with ResultWriter.create(path, SHAPE, ["nucleus"], mpp=0.5) as writer:
        for cell in blocks[:7]:
            writer.write_confidence(cell, confidence[cell.slices])
    with ResultWriter.open(path) as writer:
        assert [writer.is_written("confidence", cell) for cell in blocks] == [True] * 7 + [False] * (len(blocks) - 7)
        for cell in blocks[7:]:
            writer.write_confidence(cell, confidence[cell.slices])
        result = writer.finish()

    np.testing.assert_array_equal(result.confidence(WHOLE)[0], confidence)
    assert result.mpp == 0.5
    assert not list(path.rglob(".semiseg*"))


def test_a_complete_result_is_unfinished_while_its_nuclei_are_split_anew(
    tmp_path: Path, confidence: np.ndarray, nuclei: np.ndarray
) -> None:
    path = written(tmp_path / "a.ome.zarr", confidence, nuclei).path
    with ResultWriter.open(path) as writer:
        assert result_state(path) == "unfinished"
        with pytest.raises(InputError):
            open_image(path / "labels" / "nuclei")
        assert writer.is_written("confidence", cells(SHAPE, 256)[3])
        writer.forget("nuclei")
        assert not writer.is_written("nuclei", WHOLE)
        writer.write_nuclei(WHOLE, nuclei * 2)
        result = writer.finish()

    np.testing.assert_array_equal(result.nuclei(WHOLE), nuclei * 2)
    np.testing.assert_array_equal(result.confidence(WHOLE)[0], confidence)
    yaozarrs.validate_zarr_store(path)


@pytest.mark.parametrize("broken_off", [False, True])
def test_a_gap_of_a_complete_result_is_written_alone_and_reaches_all_levels(
    tmp_path: Path, confidence: np.ndarray, broken_off: bool
) -> None:
    path, gap = tmp_path / "a.ome.zarr", Box(256, 512, 512, 768)
    beside = [cell for cell in cells(SHAPE, 256) if cell != gap]
    with ResultWriter.create(path, SHAPE, ["nucleus"]) as writer:
        write_all(writer, confidence, beside)
        writer.finish()
    with ResultWriter.open(path, [gap]) as writer:
        if broken_off:
            writer.close()
            writer = ResultWriter.open(path)
        assert [cell for cell in cells(SHAPE, 256) if not writer.is_written("confidence", cell)] == [gap]
        assert not writer.is_written("confidence", Box(500, 700, 600, 800))
        assert writer.is_written("confidence", Box(512, 700, 600, 800))
        writer.write_confidence(gap, confidence[gap.slices])
        assert writer.is_written("confidence", WHOLE)
        found = writer.finish()

    whole = written(tmp_path / "b.ome.zarr", confidence)
    for level, shape in enumerate(whole.levels):
        both = (result.confidence(Box.whole(shape), level) for result in (found, whole))
        np.testing.assert_array_equal(*both, err_msg=f"level {level}")


def test_a_torn_line_of_progress_is_passed_over(tmp_path: Path, confidence: np.ndarray) -> None:
    path = tmp_path / "a.ome.zarr"
    first, second = Box(0, 0, 256, 256), Box(0, 256, 256, 512)
    with ResultWriter.create(path, SHAPE, ["nucleus"]) as writer:
        writer.write_confidence(first, confidence[first.slices])
    with (path / ".semiseg-progress").open("ab") as file:
        file.write(b"confidence 0 256 256 51")
    with ResultWriter.open(path) as writer:
        assert writer.is_written("confidence", first)
        assert not writer.is_written("confidence", Box(0, 256, 256, 51))
        writer.write_confidence(second, confidence[second.slices])
    with ResultWriter.open(path) as writer:
        assert writer.is_written("confidence", second)


@pytest.mark.fault
def test_killed_at_any_write_it_is_unfinished_or_right(
    tmp_path: Path, confidence: np.ndarray, nuclei: np.ndarray
) -> None:
    """One process forks a child per write, and each kills itself at that write."""
    np.savez(tmp_path / "truth.npz", confidence=confidence, nuclei=nuclei)
    (tmp_path / "killed").mkdir()
    script = f"""
import os, signal, sys
import numpy as np
from napari_semiseg.blocks import cells
from napari_semiseg.io.result_writer import ResultWriter
truth = dict(np.load({str(tmp_path / "truth.npz")!r}))
count = 0
def audit(event, args):
    global count
    if event == "os.rename" and str(args[1]).startswith(path):
        count += 1
        if count > last:
            os.kill(os.getpid(), signal.SIGKILL)
for last in (0, 1, 2, 4, 7, 10, 13, 16, 18, 20, 22, 24, 99):
    path = {str(tmp_path / "killed")!r} + f"/{{last}}.ome.zarr"
    child = os.fork()
    if not child:
        sys.addaudithook(audit)
        with ResultWriter.create(path, {SHAPE}, ["nucleus"]) as writer:
            for cell in cells({SHAPE}, 512):
                writer.write_confidence(cell, truth["confidence"][cell.slices])
                writer.write_nuclei(cell, truth["nuclei"][cell.slices])
                writer.flush()
            writer.finish()
        os._exit(0)
    os.waitpid(child, 0)
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True)

    states = []
    for path in sorted((tmp_path / "killed").iterdir()):
        states.append(result_state(path))
        finish(path, confidence, nuclei)
        result = Result.open(path)
        assert result.complete
        np.testing.assert_array_equal(result.confidence(WHOLE)[0], confidence)
        np.testing.assert_array_equal(result.nuclei(WHOLE), nuclei)
        yaozarrs.validate_zarr_store(path)
        assert not list(path.rglob("*.partial"))
    assert states.count("unfinished") >= 9
    assert states.count("complete") >= 1


def finish(path: Path, confidence: np.ndarray, nuclei: np.ndarray) -> None:
    """Do what is left of a result, whatever its state."""
    if result_state(path) == "complete":
        return
    begun = result_state(path) == "unfinished"
    with ResultWriter.open(path) if begun else ResultWriter.create(path, SHAPE, ["nucleus"]) as writer:
        for cell in cells(SHAPE, 512):
            if not writer.is_written("confidence", cell):
                writer.write_confidence(cell, confidence[cell.slices])
            if not writer.is_written("nuclei", cell):
                writer.write_nuclei(cell, nuclei[cell.slices])
        writer.finish()


@pytest.mark.fault
@pytest.mark.parametrize("failing", [0, 2, 9])
def test_a_full_disk_is_said_and_the_rest_can_be_written_later(
    tmp_path: Path, confidence: np.ndarray, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    path = tmp_path / "a.ome.zarr"
    blocks = cells(SHAPE, 256)
    put, calls = zarr.storage._local._put, iter(range(1000))

    def full(target: Path, *args: object, **options: object) -> object:
        if "0" in target.parts and next(calls) >= failing:
            raise OSError(28, os.strerror(28))
        return put(target, *args, **options)

    with ResultWriter.create(path, SHAPE, ["nucleus"]) as writer:
        monkeypatch.setattr(zarr.storage._local, "_put", full)
        with pytest.raises(InputError, match="disk is full"):
            write_all(writer, confidence, blocks)
    monkeypatch.setattr(zarr.storage._local, "_put", put)

    assert result_state(path) == "unfinished"
    with ResultWriter.open(path) as writer:
        write_all(writer, confidence, [cell for cell in blocks if not writer.is_written("confidence", cell)])
        np.testing.assert_array_equal(writer.finish().confidence(WHOLE)[0], confidence)


def test_a_result_without_room_is_refused_before_it_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "free_bytes", lambda path: 1000)

    with pytest.raises(InputError, match="not enough room"):
        ResultWriter.create(tmp_path / "a.ome.zarr", SHAPE, ["nucleus"])
    assert not (tmp_path / "a.ome.zarr").exists()


# ---- refusals


def test_nothing_is_written_over(tmp_path: Path, confidence: np.ndarray) -> None:
    (tmp_path / "file.ome.zarr").write_text("mine")
    (tmp_path / "folder.ome.zarr").mkdir()
    (tmp_path / "folder.ome.zarr" / "mine.txt").touch()
    written(tmp_path / "a.ome.zarr", confidence)

    for name in ("file.ome.zarr", "folder.ome.zarr", "a.ome.zarr"):
        with pytest.raises(InputError, match="is there already"):
            ResultWriter.create(tmp_path / name, SHAPE, ["nucleus"])
    assert (tmp_path / "file.ome.zarr").read_text() == "mine"
    assert [result_state(tmp_path / name) for name in ("file.ome.zarr", "folder.ome.zarr", "a.ome.zarr", "none")] == [
        "foreign", "foreign", "complete", "missing",
    ]  # fmt: skip


def test_two_writers_of_one_target_are_refused(tmp_path: Path) -> None:
    with ResultWriter.create(tmp_path / "a.ome.zarr", SHAPE, ["nucleus"]):
        for begin in (
            lambda: ResultWriter.open(tmp_path / "a.ome.zarr"),
            lambda: ResultWriter.create(tmp_path / "x/../a.ome.zarr", SHAPE, ["n"]),
        ):
            with pytest.raises(InputError, match="being written by another job"):
                begin()
    with ResultWriter.open(tmp_path / "a.ome.zarr"):
        assert result_state(tmp_path / "a.ome.zarr") == "unfinished"


def test_a_result_without_confidence_is_not_finished(tmp_path: Path) -> None:
    with (
        ResultWriter.create(tmp_path / "a.ome.zarr", SHAPE, ["nucleus"]) as writer,
        pytest.raises(InputError, match="no confidence"),
    ):
        writer.finish()


def test_a_block_that_does_not_fit_is_a_defect(tmp_path: Path) -> None:
    with ResultWriter.create(tmp_path / "a.ome.zarr", SHAPE, ["nucleus"]) as writer:
        for box, values in (
            (Box(0, 0, 10, 10), np.zeros((10, 11), np.uint8)),
            (Box(690, 0, 710, 10), np.zeros((20, 10), np.uint8)),
        ):
            with pytest.raises(ValueError, match="does not fit"):
                writer.write_confidence(box, values)


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [10**18, 10**18]},
        {"shape": [0, 4]},
        {"shape": [701, 1100]},
        {"classes": []},
        {"classes": ["a", "b"]},
        {"mpp": -1},
        {"mpp": 1e999},
        {"schema_version": 2},
        {"extra": 1},
    ],
    ids=str,
)
def test_a_result_that_lies_about_itself_is_refused(
    tmp_path: Path, confidence: np.ndarray, change: dict[str, object]
) -> None:
    path = written(tmp_path / "a.ome.zarr", confidence).path
    document = json.loads((path / "zarr.json").read_text())
    document["attributes"]["napari-semiseg"].update(change)
    (path / "zarr.json").write_text(json.dumps(document))

    with pytest.raises(InputError):
        Result.open(path)


def test_a_damaged_chunk_is_said_and_not_shown(tmp_path: Path, confidence: np.ndarray) -> None:
    path = written(tmp_path / "a.ome.zarr", confidence).path
    chunk = path / "0" / "c" / "0" / "0" / "0"
    data = bytearray(chunk.read_bytes())
    data[-20:] = bytes(20)  # the index of the shard
    chunk.write_bytes(data)

    with pytest.raises(InputError, match="damaged"):
        Result.open(path).confidence(WHOLE)


def test_the_shard_size_is_what_the_writer_says(tmp_path: Path) -> None:
    with ResultWriter.create(tmp_path / "a.ome.zarr", (5000, 5000), ["nucleus"]) as writer:
        writer.write_confidence(Box(0, 0, 8, 8), np.ones((8, 8), np.uint8))

    assert zarr.open_array(tmp_path / "a.ome.zarr" / "0", mode="r").shards == (1, SHARD, SHARD)
