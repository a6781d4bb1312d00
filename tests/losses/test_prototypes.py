"""Prototypes that agree, and prototypes that differ."""

import math

import pytest
import torch

from napari_semiseg.losses.prototypes import prototype_consistency, prototype_diversity


def cosine(a, b):
    return (a * b).sum() / (a.square().sum().sqrt() * b.square().sum().sqrt())


@pytest.fixture
def found():
    generator = torch.Generator().manual_seed(0)
    return tuple(
        torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()
        for shape in ((2, 3, 5), (2, 3, 5), (2, 3))
    )


def test_the_consistency_is_the_weighted_distance_with_its_penalty(agree, found):
    student, teacher, logits = found
    expected = 0.0
    for b in range(2):
        for k in range(3):
            weight = 1 / (1 + torch.exp(-logits[b, k]))
            expected = expected + weight * (1 - cosine(student[b, k], teacher[b, k].detach())) / 2
            expected = expected - 0.2 * weight.log() / 3 / 2
    agree(prototype_consistency(student, teacher, logits, penalty=0.2), expected, student, logits)


def test_no_gradient_reaches_the_teacher_s_prototypes(found):
    student, teacher, logits = found
    prototype_consistency(student, teacher, logits).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


def test_the_penalty_alone_keeps_a_reliability_from_vanishing(found):
    student, teacher, _ = found
    low = torch.full((2, 3), -20.0, dtype=torch.float64)
    assert prototype_consistency(student, teacher, low, penalty=0.0).item() < 1e-6
    assert prototype_consistency(student, teacher, low, penalty=0.1).item() == pytest.approx(2.0, rel=1e-6)


def test_images_that_do_not_count_change_nothing(found):
    student, teacher, logits = found
    one = torch.tensor([True, False])
    assert prototype_consistency(student, teacher, logits, counted=one).item() == pytest.approx(
        prototype_consistency(student[:1], teacher[:1], logits[:1]).item()
    )
    nothing = prototype_consistency(student, teacher, logits, counted=torch.tensor([False, False]))
    nothing.backward()
    assert nothing.item() == 0
    assert student.grad.abs().sum() == 0


def test_the_diversity_is_the_mean_overlap_beyond_the_margin(agree):
    generator = torch.Generator().manual_seed(1)
    shares = torch.rand(2, 3, 6, generator=generator, dtype=torch.float64).requires_grad_()
    pairs = [(b, k, j) for b in range(2) for k in range(3) for j in range(3) if k != j]
    expected = sum((cosine(shares[b, k], shares[b, j]) - 0.6).clamp_min(0) for b, k, j in pairs) / len(pairs)
    agree(prototype_diversity(shares, margin=0.6), expected, shares)


def test_prototypes_that_look_at_different_cells_cost_nothing_and_equal_ones_all():
    apart = torch.eye(4, dtype=torch.float64)[None]
    assert prototype_diversity(apart).item() == 0
    assert prototype_diversity(torch.ones(1, 4, 7, dtype=torch.float64), margin=0.1).item() == pytest.approx(0.9)


def test_a_single_prototype_has_none_to_differ_from():
    shares = torch.rand(2, 1, 5, requires_grad=True)
    loss = prototype_diversity(shares)
    loss.backward()
    assert loss.item() == 0
    assert math.isfinite(shares.grad.sum().item())
