"""The optimizer's step."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from napari_semiseg.engine.optim import OptimConfig, descend


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_a_weight_that_is_taught_later_than_the_others_learns_too(optimizer: str) -> None:
    early, late = (nn.Parameter(torch.ones(3)) for _ in range(2))
    made = OptimConfig.model_validate({"optimizer": optimizer, "lr": 0.1}).build([{"params": [early, late]}])
    assert descend([made], early.square().sum(), 1.0, 0.0)
    assert torch.equal(late, torch.ones(3))
    assert descend([made], (early * late).sum(), 1.0, 0.0)
    assert bool((late < 1).all())
