"""What *Open Sample* puts into the viewer."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Labels

from napari_semiseg.plugin.sample_data import open_immunohistochemistry, open_synthetic_field
from napari_semiseg.samples import immunohistochemistry_tiles


def opened(layers) -> ViewerModel:
    viewer = ViewerModel()
    for data, options, kind in layers:
        getattr(viewer, f"add_{kind}")(data, **options)
    return viewer


def test_the_tiles_to_learn_from_lie_on_the_image_and_those_for_scoring_are_left_out():
    image, *tiles = opened(open_immunohistochemistry()).layers
    label, score = (immunohistochemistry_tiles(role) for role in ("label", "score"))

    assert isinstance(image, Image)
    assert image.rgb
    assert all(isinstance(layer, Labels) for layer in tiles)
    assert {layer.metadata["sample_tile"] for layer in tiles} == {tile.name for tile in label}
    assert not {layer.metadata["sample_tile"] for layer in tiles} & {tile.name for tile in score}
    for layer, tile in zip(tiles, label, strict=True):
        center = np.argwhere(layer.data == 1)[0]
        y, x = np.round(image.world_to_data(layer.data_to_world(center))).astype(int)
        np.testing.assert_array_equal(image.data[y, x], tile.image[tuple(center)])


def test_the_synthetic_field_comes_with_its_pixel_size_and_a_hidden_truth():
    image, truth = opened(open_synthetic_field()).layers

    assert image.data.shape == (1000, 1000, 3)
    assert image.visible
    assert not truth.visible
    assert len(np.unique(truth.data)) > 200
    for layer in (image, truth):
        np.testing.assert_allclose(layer.scale, (0.25, 0.25))
        assert [str(unit) for unit in layer.units] == ["micrometer", "micrometer"]
    assert np.abs(image.extent.world - truth.extent.world).max() == pytest.approx(0)


def test_opening_a_sample_does_not_load_torch():
    code = (
        "import sys; from napari_semiseg.plugin.sample_data import open_immunohistochemistry as f; f();"
        "sys.exit('torch' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
