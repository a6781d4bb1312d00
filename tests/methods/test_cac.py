"""CAC: two crops, one tissue."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from napari_semiseg.data.batch import Pair
from napari_semiseg.methods._base import Task
from napari_semiseg.methods.cac import CAC, CACConfig


def build(new_network, classes: int = 2, steps: int = 80, **options) -> CAC:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    return CAC(new_network(classes), Task(classes, steps=steps, crop=64), CACConfig(**options)).train()


def taught(method: CAC, batch, steps: int = 40) -> CAC:  # type: ignore[no-untyped-def]
    """Teach the network which pixels are nuclei, so that it is sure of some."""
    optimizer = torch.optim.Adam(method.net.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        method.losses(batch, 0)["sup"].backward()
        optimizer.step()
    return method


def test_the_contrast_starts_with_the_sixth_of_eighty_epochs(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    method, batch = build(new_network), make_batch()
    assert set(method.losses(batch, 4)) == {"sup"}
    assert set(method.losses(batch, 5)) == {"sup", "contr"}


def test_only_less_sure_cells_of_the_overlap_are_pulled(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    method = taught(build(new_network), batch)
    term = method.losses(batch, 20)["contr"]
    counters = method.counters()

    assert term.item() > 0
    assert counters["overlap cells"] == 2 * (64 - 8) * (64 - 16) / 4**2  # stride 2, then pooled 2 x 2
    assert 0 < counters["pulled cells"] <= counters["overlap cells"]
    assert counters["negatives per cell"] > 0


def test_equal_crops_pull_nothing(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    method = taught(build(new_network), batch)
    first, shown = batch.pair_u.images[0], batch.pair_u.valid[0]
    still = torch.zeros(2, 2, dtype=torch.int64)
    twice = Pair((first, first), (shown, shown), still, still.bool())

    assert method.losses(replace(batch, pair_u=twice), 20)["contr"].item() == 0
    assert method.counters()["pulled cells"] == 0


def test_it_trains_projector_and_features_and_not_the_classifier(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    method = taught(build(new_network), batch)
    method.zero_grad()
    method.losses(batch, 20)["contr"].backward()

    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.contrast.projector.parameters())
    assert method.net.body[0].weight.grad.abs().sum() > 0
    assert method.net.head.weight.grad is None


def test_the_negatives_of_a_step_are_remembered_for_the_next(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    method = taught(build(new_network, negatives=50, history=2), batch)
    held = []
    for step in (20, 21, 22):
        method.losses(batch, step)
        method.after_step(step)
        held.append(len(method.contrast.bank))
    assert held == [100, 200, 200]

    without = taught(build(new_network, negatives=50, history=0), batch)
    without.losses(batch, 20)
    without.after_step(20)
    assert len(without.contrast.bank) == 0


def test_more_negatives_than_cells_are_all_cells(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    method = taught(build(new_network), batch)
    method.losses(batch, 20)
    method.after_step(20)

    assert len(method.contrast.bank) == 2 * 2 * 16**2


def test_pixels_that_show_no_image_are_neither_pulled_nor_negatives(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    method = taught(build(new_network), batch)
    blind = torch.zeros_like(batch.pair_u.valid[0])
    term = method.losses(replace(batch, pair_u=replace(batch.pair_u, valid=(blind, blind))), 20)["contr"]
    method.after_step(20)

    assert term.item() == 0
    assert term.requires_grad
    assert len(method.contrast.bank) == 0


def test_a_network_that_sees_one_class_everywhere_costs_nothing(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    method = build(new_network)
    with torch.no_grad():
        method.net.head.bias.copy_(torch.tensor([5.0, -5.0]))
    term = method.losses(batch, 20)["contr"]

    assert term.item() == 0
    assert method.counters()["negatives per cell"] == 0
    assert method.counters()["pulled cells"] > 0


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("side", ["target", "anchor"])
@pytest.mark.parametrize("mean_over", ["overlap", "anchors"])
def test_every_combination_of_its_options_gives_finite_terms(new_network, make_batch, classes, side, mean_over) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch(classes=classes)
    method = build(new_network, classes, threshold_side=side, mean_over=mean_over, threshold=0.3, ema_decay=0.9)
    for step in (20, 21):
        losses = method.losses(batch, step)
        torch.stack(list(losses.values())).sum().backward()
        method.after_step(step)
        assert all(bool(torch.isfinite(term)) for term in losses.values())
    assert losses["contr"].item() > 0


def test_a_pretrained_encoder_learns_at_its_own_rate(new_network) -> None:  # type: ignore[no-untyped-def]
    method = build(new_network, encoder_lr_scale=0.1)
    method.net.encoder = method.net.body
    rest, encoder = method.parameter_groups()[0]

    assert encoder["lr_scale"] == 0.1
    assert {id(p) for p in encoder["params"]} == {id(p) for p in method.net.body.parameters()}
    assert len(rest["params"]) + len(encoder["params"]) == len([p for p in method.parameters() if p.requires_grad])


def cells_of(method, crop):  # type: ignore[no-untyped-def]
    """Every cell of a crop, (16, 16), as the network sees it: projection, pseudo-label, confidence."""
    features = method.net.features(crop)
    probs = method.net.head(F.avg_pool2d(features, 2)).float().softmax(1)[0]  # in double, none would be as sure
    projected, (sure, labels) = method.contrast.projector(features)[0].movedim(0, -1), probs.max(0)
    return {(y, x): (projected[y, x], int(labels[y, x]), float(sure[y, x])) for y in range(16) for x in range(16)}


@pytest.mark.parametrize(("side", "mean_over"), [("target", "anchors"), ("anchor", "overlap")])
def test_both_crops_are_contrasted_as_the_equations_say(new_network, make_batch, side, mean_over) -> None:  # type: ignore[no-untyped-def]
    options = {"negatives": 512, "projection": 8, "threshold_side": side, "mean_over": mean_over, "threshold": 0.6}
    method = taught(build(new_network, weight_contr=1.0, **options), make_batch(size=1)).double()
    pairs = [make_batch(size=1, seed=seed, labeled=False).pair_u for seed in (0, 1)]
    pairs = [replace(pair, images=tuple(crop.double() for crop in pair.images)) for pair in pairs]
    with torch.no_grad():
        for pair in pairs:
            found = method.losses(replace(make_batch(size=1, labeled=False), pair_u=pair), 20)["contr"].item()
            method.contrast.remember()
        seen = [[cells_of(method, crop) for crop in pair.images] for pair in pairs]
        keys = [(key, label) for crops in seen for cells in crops for key, label, _ in cells.values()]
        # The second crop lies 8 pixels lower and 16 to the right, two and four cells, and is flipped.
        shared = [((y, x), (y - 2, 15 - (x - 4))) for y in range(2, 16) for x in range(4, 16)]
        expected, pulled = 0.0, []
        for one, other in ((0, 1), (1, 0)):
            costs = []
            for places in shared:
                (a, label, mine), (b, _, its) = seen[1][one][places[one]], seen[1][other][places[other]]
                if (its if side == "target" else mine) > 0.6 and mine < its:
                    alike = math.exp(float(a @ b) / 0.1)
                    unlike = torch.stack([k for k, of in keys if of != label])
                    costs.append(-math.log(alike / (alike + float((unlike @ a / 0.1).exp().sum()))))
            pulled.append(len(costs))
            expected += sum(costs) / (len(shared) if mean_over == "overlap" else len(costs))

    assert min(pulled) > 0
    assert sum(pulled) < len(shared)  # of some cells both crops are entirely sure
    assert found == pytest.approx(expected, rel=1e-9)
