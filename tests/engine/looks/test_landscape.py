"""The feature map as a landscape."""

import numpy as np
import pytest

from napari_semiseg.engine.looks import landscape
from napari_semiseg.errors import InputError


def test_corners_of_the_landscape_have_colors_of_their_own_and_the_middle_their_mean():
    places = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1], [0.5, 0.5]])
    colors = landscape.color_at(places)

    assert colors[:4].tolist() == landscape.CORNERS.reshape(4, 3).astype(int).tolist()
    assert colors[4].tolist() == np.rint(landscape.CORNERS.mean((0, 1))).astype(int).tolist()


def test_points_are_drawn_where_they_lie_and_large_ones_on_top():
    colors = np.array([[255, 0, 0], [0, 0, 255]], np.uint8)
    picture = landscape.scattered(np.array([[0.5, 0.5], [0.5, 0.5]]), colors, np.array([True, False]))
    middle = landscape.SIDE // 2

    assert picture[middle, middle].tolist() == [255, 0, 0]
    assert (picture != 255).any(2).sum() > 20
    assert picture[0, 0].tolist() == [255, 255, 255]


def test_too_few_cells_have_no_landscape():
    with pytest.raises(InputError, match="at least 60 cells"):
        landscape.embedded(np.zeros((59, 3), np.float32))


def test_likes_lie_together():
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.normal(0, 0.1, (40, 8)), rng.normal(5, 0.1, (40, 8))]).astype(np.float32)
    placed = landscape.embedded(rows)

    centers = placed[:40].mean(0), placed[40:].mean(0)
    spread = max(placed[:40].std(), placed[40:].std())
    assert np.linalg.norm(centers[0] - centers[1]) > 2 * spread
    assert np.isfinite(landscape.embedded(np.zeros((80, 3), np.float32))).all()
    assert np.array_equal(placed, landscape.embedded(rows))
