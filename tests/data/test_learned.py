"""Where a run has learned from, and what may judge it."""

from __future__ import annotations

import json

import pytest

from napari_semiseg.blocks import Box
from napari_semiseg.data.learned import Learned
from napari_semiseg.errors import InputError

TILE, JUDGE = (0, Box(0, 0, 40, 40)), (0, Box(30, 30, 70, 70))


def test_nothing_that_shares_a_pixel_with_what_was_learned_from_may_judge() -> None:
    learned = Learned().and_from([TILE], [])

    assert learned.reaches(0, Box(39, 39, 50, 50))
    assert not learned.reaches(0, Box(40, 0, 50, 50))
    assert not learned.reaches(1, TILE[1])
    assert not Learned().reaches(*TILE)


def test_what_a_tile_spares_each_time_that_it_is_learned_from_was_not_learned_from() -> None:
    spared = Learned().and_from([TILE], [JUDGE]).and_from([TILE], [JUDGE])

    assert not spared.reaches(*JUDGE)
    assert spared.reaches(0, Box(30, 30, 71, 71))
    assert spared.and_from([TILE], []).reaches(*JUDGE)
    assert Learned().and_from([TILE], []).and_from([TILE], [JUDGE]).reaches(*JUDGE)


def test_what_was_once_learned_from_stays_so() -> None:
    learned = Learned().and_from([TILE], []).and_from([], [])

    assert learned.reaches(*TILE)


def test_it_is_read_as_it_was_written_and_runs_of_before_have_none() -> None:
    learned = Learned().and_from([TILE, (1, Box(5, 5, 9, 9))], [JUDGE])
    written = json.loads(json.dumps({"learned": learned.facts()}))

    assert Learned.of(written, "run.json") == learned
    assert Learned.of({}, "run.json") == Learned()


@pytest.mark.parametrize("broken", [5, [5], [{"image": -1, "box": [0, 0, 1, 1]}], [{"image": 0, "box": [1]}], None])
def test_what_is_broken_is_refused_with_its_place(broken: object) -> None:
    with pytest.raises(InputError, match=r"run\.json"):
        Learned.of({"learned": broken}, "run.json")
