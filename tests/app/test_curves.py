"""Curves in bounded memory, numbers in words, and places of doubt."""

from __future__ import annotations

import math

import numpy as np
import pytest

from napari_semiseg.app.curves import Curve
from napari_semiseg.app.doubt import SIDE, doubtful_places
from napari_semiseg.app.words import about, clock, rate


def test_a_long_curve_stays_small_and_keeps_its_shape():
    curve = Curve(capacity=100)
    for step in range(10_000):
        curve.add(step, step / 10)

    assert len(curve) <= 100
    assert curve.steps == sorted(curve.steps)
    np.testing.assert_allclose(curve.values, np.array(curve.steps) / 10, atol=10)
    assert curve.last == pytest.approx(999.9, abs=10)


def test_what_is_not_finite_is_no_point():
    curve = Curve()
    curve.add(1, math.nan)
    curve.add(2, math.inf)

    assert len(curve) == 0
    assert math.isnan(curve.last)


def test_a_run_that_goes_back_draws_over_what_came_after():
    curve = Curve()
    for step in (1, 2, 3, 2):
        curve.add(step, float(step * 10))

    assert curve.steps == [1, 2]
    assert curve.values == [10.0, 20.0]


@pytest.mark.parametrize(("seconds", "text"), [(92.4, "1:32"), (7510, "2:05:10"), (math.nan, ""), (-1, "")])
def test_time_left_reads_like_a_clock(seconds, text):
    assert clock(seconds) == text


def test_speed_and_duration_read_like_speech():
    assert rate(14.2) == "14 steps/s"
    assert rate(2.5) == "2.5 steps/s"
    assert rate(0.3) == "3.3 s/step"
    assert rate(math.nan) == ""
    assert (about(3.0), about(0.5), about(120)) == ("about 3 min", "about 30 s", "about 2 h")


def test_places_of_doubt_come_most_doubtful_first_and_lie_in_the_image():
    confidence = np.zeros((150, 200), np.uint8)
    confidence[:SIDE, :SIDE] = 200
    confidence[SIDE : 2 * SIDE, SIDE : 2 * SIDE] = 128
    first, second = doubtful_places(confidence, downsample=2)

    assert first.center == (191.5, 191.5)
    assert first.doubt == pytest.approx(1, abs=1e-3)
    assert second.center == (63.5, 63.5)


def test_where_all_is_sure_no_place_is_in_doubt():
    assert doubtful_places(np.full((100, 100), 255, np.uint8)) == []
