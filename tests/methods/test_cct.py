"""CCT: one classifier, many that see less."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from napari_semiseg.losses.ramps import sigmoid_rampup
from napari_semiseg.methods._base import Task
from napari_semiseg.methods.cct import CCT, PERTURBATIONS, CCTConfig

NONE = dict.fromkeys(PERTURBATIONS, 0)
ONE = dict.fromkeys(PERTURBATIONS, 1)


def build(new_network, classes: int = 2, steps: int = 80, **options) -> CCT:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    return CCT(new_network(classes), Task(classes, steps=steps, crop=64), CCTConfig(**options)).train()


def test_the_paper_has_thirty_decoders(new_network) -> None:  # type: ignore[no-untyped-def]
    method = build(new_network)
    assert [len(method.decoders[name]) for name in PERTURBATIONS] == [2, 6, 6, 2, 2, 6, 6]


def test_the_consistency_starts_at_once_and_grows_over_a_tenth_of_the_run(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    method = build(new_network, **{**NONE, "object_mask": 1})
    with torch.no_grad():
        method.net.head.bias.copy_(torch.tensor([9.0, -9.0]))  # all background: the mask leaves features as they are
    terms = [method.losses(batch, step)["cons"].item() for step in (0, 4, 8, 79)]

    assert terms[3] > 0
    for term, step in zip(terms, (0, 4, 8, 79), strict=True):
        assert term / terms[3] == pytest.approx(sigmoid_rampup(step, 8), rel=1e-4)


def test_every_decoder_learns_and_the_classifier_only_teaches(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    method = build(new_network, **dict.fromkeys(PERTURBATIONS, 4))
    optimizer = torch.optim.Adam(method.net.parameters(), lr=1e-2)
    for _ in range(20):  # so that both classes are predicted
        optimizer.zero_grad()
        method.losses(replace(batch, weak_u=None), 0)["sup"].backward()
        optimizer.step()
    optimizer.zero_grad()
    method.losses(replace(batch, image_l=None), 20)["cons"].backward()
    learned = {
        name: sum(float(p.grad.abs().sum()) for p in method.decoders[name].parameters()) for name in PERTURBATIONS
    }

    assert all(value > 0 for value in learned.values()), learned
    assert method.net.head.weight.grad is None
    assert method.net.body[0].weight.grad.abs().sum() > 0


def test_the_term_is_the_mean_over_decoders_of_squared_distances(agree, new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch(size=1)
    method = build(new_network, noise_width=0.0, weight_cons=1.0, ramp_fraction=0.0, **{**NONE, "noise": 3}).double()
    method.eval()
    image = batch.weak_u.double()
    valid = batch.valid_u.clone()
    valid[:, :60] = False
    total, at = 0.0, valid.nonzero().tolist()
    features, target = method.net.features(image), method.net(image).softmax(1).tolist()
    for decoder in method.decoders["noise"]:
        p = decoder(features).softmax(1)
        squares = [(p[b, c, y, x] - target[b][c][y][x]) ** 2 for b, y, x in at for c in (0, 1)]
        total += sum(squares) / len(squares) / 3
    found = method.losses(replace(batch, image_l=None, weak_u=image, valid_u=valid), 20)["cons"]

    agree(found, total, *method.decoders["noise"].parameters(), method.net.body[0].weight)


def test_unsure_pixels_can_be_left_out(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    method, batch = build(new_network, threshold=1.0, **ONE), make_batch()
    term = method.losses(batch, 20)["cons"]

    assert term.item() == 0
    assert term.requires_grad
    assert method.counters()["confident"] == 0


def test_pixels_that_show_no_image_count_nowhere(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    method, batch = build(new_network, **ONE), make_batch()
    term = method.losses(replace(batch, valid_u=torch.zeros_like(batch.valid_u)), 20)["cons"]

    assert term.item() == 0
    assert term.requires_grad


def test_without_any_decoder_the_term_is_zero(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    term = build(new_network, **NONE).losses(make_batch(), 20)["cons"]

    assert term.item() == 0
    assert term.requires_grad


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("everywhere", [None, 0, 1])
def test_terms_are_finite_whatever_is_predicted(new_network, make_batch, classes, everywhere) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch(classes=classes)
    method = build(new_network, classes, cutout_least=5, ema_decay=0.9, **ONE)
    if everywhere is not None:
        with torch.no_grad():
            method.net.head.bias.fill_(-9.0)[everywhere] = 9.0
    for step in (20, 21):
        losses = method.losses(batch, step)
        torch.stack(list(losses.values())).sum().backward()
        method.after_step(step)
        assert all(bool(torch.isfinite(term)) for term in losses.values())
