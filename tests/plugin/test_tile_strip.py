"""Thumbnails of tiles."""

from __future__ import annotations

import numpy as np

from napari_semiseg.app.painting import BACKGROUND_ID, PROPOSED_FROM
from napari_semiseg.plugin.widgets.tile_strip import SIDE, thumbnail

YELLOW, BLUE = "#f0e442", "#56b4e9"


def test_a_thumbnail_outlines_each_nucleus_in_the_color_of_its_class_and_what_is_proposed_in_white():
    side = 2 * SIDE
    pixels = np.full((side, side, 3), 7, np.uint8)
    labels = np.zeros((side, side), np.uint16)
    labels[10:30, 10:30], labels[50:70, 50:70], labels[80:95, 10:30] = 3, 6, PROPOSED_FROM
    labels[10:30, 60:80] = BACKGROUND_ID
    drawn = thumbnail(pixels, labels, {3: 2, 6: 3, PROPOSED_FROM: 0}, [YELLOW, BLUE])

    assert tuple(drawn[20, 29]) == (0xF0, 0xE4, 0x42)
    assert tuple(drawn[60, 69]) == (0x56, 0xB4, 0xE9)
    assert tuple(drawn[90, 29]) == (255, 255, 255)
    assert (drawn[20, 20] == 7).all()
    assert (drawn[5:35, 55:85] == 7).all()  # paint that says background is no nucleus


def test_a_thumbnail_of_a_place_where_nothing_is_painted_is_the_image():
    pixels = np.random.default_rng(0).integers(0, 255, (300, 200, 3)).astype(np.uint8)
    assert np.isin(thumbnail(pixels).reshape(-1, 3), pixels.reshape(-1, 3)).all()
    assert thumbnail(pixels).shape == (2 * SIDE, 2 * SIDE, 3)
