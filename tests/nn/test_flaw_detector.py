"""The flaw detector of GCT."""

from __future__ import annotations

import pytest
import torch

from napari_semiseg.nn.flaw_detector import SMALLEST, FlawDetector


def test_it_has_as_many_weights_as_the_released_code() -> None:
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in FlawDetector(2).parameters()) == 8_274_561


@pytest.mark.parametrize("side", [SMALLEST, 100])
def test_its_map_has_the_size_of_the_image(side: int) -> None:
    found = FlawDetector(3, width=2)(torch.rand(2, 3, side, side), torch.rand(2, 3, side, side))
    assert found.shape == (2, 1, side, side)
    assert bool(found.isfinite().all())
