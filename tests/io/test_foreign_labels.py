"""Round trips: what is written in any format comes home with the same nuclei, at the same place, of the same size."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_semiseg.blocks import Box
from napari_semiseg.engine.export import export
from napari_semiseg.engine.export_job import ExportRequest
from napari_semiseg.errors import InputError
from napari_semiseg.io.foreign_labels import of_array, open_labels
from napari_semiseg.io.nucleus import Nucleus, Place
from napari_semiseg.io.outline_files import GEOJSON, write_outlines
from napari_semiseg.io.parquet import read_parquet
from napari_semiseg.io.result_writer import ResultWriter

NAMES = {
    "ome-zarr": "x.ome.zarr", "ome-tiff": "x.ome.tif", "tiff": "x.tif", "geojson": "x.geojson", "imagej-roi": "x.zip",
}  # fmt: skip


def made(folder: Path, labels: np.ndarray, mpp: float | None, translation: tuple[float, float]) -> Path:
    """Write a result of two classes."""
    path, whole = folder / "field.ome.zarr", Box.whole(labels.shape)
    with ResultWriter.create(path, labels.shape, ["tumor", "stroma"], mpp=mpp, translation=translation) as writer:
        writer.write_confidence(whole, np.zeros((2, *labels.shape), np.uint8))
        writer.write_nuclei(whole, labels)
        writer.write_classes(whole, ((labels > 0) * (1 + labels % 2)).astype(np.uint8))
        writer.finish()
    return path


def numbered(labels: np.ndarray) -> set[frozenset[int]]:
    """Return nuclei as sets of pixels: their ids may have changed."""
    flat = labels.ravel()
    return {frozenset(np.flatnonzero(flat == number).tolist()) for number in np.unique(flat[flat > 0])}


@settings(
    deadline=None, max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    shape=st.tuples(st.integers(5, 40), st.integers(41, 70)),  # never square: swapped axes would be seen
    mpp=st.none() | st.floats(0.1, 4),
    translation=st.tuples(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4)),
    seed=st.integers(0, 99),
    to=st.sampled_from([*NAMES, "parquet", "ome-zarr 0.4"]),
)
def test_scale_unit_place_axes_and_nuclei_survive_every_format(
    tmp_path_factory: pytest.TempPathFactory, shape, mpp, translation, seed, to
) -> None:
    folder = tmp_path_factory.mktemp("trip")
    labels = np.random.default_rng(seed).integers(0, 5, shape).astype(np.uint32) * 1000
    source = made(folder, labels, mpp, translation)
    form, _, version = to.partition(" ")
    out = folder / {**NAMES, "parquet": "x.parquet"}[form]
    list(export(ExportRequest(source=str(source), to=form, out=str(out), version=version or "0.5")))

    if form == "parquet":
        place, columns = read_parquet(out)
        assert set(columns["label"]) == set(np.unique(labels[labels > 0]))
    else:
        found = open_labels(out)
        place = found.place
        (painted,) = found.read([Box.whole(shape)])
        assert numbered(painted.instance) == numbered(labels)
        if form != "tiff":
            named = np.array(["", *found.class_names], object)[painted.classes]
            np.testing.assert_array_equal(named == "stroma", (labels > 0) & (labels % 2 == 1))
            np.testing.assert_array_equal(named == "tumor", (labels > 0) & (labels % 2 == 0))
    assert place.shape == shape
    if form == "tiff":  # its tags have a size and no place
        assert place.mpp == (None if mpp is None else pytest.approx(mpp, rel=1e-5))
        return
    assert place.mpp == (None if mpp is None else pytest.approx(mpp))
    assert place.translation == pytest.approx(translation)


def test_what_qupath_has_corrected_is_painted_at_its_place(tmp_path: Path) -> None:
    ring = [[10.4, 20.0], [14.4, 20.0], [14.4, 23.0], [10.4, 23.0], [10.4, 20.0]]
    feature = {
        "type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"objectType": "annotation", "classification": {"name": "Mitosis"}},
    }  # fmt: skip
    (tmp_path / "x.geojson").write_text(json.dumps([feature]))
    labels = open_labels(tmp_path / "x.geojson")
    far, near = labels.read([Box(100, 100, 110, 110), Box(18, 8, 26, 18)])

    assert labels.class_names == ("Mitosis",)
    assert labels.occupied((200, 200), 16) == [(Box(16, 0, 32, 16), 1)]
    assert not far.instance.any()
    wanted = np.zeros((8, 10), np.uint32)
    wanted[2:5, 2:6] = 1  # rows 20 to 22; columns whose middle lies between 10.4 and 14.4
    np.testing.assert_array_equal(near.instance, wanted)
    np.testing.assert_array_equal(near.classes, wanted)


def qupath(name: str, y: int, x: int, side: int, **properties: object) -> dict[str, object]:
    """A square of QuPath's with one corner at (y, x)."""
    ring = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
    geometry = {"type": "Polygon", "coordinates": [ring]}
    return {"type": "Feature", "geometry": geometry, "properties": {"objectType": name, **properties}}


def test_the_region_in_which_qupath_looked_for_nuclei_is_no_nucleus(tmp_path: Path) -> None:
    region = qupath("annotation", 0, 0, 60, classification={"name": "Tumor"})
    nuclei = [qupath("detection", 4 + 12 * k, 4, 8) for k in range(4)]
    drawn = qupath("annotation", 4, 30, 20, classification={"name": "Mitosis"})  # by hand, over two that are one
    fragments = [qupath("detection", 6, 32, 6), qupath("detection", 14, 40, 6)]
    (tmp_path / "x.geojson").write_text(json.dumps([region, *nuclei, drawn, *fragments, qupath("tile", 0, 0, 60)]))
    labels = open_labels(tmp_path / "x.geojson")
    (seen,) = labels.read([Box(0, 0, 64, 64)])

    assert labels.class_names == ("Mitosis",)
    assert labels.occupied((64, 64), 64) == [(Box(0, 0, 64, 64), 7)]
    assert np.unique(seen.instance).size == 8
    assert not seen.instance[52:, 20:].any()
    assert seen.instance[20, 32] == seen.instance[5, 49] > 0
    assert labels.note.startswith("An outline around others is taken for a region")
    assert seen.known is not None
    assert seen.known[:60, :60].all()
    assert not seen.known[60:].any()


def test_of_a_cell_of_qupath_the_nucleus_is_read_and_of_a_class_of_a_class_both_names(tmp_path: Path) -> None:
    cell = qupath("cell", 0, 0, 30, classification={"names": ["Tumor", "Positive"], "color": [1, 2, 3]})
    cell["nucleusGeometry"] = qupath("", 10, 10, 8)["geometry"]
    without = qupath("cell", 40, 40, 10, classification="Stroma")
    (tmp_path / "x.geojson").write_text(json.dumps([cell, without]))
    labels = open_labels(tmp_path / "x.geojson")
    (seen,) = labels.read([Box(0, 0, 64, 64)])

    wanted = np.zeros((64, 64), np.uint32)
    wanted[10:18, 10:18], wanted[40:50, 40:50] = 1, 2
    np.testing.assert_array_equal(seen.instance, wanted)
    assert labels.class_names == ("Tumor: Positive", "Stroma")
    assert labels.note == ""


def test_what_lies_within_the_objects_of_qupath_is_read_wherever_it_lies_in_the_hierarchy(tmp_path: Path) -> None:
    nuclei = [qupath("detection", 4 + 12 * k, 4, 8) for k in range(4)]
    region = qupath("annotation", 0, 0, 60, classification={"name": "Tumor"}, childObjects=nuclei)
    core = qupath("tmaCore", 0, 0, 64, children=[region])
    root = {"type": "Feature", "geometry": None, "properties": {"objectType": "root", "childObjects": [core]}}
    (tmp_path / "flat.geojson").write_text(json.dumps([region, *nuclei]))
    (tmp_path / "deep.geojson").write_text(json.dumps(root))
    flat, deep = (open_labels(tmp_path / f"{name}.geojson") for name in ("flat", "deep"))
    (seen,) = deep.read([Box(0, 0, 64, 64)])

    assert np.unique(seen.instance).size == 5
    np.testing.assert_array_equal(seen.instance > 0, flat.read([Box(0, 0, 64, 64)])[0].instance > 0)
    assert deep.note == flat.note


@pytest.mark.parametrize("version", ["0.2", "0.3"])
def test_what_earlier_versions_of_qupath_wrote_is_told_apart_as_well(tmp_path: Path, version: str) -> None:
    def former(kind: str, *place: int) -> dict[str, object]:
        return qupath("", *place) | (
            {"id": kind, "properties": {}} if version == "0.2" else {"properties": {"object_type": kind}}
        )

    names = {"0.2": ["PathAnnotationObject", "PathDetectionObject", "TMACoreObject", "PathTileObject"],
             "0.3": ["annotation", "detection", "tma_core", "tile"]}[version]  # fmt: skip
    annotation, detection, core, tile = names
    nuclei = [former(detection, 4 + 12 * k, 4, 8) for k in range(4)]
    others = [former(annotation, 0, 0, 60), former(core, 0, 0, 64), former(tile, 0, 0, 60)]
    (tmp_path / "x.geojson").write_text(json.dumps([*others, *nuclei]))
    (seen,) = open_labels(tmp_path / "x.geojson").read([Box(0, 0, 64, 64)])

    assert np.unique(seen.instance).size == 5
    assert (seen.instance > 0).sum() == 4 * 64


def test_an_outline_that_begins_outside_of_the_image_is_found_where_it_lies_in_it(tmp_path: Path) -> None:
    def square(y: int, x: int) -> dict[str, object]:
        ring = [[x, y], [x + 9, y], [x + 9, y + 9], [x, y + 9], [x, y]]
        return {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": {}}

    (tmp_path / "x.geojson").write_text(json.dumps([square(-4, 70), square(40, -5), square(95, 95), square(-9, 20)]))
    labels = open_labels(tmp_path / "x.geojson")

    places = labels.occupied((100, 100), 32)

    assert places == [(Box(0, 64, 32, 96), 1), (Box(32, 0, 64, 32), 1), (Box(96, 96, 100, 100), 1)]
    assert [painted.instance.any() for painted in labels.read([box for box, _ in places])] == [True] * 3


def test_a_layer_that_covers_a_part_of_the_image_lies_where_it_begins() -> None:
    labels = of_array(np.full((3, 4), 9, np.int64), "a layer", origin=(10, 20))
    (painted,) = labels.read([Box(8, 22, 12, 30)])

    wanted = np.zeros((4, 8), np.uint32)
    wanted[2:, :2] = 1
    np.testing.assert_array_equal(painted.instance, wanted)
    assert labels.occupied((64, 64), 16) == [(Box(0, 16, 16, 32), 1)]


def test_of_a_mask_each_part_is_a_nucleus_and_that_is_said() -> None:
    mask = np.zeros((40, 40), np.uint8)
    mask[2:8, 2:8] = mask[2:8, 20:28] = mask[30:36, 30:36] = 255
    labels = of_array(mask, "a mask")

    assert labels.occupied((40, 40), 20) == [(Box(0, 0, 20, 20), 1), (Box(0, 20, 20, 40), 1), (Box(20, 20, 40, 40), 1)]
    (painted,) = labels.read([Box(0, 0, 40, 40)])
    assert np.unique(painted.instance).tolist() == [0, 1, 2, 3]
    assert labels.note.startswith("All labels have the same number")

    mask[30:36, 30:36] = 254
    nuclei = of_array(mask, "nuclei")
    assert [count for _, count in nuclei.occupied((40, 40), 40)] == [2]
    assert nuclei.note == ""
    one = of_array(mask == 254, "one")
    assert [count for _, count in one.occupied((40, 40), 40)] == [1]
    assert one.note == ""


def test_whoever_reads_a_mask_without_asking_where_it_holds_nuclei_gets_its_parts_too(tmp_path: Path) -> None:
    mask = np.zeros((40, 3000), np.uint8)
    mask[2:8, 2:8] = mask[2:8, 20:28] = mask[30:36, 2900:2910] = 255
    tifffile.imwrite(tmp_path / "mask.tif", mask)

    for labels in (open_labels(tmp_path / "mask.tif"), of_array(mask, "a mask")):
        left, right = labels.read([Box(0, 0, 40, 40), Box(0, 2880, 40, 2920)])
        assert (left.instance.max(), right.instance.max()) == (2, 1)
        assert labels.note.startswith("All labels have the same number")

    mask[30, 2900] = 254
    (whole,) = of_array(mask, "nuclei").read([Box(0, 0, 40, 3000)])
    assert whole.instance.max() == 2


def test_what_holds_no_nuclei_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("label\n1\n")
    with pytest.raises(InputError, match="no outlines"):
        open_labels(tmp_path / "x.csv")
    with pytest.raises(InputError, match="no file"):
        open_labels(tmp_path / "gone.geojson")
    many = (Nucleus(0, [[np.array([(0, 0), (0, 1), (1, 1)])]], f"class {number}") for number in range(300))
    write_outlines(tmp_path / "x.geojson", GEOJSON, many, Place())
    with pytest.raises(InputError, match="300 classes"):
        open_labels(tmp_path / "x.geojson")
