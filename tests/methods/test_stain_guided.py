"""The stain as a weak label."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from napari_semiseg.data.batch import IGNORE, Batch
from napari_semiseg.methods._base import Task
from napari_semiseg.methods.stain_guided import StainGuided, StainGuidedConfig
from napari_semiseg.nn.two_opinions import with_second_opinion

Networks = Callable[..., Callable]
Batches = Callable[..., Batch]


def method(networks: Networks, *, classes: int = 2, steps: int = 100, **options: object) -> StainGuided:
    torch.manual_seed(0)
    return StainGuided(networks(classes), Task(classes, steps, crop=64), StainGuidedConfig(**options))


def guided(batch: Batch, guide: Tensor) -> Batch:
    return replace(batch, guide_u=guide)


def test_its_terms_are_the_equations(new_network: Networks, make_batch: Batches) -> None:
    """Cross-entropy over the sure pixels, by a plain loop in double precision."""
    one = method(new_network, weight_guide=0.5, background_below=0.0, nucleus_above=0.34).double()
    batch = make_batch(labeled=False, size=1)
    guide = 2 * torch.rand(1, 64, 64, generator=torch.Generator().manual_seed(1)) - 1
    guide[0, 10, :2] = torch.tensor([0.0, 0.34])  # on the borders: in doubt
    strong = batch.strong_u[0].double()
    valid = torch.ones(1, 64, 64, dtype=torch.bool)
    valid[:, :8] = False
    loss = one.losses(replace(batch, guide_u=guide, strong_u=(strong,), valid_u=valid), step=3)["stain"]

    probs = one.net.opinions(strong)[1].softmax(1)[0]
    terms = []
    for y in range(8, 64):
        for x in range(64):
            if guide[0, y, x] < 0.0:
                terms.append(-probs[0, y, x].log())
            elif guide[0, y, x] > torch.tensor(0.34):
                terms.append(-probs[1, y, x].log())
    expected = 0.5 * torch.stack(terms).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9)

    weights = [*one.net.network.body.parameters(), *one.net.second.parameters()]
    for ours, theirs in zip(
        torch.autograd.grad(loss, weights, retain_graph=True), torch.autograd.grad(expected, weights), strict=True
    ):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-15)


def test_without_labels_the_stain_alone_predicts(new_network: Networks, make_batch: Batches) -> None:
    one, batch = method(new_network), make_batch(labeled=False)
    assert set(one.losses(batch, 0)) == {"stain"}
    one.after_step(0)
    assert one.predictor().share == 1.0


def test_from_the_first_labels_on_they_have_their_say(new_network: Networks, make_batch: Batches) -> None:
    one = method(new_network, stain_share=0.25)
    one.losses(make_batch(labeled=False), 0)
    one.after_step(0)
    assert set(one.losses(make_batch(), 1)) == {"sup", "stain"}
    one.after_step(1)
    assert one.predictor().share == 0.25
    assert one.net.share == 0.25


def test_labels_teach_one_classifier_and_the_stain_the_other(new_network: Networks, make_batch: Batches) -> None:
    one = method(new_network)
    losses = one.losses(make_batch(), 0)
    taught = {
        name: torch.autograd.grad(loss, tuple(weights(one)), retain_graph=True, materialize_grads=True)
        for name, loss in losses.items()
    }

    assert [bool(gradient.any()) for gradient in taught["sup"]] == [True, False]
    assert [bool(gradient.any()) for gradient in taught["stain"]] == [False, True]


def weights(one: StainGuided) -> list[Tensor]:
    """The weights of either classifier."""
    return [one.net.network.head.weight, one.net.second.weight]


def test_in_doubt_nothing_is_learned(new_network: Networks, make_batch: Batches) -> None:
    one = method(new_network)
    loss = one.losses(guided(make_batch(labeled=False), torch.full((2, 64, 64), 0.2)), 0)["stain"]
    loss.backward()

    assert loss.item() == 0.0
    assert one.net.second.weight.grad is not None
    assert not any(weight.grad.any() for weight in one.net.parameters() if weight.grad is not None)
    assert one.counters()["sure of stain"] == 0.0


def test_the_answer_is_the_mean_of_both_in_logits_and_classes_are_those_of_the_labels(
    new_network: Networks,
) -> None:
    network = with_second_opinion(new_network(5)()).double().eval()
    network.share.fill_(0.3)
    image = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    features = network.features(image)
    own, second = network.network.logits_on_grid(features).softmax(1), network.second(features).softmax(1)
    answer = network.logits_on_grid(features).softmax(1)

    nucleus = own[:, 1:].sum(1)
    z = 0.7 * (nucleus / own[:, 0]).log() + 0.3 * (second[:, 1] / second[:, 0]).log()
    assert torch.allclose(answer[:, 1:].sum(1), z.sigmoid(), atol=1e-5)
    assert torch.allclose(answer[:, 1:] / answer[:, 1:].sum(1, keepdim=True), own[:, 1:] / nucleus[:, None], atol=1e-5)


def test_labels_that_are_all_ignored_teach_nothing(new_network: Networks, make_batch: Batches) -> None:
    losses = method(new_network).losses(make_batch(ignored=True), 0)
    assert losses["sup"].item() == 0.0
    assert (make_batch(ignored=True).label_l == IGNORE).all()
