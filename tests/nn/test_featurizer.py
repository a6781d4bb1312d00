"""The featurizer of CSL."""

from __future__ import annotations

import pytest
import torch

from napari_semiseg.nn.featurizer import SMALLEST, PatchFeaturizer


def test_it_has_the_weights_that_the_papers_count_adds_to_the_network() -> None:
    assert sum(parameter.numel() for parameter in PatchFeaturizer(50).parameters()) == 10_758 - 7_372


@pytest.mark.parametrize("size", [SMALLEST, 20, 50])
def test_a_patch_becomes_32_numbers(size: int) -> None:
    assert PatchFeaturizer(size)(torch.rand(3, 1, size, size)).shape == (3, 32)


def test_a_patch_of_which_nothing_is_left_is_refused() -> None:
    with pytest.raises(ValueError, match="needs 15"):
        PatchFeaturizer(SMALLEST - 1)
