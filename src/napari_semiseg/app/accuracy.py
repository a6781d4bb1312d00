"""How good a run is, said so that nobody believes more than a few tiles can tell."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping

_T = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)
"""97.5 % quantiles of Student's t for 1 to 10 degrees of freedom; beyond that, `_T_MANY`."""
_T_MANY = 2.1


def interval(scores: Mapping[str, float]) -> tuple[float, float, float]:
    """Return the mean of scores and its 95 % interval by Student's t, within 0 to 1; NaN as ends for a single one.

    Raises
    ------
    ValueError
        If there is no score.
    """
    values = list(scores.values())
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, math.nan, math.nan
    quantile = _T[len(values) - 2] if len(values) - 2 < len(_T) else _T_MANY
    half = quantile * statistics.stdev(values) / math.sqrt(len(values))
    return mean, max(0.0, mean - half), min(1.0, mean + half)


def accuracy_words(scores: Mapping[str, float], threshold: float) -> str:
    """Say how good a run is on the tiles that were set aside.

    Parameters
    ----------
    scores : mapping of str to float
        Dice by tile.
    threshold : float
        Mean Dice there of the threshold that needs no training; NaN where it is not known.
    """
    if not scores:
        return (
            "Nobody can say how good this is: no tile was set aside before it was learned from. "
            "Train again with four complete tiles or more."
        )
    mean, low, high = interval(scores)
    beside = f"; the threshold has {threshold:.2f}" if math.isfinite(threshold) else ""
    if math.isnan(low):
        return f"Dice {mean:.2f} on the one tile set aside{beside}. One tile says little about the rest."
    better = ""
    if math.isfinite(threshold):
        better = " Worse than the threshold." if high < threshold else " Not surely better than the threshold."
        better = " Better than the threshold." if low > threshold else better
    return (
        f"Dice {mean:.2f}, and {low:.2f} to {high:.2f} would fit too ({len(scores)} tiles set aside){beside}.{better}"
    )
