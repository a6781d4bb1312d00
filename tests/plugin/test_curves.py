"""Plots of the dock, which have few pixels."""

from __future__ import annotations

import numpy as np
import pytest

from napari_semiseg.app.run_record import RunRecord
from napari_semiseg.events import StepDone
from napari_semiseg.plugin.widgets.curves import BETWEEN_NUMBERS, COLORS, Curves, ShortAxis


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


def test_each_curve_has_the_color_that_the_legend_gives_it_also_when_another_run_is_shown(qapp):
    curves = Curves()
    for names in (("sup", "con"), ("sup", "ent", "con")):
        record = RunRecord(total=10)
        for step in range(5):
            record.note(StepDone(step, dict.fromkeys(names, 1.0), {}, 1.0, 1.0))
        curves.show_record(record, "")

    assert {name: item.opts["pen"].color().name() for name, item in curves._terms.items()} == dict(
        zip(names, COLORS, strict=False)
    )
    curves.deleteLater()
