"""CPS: two networks, each taught by the other."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from napari_semiseg.data.batch import IGNORE
from napari_semiseg.data.cutmix import boxes_of_area, mixed
from napari_semiseg.losses.cross_entropy import cross_entropy
from napari_semiseg.methods._base import Task
from napari_semiseg.methods.cps import CPS, CPSConfig


def build(new_network, **options) -> CPS:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    return CPS(new_network(), Task(steps=30, crop=64), CPSConfig(**options)).train()


def crossed(one, other, found_one, found_other, valid) -> float:  # type: ignore[no-untyped-def]
    """Eq. 4: the negative log-probability that each gives to the class that the other found."""
    total = 0.0
    for said, found in ((one, found_other), (other, found_one)):
        probs = said.double().softmax(1).gather(1, found.argmax(1, keepdim=True))[:, 0]
        total -= probs[valid].log().mean().item()
    return total


def test_the_networks_differ_from_the_start_and_have_an_optimizer_each(new_network) -> None:  # type: ignore[no-untyped-def]
    method = build(new_network)
    assert not torch.equal(method.first.head.weight, method.second.head.weight)
    first, second = ({id(p) for group in groups for p in group["params"]} for groups in method.parameter_groups())
    assert first == {id(p) for p in method.first.parameters()}
    assert second == {id(p) for p in method.second.parameters()}


@pytest.mark.parametrize("cps_on", ["both", "unlabeled"])
def test_each_learns_the_classes_that_the_other_finds_in_every_pixel_that_counts(  # type: ignore[no-untyped-def]
    new_network, make_batch, cps_on
) -> None:
    batch = make_batch()
    batch.valid_u[0, :, :40] = False
    batch.label_l[1, 30:] = IGNORE
    method = build(new_network, cps_on=cps_on)
    found = method.losses(batch, 0)["cps"].item()

    with torch.no_grad():
        one, other = (torch.cat([net(batch.image_l), net(batch.weak_u)]) for net in (method.first, method.second))
    valid = torch.cat([batch.label_l != IGNORE, batch.valid_u])
    if cps_on == "unlabeled":
        valid[: len(batch.image_l)] = False
    assert found == pytest.approx(1.5 * crossed(one, other, one, other, valid), rel=1e-5)


def test_with_cutmix_both_learn_on_mixed_crops_what_was_found_on_the_plain_ones(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    batch.valid_u[0, :, :40] = False
    method = build(new_network, cps_on="mixed", weight_cps=1.0)
    torch.manual_seed(4)
    found = method.losses(batch, 0)["cps"].item()

    torch.manual_seed(4)
    boxes = boxes_of_area(batch.valid_u.shape)
    with torch.no_grad():
        one, other = (net(mixed(boxes, batch.weak_u)) for net in (method.first, method.second))
        found_one, found_other = (mixed(boxes, net(batch.weak_u)) for net in (method.first, method.second))
    assert found == pytest.approx(crossed(one, other, found_one, found_other, mixed(boxes, batch.valid_u)), rel=1e-5)


@pytest.mark.parametrize("cps_on", ["both", "unlabeled", "mixed"])
def test_what_one_finds_sends_no_gradient_back_to_it(new_network, make_batch, cps_on) -> None:  # type: ignore[no-untyped-def]
    method = build(new_network, cps_on=cps_on)
    batch = make_batch(labeled=False)
    for p in method.second.parameters():
        p.requires_grad_(False)
    said = method.losses(batch, 0)["cps"]
    said.backward()
    assert all(p.grad is not None for p in method.first.parameters())
    assert all(p.grad is None for p in method.second.parameters())


def test_the_labels_teach_both(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    method = build(new_network)
    found = method.losses(batch, 0)["sup"].item()
    with torch.no_grad():
        expected = sum(float(cross_entropy(net(batch.image_l), batch.label_l)) for net in (method.first, method.second))
    assert found == pytest.approx(expected, rel=1e-5)


def test_two_networks_that_agree_on_one_class_everywhere_cost_almost_nothing(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    method = build(new_network)
    with torch.no_grad():
        for net in (method.first, method.second):
            net.head.bias.copy_(torch.tensor([60.0, -60.0]))
    assert method.losses(make_batch(), 0)["cps"].item() < 1e-6
    assert method.counters() == {"pseudo-labeled nuclei": 0.0, "agreement": 1.0}


def test_pixels_that_show_no_image_teach_nothing(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch(ignored=True)
    losses = build(new_network).losses(replace(batch, valid_u=torch.zeros_like(batch.valid_u)), 0)
    assert losses["cps"].item() == 0
    assert losses["cps"].requires_grad


def test_the_first_network_predicts_or_its_average_if_one_is_kept(new_network) -> None:  # type: ignore[no-untyped-def]
    plain, averaged = build(new_network), build(new_network, ema_decay=0.9)
    assert plain.predictor() is plain.first
    assert averaged.predictor() is averaged.average
    with torch.no_grad():
        averaged.first.head.weight.add_(1)
    averaged.after_step(1)
    torch.testing.assert_close(averaged.average.head.weight, averaged.first.head.weight - 0.5)
