"""Saving a labels layer from napari's own menu."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import pytest
import tifffile
from napari.layers import Labels
from npe2 import PluginManager, PluginManifest

from napari_semiseg.blocks import Box
from napari_semiseg.errors import InputError
from napari_semiseg.io.foreign_labels import open_labels
from napari_semiseg.io.labels import read_labels
from napari_semiseg.plugin.writers import write_geojson, write_labels, write_ome_zarr, write_rois


@pytest.fixture
def labels(discs):
    return discs(3) * np.uint32(70_000)


def written(layer, path):
    data, attributes, _ = layer.as_layer_data_tuple()
    assert write_labels(str(path), data, attributes) == [str(path)]
    with tifffile.TiffFile(path) as tif:
        return tifffile.xml2dict(tif.ome_metadata)["OME"]["Image"]["Pixels"]


def test_ids_come_back_unchanged(labels, tmp_path):
    written(Labels(labels), tmp_path / "a.ome.tif")

    np.testing.assert_array_equal(read_labels(tmp_path / "a.ome.tif"), labels)


def test_the_size_of_a_pixel_and_the_place_are_kept_in_micrometers(labels, tmp_path):
    layer = Labels(labels, scale=(250, 250), translate=(1000, 2500), units=("nm", "nm"))
    pixels = written(layer, tmp_path / "a.ome.tif")

    assert pixels["PhysicalSizeX"] == pytest.approx(0.25)
    assert pixels["PhysicalSizeXUnit"] == "µm"
    plane = pixels["Plane"]
    assert (plane["PositionY"], plane["PositionX"]) == (pytest.approx(1.0), pytest.approx(2.5))


def test_without_a_unit_no_size_is_claimed(labels, tmp_path):
    pixels = written(Labels(labels, scale=(2, 2)), tmp_path / "a.ome.tif")

    assert pixels.get("PhysicalSizeXUnit", "pixel") != "µm"


def test_the_finest_level_of_a_multiscale_layer_is_written(labels, tmp_path):
    written(Labels([labels, labels[::2, ::2]], multiscale=True), tmp_path / "a.ome.tif")

    np.testing.assert_array_equal(read_labels(tmp_path / "a.ome.tif"), labels)


def test_what_cannot_be_saved_is_refused_in_one_sentence(labels, tmp_path):
    with pytest.raises(InputError, match="have 3 axes"):
        written(Labels(labels[None]), tmp_path / "a.ome.tif")
    with pytest.raises(InputError, match="no squares"):
        written(Labels(labels, scale=(1, 2), units=("um", "um")), tmp_path / "a.ome.tif")


def test_napari_offers_the_writer_for_labels_in_ome_tiff_and_leaves_tiff_alone():
    manager = PluginManager()
    manager.discover(include_npe1=False)
    writer, _ = manager.get_writer("nuclei.ome.tif", ["labels"])
    other, _ = manager.get_writer("nuclei.tif", ["labels"])

    assert writer.command == "napari-semiseg.write_labels"
    assert other is None or other.command != "napari-semiseg.write_labels"


@pytest.mark.parametrize(
    ("name", "write"), [("a.geojson", write_geojson), ("a.zip", write_rois), ("a.ome.zarr", write_ome_zarr)]
)
def test_other_programs_get_every_nucleus_at_its_place(labels, tmp_path, name, write):
    layer = Labels(labels, scale=(0.25, 0.25), translate=(1.0, 2.5), units=("um", "um"))
    data, attributes, _ = layer.as_layer_data_tuple()
    for _ in range(2):  # the second replaces the first: napari has asked
        assert write(str(tmp_path / name), data, attributes) == [str(tmp_path / name)]
    found = open_labels(tmp_path / name)
    (painted,) = found.read([Box.whole(labels.shape)])

    np.testing.assert_array_equal(painted.instance * np.uint32(70_000), labels)
    assert found.place.mpp == pytest.approx(0.25)
    assert found.place.translation == pytest.approx((1.0, 2.5))


def test_a_folder_that_is_not_ours_is_not_replaced(labels, tmp_path):
    (tmp_path / "a.ome.zarr").mkdir()
    (tmp_path / "a.ome.zarr" / "thesis.txt").write_text("mine")
    data, attributes, _ = Labels(labels).as_layer_data_tuple()

    with pytest.raises(InputError, match="left alone"):
        write_ome_zarr(str(tmp_path / "a.ome.zarr"), data, attributes)
    assert (tmp_path / "a.ome.zarr" / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("ending", [".geojson", ".zip", ".ome.zarr", ".ome.tif"])
def test_napari_finds_a_writer_for_each_ending(ending):
    manifest = PluginManifest.from_file(files("napari_semiseg") / "napari.yaml")

    assert any(ending in writer.filename_extensions for writer in manifest.contributions.writers)
