"""What is said of a run's accuracy."""

import math

import numpy as np
import pytest
from scipy import stats

from napari_semiseg.app.accuracy import accuracy_words, interval


@pytest.mark.parametrize("count", [2, 3, 6, 11])
def test_the_interval_is_that_of_students_t(count):
    scores = np.linspace(0.6, 0.8, count)
    mean, low, high = interval({str(number): float(score) for number, score in enumerate(scores)})
    error = stats.sem(scores)
    expected = stats.t.interval(0.95, count - 1, loc=scores.mean(), scale=error)
    np.testing.assert_allclose((mean, low, high), (scores.mean(), *np.clip(expected, 0, 1)), atol=2e-3)


def test_few_tiles_are_said_to_be_few():
    assert accuracy_words({}, 0.7).startswith("Nobody can say how good this is")
    assert accuracy_words({"t0004": 0.812}, 0.74) == (
        "Dice 0.81 on the one tile set aside; the threshold has 0.74. One tile says little about the rest."
    )


def test_better_than_the_threshold_is_said_only_where_the_tiles_show_it():
    assert accuracy_words({"a": 0.80, "b": 0.82, "c": 0.81}, 0.74).endswith("Better than the threshold.")
    assert accuracy_words({"a": 0.70, "b": 0.92, "c": 0.81}, 0.74).endswith("Not surely better than the threshold.")
    assert "threshold" not in accuracy_words({"a": 0.80, "b": 0.82}, math.nan)


def test_what_is_worse_than_the_threshold_is_said_to_be_worse():
    scores = {"t1": 0.60, "t2": 0.62, "t3": 0.61}
    assert accuracy_words(scores, 0.75).endswith("Worse than the threshold.")
    assert accuracy_words(scores, 0.62).endswith("Not surely better than the threshold.")
