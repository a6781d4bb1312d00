"""A value over steps, in bounded memory."""

from __future__ import annotations

import math


class Curve:
    """Points (step, value) in order; when there are too many, neighbors are averaged in pairs.

    Parameters
    ----------
    capacity : int
        Most points kept, an even number.

    Attributes
    ----------
    steps, values : list of float
        The points. Not to be changed.
    """

    def __init__(self, capacity: int = 600) -> None:
        self._capacity = capacity
        self._stride = 1
        self._waiting: list[tuple[float, float]] = []
        self.steps: list[float] = []
        self.values: list[float] = []

    def add(self, step: float, value: float) -> None:
        """Add a point. One that is not finite is left out; one that goes back in steps drops what lies after it."""
        if not math.isfinite(value):
            return
        if self.steps and step <= self.steps[-1]:
            self._go_back(step)
        self._waiting.append((step, value))
        if len(self._waiting) < self._stride:
            return
        self.steps.append(self._waiting[-1][0])
        self.values.append(sum(value for _, value in self._waiting) / len(self._waiting))
        self._waiting = []
        if len(self.steps) >= self._capacity:
            self._halve()

    @property
    def last(self) -> float:
        """The newest value, NaN where there is none."""
        if self._waiting:
            return self._waiting[-1][1]
        return self.values[-1] if self.values else math.nan

    def __len__(self) -> int:
        return len(self.steps)

    def _go_back(self, step: float) -> None:
        self._waiting = []
        keep = sum(other < step for other in self.steps)
        del self.steps[keep:], self.values[keep:]

    def _halve(self) -> None:
        pairs = zip(self.values[::2], self.values[1::2], strict=False)
        self.values = [(first + second) / 2 for first, second in pairs]
        self.steps = self.steps[1::2][: len(self.values)]
        self._stride *= 2
