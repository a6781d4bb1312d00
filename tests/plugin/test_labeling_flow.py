"""A tile is proposed, corrected with a mouse and completed with a key while something trains.

The whole way, with a network, pictures and two runs to compare, is `docs/scripts/labeling_flow.py`.
"""

from __future__ import annotations

import time

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from scipy import ndimage
from skimage.measure import find_contours

from napari_semiseg.app.painting import PROPOSED_FROM
from napari_semiseg.events import LabelsRead
from napari_semiseg.plugin.layers import of_role

pytestmark = pytest.mark.flow


@pytest.mark.flaky(reruns=2)
def test_a_tile_is_corrected_with_three_gestures_and_reaches_the_training_within_five_seconds(
    open_window, tissue, tmp_path
):
    hands = open_window(tissue)
    dock = hands.dock
    dock.view.choose_target(tmp_path / "case.semiseg")
    hands.wait(lambda: of_role(hands.viewer, "proposal"), "the proposal")
    hands.press(dock.slide_panel.start)
    hands.wait(lambda: dock.view.started, "the start")
    hands.wait(dock.train_panel.train.isEnabled, "an image in the project")
    hands.press(dock.train_panel.train)
    hands.wait(lambda: dock.session.training.state == "running", "the training")

    tile = hands.project.add_tile(0, center=(330, 150), side=150)
    hands.press(dock.tiles_panel.tile_box.from_proposal)
    hands.wait(lambda: dock.tiles.correcting, "the nuclei of the threshold: nothing better is there yet")
    (proposal,) = of_role(hands.viewer, "proposal")
    assert not proposal.visible
    layer, corner = dock.tiles.layer(tile.id), np.array((tile.box.y0, tile.box.x0))
    camera = hands.viewer.scene.camera
    camera.center, camera.zoom = (0, 330, 150), 3.0
    hands.rest(0.1)

    before = layer.data.copy()
    numbers, areas = np.unique(before[before >= PROPOSED_FROM], return_counts=True)
    small, middling, *_, large = numbers[np.argsort(areas)].tolist()
    hands.stroke([tuple(np.argwhere(before == small)[0] + corner)], button=2)
    hands.stroke([tuple(point + corner) for point in around(before == middling)])
    _, x = ndimage.center_of_mass(before == large)
    rows = np.flatnonzero((before == large).any(axis=1))
    ends = np.clip([rows[0] - 3, rows[-1] + 3], 0, 149)
    hands.stroke([(row + corner[0], x + corner[1]) for row in np.linspace(*ends, 8)])
    assert not np.isin(layer.data, [small, middling, large]).any()

    read: list[float] = []
    dock.session.engine.received.connect(
        lambda _, event: read.append(time.monotonic()) if isinstance(event, LabelsRead) else None
    )
    hands.wait(lambda: not dock.session.training.unseen, "the gestures in the training")
    read.clear()
    hands.canvas.setFocus()
    marked = time.monotonic()
    QTest.keyClick(hands.canvas, Qt.Key.Key_C, Qt.KeyboardModifier.ShiftModifier)
    assert hands.project.tile(tile.id).status == "complete"
    assert not (layer.data >= PROPOSED_FROM).any()
    hands.wait(lambda: read and not dock.session.training.unseen, "the tile in the training", 10)
    assert read[0] - marked < 5
    dock.tiles.correct(False)
    assert proposal.visible


def around(nucleus: np.ndarray) -> np.ndarray:
    """A path around a nucleus, a pixel outside of it."""
    outline = max(find_contours(np.pad(ndimage.binary_dilation(nucleus), 1).astype(float), 0.5), key=len) - 1
    return outline[:: max(1, len(outline) // 30)]
