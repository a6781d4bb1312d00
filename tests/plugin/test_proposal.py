"""The proposal comes and goes with the image that it is of."""

from __future__ import annotations

import numpy as np
import pytest

from napari_semiseg.plugin.layers import of_role


@pytest.fixture
def proposed(open_window, tissue, tmp_path):
    """A window with an image in view, and its proposal."""
    hands = open_window(tissue)
    hands.dock.view.choose_target(tmp_path / "case.semiseg")
    hands.wait(lambda: of_role(hands.viewer, "proposal"), "the proposal")
    return hands


def test_the_proposal_leaves_with_its_image(proposed):
    proposed.viewer.layers.remove(proposed.dock.view.layer)
    proposed.wait(lambda: not of_role(proposed.viewer, "proposal"), "the end of the proposal", 5)


def test_the_proposal_of_one_image_is_not_shown_over_a_stack_that_can_have_none(proposed):
    proposed.viewer.add_image(np.zeros((5, 64, 64), np.uint8), name="stack")
    proposed.wait(lambda: not of_role(proposed.viewer, "proposal"), "the end of the proposal", 5)

    proposed.viewer.layers.selection.active = proposed.viewer.layers["field"]
    proposed.wait(lambda: of_role(proposed.viewer, "proposal"), "the proposal of the first image")


@pytest.mark.parametrize("other", [False, True], ids=["alone", "beside another image"])
def test_an_image_is_deleted_together_with_its_proposal(proposed, tissue, other):
    layers = proposed.viewer.layers
    if other:
        proposed.viewer.add_image(tissue[:200, :200], name="other")
        layers.selection.active = layers["field"]
        proposed.wait(lambda: of_role(proposed.viewer, "proposal"), "the proposal")
    layers.selection = {layers["field"], *of_role(proposed.viewer, "proposal")}
    layers.remove_selected()
    proposed.rest(0.3)
    assert "field" not in layers


@pytest.mark.parametrize("select", ["all", "clear"])
def test_all_layers_are_deleted_at_once(proposed, select):
    layers = proposed.viewer.layers
    if select == "all":
        layers.select_all()
        layers.remove_selected()
    else:
        layers.clear()
    proposed.rest(0.3)
    assert not layers
