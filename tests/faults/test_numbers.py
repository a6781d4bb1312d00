"""Numbers that are not finite, and batches that hold nothing to learn from, never end in a broken model."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from torch import nn

from napari_semiseg.engine.checkpoint import RunFolder
from napari_semiseg.engine.optim import descend
from napari_semiseg.engine.recipe import take_step
from napari_semiseg.engine.requests import TrainRequest
from napari_semiseg.engine.train import train
from napari_semiseg.errors import InputError
from napari_semiseg.events import Event, Finished, PreviewWritten, Skipped, StepDone, Validated, Warned

pytestmark = pytest.mark.usefixtures("one_thread")

Ask = Callable[..., TrainRequest]


def of_kind(kind: type, events: list[Event]) -> list:
    return [event for event in events if isinstance(event, kind)]


def assert_sound(run: str) -> None:
    """The newest checkpoint and the model to predict with hold finite weights."""
    folder = RunFolder(Path(run))
    tensors, _ = folder.read_model()
    assert all(bool(tensor.isfinite().all()) for tensor in tensors.values())
    assert folder.latest() is not None


@pytest.mark.parametrize("lr", [1e6, float("inf"), float("nan"), -1e-3, 0.0])
def test_a_learning_rate_that_nobody_can_mean_is_refused_before_anything_is_written(ask: Ask, lr: float) -> None:
    request = ask(set={"lr": lr})

    with pytest.raises(InputError, match="'lr'") as refusal:
        next(train(request))

    assert "\n" not in str(refusal.value)
    assert not (Path(request.out) / "run.json").exists()


@pytest.mark.fault
def test_the_largest_learning_rate_is_survived_while_the_run_judges_itself(ask: Ask) -> None:
    request = ask(steps=12, set={"lr": 1.0, "optimizer": "sgd", "momentum": 0.99})
    sentence = ""
    try:
        last = list(train(request))[-1]
    except InputError as error:  # it may give up
        sentence = str(error)
    else:
        assert isinstance(last, Finished)
        assert_sound(request.out)
    assert not sentence or "use a lower one" in sentence
    with suppress(InputError):  # before there was any model
        tensors, _ = RunFolder(Path(request.out)).read_model()
        assert all(bool(tensor.isfinite().all()) for tensor in tensors.values())


@pytest.mark.fault
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_one_batch_that_is_not_finite_spoils_no_running_statistics(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    """The weights are not changed by such a batch, but a normalization has counted it before anyone can know."""

    def spoiled(recipe, step, rate):  # type: ignore[no-untyped-def]
        draw = recipe.sampler.batch

        def drawn(number: int):  # type: ignore[no-untyped-def]
            batch = draw(number)
            image = batch.image_l.float() / 255
            image[0, :, 3, 3] = value
            return replace(batch, image_l=image)

        if step == 2:
            recipe.sampler.batch = drawn
        try:
            return take_step(recipe, step, rate)
        finally:
            recipe.sampler.batch = draw

    monkeypatch.setattr("napari_semiseg.engine.train.take_step", spoiled)
    request = ask(steps=6)
    events = list(train(request))

    assert [event.step for event in of_kind(Skipped, events)] == [2]
    assert any("half the learning rate" in event.message for event in of_kind(Warned, events))
    assert {event.step for event in of_kind(Validated, events)} >= {1, 2, 4, 5, 6}
    shown = of_kind(PreviewWritten, events)
    assert np.load(shown[-1].path, allow_pickle=False).dtype == np.uint8
    assert_sound(request.out)


def test_a_gradient_that_is_not_finite_changes_no_weight() -> None:
    weight = nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.SGD([{"params": [weight], "base_lr": 0.1, "lr": 0.1}], momentum=0.9)

    assert not descend([optimizer], weight.sqrt().sum(), 1.0, 0.0)  # the loss is 0, its gradient infinite

    assert torch.equal(weight.detach(), torch.zeros(3))
    assert descend([optimizer], weight.sum(), 1.0, 0.0)
    assert bool(weight.isfinite().all())


@pytest.mark.parametrize("method", ["supervised", "cdcl", "csl"])
def test_tiles_that_are_all_alike_give_finite_losses(ask: Ask, fields: Path, method: str) -> None:
    first = tifffile.imread(fields / "images" / "0.tif")
    tifffile.imwrite(fields / "images" / "1.tif", first, photometric="rgb")
    tifffile.imwrite(fields / "labels" / "1.tif", tifffile.imread(fields / "labels" / "0.tif"))
    options = {"scale": 0, "degrees": 0, "color_labeled": "none", "color_strong": "none"}
    options |= {"csl": {"restarts": 1}, "cdcl": {"warmup_fraction": 0.2}}.get(method, {})
    labels = {"labels": None} if method == "csl" else {}
    request = ask(method=method, steps=4, set=options, **labels)
    events = list(train(request))

    assert isinstance(events[-1], Finished)
    assert all(np.isfinite(list(event.losses.values())).all() for event in of_kind(StepDone, events))
    assert not [event for event in of_kind(Skipped, events) if "finite" in event.reason]
    assert_sound(request.out)


@pytest.mark.parametrize("method", ["supervised", "cdcl"])
def test_a_batch_of_a_single_small_crop_is_enough(ask: Ask, method: str) -> None:
    request = ask(method=method, set={"crop": 32, "batch_labeled": 1, "batch_unlabeled": 1})
    events = list(train(request))

    assert not of_kind(Skipped, events)
    assert all(np.isfinite(list(event.losses.values())).all() for event in of_kind(StepDone, events))
    assert_sound(request.out)


def test_images_of_one_color_teach_nothing_and_break_nothing(ask: Ask, fields: Path) -> None:
    for path in (fields / "images").iterdir():
        tifffile.imwrite(path, np.full((128, 128, 3), 200, np.uint8), photometric="rgb")
    request = ask(method="cdcl", set={"warmup_fraction": 0.2}, steps=3)
    events = list(train(request))

    assert all(np.isfinite(list(event.losses.values())).all() for event in of_kind(StepDone, events))
    assert_sound(request.out)


def test_the_same_seed_gives_the_same_curve(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_semiseg.engine.train.REPORT_SECONDS", 0.0)
    curves = []
    for name, seed in (("one", 3), ("again", 3), ("other", 4)):
        events = train(ask(out=str(tmp_path / name), seed=seed, steps=3))
        curves.append([event.losses for event in events if isinstance(event, StepDone)])

    assert len(curves[0]) == 3
    assert curves[0] == curves[1]
    assert curves[0] != curves[2]
