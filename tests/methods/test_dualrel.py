"""DualRel-style: prototypes of two views, their weights, and what they must not see."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from napari_semiseg.losses.ramps import sigmoid_rampup
from napari_semiseg.methods._base import Task
from napari_semiseg.methods.dualrel import DualRel, DualRelConfig

SMALL = {"prototypes": 4, "references": 16, "channels": 8}


def build(new_network, steps: int = 80, **options) -> DualRel:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    return DualRel(new_network(), Task(steps=steps, crop=64), DualRelConfig(**{**SMALL, **options})).train()


def test_the_consistency_grows_along_the_ramp_and_the_diversity_does_not(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    method, batch = build(new_network), make_batch()
    early, late = method.losses(batch, 10), method.losses(batch, 70)

    ratio = sigmoid_rampup(70, 80) / sigmoid_rampup(10, 80)
    assert (late["rel"] / early["rel"]).item() == pytest.approx(ratio, rel=1e-4)
    assert late["div"].item() == pytest.approx(early["div"].item(), rel=1e-5)
    assert set(early) == {"sup", "rel", "div"}
    assert set(build(new_network, weight_pixel=0.5).losses(batch, 0)) == {"sup", "rel", "div", "pixel"}


def test_the_consistency_trains_student_and_reliability_and_never_the_teacher(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    method, batch = build(new_network), make_batch()
    method.losses(batch, 40)["rel"].backward()

    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.reliability.parameters())
    assert method.student.prototypes.grad.abs().sum() > 0
    assert all(p.grad is None for p in method.teacher.parameters())
    assert method.student.body.head.weight.grad is None  # prototypes are found before anything is classified


def test_the_same_view_through_the_same_weights_leaves_the_penalty_alone(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    method = build(new_network, penalty=0.0, ramp_fraction=0.0)
    method.student.eval()
    same = method.losses(replace(batch, strong_u=(batch.weak_u,)), 0)
    assert same["rel"].item() == pytest.approx(0.0, abs=1e-5)
    assert method.losses(batch, 0)["rel"].item() > same["rel"].item()


def test_pixels_that_show_no_image_give_no_prototype(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch(labeled=False)
    blind = replace(batch, valid_u=torch.zeros_like(batch.valid_u))
    losses = build(new_network, weight_pixel=1.0).losses(blind, 40)

    assert {name: term.item() for name, term in losses.items()} == {"rel": 0.0, "div": 0.0, "pixel": 0.0}
    assert all(term.requires_grad for term in losses.values())


def test_it_counts_how_reliable_and_how_alike_its_prototypes_are(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    method, batch = build(new_network), make_batch()
    method.losses(batch, 40)
    counters = method.counters()
    assert 0 < counters["reliability"] < 1
    assert -1 <= counters["cosine of prototypes"] <= 1

    with torch.no_grad():
        method.student.prototypes[:] = method.student.prototypes[:1]
    method.losses(batch, 41)
    assert method.counters()["cosine of prototypes"] == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("prototypes", [1, 4])
def test_one_prototype_is_enough_and_classes_may_be_many(new_network, make_batch, classes, prototypes) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    config = DualRelConfig(**{**SMALL, "prototypes": prototypes})
    method = DualRel(new_network(classes), Task(classes=classes, steps=80, crop=64), config).train()
    losses = method.losses(make_batch(classes=classes), 40)
    torch.stack(list(losses.values())).sum().backward()
    assert all(bool(torch.isfinite(term)) for term in losses.values())
    assert all(bool(p.grad.isfinite().all()) for p in method.parameters() if p.grad is not None)
