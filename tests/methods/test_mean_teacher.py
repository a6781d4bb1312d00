"""Mean Teacher: its two equations, and what its released ports made of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from napari_semiseg.data.batch import IGNORE
from napari_semiseg.losses.ramps import sigmoid_rampup
from napari_semiseg.methods._base import Task
from napari_semiseg.methods.mean_teacher import SOURCES, MeanTeacher, MeanTeacherConfig


def build(new_network, steps: int = 30, **options) -> MeanTeacher:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    return MeanTeacher(new_network(), Task(steps=steps, crop=64), MeanTeacherConfig(**options)).train()


def apart(method: MeanTeacher) -> MeanTeacher:
    """Move the student away from its teacher."""
    with torch.no_grad():
        for parameter in method.student.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return method


def test_the_consistency_is_the_squared_difference_of_probabilities_over_pixels_that_show_the_image(  # type: ignore[no-untyped-def]
    new_network, make_batch
) -> None:
    batch = make_batch()
    batch.valid_u[0, :, :40] = False
    method = apart(build(new_network, noise=0.0, weight_con=3.0))
    found = method.losses(batch, 20)["con"]

    logits = method.student(torch.cat([batch.image_l, batch.strong_u[0]]))[2:].detach().double()
    with torch.no_grad():
        target = method.teacher.eval()(batch.weak_u).double()
    squares = (logits.softmax(1) - target.softmax(1)).square().mean(1)
    expected = 3.0 * sigmoid_rampup(20, 30) * squares[batch.valid_u].mean().item()
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_the_consistency_starts_after_the_warmup_and_grows_along_the_ramp(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    method = apart(build(new_network, steps=60, noise=0.0))
    assert set(method.losses(batch, 1)) == {"sup", "dice"}  # the first thirtieth
    early, late = method.losses(batch, 2)["con"], method.losses(batch, 60)["con"]
    assert (late / early).item() == pytest.approx(1 / sigmoid_rampup(2, 60), rel=1e-5)


def test_a_ramp_of_no_length_has_the_weight_from_the_start(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    method = apart(build(new_network, noise=0.0, ramp_fraction=0.0, warmup_fraction=0.0))
    assert method.losses(batch, 0)["con"].item() == pytest.approx(method.losses(batch, 29)["con"].item(), rel=1e-6)


def test_the_labels_count_half_by_cross_entropy_and_half_by_dice(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    half, whole = build(new_network), build(new_network, weight_sup=1.0, weight_dice=1.0)
    for name in ("sup", "dice"):
        assert half.losses(batch, 0)[name].item() == pytest.approx(whole.losses(batch, 0)[name].item() / 2, rel=1e-6)


def test_the_teacher_is_the_running_average_with_or_without_a_short_memory_at_first(new_network) -> None:  # type: ignore[no-untyped-def]
    for warm, kept in ((True, 0.5), (False, 0.9)):
        method = apart(build(new_network, ema_decay=0.9, ema_warmup=warm))
        before = {name: p.clone() for name, p in method.teacher.named_parameters()}
        method.after_step(1)
        student = dict(method.student.named_parameters())
        for name, p in method.teacher.named_parameters():
            torch.testing.assert_close(p, kept * before[name] + (1 - kept) * student[name])


def test_a_teacher_with_its_own_statistics_gathers_them_from_what_it_sees(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    averaged = build(new_network)
    own = build(new_network, teacher_statistics="own")
    for method in (averaged, own):
        before = method.teacher.body[1].running_mean.clone()
        method.losses(batch, 20)
        seen = not torch.equal(method.teacher.body[1].running_mean, before)
        assert seen == (method is own)
        gathered = method.teacher.body[1].running_mean.clone()
        method.after_step(20)
        assert torch.equal(method.teacher.body[1].running_mean, gathered) == (method is own)


def test_during_the_warmup_every_teacher_takes_over_the_statistics_of_its_student(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    method = build(new_network, teacher_statistics="own", warmup_fraction=1.0)
    method.losses(make_batch(), 0)
    method.after_step(0)
    assert torch.equal(method.teacher.body[1].running_mean, method.student.body[1].running_mean)


def test_labeled_crops_can_be_consistent_too_where_they_have_labels(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    blind = replace(batch, valid_u=torch.zeros_like(batch.valid_u))
    both = apart(build(new_network, consistency_on="both"))
    assert both.losses(blind, 20)["con"].item() > 0
    nothing = replace(blind, label_l=torch.full_like(batch.label_l, IGNORE))
    losses = both.losses(nothing, 20)
    assert losses["con"].item() == 0
    assert losses["con"].requires_grad


def test_the_noise_of_the_teacher_is_cut_off(new_network) -> None:  # type: ignore[no-untyped-def]
    image = torch.full((1, 3, 64, 64), 0.5)
    noise = build(new_network, noise=0.1)._with_noise(image) - image
    assert noise.abs().max().item() == pytest.approx(0.2, abs=1e-6)
    assert noise.std().item() == pytest.approx(0.1, rel=0.1)


def test_the_student_can_see_what_the_teacher_sees(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch(labeled=False)
    method = build(new_network, student_view="weak", noise=0.0, teacher_statistics="own")
    assert method.losses(batch, 20)["con"].item() == 0  # the same network on the same pixels


def test_the_agreement_is_counted(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch(labeled=False)
    method = build(new_network, student_view="weak", noise=0.0, teacher_statistics="own")
    method.losses(batch, 20)
    assert method.counters()["agreement"] == 1.0
    assert 0 <= method.counters()["pseudo-labeled nuclei"] <= 1


@pytest.mark.parametrize("source", SOURCES)
def test_what_the_released_codes_do_can_be_asked_for(new_network, make_batch, source) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    method = apart(build(new_network, **SOURCES[source]))
    losses = method.losses(batch, 20)
    torch.stack(list(losses.values())).sum().backward()
    assert losses["con"].item() > 0
    assert all(bool(torch.isfinite(p.grad).all()) for p in method.student.parameters())
    assert all(p.grad is None for p in method.teacher.parameters())
