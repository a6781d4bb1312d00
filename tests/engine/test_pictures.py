from __future__ import annotations

import numpy as np

from napari_semiseg.blocks import Box
from napari_semiseg.engine.pictures import (
    BLUE,
    GREEN,
    RED,
    YELLOW,
    agreement,
    enlarged,
    in_colors,
    side_by_side,
    with_contours,
    with_frames,
)

GRAY = np.full((12, 10, 3), 100, np.uint8)


def test_a_frame_lies_inside_its_rectangle_and_leaves_the_rest():
    drawn = with_frames(GRAY, [Box(2, 1, 10, 9)], BLUE, width=2)

    assert (drawn[2:4, 1:9] == BLUE).all()
    assert (drawn[4:8, 3:7] == 100).all()
    assert (drawn[:2] == 100).all()
    assert (GRAY == 100).all(), "the image that was given stays as it is"


def test_a_rectangle_thinner_than_its_frame_is_filled():
    assert (with_frames(GRAY, [Box(0, 0, 12, 3)], BLUE)[:, :3] == BLUE).all()


def test_agreement_is_yellow_inventions_are_green_and_misses_red():
    predicted = np.zeros((12, 10), bool)
    truth = predicted.copy()
    predicted[:, :6], truth[:, 3:8] = True, True
    drawn = agreement(predicted, truth, GRAY, opacity=1.0)

    assert (drawn[:, :3] == GREEN).all()
    assert (drawn[:, 3:6] == YELLOW).all()
    assert (drawn[:, 6:8] == RED).all()
    assert (drawn[:, 8:] == 100).all()


def test_touching_nuclei_are_parted_by_their_outlines():
    labels = np.zeros((12, 10), np.uint32)
    labels[:, :5], labels[:, 5:] = 1, 2
    drawn = with_contours(GRAY, labels)

    assert (drawn[:, 4:6] == YELLOW).all()
    assert (drawn[:, :4] == 100).all()
    assert (drawn[:, 6:] == 100).all()


def test_confidence_grows_brighter():
    brightness = in_colors(np.arange(256, dtype=np.uint8)[None]).astype(int).sum(-1)[0]

    assert (np.diff(brightness[::16]) > 0).all()


def test_pictures_of_different_heights_stand_in_a_row():
    row = side_by_side([GRAY, GRAY[:4]], gap=2)

    assert row.shape == (12, 22, 3)
    assert (row[:, 10:12] == 255).all()
    assert (row[4:, 12:] == 255).all()
    assert (row[:4, 12:] == 100).all()


def test_an_enlarged_picture_repeats_its_pixels():
    picture = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)

    np.testing.assert_array_equal(enlarged(picture, 3)[::3, ::3], picture)
    assert enlarged(picture, 3).shape == (6, 6, 3)
