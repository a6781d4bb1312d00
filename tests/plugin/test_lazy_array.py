"""Arrays that napari slices where one looks."""

import numpy as np
import pytest
from napari.layers import Image

from napari_semiseg.plugin.lazy_array import SQUARE, Squares

VALUES = np.random.default_rng(0).integers(0, 255, (2000, 3000, 3), np.uint8)


class Counted(Squares):
    """Pixels in memory, and the rectangles that were asked for."""

    def __init__(self, values):
        super().__init__(values)
        self.boxes = []

    def read(self, box):
        self.boxes.append(box)
        return super().read(box)


@pytest.mark.parametrize("values", [VALUES, VALUES[..., 0]], ids=["color", "gray"])
@pytest.mark.parametrize(
    "key",
    [
        (slice(3, 9), slice(5, 11)),
        (slice(3, 90, 7), slice(None, None, 100)),
        (-1, slice(2900, None)),
        (7,),
        (Ellipsis, slice(5, 6)),
        (slice(8, 8), slice(0, 9)),
        (slice(20, 3, -2), 4),
    ],
    ids=str,
)
def test_any_key_gives_what_an_array_in_memory_gives(values, key):
    lazy = Counted(values)
    np.testing.assert_array_equal(lazy[key], values[key])
    assert (lazy.shape, lazy.ndim, lazy.nbytes, len(lazy)) == (values.shape, values.ndim, values.nbytes, len(values))


def test_nothing_is_read_while_the_view_moves_within_what_it_has(make_napari_viewer):
    finest, coarse = Counted(VALUES), Counted(VALUES[::2, ::2])
    viewer = make_napari_viewer(show=True)
    viewer.add_layer(Image([finest, coarse], multiscale=True, rgb=True))
    viewer.scene.camera.zoom = 2.0
    viewer.scene.camera.center = (0, 900, 1500)
    viewer.screenshot(flash=False)
    shown = finest.boxes[-1]
    assert shown.y0 % SQUARE == shown.x0 % SQUARE == 0

    finest.boxes.clear()
    seen = viewer.screenshot(flash=False)
    for step in range(1, 9):
        viewer.scene.camera.center = (0, 900 + step / 2, 1500 + step)
        moved = viewer.screenshot(flash=False)
    assert len(finest.boxes) <= 1  # it may have come to the border of a square
    assert not np.array_equal(seen, moved)

    finest.boxes.clear()
    viewer.scene.camera.center = (0, 900, 1500 + 2 * SQUARE)
    viewer.screenshot(flash=False)
    assert len(finest.boxes) == 1
