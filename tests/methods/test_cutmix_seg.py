"""CutMix-Seg: the mixed student against the mixed teacher."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from napari_semiseg.data.cutmix import boxes_of_area, mixed
from napari_semiseg.losses.ramps import sigmoid_rampup
from napari_semiseg.methods._base import Task
from napari_semiseg.methods.cutmix_seg import SOURCES, CutMixSeg, CutMixSegConfig


def build(new_network, **options) -> CutMixSeg:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    method = CutMixSeg(new_network(), Task(steps=30, crop=64), CutMixSegConfig(**options)).train()
    with torch.no_grad():
        method.teacher.head.weight.mul_(6)
    return method


def median_certainty(method: CutMixSeg, batch) -> float:  # type: ignore[no-untyped-def]
    """Return a threshold that half of the pixels reach and none equals."""
    with torch.no_grad():
        values = method.teacher.eval()(batch.weak_u).softmax(1).amax(1).flatten().sort().values
    return float(values[len(values) // 2 :][:2].mean())


@pytest.mark.parametrize("confidence", ["batch", "pixels", "none"])
def test_the_student_sees_mixed_crops_and_is_compared_with_mixed_logits(  # type: ignore[no-untyped-def]
    new_network, make_batch, confidence
) -> None:
    batch = make_batch()
    batch.valid_u[0, :, :40] = False
    threshold = median_certainty(build(new_network), batch)
    method = build(new_network, confidence=confidence, threshold=threshold, weight_con=2.0)
    torch.manual_seed(4)
    found = method.losses(batch, 20)["con"].item()

    torch.manual_seed(4)
    boxes = boxes_of_area(batch.valid_u.shape)
    with torch.no_grad():
        said = method.student(mixed(boxes, batch.strong_u[0])).double().softmax(1)
        target = mixed(boxes, method.teacher.eval()(batch.weak_u)).double().softmax(1)
    valid = mixed(boxes, batch.valid_u)
    squares, sure = (said - target).square().sum(1)[valid], (target.amax(1) >= threshold)[valid].double()
    assert 0 < sure.mean() < 1
    expected = {"batch": sure.mean() * squares.mean(), "pixels": (sure * squares).mean(), "none": squares.mean()}
    assert found == pytest.approx(2.0 * expected[confidence].item(), rel=1e-5)
    assert method.counters()["confident"] == pytest.approx(sure.mean().item(), abs=1e-6)


def test_nothing_sure_and_nothing_shown_cost_nothing(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    for confidence in ("batch", "pixels"):
        losses = build(new_network, threshold=1.0, confidence=confidence).losses(batch, 0)
        assert losses["con"].item() == 0
        assert losses["con"].requires_grad
    blind = replace(batch, valid_u=torch.zeros_like(batch.valid_u))
    assert build(new_network, threshold=0.0).losses(blind, 0)["con"].item() == 0


def test_the_weight_is_there_from_the_start_unless_a_ramp_is_asked_for(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch, found = make_batch(), {}
    for ramp in (0.0, 1.0):
        method = build(new_network, threshold=0.5, ramp_fraction=ramp)
        torch.manual_seed(4)
        found[ramp] = method.losses(batch, 0)["con"].item()
    assert found[1.0] == pytest.approx(found[0.0] * sigmoid_rampup(0, 30), rel=1e-5)


def test_the_teacher_keeps_its_memory_from_the_first_step_on_with_its_statistics(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    for warm, kept in ((False, 0.99), (True, 0.0)):
        method = build(new_network, ema_warmup=warm)
        before = {name: value.clone() for name, value in method.teacher.state_dict().items()}
        method.losses(make_batch(), 0)
        method.after_step(0)
        for name in ("head.weight", "body.1.running_mean"):
            expected = kept * before[name] + (1 - kept) * method.student.state_dict()[name]
            torch.testing.assert_close(method.teacher.state_dict()[name], expected)


def test_pixelssl_weighs_the_batch_too_and_averages_squares_over_classes() -> None:
    ported = CutMixSegConfig(**SOURCES["PixelSSL"])
    assert (ported.confidence, ported.threshold) == ("batch", 0.97)
    assert (ported.weight_con, ported.over_classes) == (20.0, "mean")
    assert (ported.ema_decay, ported.ema_warmup) == (0.99, True)


@pytest.mark.parametrize("source", SOURCES)
def test_what_the_released_codes_do_can_be_asked_for(new_network, make_batch, source) -> None:  # type: ignore[no-untyped-def]
    method = build(new_network, **{"threshold": 0.5, **SOURCES[source]})
    losses = method.losses(make_batch(), 20)
    torch.stack(list(losses.values())).sum().backward()
    assert losses["con"].item() > 0
    assert all(p.grad is None for p in method.teacher.parameters())
