"""The annotated tiles of the immunohistochemistry image."""

from __future__ import annotations

import json

import numpy as np
import pytest
import skimage.data
import tifffile
from skimage.measure import label

from napari_semiseg import samples
from napari_semiseg.blocks import Box
from napari_semiseg.errors import InputError


@pytest.fixture(scope="module")
def tiles():
    return samples.immunohistochemistry_tiles()


@pytest.fixture(scope="module")
def annotation():
    path = samples.sample_folder() / "immunohistochemistry" / "tiles.json"
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_label_images_are_the_outlines_rasterized(annotation):
    for tile in annotation["tiles"]:
        polygons = [np.array(nucleus["polygon"], float) for nucleus in tile["nuclei"]]
        path = samples.sample_folder() / "immunohistochemistry" / "labels" / f"{tile['name']}.tif"

        np.testing.assert_array_equal(tifffile.imread(path), samples.rasterize(polygons, Box(*tile["box"])))


def test_outlines_are_drawn_by_a_plain_point_in_polygon_rule():
    def inside(y: int, x: int, polygon: np.ndarray) -> bool:
        crossings = 0
        for (y0, x0), (y1, x1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
            if (y0 > y) != (y1 > y) and x < x0 + (y - y0) * (x1 - x0) / (y1 - y0):
                crossings += 1
        return crossings % 2 == 1

    lower = np.array([[98.3, 201.2], [103.1, 204.6], [108.7, 202.4], [104.2, 199.1]])
    upper = np.array([[101.4, 198.2], [101.6, 207.3], [105.3, 203.8]])
    box = Box(100, 200, 109, 206)
    expected = np.zeros(box.shape, int)
    for y in range(box.height):
        for x in range(box.width):
            for value, polygon in enumerate((lower, upper), start=1):
                if inside(y + box.y0, x + box.x0, polygon):
                    expected[y, x] = value

    np.testing.assert_array_equal(samples.rasterize([lower, upper], box), expected)


def test_there_are_enough_nuclei_to_learn_from_and_to_score_on():
    label_, score = (samples.immunohistochemistry_tiles(role) for role in ("label", "score"))

    assert len(label_) >= 3
    assert len(score) >= 3
    assert sum(tile.count for tile in score) >= 100
    assert sum(tile.count for tile in label_ + score) >= 200


def test_every_nucleus_is_one_piece_of_one_class(tiles):
    for tile in tiles:
        for value in range(1, tile.count + 1):
            nucleus = tile.instances == value
            assert nucleus.sum() >= 10, (tile.name, value)
            assert label(nucleus, connectivity=2).max() == 1, (tile.name, value)
            assert len(np.unique(tile.classes[nucleus])) == 1
        assert ((tile.classes > 0) == (tile.instances > 0)).all()
    present = np.unique(np.concatenate([tile.classes.ravel() for tile in tiles]))
    assert present.tolist() == [0, *range(1, 1 + len(samples.IHC_CLASSES))]


def test_tiles_show_the_image_and_do_not_overlap(tiles):
    whole = skimage.data.immunohistochemistry()
    covered = np.zeros(whole.shape[:2], int)
    for tile in tiles:
        np.testing.assert_array_equal(tile.image, whole[tile.box.slices])
        assert tile.image.shape[:2] == tile.instances.shape == tile.classes.shape == tile.box.shape
        covered[tile.box.slices] += 1

    assert covered.max() == 1
    assert len({tile.name for tile in tiles}) == len(tiles)


def test_nuclei_are_bluer_than_what_surrounds_them(tiles):
    for tile in tiles:
        blueness = tile.image[..., 2].astype(float) - tile.image[..., 0]
        assert blueness[tile.instances > 0].mean() > blueness[tile.instances == 0].mean() + 10, tile.name


def test_another_image_is_refused(monkeypatch):
    monkeypatch.setattr(skimage.data, "immunohistochemistry", lambda: np.zeros((512, 512, 3), np.uint8))

    with pytest.raises(InputError, match="scikit-image"):
        samples.immunohistochemistry_tiles()


def test_missing_sample_data_are_said_plainly(monkeypatch, tmp_path):
    monkeypatch.setattr(samples, "__file__", str(tmp_path / "site" / "napari_semiseg" / "samples.py"))

    with pytest.raises(InputError, match="install napari-semiseg again"):
        samples.sample_folder()
