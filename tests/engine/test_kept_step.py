import math

import pytest

from napari_semiseg.engine.kept_step import chance, full_tiles, is_kept
from napari_semiseg.engine.train_guard import Guard


def kept(scores, tiles):
    """The step that a run keeps whose networks had these scores, one after the other."""
    guard = Guard()
    for step, score in enumerate(scores):
        guard.keeps(step, score, tiles)
    return guard.best_step


def test_the_first_network_that_is_judged_is_kept_whatever_its_score():
    assert is_kept(0.0, -math.inf, tiles=1)


def test_one_tile_that_an_early_network_suits_by_chance_does_not_keep_it():
    # The only validation tile of a run with five: on other images the third network had 0.63, the last one 0.78.
    scores = [0.574, 0.626, 0.635, 0.541, 0.496, 0.563, 0.606, 0.551, 0.508, 0.500, 0.517, 0.529, 0.543, 0.557]
    assert kept(scores, tiles=1) == len(scores) - 1


def test_a_network_that_has_come_undone_is_not_kept():
    assert kept([0.6, 0.75, 0.78, 0.4, 0.1, 0.0], tiles=1) == 2


def test_many_tiles_tell_a_smaller_loss_from_chance():
    scores = [0.6, 0.8, 0.76]
    assert kept(scores, tiles=4) == 2
    assert kept(scores, tiles=16) == 1


def test_a_tile_of_two_nuclei_tells_less_than_one_of_thirty():
    # The only validation tile of a run with five held two nuclei: step 42 had 0.46 on other images.
    scores = [0.576, 0.705, 0.726, 0.661, 0.530, 0.514, 0.561, 0.608, 0.583, 0.558, 0.545, 0.524, 0.505]
    assert kept(scores, tiles=full_tiles([2])) == len(scores) - 1
    assert kept(scores, tiles=full_tiles([60])) == 3


@pytest.mark.parametrize(("nuclei", "full"), [([30], 1), ([200, 30, 45], 3), ([15, 30], 1.5), ([0], 1 / 30), ([], 0)])
def test_tiles_count_as_judges_by_their_nuclei_up_to_a_full_one(nuclei, full):
    assert full_tiles(nuclei) == pytest.approx(full)


def test_a_network_that_finds_nothing_is_not_kept_even_by_a_tile_of_two_nuclei():
    assert chance(full_tiles([2])) < 0.5
    assert kept([0.7, 0.72, 0.0], tiles=full_tiles([2])) == 1


def test_a_slow_decline_is_held_against_the_highest_score_and_not_against_the_last_one():
    assert kept([0.8, 0.77, 0.74, 0.71, 0.68, 0.65], tiles=1) == 3


def test_scores_of_other_tiles_are_forgotten():
    guard = Guard()
    guard.keeps(1, 0.9, 1)
    guard.forget_scores()
    assert guard.keeps(2, 0.3, 1)


@pytest.mark.parametrize("scores", [[], [0.5], [0.8, 0.3]])
def test_scores_outlive_a_checkpoint(scores):
    guard = Guard()
    for step, score in enumerate(scores):
        guard.keeps(step, score, 1)
    assert Guard.of(guard.state()) == guard
