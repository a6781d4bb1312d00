"""What fifteen warm minutes can tell of a leak, on series that were made up."""

from __future__ import annotations

import numpy as np
import pytest
from tests.faults.memory_slope import slope
from tests.faults.test_soak import SHORT_MB_PER_HOUR

HOURS = np.linspace(0, 0.25, 180)
"""What `make soak` looks at: 20 minutes in 240 looks, without the first quarter."""


def wandering(seed: int, mb: float = 2.0, looks: int = 12) -> np.ndarray:
    """Return noise of that many MB which forgets itself over so many looks, as that of a process does."""
    rng = np.random.default_rng(seed)
    kept = np.exp(-1 / looks)
    found = np.zeros(len(HOURS))
    found[0] = rng.normal(0, mb)
    for look in range(1, len(found)):
        found[look] = kept * found[look - 1] + rng.normal(0, mb * np.sqrt(1 - kept**2))
    return found


def saw_tooth(mb: float, minutes: float) -> np.ndarray:
    return mb * ((HOURS * 60 / minutes) % 1)


@pytest.mark.parametrize("seed", range(20))
def test_a_steady_process_is_not_refused_and_a_leak_of_100_mb_an_hour_is(seed):
    steady, leaking = slope(HOURS, 500 + wandering(seed)), slope(HOURS, 500 + 100 * HOURS + wandering(seed))

    assert not steady.surely_above(SHORT_MB_PER_HOUR)
    assert leaking.surely_above(SHORT_MB_PER_HOUR)
    assert leaking.mb_per_hour - steady.mb_per_hour == pytest.approx(100)


def test_the_margin_holds_the_truth_about_as_often_as_it_says():
    found = [slope(HOURS, 30 * HOURS + wandering(seed)) for seed in range(300)]
    missed = [abs(each.mb_per_hour - 30) > each.margin for each in found]

    assert np.mean(missed) < 0.12


@pytest.mark.parametrize("minutes", [0.3, 1, 4, 7])
def test_a_saw_tooth_is_no_leak_whatever_its_length(minutes):
    assert not slope(HOURS, 500 + saw_tooth(10, minutes)).surely_above(SHORT_MB_PER_HOUR)


@pytest.mark.parametrize("minutes", [0.3, 1, 4])
def test_a_leak_below_a_small_saw_tooth_is_seen(minutes):
    assert slope(HOURS, 500 + 100 * HOURS + saw_tooth(2, minutes)).surely_above(SHORT_MB_PER_HOUR)


def test_where_a_leak_cannot_be_told_the_margin_says_so():
    """A tooth of 40 MB that comes down every four minutes hides what 25 MB in fifteen minutes are."""
    hidden = slope(HOURS, 500 + 100 * HOURS + saw_tooth(40, 4))

    assert not hidden.surely_above(SHORT_MB_PER_HOUR)
    assert hidden.margin > 40


def test_it_is_said_with_its_margin():
    assert str(slope(HOURS, 500 - 20 * HOURS)) == "-20.0 ± 0.0"
