"""The next batch, drawn while the current one is learned from."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import torch

from napari_semiseg.data.batch import Batch
from napari_semiseg.data.sampler import Sampler


class Ahead:
    """Draws batches one step ahead, in a thread of its own.

    A batch is a function of the sampler and the step, so that it makes no difference to what is learned when it is
    drawn. An error in drawing is raised where its batch is wanted, and a batch of labels that have changed meanwhile is
    thrown away. Every batch is drawn in that one thread: what a sampler keeps in memory is never used by two.
    """

    def __init__(self) -> None:
        # One thread within the thread: the others are busy with the network.
        self._thread = ThreadPoolExecutor(1, "next batch", initializer=torch.set_num_threads, initargs=(1,))
        self._next: tuple[Sampler, int, Future[Batch]] | None = None

    def batch(self, sampler: Sampler, step: int, *, more: bool) -> Batch:
        """Return the batch of a step, and with `more` begin to draw that of the next."""
        drawn, self._next = self._next, None
        fits = drawn is not None and drawn[0] is sampler and drawn[1] == step
        wanted = drawn[2] if drawn is not None and fits else self._thread.submit(sampler.batch, step)
        if more:
            self._next = sampler, step + 1, self._thread.submit(sampler.batch, step + 1)
        return wanted.result()
