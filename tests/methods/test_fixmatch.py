"""FixMatch: what is learned of pseudo-labels, what it is divided by, and who labels."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from napari_semiseg.data.cutmix import mixed, random_boxes
from napari_semiseg.methods._base import Task
from napari_semiseg.methods.fixmatch import FixMatch, FixMatchConfig


def build(new_network, **options) -> FixMatch:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    return FixMatch(new_network(), Task(steps=30, crop=64), FixMatchConfig(**options)).train()


def surer(method: FixMatch) -> FixMatch:
    """Let some pixels be confident and others not."""
    with torch.no_grad():
        method.net.head.weight.mul_(6)
    if method.teacher is not None:
        method.teacher.load_state_dict(method.net.state_dict())
    return method


def between(certainty: torch.Tensor) -> float:
    """Return a threshold that half of the pixels reach and none equals."""
    values = certainty.flatten().sort().values
    middle = len(values) // 2
    return float(values[middle : middle + 2].mean())


@pytest.mark.parametrize("mean_over", ["valid", "kept"])
def test_the_sum_over_confident_pixels_is_divided_by_all_valid_ones_or_by_those(  # type: ignore[no-untyped-def]
    new_network, make_batch, mean_over
) -> None:
    batch = make_batch(labeled=False)
    batch.valid_u[0, :, :40] = False
    with torch.no_grad():
        target = surer(build(new_network)).net.eval()(batch.weak_u)
    threshold = between(target.softmax(1).amax(1))
    method = surer(build(new_network, labeler="eval", threshold=threshold, mean_over=mean_over, weight_u=0.5))
    torch.manual_seed(4)
    found = method.losses(batch, 0)["strong"].item()

    torch.manual_seed(4)
    boxes = random_boxes(batch.valid_u.shape)
    with torch.no_grad():
        said = method.net(mixed(boxes, batch.strong_u[0])).double().log_softmax(1)
    certainty, classes = mixed(boxes, target).softmax(1).max(1)
    valid = mixed(boxes, batch.valid_u)
    kept = valid & (certainty >= threshold)
    assert 0 < int(kept.sum()) < int(valid.sum())
    total = -said.gather(1, classes[:, None])[:, 0][kept].sum().item()
    assert found == pytest.approx(0.5 * total / int((valid if mean_over == "valid" else kept).sum()), rel=1e-5)


def test_where_nothing_is_confident_the_labels_teach_alone(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    losses = build(new_network, threshold=1.0).losses(batch, 0)
    assert losses["strong"].item() == 0
    assert losses["strong"].requires_grad
    assert losses["sup"].item() > 0


def test_without_labels_the_pseudo_labels_are_there_all_the_same(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch(labeled=False)
    for labeler in ("train", "eval", "teacher"):
        method = build(new_network, labeler=labeler, threshold=0.5)
        losses = method.losses(batch, 0)
        assert set(losses) == {"strong"}
        assert losses["strong"].item() > 0
        assert method.counters()["confident"] == 1.0


def test_pixels_that_show_no_image_teach_nothing(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    blind = replace(batch, valid_u=torch.zeros_like(batch.valid_u))
    method = build(new_network, threshold=0.0)
    assert method.losses(blind, 0)["strong"].item() == 0
    assert method.counters() == {"pseudo-labeled nuclei": 0.0, "confident": 0.0}


def test_in_train_mode_weak_views_are_normalized_together_with_labeled_crops(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    method = build(new_network)
    labeled, pseudo = method._plain_views(batch)
    together = build(new_network).net(torch.cat([batch.image_l, batch.weak_u]))
    assert torch.equal(torch.cat([labeled, pseudo]), together)
    assert not pseudo.requires_grad


def test_labels_of_eval_mode_change_no_statistics(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch(labeled=False)
    method = build(new_network, labeler="eval")
    method._plain_views(batch)
    assert method.net.body[1].num_batches_tracked == 0
    assert method.net.training


def test_only_with_a_teacher_is_there_an_average_that_labels_and_predicts(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    alone, taught = build(new_network), build(new_network, labeler="teacher", threshold=0.0)
    assert alone.predictor() is alone.net
    assert taught.predictor() is taught.teacher
    with torch.no_grad():
        taught.teacher.head.bias.copy_(torch.tensor([-50.0, 50.0]))
    taught.losses(make_batch(), 0)
    assert taught.counters()["pseudo-labeled nuclei"] == 1.0
    taught.after_step(0)
    assert torch.equal(taught.teacher.head.bias, taught.net.head.bias)


def test_an_encoder_can_learn_more_slowly_than_what_follows_and_the_teacher_not_at_all(new_network) -> None:  # type: ignore[no-untyped-def]
    method = build(new_network, labeler="teacher", encoder_lr_scale=0.1)
    method.net.encoder = method.net.body  # as pretrained networks name it
    (groups,) = method.parameter_groups()
    rest, encoder = ({id(p) for p in group["params"]} for group in groups)
    assert encoder == {id(p) for p in method.net.body.parameters()}
    assert rest == {id(p) for p in method.net.head.parameters()}
    assert [group.get("lr_scale", 1.0) for group in groups] == [1.0, 0.1]
