"""Opening and closing, against plain loops over the pixels of a disk."""

import numpy as np
import pytest

from napari_semiseg.postprocess.opened_closed import opened_and_closed


def disk_of(radius):
    at = range(-radius, radius + 1)
    return [(y, x) for y in at for x in at if y * y + x * x <= radius * radius]


def looked_at(mask, radius, every):
    """Whether every, or any, pixel of the disk about each pixel is set; none is beyond the border."""
    height, width = mask.shape
    found = np.zeros_like(mask)
    for y, x in np.ndindex(height, width):
        inside = [0 <= y + i < height and 0 <= x + j < width and bool(mask[y + i, x + j]) for i, j in disk_of(radius)]
        found[y, x] = all(inside) if every else any(inside)
    return found


def loop(mask):
    for radius in (3, 1):
        for first in (True, False):  # opening: every, then any; closing: any, then every
            mask = looked_at(looked_at(mask, radius, first), radius, not first)
    return mask


@pytest.mark.parametrize("share", [0.02, 0.9, 0.98])
def test_it_is_an_opening_and_a_closing_with_a_disk_of_3_and_then_of_1(share):
    generator = np.random.default_rng(4)
    mask = generator.random((24, 30)) < share
    mask[6:18, 8:21] = True
    mask[10, 12] = False
    assert np.array_equal(opened_and_closed(mask), loop(mask))


def test_specks_go_and_what_touches_the_border_is_eroded_there():
    mask = np.zeros((40, 60), bool)
    mask[2, 2] = True
    mask[10:30, 5:25] = True
    mask[10:30, 45:] = True
    found = opened_and_closed(mask)

    assert not found[2, 2]
    assert found[20, 15]
    assert found[20, 45:57].all()
    assert not found[:, 57:].any()
