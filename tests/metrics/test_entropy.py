"""Entropy in bits against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from napari_semiseg.metrics.entropy import binary_entropy


def loop(share: float) -> float:
    return sum(-part * math.log2(part) for part in (share, 1 - share) if part > 0)


def test_it_is_the_sum_over_both_parts_with_nothing_at_0_and_1():
    shares = [*(np.arange(256) / 255).tolist(), 1e-300, 1e-17, 1 - 2**-53]

    np.testing.assert_allclose(binary_entropy(shares), [loop(share) for share in shares], rtol=1e-13, atol=1e-16)
    assert binary_entropy([0, 1]).tolist() == [0, 0]


@pytest.mark.parametrize("shape", [(), (0,), (2, 3, 4)])
def test_it_has_the_shape_of_what_it_is_given_and_is_float64(shape):
    found = binary_entropy(np.full(shape, 0.5, np.float32))

    assert (found.shape, found.dtype) == (shape, np.float64)
    assert (found == 1).all()
