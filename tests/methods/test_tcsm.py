"""TCSM: what is found in a turned crop against the turned map of the crop."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from napari_semiseg.data.batch import IGNORE
from napari_semiseg.losses.ramps import sigmoid_rampup
from napari_semiseg.methods._base import Task
from napari_semiseg.methods.tcsm import TCSM, TCSMConfig
from napari_semiseg.nn.turns import Turns


def build(new_network, **options) -> TCSM:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    method = TCSM(new_network(), Task(steps=40, crop=64), TCSMConfig(**{"noise": 0.0, **options})).train()
    with torch.no_grad():
        method.teacher.head.weight.mul_(2)
    return method


@pytest.mark.parametrize("scale", [0.0, 0.1])
@pytest.mark.parametrize("consistency_on", ["both", "unlabeled"])
def test_the_map_of_the_student_is_turned_and_compared_with_the_map_of_the_turned_crop(  # type: ignore[no-untyped-def]
    new_network, make_batch, scale, consistency_on
) -> None:
    batch = make_batch()
    batch.valid_u[0, :, :30] = False
    batch.label_l[1, 30:] = IGNORE
    method = build(new_network, scale=scale, consistency_on=consistency_on, weight_con=3.0)
    torch.manual_seed(4)
    found = method.losses(batch, 20)["con"].item()

    both = torch.cat([batch.image_l, batch.weak_u])
    valid = torch.cat([batch.label_l != IGNORE, batch.valid_u])
    first = 0 if consistency_on == "both" else len(batch.image_l)
    torch.manual_seed(4)
    turns = Turns.draw(len(both) - first, scale)
    with torch.no_grad():
        said = turns.apply(method.student(both).softmax(1)[first:]).double()
        target = method.teacher.eval()(turns.apply(both[first:])).double().softmax(1)
    shown = turns.apply_mask(valid[first:])
    assert 0 < shown.float().mean() < 1
    expected = 3.0 * sigmoid_rampup(20, 30) * (said - target).square().mean(1)[shown].mean().item()
    assert found == pytest.approx(expected, rel=1e-4)


def test_the_consistency_teaches_the_student_and_not_the_teacher(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    method = build(new_network)
    method.losses(make_batch(), 20)["con"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.student.head.parameters())
    assert method.student.body[0].weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in method.teacher.parameters())


def test_a_network_that_sees_one_pixel_at_a_time_is_consistent_under_every_turn(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    def pointwise() -> torch.nn.Module:
        return torch.nn.Conv2d(3, 2, 1)

    torch.manual_seed(0)
    method = TCSM(pointwise, Task(steps=40, crop=64), TCSMConfig(noise=0.0, scale=0.0))
    assert method.losses(make_batch(), 40)["con"].item() < 1e-12
    assert method.counters()["agreement"] == 1.0


def test_the_border_that_a_smaller_scale_brings_in_counts_nowhere(new_network, make_batch, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    drawn = Turns(torch.zeros(2, dtype=torch.bool), torch.zeros(2, dtype=torch.long), torch.tensor([0.9, 0.9]))
    monkeypatch.setattr(Turns, "draw", classmethod(lambda cls, count, scale: drawn))
    batch = make_batch(labeled=False)
    edge = torch.ones_like(batch.valid_u)
    edge[:, 1:-1, 1:-1] = False
    method = build(new_network)
    losses = method.losses(replace(batch, valid_u=edge), 20)
    assert losses["con"].item() == 0  # an edge of one pixel is never made of true pixels only
    assert losses["con"].requires_grad


def test_nuclei_can_count_more_than_background_among_labels(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch(classes=3)
    method = TCSM(new_network(3), Task(classes=3, steps=40, crop=64), TCSMConfig(weight_nuclei=4.0, noise=0.0))
    found = method.losses(batch, 0)["sup"].item()
    with torch.no_grad():
        logits = method.student(torch.cat([batch.image_l, batch.weak_u]))[:2]
    weights = torch.tensor([1.0, 4.0, 4.0])
    expected = torch.nn.functional.cross_entropy(logits, batch.label_l, weight=weights).item()
    assert found == pytest.approx(expected, rel=1e-5)


def test_both_networks_see_noise_of_their_own(new_network) -> None:  # type: ignore[no-untyped-def]
    image = torch.full((1, 3, 64, 64), 0.5)
    method = build(new_network, noise=0.02)
    first, second = method._with_noise(image), method._with_noise(image)
    assert (first - image).std().item() == pytest.approx(0.02, rel=0.1)
    assert not torch.equal(first, second)


def test_the_weight_is_reached_after_three_quarters_of_the_run(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch, found = make_batch(), {}
    for step in (0, 30, 40):
        method = build(new_network)
        torch.manual_seed(4)
        found[step] = method.losses(batch, step)["con"].item()
    assert found[30] == pytest.approx(found[40], rel=1e-6)
    assert found[0] == pytest.approx(found[40] * sigmoid_rampup(0, 30), rel=1e-5)
