"""The feature map in color."""

import numpy as np
import pytest

from napari_semiseg.engine.looks.features import as_bytes, projected_on_components


def test_components_are_those_of_a_singular_value_decomposition():
    rows = np.random.default_rng(0).normal(size=(200, 6)) @ np.diag([5, 3, 2, 1, 0.5, 0.1])
    projected, explained = projected_on_components(rows, 3)

    centered = rows - rows.mean(0)
    left, values, _ = np.linalg.svd(centered, full_matrices=False)
    assert np.abs(projected) == pytest.approx(np.abs(left[:, :3] * values[:3]), rel=1e-9)
    assert explained == pytest.approx(values[:3] ** 2 / (values**2).sum(), rel=1e-9)


def test_the_sign_of_a_component_does_not_depend_on_how_it_was_found():
    rows = np.random.default_rng(1).normal(size=(50, 4))
    turned, _ = projected_on_components(rows[::-1], 2)

    assert projected_on_components(rows, 2)[0] == pytest.approx(turned[::-1], rel=1e-9)


def test_features_that_are_all_alike_or_too_few_give_empty_components():
    alike, explained = projected_on_components(np.ones((10, 2)), 3)

    assert not alike.any()
    assert explained.tolist() == [0, 0, 0]
    assert alike.shape == (10, 3)
    assert as_bytes(alike).tolist() == [[128] * 3] * 10


def test_colors_are_stretched_between_percentiles():
    values = as_bytes(np.arange(101.0)[:, None])

    assert values[0, 0] == values[1, 0] == 0
    assert values[50, 0] == 128
    assert values[100, 0] == 255
