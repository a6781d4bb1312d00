"""Stains by tables of logarithms: those of scikit-image."""

import numpy as np
from skimage.color import rgb2hed

from napari_semiseg.io.stains import separated, shows_dab
from napari_semiseg.samples import immunohistochemistry


def test_every_color_has_the_stains_that_scikit_image_gives_it() -> None:
    levels = np.array([0, 1, 2, 17, 64, 127, 128, 200, 254, 255], np.uint8)
    colors = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(-1, 3)
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)

    np.testing.assert_allclose(separated(colors), rgb2hed(colors[:, None])[:, 0], rtol=0, atol=1e-15)
    np.testing.assert_allclose(separated(image), rgb2hed(image), rtol=0, atol=1e-15)
    assert separated(image).min() == 0


def test_dab_is_found_where_there_is_some() -> None:
    assert shows_dab(immunohistochemistry())
    assert not shows_dab(np.full((8, 8, 3), (60, 35, 80), np.uint8))  # hematoxylin
    assert not shows_dab(np.full((8, 8, 3), (220, 120, 170), np.uint8))  # eosin
    assert not shows_dab(np.full((8, 8, 3), 255, np.uint8))
