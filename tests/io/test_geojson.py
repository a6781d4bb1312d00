"""GeoJSON: what QuPath expects to find, and what comes from QuPath and from anyone."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_semiseg.errors import InputError
from napari_semiseg.io.foreign_labels import open_labels
from napari_semiseg.io.geojson import read_geojson, write_geojson
from napari_semiseg.io.nucleus import Nucleus, Place

SQUARE = np.array([(1, 2), (1, 5), (4, 5), (4, 2)])
HOLE = np.array([(2, 3), (3, 3), (3, 4), (2, 4)])
PLACE = Place(name="field", shape=(50, 60), mpp=0.25, translation=(10.0, -3.5), classes=("tumor",))


def written(path: Path, *nuclei: Nucleus) -> Any:
    write_geojson(path, nuclei, PLACE, {"tumor": (230, 159, 0)})
    return json.loads(path.read_text())


def read(path: Path, text: Any) -> list[Nucleus]:
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    return list(read_geojson(path)[1])


def feature(coordinates: Any, kind: str = "Polygon", **properties: Any) -> dict[str, Any]:
    return {"type": "Feature", "geometry": {"type": kind, "coordinates": coordinates}, "properties": properties}


def test_a_nucleus_is_a_detection_with_class_color_and_measurements(tmp_path: Path) -> None:
    found = written(tmp_path / "x.geojson", Nucleus(7, [[SQUARE]], "tumor", {"area_um2": 0.5625, "odd": float("nan")}))

    (only,) = found["features"]
    assert found["type"] == "FeatureCollection"
    assert uuid.UUID(only["id"]).version == 5
    assert only["geometry"] == {"type": "Polygon", "coordinates": [[[2, 1], [5, 1], [5, 4], [2, 4], [2, 1]]]}
    assert only["properties"] == {
        "objectType": "detection",
        "classification": {"name": "tumor", "color": [230, 159, 0]},
        "measurements": {"label": 7, "area_um2": 0.5625},
    }


def test_parts_are_one_feature_and_holes_stay(tmp_path: Path) -> None:
    found = written(tmp_path / "x.geojson", Nucleus(1, [[SQUARE, HOLE], [SQUARE + 10]]))

    geometry = found["features"][0]["geometry"]
    assert geometry["type"] == "MultiPolygon"
    assert [len(part) for part in geometry["coordinates"]] == [2, 1]
    (back,) = read_geojson(tmp_path / "x.geojson")[1]
    np.testing.assert_array_equal(back.polygons[0][1], HOLE)


def test_the_same_nucleus_has_the_same_id_each_time(tmp_path: Path) -> None:
    first, second = (written(tmp_path / name, Nucleus(1, [[SQUARE]]), Nucleus(2, [[SQUARE]])) for name in ("a", "b"))

    assert first == second
    assert first["features"][0]["id"] != first["features"][1]["id"]


def test_size_and_place_of_the_image_come_back(tmp_path: Path) -> None:
    written(tmp_path / "x.geojson", Nucleus(3, [[SQUARE]], "tumor", {"a": 1.5}))
    place, nuclei = read_geojson(tmp_path / "x.geojson")
    (back,) = nuclei

    assert place == PLACE
    assert (back.label, back.class_name, back.measurements) == (3, "tumor", {"a": 1.5})
    np.testing.assert_array_equal(back.polygons[0][0], SQUARE)


def test_no_nucleus_is_a_file_too(tmp_path: Path) -> None:
    assert written(tmp_path / "x.geojson")["features"] == []
    assert list(read_geojson(tmp_path / "x.geojson")[1]) == []


RING = [[2, 1], [5, 1], [5, 4], [2, 1]]


@pytest.mark.parametrize("indent", [None, 1])
def test_what_qupath_writes_is_read(tmp_path: Path, indent: int | None) -> None:
    corrected = feature(
        [RING], objectType="annotation", classification={"name": "Tumor", "colorRGB": -3670016},
        measurements=[{"name": "label", "value": 12}, {"name": "Area", "value": 4.5}],
    )  # fmt: skip
    point = feature([1, 2], "Point")
    for whole in ([corrected, point], {"type": "FeatureCollection", "features": [point, corrected]}, corrected):
        (back,) = read(tmp_path / "x.geojson", json.dumps(whole, indent=indent))
        assert (back.label, back.class_name, back.measurements) == (12, "Tumor", {"Area": 4.5})
        assert back.polygons[0][0].tolist() == [[1, 2], [1, 5], [4, 5]]


@pytest.mark.parametrize("unknown", ["NaN", "Infinity", "-Infinity", '"NaN"', "null"])
def test_a_measurement_that_qupath_could_not_take_keeps_no_nucleus_back(tmp_path: Path, unknown: str) -> None:
    text = json.dumps(feature([RING], measurements={"Circularity": "?", "Area": 4.5})).replace('"?"', unknown)
    (back,) = read(tmp_path / "x.geojson", text)
    assert back.measurements == {"Area": 4.5}

    with pytest.raises(InputError, match=r"x\.geojson"):
        read(tmp_path / "x.geojson", json.dumps(feature([[[0, 0], [0, 5], "?"]])).replace('"?"', f"[5, {unknown}]"))


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[1]", '{"features": [', '{"features": [{}', '{"features": [{},]}', "\x00", '{"a": ' * 100_000,
        json.dumps(feature([[[0, 0], [1, float("inf")], [1, 1]]])), json.dumps(feature([[[0, 0], [1, 1]]])),
        json.dumps(feature("abc")), json.dumps(feature([[["a", "b"]] * 4])), json.dumps(feature(7, "MultiPolygon")),
        json.dumps(feature([[[0, 0], [1, 1e30], [1, 1]]])),
    ],
    ids=range(14),
)  # fmt: skip
def test_what_is_no_geojson_is_refused_in_a_sentence(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"x\.geojson"):
        read(tmp_path / "x.geojson", text)


def test_a_compressed_file_is_read_and_one_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "x.geojson", *(Nucleus(number, [[SQUARE + number]], "tumor") for number in range(1, 200)))
    packed = gzip.compress((tmp_path / "x.geojson").read_bytes())
    (tmp_path / "x.geojson.gz").write_bytes(packed)
    place, nuclei = read_geojson(tmp_path / "x.geojson.gz")
    assert place == PLACE
    assert [nucleus.label for nucleus in nuclei] == [*range(1, 200)]
    assert len(open_labels(tmp_path / "x.geojson.gz").occupied((300, 300), 300)) == 1

    for damaged in (packed[: len(packed) // 2], packed[:30] + b"?" * 40 + packed[70:], b"{}", packed[:12]):
        (tmp_path / "y.geojson.gz").write_bytes(damaged)
        with pytest.raises(InputError, match=r"y\.geojson\.gz' (is cut short or damaged|holds)"):
            list(read_geojson(tmp_path / "y.geojson.gz")[1])


def test_memory_does_not_grow_with_the_number_of_nuclei(tmp_path: Path) -> None:
    def many(count: int) -> Iterator[Nucleus]:
        return (Nucleus(number, [[SQUARE]], "tumor", {"area": 9.0}) for number in range(1, count + 1))

    def peak(count: int) -> int:
        tracemalloc.start()
        write_geojson(tmp_path / "x.geojson", many(count), PLACE, {})
        assert sum(1 for _ in read_geojson(tmp_path / "x.geojson")[1]) == count
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(800) < 1.5 * peak(400) < 30e6
