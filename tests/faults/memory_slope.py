"""How fast the memory of a process grows, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import linregress, t

PARTS = 8
SURE = 0.95


@dataclass(frozen=True)
class Slope:
    """A slope and how far the true one may be from it, to either side, with a confidence of 95 %.

    Attributes
    ----------
    mb_per_hour, margin : float
        In MB an hour.
    """

    mb_per_hour: float
    margin: float

    def surely_above(self, bound: float) -> bool:
        """Whether the whole interval lies above a number of MB an hour."""
        return self.mb_per_hour - self.margin > bound

    def __str__(self) -> str:
        return f"{self.mb_per_hour:+.1f} ± {self.margin:.1f}"


def slope(hours: Sequence[float], mb: Sequence[float]) -> Slope:
    """Fit a line by least squares through the means of `PARTS` parts of a series.

    One look at a process is much like the one before, so that hundreds of looks are not as many witnesses: their own
    scatter would make the slope far too sure. The means of parts are nearly independent of each other, and what is no
    line, as a saw-tooth that is slower than a part, widens the margin.

    Parameters
    ----------
    hours, mb : sequence of float
        When it was looked, and what was found; at least `PARTS` of each.
    """
    at, found = (
        np.array([part.mean() for part in np.array_split(np.asarray(each, float), PARTS)]) for each in (hours, mb)
    )
    line = linregress(at, found)
    return Slope(float(line.slope), float(t.ppf((1 + SURE) / 2, PARTS - 2) * line.stderr))


def _means(series: Sequence[float]) -> list[float]:
    return [float(part.mean()) for part in np.array_split(np.asarray(series, float), PARTS)]
