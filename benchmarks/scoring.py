"""A run's scores, waited for: what `napari-semiseg benchmark` does to score a row, for the scripts beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from napari_semiseg.engine.benchmark_score import Scored, score_run
from napari_semiseg.engine.predictor import Predictor

SIDE = 250
"""Side of the cells that runs learn from and are scored on, in pixels."""


def scores_of(
    run: Path, dataset: Path, stems: Sequence[str], device: torch.device, model: Predictor | None = None
) -> Scored:
    """Score a run on images of a data set.

    Parameters
    ----------
    run, dataset : Path
    stems : sequence of str
        The images.
    device : torch.device
    model : Predictor, optional
        What predicts, in place of the run's best model.
    """
    scoring = score_run(
        run, dataset, stems, device=device, subimage=SIDE, classes=False, should_stop=lambda: False, model=model
    )
    while True:
        try:
            next(scoring)
        except StopIteration as end:
            found: Scored = end.value
            return found
