"""Outlines of nuclei, to look at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from skimage.color import deltaE_ciede2000, rgb2lab

from napari_semiseg.io.overlay import PALETTE, draw_outlines, outlines, write_png


def test_an_outline_lies_on_its_nucleus_and_touching_ones_have_two() -> None:
    labels = np.zeros((7, 9), np.uint32)
    labels[1:6, 1:4] = 1
    labels[1:6, 4:8] = 2
    edge = outlines(labels)

    assert edge[3].tolist() == [False, True, False, True, True, False, False, True, False]
    assert not edge[labels == 0].any()


def test_the_border_of_the_image_is_no_outline() -> None:
    assert not outlines(np.ones((5, 5), np.uint32)).any()


def test_classes_have_colors_of_their_own_and_the_rest_of_the_image_stays() -> None:
    labels = np.zeros((9, 9), np.uint32)
    labels[1:4, 1:4] = 1
    labels[5:8, 5:8] = 2
    class_map = (labels == 2).astype(np.uint8) * 2
    rgb = np.full((9, 9, 3), 90, np.uint8)
    drawn = draw_outlines(rgb, labels, class_map)

    assert drawn[1, 1].tolist() == PALETTE[0].tolist()
    assert drawn[5, 5].tolist() == PALETTE[1].tolist()
    assert drawn[2, 2].tolist() == [90, 90, 90]
    assert drawn[0, 0].tolist() == [90, 90, 90]
    assert drawn[0, 1].tolist() == [45, 45, 45]  # the dark rim
    assert (rgb == 90).all()


@pytest.mark.parametrize(
    "seen",
    [
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        # deuteranopia and protanopia, Machado, Oliveira and Fernandes, 2009, Table 1 (severity 1)
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    ],
    ids=["everybody", "deuteranope", "protanope"],
)
def test_any_two_colors_differ_for(seen: list[list[float]]) -> None:
    linear = np.where(PALETTE > 10, ((PALETTE / 255 + 0.055) / 1.055) ** 2.4, PALETTE / 255 / 12.92)
    shown = np.clip(linear @ np.array(seen).T, 0, 1)
    lab = rgb2lab(np.where(shown > 0.0031308, 1.055 * shown ** (1 / 2.4) - 0.055, 12.92 * shown))

    for a in range(len(PALETTE)):
        for b in range(a):
            assert deltaE_ciede2000(lab[a], lab[b]) > 8, (a, b)


def test_a_png_holds_what_was_drawn(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    write_png(tmp_path / "a.png", picture)

    np.testing.assert_array_equal(np.asarray(Pillow.open(tmp_path / "a.png")), picture)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
