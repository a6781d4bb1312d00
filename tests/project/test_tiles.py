"""Which tiles a run judges itself by."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_semiseg.blocks import Box
from napari_semiseg.project.schema import Tile
from napari_semiseg.project.tiles import judge_at, settled, validation_tiles


def tile(number, status="complete", role="auto", box=None, image=0, *, judges=False):
    box = box or Box(number * 10, 0, number * 10 + 10, 10)
    return Tile(id=f"t{number:04d}", image=image, box=box, status=status, role=role, judges=judges)


def chosen(tiles):
    return [found.id for found in validation_tiles(tiles)]


@pytest.mark.parametrize(
    ("count", "expected"), [(0, 0), (1, 0), (3, 0), (4, 1), (7, 1), (8, 2), (15, 3), (16, 4), (100, 25)]
)
def test_one_in_four_complete_tiles_is_set_aside_from_four_on(count, expected):
    assert len(chosen([tile(n) for n in range(count)])) == expected


def test_only_complete_tiles_count():
    tiles = [tile(n, status) for n, status in enumerate(["complete"] * 3 + ["sparse", "empty", "excluded"] * 3)]
    assert chosen(tiles) == []


@settings(derandomize=True, deadline=None)
@given(st.permutations(range(9)))
def test_the_order_in_which_tiles_are_listed_does_not_matter(order):
    assert chosen([tile(n) for n in order]) == chosen([tile(n) for n in range(9)])


def test_a_tile_added_later_changes_nothing_that_was_chosen_and_is_chosen_before_it_was_learned_from():
    before: list[str] = []
    for count in range(1, 60):
        now = chosen([tile(n) for n in range(count)])
        assert now[: len(before)] == before
        assert set(now) - set(before) <= {f"t{count - 1:04d}"}
        before = now


def test_ids_of_more_digits_come_later():
    assert chosen([tile(n) for n in (9998, 9999, 10000, 10001)]) == ["t10001"]


def test_the_user_decides():
    assert chosen([tile(0, role="validation"), tile(1)]) == ["t0000"]
    assert chosen([tile(n, role="training") for n in range(8)]) == []
    tiles = [tile(0, role="validation"), *(tile(n) for n in range(1, 8))]
    assert chosen(tiles) == ["t0000", "t0007"]
    assert chosen([tile(0, "sparse", role="validation")]) == []


def test_a_tile_kept_for_training_is_passed_over_for_the_next():
    assert chosen([tile(n, role="training" if n == 3 else "auto") for n in range(5)]) == ["t0004"]


@pytest.mark.parametrize("status", ["complete", "sparse"])
def test_a_tile_whose_pixels_would_be_learned_from_is_passed_over_for_the_next(status):
    neighbor = tile(90, status, role="training", box=Box(35, 5, 45, 15))
    tiles = [*(tile(n) for n in range(8)), neighbor]
    assert "t0003" not in chosen(tiles)
    assert "t0004" not in chosen(tiles)
    assert len(chosen(tiles)) == 2
    elsewhere = tile(90, status, role="training", box=Box(35, 5, 45, 15), image=1)
    assert "t0003" in chosen([*(tile(n) for n in range(8)), elsewhere])


def test_a_tile_that_overlaps_an_excluded_or_empty_one_may_judge():
    for status in ("excluded", "empty"):
        assert chosen([*(tile(n) for n in range(4)), tile(90, status, box=Box(35, 5, 45, 15))]) == ["t0003"]


# ---- what was chosen stays ----


def test_a_chosen_tile_stays_chosen_whatever_is_labeled_over_it():
    tiles = settled([tile(n) for n in range(8)])
    over = tile(90, "sparse", box=Box(35, 5, 45, 15))
    assert chosen(tiles) == chosen([*tiles, over]) == ["t0003", "t0007"]


def test_a_chosen_tile_stays_chosen_when_an_earlier_one_is_completed_or_removed():
    later = settled([tile(n) for n in range(1, 5)])
    assert chosen(later) == chosen([tile(0), *later]) == ["t0004"]
    eight = settled([tile(n) for n in range(8)])
    assert chosen(eight[1:]) == ["t0003", "t0007"]


def test_the_user_has_the_last_word_on_what_was_chosen():
    assert chosen([tile(n, role="training" if n == 3 else "auto", judges=n == 3) for n in range(4)]) == []


def test_a_chosen_tile_that_is_completed_again_is_chosen_again():
    tiles = settled([tile(n) for n in range(8)])
    undone = settled([tile(3, "sparse", judges=True) if one.id == "t0003" else one for one in tiles])
    assert chosen(undone) == ["t0007"]
    again = [one.model_copy(update={"status": "complete"}) for one in undone]
    assert chosen(again) == ["t0003", "t0007"]


def test_a_chosen_tile_that_is_no_longer_complete_gives_its_place_to_the_next():
    tiles = [*(tile(n) for n in range(3)), tile(3, "sparse", judges=True), tile(4)]
    after = settled(tiles)
    assert chosen(after) == ["t0004"]
    assert chosen([one.model_copy(update={"status": "complete"}) for one in after]) == ["t0004"]


def test_what_lies_on_a_tile_that_is_set_aside_is_found():
    tiles = [tile(n) for n in range(4)]
    assert judge_at(tiles, 0, Box(39, 9, 60, 60)).id == "t0003"
    assert judge_at(tiles, 0, Box(40, 0, 60, 10)) is None
    assert judge_at(tiles, 0, Box(0, 0, 20, 10)) is None
    assert judge_at(tiles, 1, Box(39, 9, 60, 60)) is None
