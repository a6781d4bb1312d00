"""A run ends when it was promised to, and its schedule comes to its end whatever happens to its number of steps."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_semiseg.engine.pacing import FIRST_LOOK, LOOKS, Pacing


def ended(planned: int, budget: float, seconds: Callable[[float], float]) -> tuple[Pacing, float]:
    """Go through a run whose step takes so long at a time; return its way and when it ended."""
    way, now, step, looked = Pacing(planned), 0.0, 0, (0, 0.0)
    while step < way.steps:
        now += seconds(now)
        look = way.passes(step, LOOKS)
        step += 1
        if 0 < look < LOOKS:
            if look >= FIRST_LOOK:
                way = way.corrected(step, budget - now, (now - looked[1]) / (step - looked[0]))
            looked = step, now
    return way, now


@pytest.mark.parametrize(
    "seconds",
    [
        lambda _: 1.0,
        lambda _: 0.6,
        lambda _: 2.5,
        lambda now: 1.0 if now < 300 else 2.0,
        lambda now: 2.0 if now < 300 else 1.0,
        lambda now: 1.0 + (now // 60) % 2,
    ],
    ids=["as tried", "faster", "slower", "slower from the middle on", "faster from the middle on", "now and then"],
)
def test_a_run_of_ten_minutes_takes_about_ten_minutes(seconds: Callable[[float], float]) -> None:
    way, took = ended(600, 600.0, seconds)

    assert took == pytest.approx(600, rel=0.05)
    assert way.place(way.steps) == pytest.approx(600)


def test_without_a_correction_a_step_has_its_own_number() -> None:
    way = Pacing(987)
    assert [way.place(step) for step in range(988)] == list(range(988))
    assert [step for step in range(987) if way.passes(step, 987)] == list(range(987))


def test_a_way_that_is_walked_again_is_the_same() -> None:
    way, _ = ended(600, 600.0, lambda now: 1.0 + (now // 60) % 2)
    again = Pacing(600, way.turns)

    assert len(way.turns) == LOOKS - FIRST_LOOK
    assert [again.place(step) for step in range(way.steps)] == [way.place(step) for step in range(way.steps)]
    looks = [step + 1 for step in range(way.steps) if FIRST_LOOK <= again.passes(step, LOOKS) < LOOKS]
    assert looks == [step for step, _ in way.turns]


@given(st.integers(1, 300), st.data())
def test_the_plan_is_passed_forward_and_to_its_end(planned: int, data: st.DataObject) -> None:
    way = Pacing(planned)
    step = 0
    while step < way.steps and len(way.turns) < 6:
        step += data.draw(st.integers(1, 40))
        if step < way.steps:
            way = way.corrected(step, data.draw(st.floats(-10, 1000)), data.draw(st.floats(0.01, 10)))
    places = [way.place(at) for at in range(way.steps + 1)]

    assert places[0] == 0
    assert all(before < after for before, after in pairwise(places))
    assert places[-1] == pytest.approx(planned)
    assert places[-2] < planned
    parts = [way.passes(at, 5) for at in range(way.steps)]
    assert [part for part in parts if part] == sorted({part for part in parts if part})
    assert parts[-1] == 5
