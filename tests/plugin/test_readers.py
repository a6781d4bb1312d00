"""What *File ▸ Open* does with slides and project folders."""

import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel
from napari.plugins import _npe2
from npe2 import PluginManager

from napari_semiseg.io.images import from_array
from napari_semiseg.io.read_slide import SLIDES
from napari_semiseg.plugin import picture_layer as picture_module
from napari_semiseg.plugin import readers
from napari_semiseg.plugin.lazy_array import SQUARE
from napari_semiseg.plugin.picture_layer import picture_layer


@pytest.fixture
def slide(tmp_path):
    """Write a pyramidal slide as a scanner of Aperio does, small; OpenSlide reads it."""
    pytest.importorskip("openslide")
    path = tmp_path / "case 7.svs"
    rgb = np.random.default_rng(0).integers(0, 255, (1200, 1600, 3), np.uint8)
    with tifffile.TiffWriter(path) as file:
        said = "Aperio Image Library v1\r\n1600x1200|AppMag = 40|MPP = 0.25"
        for level in (rgb, rgb[::4, ::4]):
            file.write(np.ascontiguousarray(level), tile=(256, 256), photometric="rgb", compression="jpeg",
                       description=said, metadata=None)  # fmt: skip
    return path


@pytest.fixture
def plugins():
    """Let napari know this plugin, as it stands here."""
    manager = PluginManager.instance()
    manager.discover()
    assert "napari-semiseg" in manager
    return manager


def test_napari_opens_a_slide_lazily_with_its_pixel_size(slide, monkeypatch, plugins):
    monkeypatch.setattr(readers, "_WHOLE", 0)
    viewer = ViewerModel()
    (layer,) = viewer.open(str(slide), plugin="napari-semiseg")

    assert layer.name == "case 7"
    assert layer.multiscale
    assert layer.rgb
    assert [tuple(level.shape) for level in layer.data] == [(1200, 1600, 3), (300, 400, 3)]
    assert not any(isinstance(level, np.ndarray) for level in layer.data)
    np.testing.assert_allclose(layer.scale, 0.25)
    assert [str(unit) for unit in layer.units] == ["micrometer"] * 2


def test_only_slides_and_projects_are_claimed(tmp_path, plugins):
    claimed = {
        suffix
        for suffix in (*SLIDES, ".semiseg", ".zarr", ".tif", ".png", ".ome.tif")
        if "napari-semiseg" in _npe2.get_readers(str(tmp_path / f"x{suffix}"))
    }
    assert claimed == {*SLIDES, ".semiseg"}


def test_a_folder_that_is_no_project_is_left_alone(tmp_path):
    (tmp_path / "x.semiseg").mkdir()
    assert readers.project_reader(str(tmp_path / "x.semiseg")) is None
    assert readers.slide_reader(str(tmp_path / "none.svs")) is None


def test_a_slide_that_is_none_is_said_in_a_sentence(tmp_path):
    pytest.importorskip("openslide")
    (tmp_path / "x.svs").write_bytes(b"no slide at all")
    with pytest.raises(ValueError, match=r"x\.svs.*cannot be read as a slide"):
        readers.slide_reader(str(tmp_path / "x.svs"))(str(tmp_path / "x.svs"))


@pytest.mark.parametrize("gray", [False, True])
def test_an_image_too_large_for_a_texture_is_shown_in_levels_though_it_has_one(gray, monkeypatch):
    monkeypatch.setattr(picture_module, "SMALLEST_COARSE", 100)
    pixels = np.random.default_rng(1).integers(0, 255, (900, 1603) if gray else (900, 1603, 3), np.uint8)
    shown = picture_layer(from_array(pixels, "plain"), whole=0)

    assert shown.multiscale
    assert [level.shape[:2] for level in shown.data] == [(900, 1603), (180, 321), (45, 81)]
    assert max(shown.data[-1].shape) <= 100
    assert all(level.chunks[:2] == (SQUARE, SQUARE) for level in shown.data)  # read anew only at their borders
    np.testing.assert_array_equal(shown.data[0][3:9, 5:11], pixels[3:9, 5:11])
    np.testing.assert_allclose(shown.data[1][7, 9], pixels[35:40, 45:50].mean((0, 1)), atol=0.51)
