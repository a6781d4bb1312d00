"""GCT: who learns from what, and with which optimizer."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from napari_semiseg.data.batch import Batch
from napari_semiseg.engine.optim import OptimConfig, descend
from napari_semiseg.losses.flaws import exchange, flaw_targets, handled_flaws
from napari_semiseg.losses.ramps import sigmoid_rampup
from napari_semiseg.methods._base import Task
from napari_semiseg.methods.gct import GCT, GCTConfig


def build(new_network, steps: int = 90, **options) -> GCT:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    return GCT(new_network(), Task(steps=steps, crop=64), GCTConfig(**{"detector_width": 4, **options})).train()


def reached(method: GCT, term: torch.Tensor) -> set[str]:
    method.zero_grad()
    term.backward(retain_graph=True)
    return {
        name
        for name, part in method.named_children()
        if any(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())
    }


def larger(batch: Batch) -> Batch:
    """Put four of each crop side by side: of the small ones the detector sees a single cell."""
    return Batch(
        image_l=batch.image_l.repeat(1, 1, 2, 2),
        label_l=batch.label_l.repeat(1, 2, 2),
        weak_u=batch.weak_u.repeat(1, 1, 2, 2),
        valid_u=batch.valid_u.repeat(1, 2, 2),
    )


def finding(method: GCT) -> GCT:
    """Let the detector find flaws, which an untrained one does not."""
    torch.nn.init.constant_(method.detector.layers[-1].bias, 1.0)
    return method


def test_the_two_networks_begin_with_other_weights(new_network) -> None:  # type: ignore[no-untyped-def]
    method = build(new_network)
    assert not torch.equal(method.left.head.weight, method.right.head.weight)


def test_the_detector_learns_from_labels_and_the_networks_from_all_else(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    method = finding(build(new_network, threshold=0.1))
    losses = method.losses(larger(make_batch()), 40)

    assert reached(method, losses["fd"]) == {"detector"}
    assert reached(method, losses["sup"]) == {"left", "right"}
    assert reached(method, losses["dc"]) == {"left", "right"}
    assert method.counters()["wrong in both"] > 0
    assert reached(method, losses["fc"]) == {"left", "right"}


def test_the_terms_are_those_of_the_paper(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch, method = larger(make_batch()), finding(build(new_network))
    losses = method.losses(batch, 4)
    assert losses["dc"] > 0
    assert losses["fc"] > 0
    image = torch.cat([batch.image_l, batch.weak_u])
    with torch.no_grad():
        probs = [net(image).softmax(1) for net in (method.left, method.right)]
        flaws = [method.detector(image, each) for each in probs]
        target = exchange(*probs, *map(handled_flaws, flaws), threshold=0.6)
        ramp = sigmoid_rampup(4, 10)
        unlike = (probs[0] - target.left).square().mean() + (probs[1] - target.right).square().mean()
        wrong = sum((flaw.square() * target.both_bad).mean() for flaw in flaws)

        labels = torch.nn.functional.one_hot(batch.label_l, 2).movedim(-1, 1).float()
        known = torch.ones_like(batch.label_l, dtype=torch.bool)
        taught = [flaw_targets(each[: len(labels)], labels, known) for each in probs]
        missed = sum((flaw[: len(labels)] - goal).square().mean() for flaw, goal in zip(flaws, taught, strict=True))

    assert losses["fd"].item() == pytest.approx((10 * missed / 2).item(), rel=1e-4)
    assert losses["dc"].item() == pytest.approx((100 * ramp * unlike).item(), rel=1e-4, abs=1e-7)
    assert losses["fc"].item() == pytest.approx(wrong.item(), rel=1e-4, abs=1e-7)


def test_every_part_has_its_own_optimizer_and_the_detector_adam(new_network) -> None:  # type: ignore[no-untyped-def]
    method = build(new_network)
    run = OptimConfig(optimizer="sgd", lr=0.01, weight_decay=5e-4)
    left, right, detector = (run.build(groups) for groups in method.parameter_groups())

    assert type(left) is type(right) is torch.optim.SGD
    assert type(detector) is torch.optim.Adam
    assert left.param_groups[0]["lr"] == 0.01
    assert detector.param_groups[0]["lr"] == 1e-4
    assert detector.param_groups[0]["betas"] == (0.9, 0.99)
    assert detector.param_groups[0]["weight_decay"] == 0
    trained = [p for optimizer in (left, right, detector) for group in optimizer.param_groups for p in group["params"]]
    assert len(trained) == len(list(method.parameters())) == len(set(map(id, trained)))


def test_one_descent_moves_all_three(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    method, batch = build(new_network), make_batch()
    optimizers = [OptimConfig(optimizer="sgd", lr=0.01).build(groups) for groups in method.parameter_groups()]
    before = {name: value.clone() for name, value in method.named_parameters()}
    assert descend(optimizers, torch.stack(list(method.losses(batch, 40).values())).sum(), 1.0, 0.0)

    after = dict(method.named_parameters())
    moved = {name.partition(".")[0] for name, value in before.items() if not torch.equal(value, after[name])}
    assert moved == {"left", "right", "detector"}


def test_pixels_without_a_label_or_an_image_count_nowhere(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch(ignored=True)
    blind = replace(batch, valid_u=torch.zeros_like(batch.valid_u))
    losses = build(new_network, threshold=0.0).losses(blind, 40)

    assert {name: term.item() for name, term in losses.items()} == dict.fromkeys(("sup", "fd", "fc", "dc"), 0.0)
    assert all(term.requires_grad for term in losses.values())


def test_it_learns_from_unlabeled_crops_alone_and_from_labeled_ones_alone(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    method = build(new_network)
    assert set(method.losses(make_batch(labeled=False), 40)) == {"fc", "dc"}
    assert set(method.losses(replace(make_batch(), weak_u=None, valid_u=None), 40)) == {"sup", "fd", "fc", "dc"}
