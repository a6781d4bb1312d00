"""What the methods paragraph says of runs of different kinds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from napari_semiseg.engine.manuscript import methods_paragraph
from napari_semiseg.engine.requests import TrainRequest
from napari_semiseg.engine.train import train

Ask = Callable[..., TrainRequest]


def test_cells_that_a_threshold_did_not_learn_from_chose_no_step(quick_request: Ask) -> None:
    request = quick_request(method="intensity_threshold", network="auto", labeled="4")
    list(train(request))
    text, _, works = methods_paragraph(Path(request.out)).partition("\n\n")

    assert "taught it; 1 more was kept for validation." in text
    assert "Training was planned" not in text
    assert "Boserup" in works


def test_cells_that_judge_a_network_chose_its_step(quick_request: Ask) -> None:
    request = quick_request(labeled="4", steps=1)
    list(train(request))

    assert "1 more chose the step of training" in methods_paragraph(Path(request.out))
