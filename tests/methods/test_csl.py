"""CSL: skipped batches, restarts, and the choice that needs no label."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from napari_semiseg.methods._base import Task
from napari_semiseg.methods.csl import CSL, CSLConfig

SMALL = {"patch": 12, "candidate_stride": 8}


def build(probe: torch.Tensor, steps: int = 60, **options: object) -> CSL:
    torch.manual_seed(0)
    return CSL(lambda: None, Task(steps=steps, crop=64, probe=probe), CSLConfig(**{**SMALL, **options})).train()


def test_labels_are_never_looked_at(make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    one, other = build(batch.weak_u), build(batch.weak_u)
    torch.manual_seed(1)
    with_labels = one.losses(batch, 0)
    torch.manual_seed(1)
    without = other.losses(replace(batch, image_l=None, label_l=None), 0)

    assert with_labels is not None
    assert without is not None
    assert {name: term.item() for name, term in with_labels.items()} == {
        name: term.item() for name, term in without.items()
    }


def test_networks_are_tried_in_turn_and_the_best_goes_on(make_batch) -> None:  # type: ignore[no-untyped-def]
    method = build(make_batch().weak_u, steps=100, restarts=3, explore=0.6)
    method.best_restart.fill_(1)

    assert [method._turn(step) for step in (0, 19, 20, 39, 40, 59, 60, 99)] == [0, 0, 1, 1, 2, 2, 1, 1]


def test_the_channel_and_polarity_that_agree_with_the_threshold_are_chosen(make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    method = build(batch.weak_u, restarts=1)
    net = method.nets[0]
    dark = batch.weak_u.mean(1, keepdim=True)
    noise = torch.rand(dark.shape, generator=torch.Generator().manual_seed(0))
    confidences = torch.cat([noise, dark.clamp(0, 1), noise, noise], 1)  # channel 1 is sure of what is bright
    net.confidences = lambda image: confidences[[int((batch.weak_u - image).abs().flatten(1).sum(1).argmin())]]
    method._judge(0)

    assert int(method.best.chosen) == 1
    assert bool(method.best.inverted)
    assert float(method.best_agreement) > 0.8


def test_a_batch_of_one_sign_is_skipped_and_a_network_that_stays_so_begins_anew(make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    method = build(batch.weak_u, restarts=1, patience=3)
    net = method.nets[0]
    with torch.no_grad():
        net.last.weight.zero_()
        net.last.bias.fill_(40.0)  # sure of everything: no window is negative

    for step in range(3):
        assert method.losses(batch, step) is None
        method.after_step(step)

    assert float(net.last.bias.detach().abs().max()) < 1
    assert int(method.idle) == 0


def test_a_network_is_not_begun_anew_for_the_idleness_of_the_one_before(make_batch) -> None:  # type: ignore[no-untyped-def]
    method = build(make_batch().weak_u, steps=100, restarts=3, explore=0.6, patience=3)
    method.idle.fill_(2)
    method.after_step(19)  # the last of the first network

    assert int(method.idle) == 0


@pytest.mark.parametrize("similarity", ["mse", "ce"])
@pytest.mark.parametrize("normalizer", ["code", "paper"])
@pytest.mark.parametrize("channels", [1, 4])
def test_every_combination_of_its_options_gives_finite_terms(make_batch, similarity, normalizer, channels) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    method = build(batch.weak_u, similarity=similarity, normalizer=normalizer, channels=channels)
    losses = next(found for step in range(20) if (found := method.losses(batch, step)) is not None)
    torch.stack(list(losses.values())).sum().backward()

    assert all(bool(torch.isfinite(term)) for term in losses.values())
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in method.nets[0].parameters())
