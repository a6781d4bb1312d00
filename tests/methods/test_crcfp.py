"""CRCFP: the terms of its Eq. 18, and the points where paper and code differ."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from napari_semiseg.methods._base import Task
from napari_semiseg.methods.crcfp import CRCFP, CRCFPConfig


def build(new_network, classes: int = 2, steps: int = 80, **options) -> CRCFP:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    return CRCFP(new_network(classes), Task(classes, steps=steps, crop=64), CRCFPConfig(**options)).train()


def taught(method: CRCFP, batch, steps: int = 40) -> CRCFP:  # type: ignore[no-untyped-def]
    """Teach the network which pixels are nuclei, so that it is sure of some."""
    optimizer = torch.optim.Adam(method.net.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        method.losses(batch, 0)["sup"].backward()
        optimizer.step()
    return method


def test_the_unsupervised_terms_start_with_the_sixth_of_eighty_epochs(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    method, batch = build(new_network), make_batch()
    assert set(method.losses(batch, 4)) == {"sup"}
    assert set(method.losses(batch, 5)) == {"sup", "contr", "cross", "ent"}


def test_a_term_without_weight_is_not_computed(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    scheme_1 = build(new_network, weight_cross=0, weight_ent=0)
    scheme_2 = build(new_network, weight_cross=0)
    only_sup = build(new_network, weight_contr=0, weight_cross=0, weight_ent=0)

    assert set(scheme_1.losses(batch, 20)) == {"sup", "contr"}
    assert set(scheme_2.losses(batch, 20)) == {"sup", "contr", "ent"}
    assert set(only_sup.losses(batch, 20)) == {"sup"}


def test_there_are_k_heads_for_each_of_three_perturbations(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    method = taught(build(new_network, auxiliaries=6), batch)
    method.zero_grad()
    method.losses(batch, 20)["cross"].backward()
    heads = [head for heads in method.auxiliaries for head in heads]

    assert len(heads) == 18
    assert all(head.weight.grad.abs().sum() > 0 for head in heads)
    assert method.net.head.weight.grad is None  # the classifier teaches and is not taught
    assert method.net.body[0].weight.grad.abs().sum() > 0


def test_cross_consistency_is_the_mean_over_heads_of_squared_distances(agree, new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    """Eq. 9 by loops, with perturbations that leave the features as they are."""
    batch = make_batch(size=1)
    method = taught(build(new_network, auxiliaries=2, noise=0.0, weight_cross=1.0), batch).double().eval()
    for index in (1, 2):
        method.perturbations[index] = torch.nn.Identity()
    total = 0.0
    features = method.net.features(batch.whole_u.double())
    target = method.net.logits_on_grid(features).softmax(1)[0].tolist()
    sure = [(y, x) for y in range(32) for x in range(32) if max(target[0][y][x], target[1][y][x]) > 0.75]
    for head in (head for heads in method.auxiliaries for head in heads):
        p = head(features).softmax(1)[0]
        squares = [(p[c, y, x] - target[c][y][x]) ** 2 for y, x in sure for c in (0, 1)]
        total += sum(squares) / len(squares) / 6
    double = replace(batch, image_l=None, label_l=None, pair_u=None, whole_u=batch.whole_u.double())

    agree(method.losses(double, 20)["cross"], total, *method.auxiliaries.parameters(), method.net.body[0].weight)
    assert 0 < method.counters()["confident"] < 1


def test_without_a_threshold_every_cell_is_kept_consistent_and_with_the_highest_none(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    every, nobody = build(new_network, cross_threshold=0.0), build(new_network, cross_threshold=1.0)
    assert every.losses(batch, 20)["cross"].item() > 0
    assert every.counters()["confident"] == 1
    term = nobody.losses(batch, 20)["cross"]
    assert term.item() == 0
    assert term.requires_grad


def test_the_entropy_of_the_code_has_its_value_and_no_gradient(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    paper, code = build(new_network), build(new_network, entropy_gradient=False)
    terms = [method.losses(batch, 20)["ent"] for method in (paper, code)]
    heads = [method.net.head.weight for method in (paper, code)]
    gradients = [torch.autograd.grad(term, head)[0] for term, head in zip(terms, heads, strict=True)]

    assert terms[0].item() == pytest.approx(terms[1].item(), rel=1e-6)
    assert gradients[0].abs().sum() > 0
    assert gradients[1].abs().sum() == 0


def test_pixels_that_do_not_count_give_zero_in_every_unsupervised_term(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    method = taught(build(new_network), batch)
    blind = torch.zeros_like(batch.whole_valid_u)
    pair = replace(batch.pair_u, valid=(blind, blind))
    losses = method.losses(replace(batch, pair_u=pair, whole_valid_u=blind), 20)

    assert [losses[name].item() for name in ("contr", "cross", "ent")] == [0, 0, 0]
    assert all(losses[name].requires_grad for name in ("contr", "cross", "ent"))


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("side", ["target", "anchor"])
@pytest.mark.parametrize("dropout", ["plain", "spatial"])
def test_every_combination_of_its_options_gives_finite_terms(new_network, make_batch, classes, side, dropout) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch(classes=classes)
    method = build(new_network, classes, threshold_side=side, dropout=dropout, threshold=0.3, ema_decay=0.9)
    for step in (20, 21):
        losses = method.losses(batch, step)
        torch.stack(list(losses.values())).sum().backward()
        method.after_step(step)
        assert all(bool(torch.isfinite(term)) for term in losses.values())
    assert losses["contr"].item() > 0
    assert len(method.contrast.bank) > 0
