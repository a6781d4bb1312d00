"""How far a run is, where its number of steps is corrected on the way so that it ends when it was promised to."""

from __future__ import annotations

from dataclasses import dataclass, replace

LOOKS = 20
"""Parts of a run, after each of which the clock is looked at."""
FIRST_LOOK = 4
"""The first look whose answer counts: before it methods warm up, and their steps are shorter."""
SUDDEN = 3.0
"""By how much one look may stretch or shorten what is left of a run."""
WORTH_IT = 0.02
"""Changes smaller than this share of what is left are not made."""


@dataclass(frozen=True)
class Pacing:
    """The way from the first step of a run to its last.

    A run is planned with a number of steps, and rates, ramps and warm-ups are functions of how much of that plan is
    done. Where the number is corrected at a step, the rest of the plan is spread over the rest of the steps: what
    hangs on the plan goes on from where it is, only faster or slower.

    Attributes
    ----------
    planned : int
        Steps of the plan.
    turns : tuple of (int, int)
        Where the number was corrected: the step from which on it holds, and the number. In order of steps; a look that
        changed nothing is among them.
    """

    planned: int
    turns: tuple[tuple[int, int], ...] = ()

    @property
    def steps(self) -> int:
        """Steps of the run, as far as is known now."""
        return self.turns[-1][1] if self.turns else self.planned

    def place(self, step: int) -> float:
        """Return how many steps of the plan are done before a step: 0 before the first, `planned` after the last.

        Without a correction that is the step's own number.
        """
        done, since, steps = 0.0, 0, self.planned
        for turn, corrected in self.turns:
            if step < turn:
                break
            done += (turn - since) * ((self.planned - done) / (steps - since))
            since, steps = turn, corrected
        return done + (step - since) * ((self.planned - done) / (steps - since))

    def passes(self, step: int, parts: int) -> int:
        """Return the number of the part of the plan that this step ends, of `parts` equal ones; 0 where it ends none.

        Where the plan has fewer steps than parts, or one is left out, it is the last that ended.
        """
        before, after = (int(self.place(at) * parts / self.planned + 1e-9) for at in (step, step + 1))
        return after if after > before else 0

    def corrected(self, step: int, left_s: float, step_s: float) -> Pacing:
        """Return the way from a step on that fits the time.

        Parameters
        ----------
        step : int
            Steps done.
        left_s : float
            Seconds left; may be below 0.
        step_s : float, > 0
            Seconds that a step takes, with all that happens between two.
        """
        left = self.steps - step
        fitting = min(max(left_s / step_s, left / SUDDEN), left * SUDDEN)
        if abs(fitting - left) < WORTH_IT * left:
            fitting = left
        return replace(self, turns=(*self.turns, (step, step + max(1, round(fitting)))))
