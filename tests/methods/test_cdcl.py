"""CDCL: the flow of the paper, and the points where paper and code differ."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from napari_semiseg.losses.patch_contrast import BACKGROUND, FOREGROUND
from napari_semiseg.losses.ramps import sigmoid_rampup
from napari_semiseg.methods._base import Task
from napari_semiseg.methods.cdcl import CDCL, CDCLConfig


def build(new_network, steps: int = 80, **options) -> CDCL:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    return CDCL(new_network(), Task(steps=steps, crop=64), CDCLConfig(**options)).train()


def taught(method: CDCL, batch) -> CDCL:  # type: ignore[no-untyped-def]
    """Teach student and teacher which pixels are nuclei, so that there are patches of both kinds."""
    optimizer = torch.optim.Adam(method.student.parameters(), lr=5e-3)
    for step in range(60):
        optimizer.zero_grad()
        method.losses(batch, 0)["sup"].backward()
        optimizer.step()
        method.after_step(step)
    return method


def test_the_unsupervised_branch_starts_with_the_sixth_of_eighty_epochs(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    method, batch = build(new_network), make_batch()
    assert set(method.losses(batch, 4)) == {"sup"}
    assert set(method.losses(batch, 5)) == {"sup", "cons", "ent", "contr"}


def test_the_consistency_term_grows_along_the_ramp_and_the_others_do_not(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    method, batch = build(new_network, history=0), make_batch()
    early, late = method.losses(batch, 10), method.losses(batch, 70)

    assert (late["cons"] / early["cons"]).item() == pytest.approx(
        sigmoid_rampup(70, 80) / sigmoid_rampup(10, 80), rel=1e-5
    )
    assert late["ent"].item() == pytest.approx(early["ent"].item(), rel=1e-6)


def test_a_term_without_weight_is_not_computed(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    scheme_3 = build(new_network, weight_cons=0, weight_ent=0)
    scheme_6 = build(new_network, weight_contr=0)

    assert set(scheme_3.losses(batch, 20)) == {"sup", "contr"}
    assert set(scheme_6.losses(batch, 20)) == {"sup", "cons", "ent"}
    scheme_6.after_step(20)
    assert len(scheme_6.bank) == 0


@pytest.mark.parametrize("count", [2, 4, 8, 16, 64])
def test_a_crop_is_cut_into_as_many_patches_along_a_side_as_are_asked_for(new_network, make_batch, count: int) -> None:  # type: ignore[no-untyped-def]
    method = build(new_network, patches_per_side=count)
    side = max(1, 32 // 2 // count)  # of 64 pixels at stride 2, then pooled 2 x 2
    labels = torch.zeros(1, 32, 32)
    labels[:, : 2 * side, : 2 * side] = 1.0  # the first patch, and no other
    logits = torch.stack([-labels, labels], 1)
    cells = method._cells(torch.ones(1, 8, 16, 16), logits, None)

    assert cells.size == side**2
    assert int((cells.category == FOREGROUND).sum()) == side**2
    assert int((cells.category == BACKGROUND).sum()) == 16**2 - side**2


def test_features_twice_as_fine_can_be_pooled_to_the_cells_of_the_paper(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    method = taught(build(new_network, pool=4, patches_per_side=4), batch)
    losses = method.losses(batch, 20)
    method.after_step(20)

    assert losses["contr"].item() > 0
    assert len(method.bank) == 2 * len(batch.weak_u) * (64 // 8) ** 2


def test_the_bank_holds_student_and_teacher_cells_of_the_batch_before(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    method = taught(build(new_network), batch)
    assert len(method.bank) == 0
    method.losses(batch, 20)
    method.after_step(20)

    cells = batch.weak_u.shape[0] * (64 // 4) ** 2  # stride 2, then pooled 2 x 2
    assert len(method.bank) == 2 * cells
    method.losses(batch, 21)
    method.after_step(21)
    assert len(method.bank) == 2 * cells  # one batch is remembered, not two


def test_both_kinds_of_patches_give_anchors_once_the_classifier_is_sensible(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    method = taught(build(new_network), batch)
    losses = method.losses(batch, 20)

    counters = method.counters()
    assert counters["foreground anchors"] > 0
    assert counters["background anchors"] > 0
    assert counters["negatives per anchor"] > 0
    assert losses["contr"].item() > 0


def test_the_contrast_trains_the_projector_of_the_student_only(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    method = taught(build(new_network), batch)
    method.zero_grad()
    method.losses(batch, 20)["contr"].backward()

    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.student.projector.parameters())
    assert all(p.grad is None for p in method.teacher.parameters())
    assert method.student.net.head.weight.grad is None  # pseudo-labels carry no gradient


def test_fewer_anchors_can_be_taken_and_keys_stay_as_they_are(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    method = taught(build(new_network, max_anchors=50), batch)
    method.losses(batch, 20)

    counters = method.counters()
    assert counters["foreground anchors"] + counters["background anchors"] == 50


@pytest.mark.parametrize("rule", ["paper", "sum", "pixel", "random"])
@pytest.mark.parametrize("mask", ["none", "confident", "unconfident"])
@pytest.mark.parametrize("detach", ["all", "history"])
def test_every_combination_of_its_options_gives_finite_terms(new_network, make_batch, rule, mask, detach) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    method = taught(build(new_network, rule=rule, consistency_mask=mask, detach=detach), batch)
    for step in (20, 21):
        losses = method.losses(batch, step)
        torch.stack(list(losses.values())).sum().backward()
        method.after_step(step)
        assert all(bool(torch.isfinite(term)) for term in losses.values())


def test_pixels_that_show_no_image_give_no_anchor_and_no_consistency(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    method = taught(build(new_network), batch)
    blind = replace(batch, valid_u=torch.zeros_like(batch.valid_u))
    losses = method.losses(blind, 20)

    assert losses["cons"].item() == losses["ent"].item() == losses["contr"].item() == 0
    assert all(losses[name].requires_grad for name in ("cons", "ent", "contr"))


def cells_of(model, image):  # type: ignore[no-untyped-def]
    """Every cell of a batch as a network sees it: projections, pseudo-labels, and the kind of its patch."""
    features = model.net.features(image)
    probs = F.avg_pool2d(model.net.logits_on_grid(features).softmax(1), 2)
    projected, labels = model.projector(features), (probs[:, 1] > probs[:, 0]).long()
    side, kinds = labels.shape[-1] // 8, []
    for b, y, x in torch.ones_like(labels).nonzero().tolist():
        top, left = y - y % side, x - x % side
        score = sum(labels[b, top : top + side, left : left + side].flatten().tolist()) / side**2
        kinds.append("F" if score >= 0.7 else "B" if score <= 0.3 else "mixed")
    return list(projected.movedim(1, -1).flatten(0, 2)), labels.flatten().tolist(), kinds


def test_student_and_teacher_are_contrasted_as_equations_3_to_12_say(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    method = taught(build(new_network, weight_contr=1.0, projection=8), make_batch(size=1)).double()
    plain = [make_batch(size=1, seed=seed, labeled=False) for seed in (0, 1)]
    before, now = (replace(b, weak_u=b.weak_u.double(), strong_u=(b.strong_u[0].double(),)) for b in plain)
    with torch.no_grad():
        method.losses(before, 20)
        method.bank.push(
            **{
                name: torch.cat([getattr(part, name) for part in method._seen])
                for name in ("features", "labels", "category", "foreground")
            }
        )
        found = method.losses(now, 21)["contr"].item()
        student, teacher = cells_of(method.student, now.strong_u[0]), cells_of(method.teacher, now.weak_u)
        old = cells_of(method.student, before.strong_u[0]), cells_of(method.teacher, before.weak_u)
        keys = [key for source in (student, teacher, *old) for key in zip(*source, strict=True)]
        costs = []
        for q, label, kind, positive in zip(*student, teacher[0], strict=True):
            if kind != "mixed":
                alike = math.exp(float(q @ positive) / 0.1)
                others = [k for k, of, where in keys if {kind, where} == {"F", "B"} and of != label]
                other = float((torch.stack(others) @ q / 0.1).exp().sum()) if others else 0.0
                costs.append(-math.log(alike / (alike + other)))

    assert set(student[2]) >= {"F", "B"}
    assert found == pytest.approx(sum(costs) / len(costs), rel=1e-9)
