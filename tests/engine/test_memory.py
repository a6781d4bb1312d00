"""Where memory runs out, a run takes less of it and says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from napari_semiseg.engine.checkpoint import RunFolder
from napari_semiseg.engine.control import Control
from napari_semiseg.engine.recipe import Recipe, prepare, seconds_per_step, take_step
from napari_semiseg.engine.requests import TrainRequest
from napari_semiseg.engine.train import train
from napari_semiseg.errors import InputError
from napari_semiseg.events import Event, Finished, PreviewWritten, StepDone, Stop, Warned
from napari_semiseg.methods.supervised import Supervised

Ask = Callable[..., TrainRequest]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[tuple[int, ...]]]:
    """Make a step fail whose crops have more pixels than there is room for; return the shapes that were tried."""

    def limit(pixels: int) -> list[tuple[int, ...]]:
        tried: list[tuple[int, ...]] = []
        losses = Supervised.losses

        def checked(self, batch, step):  # type: ignore[no-untyped-def]
            batch_size, _, height, width = batch.image_l.shape
            tried.append((batch_size, height))
            if batch_size * height * width > pixels:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return losses(self, batch, step)

        monkeypatch.setattr(Supervised, "losses", checked)
        return tried

    return limit


def sentences(events: list[Event]) -> list[str]:
    return [event.message for event in events if isinstance(event, Warned) and "memory" in event.message]


def test_first_the_batch_is_halved_then_the_crop_and_each_is_said(quick_request: Ask, little_memory) -> None:  # type: ignore[no-untyped-def]
    tried = little_memory(64 * 64)
    events = list(train(quick_request(steps=2, labeled="3", set={"crop": 128, "batch_labeled": 4})))

    assert tried == [(4, 128), (2, 128), (1, 128), (1, 64), (1, 64)]
    assert sentences(events) == [
        "There was not enough memory: a step now takes 2 crops at once instead of 4.",
        "There was not enough memory: a step now takes 1 crops at once instead of 2.",
        "There was not enough memory: crops are now 64 pixels wide instead of 128.",
    ]
    assert isinstance(events[-1], Finished)
    assert events[-1].facts["steps"] == 2


def test_where_nothing_can_be_halved_a_sentence_offers_a_way_out(quick_request: Ask, little_memory) -> None:  # type: ignore[no-untyped-def]
    little_memory(100)

    with pytest.raises(InputError, match="not enough memory for one crop of 64 pixels") as refusal:
        list(train(quick_request(steps=2, labeled="3")))

    assert "\n" not in str(refusal.value)


def test_on_a_graphics_card_the_way_out_is_the_cpu(quick_request: Ask) -> None:
    recipe = prepare(quick_request(steps=2, set={"batch_labeled": 1, "batch_unlabeled": 1}))
    recipe.device = torch.device("mps")

    with pytest.raises(InputError, match="--device cpu"):
        recipe.use_less_memory()


def test_a_run_that_had_to_take_less_goes_on_with_that(quick_request: Ask, little_memory) -> None:  # type: ignore[no-untyped-def]
    tried, control = little_memory(64 * 64), Control()
    for event in train(quick_request(steps=6, labeled="3"), control):
        if isinstance(event, StepDone):
            control.send(Stop())
    del tried[:]
    events = list(train(quick_request(resume=True)))

    assert set(tried) == {(1, 64)}
    assert sentences(events) == []


def test_a_run_that_counts_in_minutes_is_measured_with_what_fits(quick_request: Ask, little_memory) -> None:  # type: ignore[no-untyped-def]
    little_memory(64 * 64)
    recipe = prepare(quick_request(steps=None, minutes=0.01, labeled="3"))

    assert recipe.choices.sampler.batch_labeled == 1
    assert sum("memory" in note for note in recipe.notes) == 1


def test_an_optimizer_whose_state_was_half_made_goes_on(quick_request: Ask) -> None:
    recipe = prepare(quick_request(steps=4, labeled="3"))
    take_step(recipe, 0)
    state = recipe.optimizers[0].state
    parameter = next(iter(state))
    del state[parameter]["exp_avg"]
    recipe.use_less_memory()

    assert take_step(recipe, 1)[1]
    assert "exp_avg" in state[parameter]


def test_other_errors_are_not_taken_for_lack_of_memory(quick_request: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(recipe: Recipe, step: int, rate: float) -> None:
        raise RuntimeError("unspecified launch failure")

    monkeypatch.setattr("napari_semiseg.engine.train.take_step", broken)

    with pytest.raises(RuntimeError, match="launch failure"):
        list(train(quick_request(steps=2)))


def test_the_time_of_a_step_is_that_of_one_past_the_warm_up(
    quick_request: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = prepare(quick_request(method="cdcl", steps=1000))
    terms: list[set[str]] = []

    def noted(recipe: Recipe, step: int) -> None:
        terms.append(set(take_step(recipe, step)[0] or ()))

    monkeypatch.setattr("napari_semiseg.engine.recipe.take_step", noted)
    seconds_per_step(recipe)

    assert terms == [{"sup", "cons", "ent", "contr"}] * 3


def test_crops_smaller_than_a_patch_are_refused(quick_request: Ask) -> None:
    with pytest.raises(InputError, match="crops of at least 50 pixels"):
        next(train(quick_request(method="csl", network="auto", labeled="0", set={"crop": 32})))


def test_the_folder_of_a_refused_run_can_be_used_again(quick_request: Ask) -> None:
    with pytest.raises(InputError):
        next(train(quick_request(set={"lr": -1})))
    events = list(train(quick_request(steps=1)))

    assert isinstance(events[-1], Finished)
    assert RunFolder(Path(quick_request().out)).latest() is not None


def test_memory_that_another_process_takes_in_the_middle_of_a_run_is_answered_too(
    quick_request: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses, steps = Supervised.losses, iter(range(100))

    def crowded(self, batch, step):  # type: ignore[no-untyped-def]
        if next(steps) >= 3 and len(batch.image_l) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return losses(self, batch, step)

    monkeypatch.setattr(Supervised, "losses", crowded)
    events = list(train(quick_request(steps=6, labeled="3", set={"batch_labeled": 2})))

    assert sentences(events) == ["There was not enough memory: a step now takes 1 crops at once instead of 2."]
    assert isinstance(events[-1], Finished)
    assert events[-1].facts["steps"] == 6


def test_a_map_for_which_memory_is_short_is_made_of_smaller_blocks_while_the_run_goes_on(
    quick_request: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_semiseg.engine import infer

    shown: list[tuple[int, ...]] = []
    whole = infer._infer

    def crowded(network, pixels):  # type: ignore[no-untyped-def]
        shown.append(tuple(pixels.shape))
        if pixels.shape[1] >= shown[0][1]:  # as large as a map's first block
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return whole(network, pixels)

    monkeypatch.setattr(infer, "_infer", crowded)
    events = list(train(quick_request(steps=2, labeled="3")))

    assert any(isinstance(event, PreviewWritten) for event in events)
    assert isinstance(events[-1], Finished)
    assert min(shape[1] for shape in shown) < shown[0][1]
