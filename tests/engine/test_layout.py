"""Channels lie together in memory (``channels_last``), which convolutions are fastest with: nothing undoes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from napari_semiseg.blocks import Box
from napari_semiseg.engine.checkpoint import RunFolder, Snapshot
from napari_semiseg.engine.infer import confidence_map
from napari_semiseg.engine.predictor import load_predictor
from napari_semiseg.engine.recipe import prepare, take_step
from napari_semiseg.engine.requests import TrainRequest
from napari_semiseg.engine.train import train

Ask = Callable[..., TrainRequest]


def channels_lie_together(tensor: Tensor) -> bool:
    return tensor.is_contiguous(memory_format=torch.channels_last)


@contextmanager
def answers_of_convolutions(module: nn.Module) -> Iterator[list[Tensor]]:
    """Gather what every convolution answers."""
    answers: list[Tensor] = []
    hooks = [
        part.register_forward_hook(lambda _module, _args, answer: answers.append(answer))
        for part in module.modules()
        if isinstance(part, nn.Conv2d)
    ]
    yield answers
    for hook in hooks:
        hook.remove()


# One network; teacher and strong views; two views mixed; two networks; pairs and their image.
@pytest.mark.parametrize("method", ["supervised", "cdcl", "unimatch", "cps", "crcfp"])
def test_in_a_step_channels_lie_together_in_weights_gradients_and_everything_between(
    quick_request: Ask, method: str
) -> None:
    recipe = prepare(quick_request(method=method))

    with answers_of_convolutions(recipe.method) as answers:
        take_step(recipe, step=6)

    weights = [weight for weight in recipe.method.parameters() if weight.dim() == 4]
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    assert min(len(answers), len(weights), len(gradients)) > 10
    assert all(map(channels_lie_together, [*answers, *weights, *gradients]))


@pytest.mark.parametrize("turns", [1, 4])
def test_in_a_prediction_channels_lie_together(quick_request: Ask, turns: int) -> None:
    request = quick_request(steps=1)
    list(train(request))
    image = prepare(quick_request(out=request.out + "-again")).data.images[0]
    predictor = load_predictor(Path(request.out), torch.device("cpu"), turns)

    with answers_of_convolutions(predictor.network) as answers:
        confidence_map(
            predictor.network,
            image,
            Box.whole(image.shape),
            device=predictor.device,
            divisor=predictor.divisor,
            reach=predictor.reach,
        )

    assert len(answers) > 10
    assert all(map(channels_lie_together, answers))


def test_what_an_optimizer_remembers_comes_back_as_its_weights_lie(quick_request: Ask, tmp_path: Path) -> None:
    recipe = prepare(quick_request())
    take_step(recipe, step=0)
    run = RunFolder(tmp_path / "another run")
    run.begin()
    run.save(recipe.method, recipe.optimizers, Snapshot(1))
    fresh = prepare(quick_request())

    run.restore(fresh.method, fresh.optimizers)

    (optimizer,) = fresh.optimizers
    moments = [state[name] for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    kernels = [moment for moment in moments if moment.dim() == 4]
    assert len(kernels) > 10
    assert all(map(channels_lie_together, kernels))
