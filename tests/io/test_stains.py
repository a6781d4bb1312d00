"""Stains by tables of logarithms: those of scikit-image."""

import numpy as np
from skimage.color import rgb2hed

from napari_semiseg.io.stains import separated


def test_every_color_has_the_stains_that_scikit_image_gives_it() -> None:
    levels = np.array([0, 1, 2, 17, 64, 127, 128, 200, 254, 255], np.uint8)
    colors = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(-1, 3)
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)

    np.testing.assert_allclose(separated(colors), rgb2hed(colors[:, None])[:, 0], rtol=0, atol=1e-15)
    np.testing.assert_allclose(separated(image), rgb2hed(image), rtol=0, atol=1e-15)
    assert separated(image).min() == 0
