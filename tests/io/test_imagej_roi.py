"""Regions of ImageJ: opened with roifile, and read back whoever wrote them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import roifile

from napari_semiseg.blocks import Box
from napari_semiseg.errors import InputError
from napari_semiseg.io.imagej_roi import read_rois, write_rois
from napari_semiseg.io.nucleus import Nucleus, Place
from napari_semiseg.io.outline_files import ROIS, write_outlines
from napari_semiseg.io.outlines import fill, trace

PLACE = Place(name="field", shape=(50, 60), mpp=0.25, translation=(10.0, -3.5))


def test_roifile_reads_outlines_names_and_colors(tmp_path: Path) -> None:
    square = np.array([(1, 2), (1, 5), (4, 5), (4, 2)])
    write_rois(tmp_path / "x.zip", [Nucleus(7, [[square]], "tumor: \N{WHITE SMILING FACE}")], PLACE, {})
    write_rois(tmp_path / "y.zip", [Nucleus(8, [[square + 70_000]], "a")], PLACE, {"a": (1, 2, 3)})

    (roi,) = roifile.roiread(tmp_path / "x.zip")
    assert (roi.name, roi.roitype) == ("000007", roifile.ROI_TYPE.TRACED)
    assert roi.coordinates().tolist() == square[:, ::-1].tolist()
    (far,) = roifile.roiread(tmp_path / "y.zip")
    assert far.coordinates().tolist() == (square[:, ::-1] + 70_000).tolist()
    assert far.stroke_color == bytes([255, 1, 2, 3])


def test_parts_and_holes_come_back_pixel_by_pixel(tmp_path: Path) -> None:
    labels = np.random.default_rng(1).integers(0, 3, (20, 30)).astype(np.uint32)
    nuclei = [Nucleus(label, polygons, f"class {label}") for label, polygons in trace(labels).items()]
    write_rois(tmp_path / "x.zip", nuclei, PLACE, {})
    place, back = read_rois(tmp_path / "x.zip")
    again = np.zeros_like(labels)
    names = {}
    for nucleus in back:
        again[fill(nucleus.polygons, Box.whole(labels.shape))] = nucleus.label
        names[nucleus.label] = nucleus.class_name

    np.testing.assert_array_equal(again, labels)
    assert place == PLACE
    assert names == {1: "class 1", 2: "class 2"}


@pytest.mark.parametrize(
    "name", ["tumor", "3", "01", "1e3", "true", "1_000", '"q"', '"', " blank", "a: b", "Krebs ä", "…"]
)
def test_a_class_of_any_name_comes_back(tmp_path: Path, name: str) -> None:
    (polygons,) = trace(np.ones((3, 3), np.uint32)).values()
    write_outlines(tmp_path / "x.zip", ROIS, [Nucleus(1, polygons, name)], Place())

    assert [nucleus.class_name for nucleus in read_rois(tmp_path / "x.zip")[1]] == [name]


def test_what_imagej_draws_is_read_and_lines_are_passed_over(tmp_path: Path) -> None:
    line = roifile.ImagejRoi.frompoints(np.array([[1, 1], [5, 5]]))
    line.roitype = roifile.ROI_TYPE.FREELINE
    drawn = roifile.ImagejRoi.frompoints(np.array([[1.5, 1.0], [9.0, 1.0], [9.0, 7.25]]), name="0001-0002")
    roifile.roiwrite(tmp_path / "x.zip", [line, drawn])
    drawn.tofile(tmp_path / "one.roi")

    for name in ("x.zip", "one.roi"):
        place, nuclei = read_rois(tmp_path / name)
        (nucleus,) = nuclei
        assert place == Place()
        assert (nucleus.label, nucleus.class_name) == (0, "")
        assert nucleus.polygons[0][0].tolist() == [[1.0, 1.5], [1.0, 9.0], [7.25, 9.0]]


def test_what_is_damaged_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "x.roi").write_bytes(b"Iout" + bytes(20))
    with zipfile.ZipFile(tmp_path / "y.zip", "w") as archive:
        archive.writestr("../a.roi", roifile.ImagejRoi.frompoints([(0, 0), (0, 9), (9, 9)]).tobytes()[:66])
    for name in ("x.zip", "x.roi", "y.zip"):
        with pytest.raises(InputError, match=name):
            list(read_rois(tmp_path / name)[1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.roi", "x.zip", "y.zip"]
