"""Exports: right when they are there, resumable or gone when they were broken off, never over what is read."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import ome_types
import pandas
import pytest
import roifile
import shapely
import tifffile
import yaozarrs
import zarr
from PIL import Image as Pillow
from skimage.draw import polygon2mask

from napari_semiseg.blocks import Box
from napari_semiseg.engine import export as export_module
from napari_semiseg.engine import export_job
from napari_semiseg.engine.control import Control
from napari_semiseg.engine.export import export, export_from_args
from napari_semiseg.engine.export_job import ExportRequest
from napari_semiseg.errors import InputError
from napari_semiseg.events import (
    Cancel,
    Event,
    Finished,
    Pause,
    Paused,
    Progressed,
    Resume,
    Resumed,
    Started,
    Stop,
    Warned,
    Written,
)
from napari_semiseg.io.labels import read_labels
from napari_semiseg.io.neighbors import Neighbors
from napari_semiseg.io.overlay import PALETTE, draw_outlines
from napari_semiseg.io.result import Result
from napari_semiseg.io.result_card import result_state
from napari_semiseg.io.result_writer import ResultWriter
from napari_semiseg.io.table import measure

SHAPE = (600, 900)
WHOLE = Box(0, 0, *SHAPE)
NAMES = {
    "ome-zarr": "x.ome.zarr", "ome-tiff": "x.ome.tif", "tiff": "x.tif", "geojson": "x.geojson", "csv": "x.csv",
    "parquet": "x.parquet", "imagej-roi": "x.zip", "png": "x.png",
}  # fmt: skip


@pytest.fixture(scope="module")
def nuclei() -> np.ndarray:
    rows, columns = np.indices(SHAPE)
    inside = (rows % 30 - 15) ** 2 + (columns % 30 - 15) ** 2 <= 100
    return (inside * (1 + (rows // 30) * (SHAPE[1] // 30) + columns // 30)).astype(np.uint32)


@pytest.fixture(scope="module")
def rgb(nuclei: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 30, (*SHAPE, 3))
    return np.where(nuclei[..., None] > 0, (90, 60, 140), (220, 170, 210)).astype(np.uint8) + noise.astype(np.uint8)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, nuclei: np.ndarray, rgb: np.ndarray) -> Path:
    """A folder with an image and its finished result of two classes."""
    folder = tmp_path_factory.mktemp("made")
    Pillow.fromarray(rgb).save(folder / "field.png")
    classes = ((nuclei > 0) * (1 + nuclei % 2)).astype(np.uint8)
    confidence = np.stack([(classes == 1) * np.uint8(204), (classes == 2) * np.uint8(153)])
    options: dict[str, Any] = {
        "mpp": 0.5,
        "translation": (10.0, 20.0),
        "image": str(folder / "field.png"),
        "facts": {"run": "r"},
    }
    with ResultWriter.create(folder / "field.ome.zarr", SHAPE, ["tumor", "stroma"], **options) as writer:
        writer.write_confidence(WHOLE, confidence)
        writer.write_nuclei(WHOLE, nuclei)
        writer.write_classes(WHOLE, classes)
        writer.finish()
    return folder


@pytest.fixture
def result(made: Path) -> Result:
    return Result.open(made / "field.ome.zarr")


def request(made: Path, to: str, out: Path, **options: Any) -> ExportRequest:
    return ExportRequest.checked(
        {"source": str(made / "field.ome.zarr"), "to": to, "out": str(out), **options}, "the test"
    )


def run(made: Path, to: str, out: Path, **options: Any) -> list[Event]:
    return list(export(request(made, to, out, **options)))


def contents(path: Path) -> object:
    """What a file holds, without the random identifier and the date of OME-XML."""
    if path.suffix != ".tif":
        return path.read_bytes()
    with tifffile.TiffFile(path) as tif:
        return [level.asarray().tolist() for series in tif.series for level in series.levels]


# ---- every format


@pytest.mark.parametrize("to", NAMES)
def test_an_export_says_where_it_is_and_that_it_ended(made: Path, tmp_path: Path, to: str) -> None:
    events = run(made, to, tmp_path / NAMES[to])

    assert isinstance(events[0], Started)
    assert isinstance(events[-2], Written)
    assert (events[-2].what, events[-2].path) == (to, str(tmp_path / NAMES[to]))
    assert events[-1] == Finished("export", str(tmp_path / NAMES[to]))
    assert [path.name for path in tmp_path.iterdir()] == [NAMES[to]]


@pytest.mark.parametrize("version", ["0.5", "0.4"])
def test_ome_zarr_is_copied_whole_in_either_version(made: Path, tmp_path: Path, result: Result, version: str) -> None:
    run(made, "ome-zarr", tmp_path / "x.ome.zarr", version=version)
    copy = Result.open(tmp_path / "x.ome.zarr")

    assert yaozarrs.validate_zarr_store(copy.path).ome_version() == version
    for kind in ("confidence", "nuclei", "classes"):
        np.testing.assert_array_equal(copy.read(kind, WHOLE), result.read(kind, WHOLE))
        np.testing.assert_array_equal(
            copy.read(kind, Box(0, 0, 300, 450), 1), result.read(kind, Box(0, 0, 300, 450), 1)
        )
    assert (copy.mpp, copy.translation, copy.classes) == (0.5, (10.0, 20.0), ("tumor", "stroma"))
    assert copy.card.facts["run"] == "r"


def test_ome_tiff_holds_nuclei_classes_and_confidence(made: Path, tmp_path: Path, result: Result) -> None:
    run(made, "ome-tiff", tmp_path / "x.ome.tif")

    ome = ome_types.from_tiff(tmp_path / "x.ome.tif", validate=True)
    assert [image.name for image in ome.images] == ["nuclei", "classes", "confidence"]
    assert [channel.name for channel in ome.images[2].pixels.channels] == ["tumor", "stroma"]
    assert ome.images[0].pixels.physical_size_x == 0.5
    assert (ome.images[0].pixels.planes[0].position_y, ome.images[0].pixels.planes[0].position_x) == (10.0, 20.0)
    with tifffile.TiffFile(tmp_path / "x.ome.tif") as tif:
        for series, kind in zip(tif.series, ("nuclei", "classes", "confidence"), strict=True):
            np.testing.assert_array_equal(series.asarray(), result.read(kind, WHOLE))


def test_tiff_holds_the_nuclei_in_16_bits_where_they_fit(made: Path, tmp_path: Path, nuclei: np.ndarray) -> None:
    run(made, "tiff", tmp_path / "x.tif")

    assert tifffile.imread(tmp_path / "x.tif").dtype == np.uint16
    np.testing.assert_array_equal(read_labels(tmp_path / "x.tif"), nuclei)


def test_csv_is_what_measuring_the_whole_image_gives(
    made: Path, tmp_path: Path, nuclei: np.ndarray, rgb: np.ndarray, result: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_job, "BLOCK", 256)  # so that nuclei lie across blocks
    events = run(made, "csv", tmp_path / "x.csv")
    confidence = result.nucleus_confidence(WHOLE)
    wanted = measure(
        nuclei,
        rgb,
        confidence,
        0.5,
        class_map=result.pixel_classes(WHOLE),
        classes=result.classes,
        translation=(10.0, 20.0),
    )

    wanted = Neighbors(0.5).add(wanted)
    with (tmp_path / "x.csv").open(newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: int(row["label"]))
    assert list(rows[0]) == list(wanted)
    assert {"nearest_um", "neighbors_50um", "eosin_od_mean", "circularity"} <= set(wanted)
    assert len(rows) == 600
    for name, values in wanted.items():
        if name != "class":
            np.testing.assert_allclose([float(row[name]) for row in rows], values, rtol=1e-5, atol=1e-6, err_msg=name)
    assert [row["class"] for row in rows] == wanted["class"].tolist()
    assert set(wanted["class"]) == {"tumor", "stroma"}
    assert isinstance(events[-2], Written)
    assert events[-2].facts["nuclei"] == 600


def test_geojson_filled_by_others_is_the_label_image(
    made: Path, tmp_path: Path, nuclei: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_job, "BLOCK", 256)  # so that nuclei lie across blocks
    run(made, "geojson", tmp_path / "x.geojson")
    found = json.loads((tmp_path / "x.geojson").read_text())["features"]
    filled = np.zeros(SHAPE, np.uint32)
    for feature in found:
        shape = shapely.geometry.shape(feature["geometry"])
        measured = feature["properties"]["measurements"]
        assert shape.is_valid
        assert shape.area == measured["area_px"] == measured["area_um2"] * 4
        outer = np.array(shape.exterior.coords)[:, ::-1] - 0.5  # to the middles of pixels
        filled[polygon2mask(SHAPE, outer)] = measured["label"]

    np.testing.assert_array_equal(filled, nuclei)
    assert {feature["properties"]["objectType"] for feature in found} == {"detection"}
    first = found[0]["properties"]
    assert first["classification"] == {"name": "stroma", "color": PALETTE[1].tolist()}
    assert {"x_um", "perimeter_um", "hematoxylin_od_mean", "confidence_mean"} <= set(first["measurements"])


def test_imagej_regions_and_parquet_hold_every_nucleus(made: Path, tmp_path: Path) -> None:
    for to in ("imagej-roi", "parquet"):
        run(made, to, tmp_path / NAMES[to])

    frame = pandas.read_parquet(tmp_path / "x.parquet").set_index("label")
    rois = roifile.roiread(tmp_path / "x.zip")
    assert len(rois) == len(frame) == 600
    for roi in rois:
        row = frame.loc[int(roi.name)]
        assert shapely.Polygon(roi.coordinates()).area == row["area_px"]
        assert roi.properties["class"] == row["class"]


def test_png_shows_the_image_with_outlines_in_the_colors_of_the_classes(
    made: Path, tmp_path: Path, nuclei: np.ndarray, rgb: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_job, "BLOCK", 100)  # so that outlines lie across blocks
    run(made, "png", tmp_path / "x.png")
    picture = np.asarray(Pillow.open(tmp_path / "x.png"))

    assert picture.shape == rgb.shape
    np.testing.assert_array_equal(picture, draw_outlines(rgb, nuclei, (nuclei > 0) * (1 + nuclei % 2).astype(np.uint8)))
    assert picture[0, 0].tolist() == rgb[0, 0].tolist()
    assert picture[5, 15].tolist() == PALETTE[1].tolist()  # nucleus 1 has the second class
    assert picture[5, 45].tolist() == PALETTE[0].tolist()
    assert picture[15, 15].tolist() == rgb[15, 15].tolist()


def test_a_png_of_a_large_image_is_reduced(made: Path, tmp_path: Path, rgb: np.ndarray) -> None:
    events = run(made, "png", tmp_path / "x.png", max_side=500)
    picture = np.asarray(Pillow.open(tmp_path / "x.png")).astype(int)

    assert picture.shape == (300, 450, 3)
    mean = rgb.reshape(300, 2, 450, 2, 3).mean((1, 3))
    assert np.median(np.abs(picture - mean)) <= 1
    assert isinstance(events[-2], Written)
    assert events[-2].facts == {"reduced": 2, "size": [300, 450]}


def test_a_png_of_a_very_large_image_without_smaller_levels_is_read_in_parts(tmp_path: Path) -> None:
    shape = (33_000, 24_000)
    pixels = {"chunks": (1024, 1024, 3), "dtype": "uint8", "fill_value": 200}
    zarr.create_array(tmp_path / "slide.zarr", shape=(*shape, 3), **pixels)
    nuclei = np.zeros((512, 512), np.uint32)
    nuclei[100:400, 100:400] = 1
    part = Box(32_000, 0, 32_512, 512)
    options = {"image": str(tmp_path / "slide.zarr")}
    with ResultWriter.create(tmp_path / "field.ome.zarr", shape, ["nucleus"], **options) as writer:
        writer.write_confidence(part, (nuclei * 200).astype(np.uint8)[None])
        writer.write_nuclei(part, nuclei)
        writer.finish()
    run(tmp_path, "png", tmp_path / "x.png")

    picture = np.asarray(Pillow.open(tmp_path / "x.png"))
    assert picture.shape == (2063, 1500, 3)
    others = np.ones(picture.shape[:2], bool)
    others[2000:2032, 0:32] = False
    assert (picture[others] == 200).all()
    assert picture[2010, 7].tolist() == PALETTE[0].tolist()


def test_a_folder_as_target_gets_a_file_named_after_the_image(made: Path, tmp_path: Path) -> None:
    for to in NAMES:
        run(made, to, tmp_path)

    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "field.csv",
        "field.geojson",
        "field.ome.tif",
        "field.ome.zarr",
        "field.parquet",
        "field.png",
        "field.tif",
        "field.zip",
    ]


def test_a_folder_that_is_not_there_yet_is_told_by_its_slash(made: Path, tmp_path: Path) -> None:
    asked = request(made, "ome-tiff", tmp_path).model_copy(update={"out": f"{tmp_path / 'masks'}/"})

    list(export(asked))

    assert [path.name for path in (tmp_path / "masks").iterdir()] == ["field.ome.tif"]


def test_without_the_image_the_table_has_no_stain_and_says_why(made: Path, tmp_path: Path) -> None:
    source = tmp_path / "y.ome.zarr"
    with ResultWriter.create(source, (50, 60), ["nucleus"], image=str(tmp_path / "gone.png")) as writer:
        writer.write_confidence(Box(0, 0, 50, 60), np.zeros((50, 60), np.uint8))
        writer.write_nuclei(Box(0, 0, 50, 60), np.ones((50, 60), np.uint32))
        writer.finish()
    events = list(export(ExportRequest(source=str(source), to="csv", out=str(tmp_path / "y.csv"))))

    assert any(isinstance(event, Warned) and "gone.png" in event.message for event in events)
    header = (tmp_path / "y.csv").read_text().splitlines()[0].split(",")
    assert "hematoxylin_od_mean" not in header
    with pytest.raises(InputError, match=r"gone\.png"):
        list(export(ExportRequest(source=str(source), to="png", out=str(tmp_path / "y.png"))))
    with pytest.raises(InputError, match="600 x 900 pixels and the result 50 x 60"):
        list(
            export(
                ExportRequest(source=str(source), to="png", out=str(tmp_path / "y.png"), image=str(made / "field.png"))
            )
        )


def test_what_the_result_does_not_hold_is_said(tmp_path: Path) -> None:
    with ResultWriter.create(tmp_path / "y.ome.zarr", (50, 60), ["nucleus"]) as writer:
        writer.write_confidence(Box(0, 0, 50, 60), np.zeros((50, 60), np.uint8))
        writer.finish()

    for to in ("tiff", "csv"):
        with pytest.raises(InputError, match="holds no nuclei"):
            list(export(ExportRequest(source=str(tmp_path / "y.ome.zarr"), to=to, out=str(tmp_path / NAMES[to]))))
    list(export(ExportRequest(source=str(tmp_path / "y.ome.zarr"), to="ome-tiff", out=str(tmp_path / "y.ome.tif"))))
    assert tifffile.imread(tmp_path / "y.ome.tif").shape == (50, 60)


# ---- refusals


def test_the_result_and_the_image_are_never_written_over(made: Path, tmp_path: Path) -> None:
    before = (made / "field.png").read_bytes()
    for to, out in (
        ("ome-zarr", made / "field.ome.zarr"),
        ("ome-zarr", made / "field.ome.zarr" / "labels" / "x.ome.zarr"),
        ("tiff", made / "field.ome.zarr" / "x.tif"),
        ("png", made / "field.png"),
    ):
        with pytest.raises(InputError, match="is being read"):
            run(made, to, out, overwrite=True)
    (tmp_path / "link.png").symlink_to(made / "field.png")
    with pytest.raises(InputError, match="is being read"):
        run(made, "png", tmp_path / "link.png", overwrite=True)
    assert (made / "field.png").read_bytes() == before


@pytest.mark.parametrize("to", NAMES)
def test_what_exists_is_replaced_only_when_that_is_allowed(made: Path, tmp_path: Path, to: str) -> None:
    run(made, to, tmp_path / NAMES[to])
    with pytest.raises(InputError, match="is there already"):
        run(made, to, tmp_path / NAMES[to])

    assert isinstance(run(made, to, tmp_path / NAMES[to], overwrite=True)[-1], Finished)
    assert [path.name for path in tmp_path.iterdir()] == [NAMES[to]]


def test_a_folder_that_is_not_ours_is_never_removed(made: Path, tmp_path: Path) -> None:
    (tmp_path / "x.ome.zarr").mkdir()
    (tmp_path / "x.ome.zarr" / "thesis.txt").write_text("mine")
    zarr.create_array(tmp_path / "y.ome.zarr", shape=(4, 4), dtype="uint8")

    for name in ("x.ome.zarr", "y.ome.zarr"):
        with pytest.raises(InputError, match="is there already"):
            run(made, "ome-zarr", tmp_path / name, overwrite=True)
    assert (tmp_path / "x.ome.zarr" / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("to", NAMES)
def test_two_exports_to_one_target_at_once_are_refused(made: Path, tmp_path: Path, to: str) -> None:
    control = Control()
    control.send(Pause())
    first = export(request(made, to, tmp_path / NAMES[to]), control)
    while not isinstance(next(first), Paused):
        pass

    with pytest.raises(InputError, match="being written by another job"):
        run(made, to, tmp_path / NAMES[to], overwrite=True)
    control.send(Resume())
    assert isinstance(list(first)[-1], Finished)


def test_a_name_that_does_not_fit_the_format_is_refused(made: Path, tmp_path: Path) -> None:
    for to in NAMES:
        with pytest.raises(InputError, match="does not end in"):
            run(made, to, tmp_path / "x.doc")


def test_an_unfinished_result_is_not_exported(tmp_path: Path) -> None:
    with ResultWriter.create(tmp_path / "y.ome.zarr", (50, 60), ["nucleus"]) as writer:
        writer.write_confidence(Box(0, 0, 50, 60), np.zeros((50, 60), np.uint8))

    with pytest.raises(InputError, match="not finished"):
        list(export(ExportRequest(source=str(tmp_path / "y.ome.zarr"), to="tiff", out=str(tmp_path / "y.tif"))))


def test_options_come_by_name_and_wrong_ones_are_named(made: Path, tmp_path: Path) -> None:
    events = list(
        export_from_args(
            {"source": str(made / "field.ome.zarr"), "to": "csv", "out": str(tmp_path / "x.csv")}, Control()
        )
    )
    assert isinstance(events[-1], Finished)

    for wrong in ({"to": "docx"}, {"max_side": 10}, {"colour": "red"}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            export_from_args({"source": "a", "to": "csv", "out": "b", **wrong}, Control())


@pytest.mark.skipif(
    os.name == "nt" or not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_a_folder_that_cannot_be_written_is_refused(made: Path, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)

    with pytest.raises(InputError, match="locked"):
        run(made, "csv", tmp_path / "locked" / "x.csv")


# ---- breaking off


@pytest.fixture
def in_small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every format work in many parts."""
    monkeypatch.setattr(export_module, "SHARD", 128)
    monkeypatch.setattr(export_job, "BLOCK", 64)


@pytest.mark.usefixtures("in_small_parts")
@pytest.mark.parametrize("to", NAMES)
def test_pause_holds_and_resume_goes_on(made: Path, tmp_path: Path, to: str) -> None:
    control = Control()
    control.send(Pause())
    events: Iterator[Event] = export(request(made, to, tmp_path / NAMES[to]), control)
    seen = [next(events)]
    while not isinstance(seen[-1], Paused):
        seen.append(next(events))
    control.send(Resume())
    seen += list(events)

    kinds = [type(event) for event in seen]
    assert kinds.index(Paused) < kinds.index(Resumed) < kinds.index(Written)
    progress = [event for event in seen if isinstance(event, Progressed)]
    assert progress[-1].done == progress[-1].total


@pytest.mark.usefixtures("in_small_parts")
@pytest.mark.parametrize("command", [Stop(), Cancel()], ids=["stop", "cancel"])
@pytest.mark.parametrize("to", NAMES)
def test_what_was_stopped_is_never_taken_for_complete(
    made: Path, tmp_path: Path, to: str, command: Stop | Cancel
) -> None:
    control = Control()
    control.send(Pause())
    events = export(request(made, to, tmp_path / NAMES[to]), control)
    while not isinstance(next(events), Paused):
        pass
    control.send(command)
    *said, last = events

    assert not any(isinstance(event, Resumed) for event in said), "it does not go on, it ends"
    assert last == Finished(
        "export", str(tmp_path / NAMES[to]), stopped=command == Stop(), canceled=command == Cancel()
    )
    if to == "ome-zarr" and command == Stop():
        assert result_state(tmp_path / NAMES[to]) == "unfinished"
    else:
        assert list(tmp_path.iterdir()) == []
    assert isinstance(run(made, to, tmp_path / NAMES[to])[-2], Written)


def test_a_listener_that_goes_away_ends_the_work(made: Path, tmp_path: Path) -> None:
    control = Control()
    control.send(Pause())
    events = export(request(made, "tiff", tmp_path / "x.tif"), control)
    while not isinstance(next(events), Paused):
        pass
    events.close()  # type: ignore[attr-defined]

    assert list(tmp_path.iterdir()) == []
    assert isinstance(run(made, "tiff", tmp_path / "x.tif")[-1], Finished)


def test_an_unfinished_export_of_another_result_is_not_gone_on_with(made: Path, tmp_path: Path) -> None:
    with ResultWriter.create(tmp_path / "x.ome.zarr", (50, 60), ["nucleus"]) as writer:
        writer.write_confidence(Box(0, 0, 50, 60), np.ones((50, 60), np.uint8))

    with pytest.raises(InputError, match="unfinished export of something else"):
        run(made, "ome-zarr", tmp_path / "x.ome.zarr")
    run(made, "ome-zarr", tmp_path / "x.ome.zarr", overwrite=True)
    assert Result.open(tmp_path / "x.ome.zarr").shape == SHAPE


@pytest.mark.fault
def test_killed_at_any_write_every_format_is_whole_or_not_there(made: Path, tmp_path: Path, result: Result) -> None:
    """One process forks a child per format and write, and each kills itself at that write."""
    script = f"""
import os, signal, sys
from napari_semiseg.engine import export
from napari_semiseg.engine.export_job import ExportRequest
export.SHARD = 256
count = 0
def audit(event, args):
    global count
    opened = event == "open" and "w" in str(args[1] or "")
    named = str(args[1]) if event == "os.rename" else str(args[0]) if opened else ""
    if named.startswith(folder):
        count += 1
        if count > last:
            os.kill(os.getpid(), signal.SIGKILL)
for to, name in {NAMES!r}.items():
    for last in (0, 1, 3, 9, 15, 24, 33) if to == "ome-zarr" else (0, 1, 3):
        folder = {str(tmp_path)!r} + f"/{{to}}-{{last}}"
        child = os.fork()
        if not child:
            os.mkdir(folder)
            sys.addaudithook(audit)
            asked = ExportRequest(source={str(result.path)!r}, to=to, out=folder + "/" + name)
            list(export.export(asked))
            os._exit(0)
        os.waitpid(child, 0)
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True)

    unfinished = 0
    for folder in sorted(tmp_path.iterdir()):
        to = folder.name.rpartition("-")[0]
        target = folder / NAMES[to]
        if to == "ome-zarr":
            unfinished += result_state(target) == "unfinished"
            assert result_state(target) != "foreign"
            if result_state(target) != "complete":
                run(made, to, target)
            np.testing.assert_array_equal(Result.open(target).nuclei(WHOLE), result.nuclei(WHOLE))
            yaozarrs.validate_zarr_store(target)
        elif target.exists():
            run(made, to, folder / f"again{target.name[1:]}")
            assert contents(target) == contents(folder / f"again{target.name[1:]}")
        else:
            run(made, to, target)
    assert unfinished >= 3


@pytest.mark.fault
@pytest.mark.parametrize("to", [name for name in NAMES if name != "ome-zarr"])
def test_a_full_disk_leaves_no_file(made: Path, tmp_path: Path, to: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("napari_semiseg.atomic.sync", full)
    with pytest.raises(InputError, match="disk is full"):
        run(made, to, tmp_path / NAMES[to])
    assert list(tmp_path.iterdir()) == []


def test_exporting_needs_no_torch_and_no_qt() -> None:
    script = "import sys, napari_semiseg.engine.export; print(sorted({'torch', 'qtpy', 'napari'} & set(sys.modules)))"

    assert (
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.strip()
        == "[]"
    )


def test_a_real_slide_is_exported_with_its_stain(dataset: Callable[[str], Path], tmp_path: Path) -> None:
    pytest.importorskip("openslide", reason="OpenSlide is an extra")
    slide = dataset("slides") / "images" / "CMU-1-Small-Region.svs"
    shape = (2967, 2220)
    rows, columns = np.indices(shape)
    inside = (rows % 100 < 25) & (columns % 100 < 25)
    labels = (inside * (1 + (rows // 100) * 23 + columns // 100)).astype(np.uint32)
    with ResultWriter.create(tmp_path / "s.ome.zarr", shape, ["nucleus"], mpp=0.499, image=str(slide)) as writer:
        writer.write_confidence(Box.whole(shape), (labels > 0) * np.uint8(255))
        writer.write_nuclei(Box.whole(shape), labels)
        writer.finish()
    for to in ("csv", "png"):
        list(
            export(
                ExportRequest(source=str(tmp_path / "s.ome.zarr"), to=to, out=str(tmp_path / NAMES[to]), max_side=1500)
            )
        )  # type: ignore[arg-type]

    with (tmp_path / "x.csv").open(newline="") as file:
        stain = np.array([float(row["hematoxylin_od_mean"]) for row in csv.DictReader(file)])
    assert len(stain) == len(np.unique(labels)) - 1
    assert 0.05 < stain.max() - stain.min() < 2
    assert np.asarray(Pillow.open(tmp_path / "x.png")).shape == (1484, 1110, 3)
