"""Plots of the dock, which have few pixels."""

from __future__ import annotations

import numpy as np
import pytest

from napari_semiseg.plugin.widgets.curves import BETWEEN_NUMBERS, ShortAxis


@pytest.fixture
def axis(qapp):
    axis = ShortAxis("left")
    axis.setLogMode(True)
    return axis


@pytest.mark.parametrize("span", [(-0.7, 0.1), (-0.26, -0.05), (-3.2, 0.4), (-8.0, 2.0), (0.1, 0.2)])
def test_numbers_of_a_logarithmic_axis_are_not_written_over_each_other(axis, span):
    pixels = 90.0
    ((_, places),) = axis.logTickValues(*span, pixels, [])
    assert all(span[0] <= place <= span[1] for place in places)
    if span[1] - span[0] < pixels / BETWEEN_NUMBERS:
        assert np.diff(places).min(initial=np.inf) * pixels / (span[1] - span[0]) >= BETWEEN_NUMBERS


def test_some_numbers_are_named_in_a_part_of_a_decade_and_tens_alone_over_many(axis):
    ((_, few),) = axis.logTickValues(-0.7, 0.1, 90.0, [])
    assert axis.tickStrings(few, 1.0, None) == ["0.2", "0.3", "0.5", "0.7", "1"]
    ((_, many),) = axis.logTickValues(-4.2, 1.2, 90.0, [])
    assert np.allclose(many, np.rint(many))
