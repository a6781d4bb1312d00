"""The stain as a weak label."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from napari_semiseg.data.batch import IGNORE, Batch
from napari_semiseg.methods._base import Task
from napari_semiseg.methods.stain_guided import StainGuided, StainGuidedConfig, nucleus_or_not

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
    guide[0, 0, :2] = torch.tensor([0.0, 0.34])  # on the borders: in doubt
    strong = batch.strong_u[0].double()
    valid = torch.ones(1, 64, 64, dtype=torch.bool)
    valid[:, :8] = False
    loss = one.losses(replace(batch, guide_u=guide, strong_u=(strong,), valid_u=valid), step=3)["stain"]

    probs = one.net(strong).softmax(1)[0]
    terms = []
    for y in range(8, 64):
        for x in range(64):
            if guide[0, y, x] < 0.0:
                terms.append(-probs[0, y, x].log())
            elif guide[0, y, x] > torch.tensor(0.34):
                terms.append(-probs[1, y, x].log())
    expected = 0.5 * torch.stack(terms).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9)

    weights = list(one.net.parameters())
    for ours, theirs in zip(
        torch.autograd.grad(loss, weights, retain_graph=True), torch.autograd.grad(expected, weights), strict=True
    ):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-15)


def test_where_there_are_labels_the_stain_falls_silent(new_network: Networks, make_batch: Batches) -> None:
    one, batch = method(new_network, fade=0.5), make_batch()
    at = {step: one.losses(batch, step) for step in (0, 25, 50)}

    assert at[25]["stain"].item() == pytest.approx(at[0]["stain"].item() / 2, rel=0.2)
    assert set(at[50]) == {"sup"}


def test_where_there_are_none_it_does_not(new_network: Networks, make_batch: Batches) -> None:
    one, batch = method(new_network, fade=0.5), make_batch(labeled=False)
    assert one.losses(batch, 100)["stain"].item() > 0


def test_in_doubt_nothing_is_learned(new_network: Networks, make_batch: Batches) -> None:
    one = method(new_network)
    loss = one.losses(guided(make_batch(labeled=False), torch.full((2, 64, 64), 0.2)), 0)["stain"]
    loss.backward()

    assert loss.item() == 0.0
    assert all(weight.grad is not None and not weight.grad.any() for weight in one.net.parameters())
    assert one.counters()["sure of stain"] == 0.0


def test_of_several_classes_the_stain_teaches_their_sum() -> None:
    logits = torch.randn(2, 5, 4, 4, dtype=torch.float64)
    probs, two = logits.softmax(1), nucleus_or_not(logits).softmax(1)
    assert torch.allclose(two[:, 0], probs[:, 0])
    assert torch.allclose(two[:, 1], probs[:, 1:].sum(1))


def test_labels_that_are_all_ignored_teach_nothing(new_network: Networks, make_batch: Batches) -> None:
    losses = method(new_network).losses(make_batch(ignored=True), 0)
    assert losses["sup"].item() == 0.0
    assert (make_batch(ignored=True).label_l == IGNORE).all()
