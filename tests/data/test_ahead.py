"""Batches drawn ahead are those that would have been drawn in time."""

from __future__ import annotations

import threading

import pytest
import torch

from napari_semiseg.data.ahead import Ahead


class Counting:
    """A sampler whose batch of a step is its own number and that of the step."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.drawn_by: dict[int, str] = {}

    def batch(self, step: int) -> tuple[int, int]:
        self.drawn_by[step] = threading.current_thread().name
        if step == 13:
            raise ValueError("the disk is gone")
        return self.number, step


def test_batches_are_drawn_in_another_thread_and_are_the_right_ones():
    ahead, sampler = Ahead(), Counting(1)

    assert [ahead.batch(sampler, step, more=step < 5) for step in (3, 4, 5)] == [(1, 3), (1, 4), (1, 5)]
    assert all(name.startswith("next batch") for name in sampler.drawn_by.values())
    assert set(sampler.drawn_by) == {3, 4, 5}


def test_after_a_change_of_labels_or_a_jump_nothing_old_is_learned():
    ahead, before, after = Ahead(), Counting(1), Counting(2)
    ahead.batch(before, 0, more=True)

    assert ahead.batch(after, 1, more=True) == (2, 1)
    assert ahead.batch(after, 7, more=False) == (2, 7)


def test_an_error_is_raised_where_its_batch_is_wanted():
    ahead, sampler = Ahead(), Counting(1)

    assert ahead.batch(sampler, 12, more=True) == (1, 12)
    with pytest.raises(ValueError, match="the disk is gone"):
        ahead.batch(sampler, 13, more=False)


def test_the_threads_of_the_network_stay_as_many():
    threads = torch.get_num_threads()
    ahead = Ahead()
    for step in range(2):
        ahead.batch(Counting(1), step, more=True)

    assert torch.get_num_threads() == threads
