"""UniMatch: three disturbed views that learn from one weak view."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from napari_semiseg.losses.consistency import pseudo_label_cross_entropy
from napari_semiseg.methods._base import Task
from napari_semiseg.methods.unimatch import SOURCES, UniMatch, UniMatchConfig


def build(new_network, **options) -> UniMatch:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    return UniMatch(new_network(), Task(steps=30, crop=64), UniMatchConfig(**options)).train()


def view_term(said, pseudo, valid, threshold) -> float:  # type: ignore[no-untyped-def]
    """The term of one view: a sum over confident pixels, divided by all valid ones."""
    certainty, classes = pseudo.softmax(1).max(1)
    kept = valid & (certainty >= threshold)
    assert 0 < int(kept.sum()) < int(valid.sum())
    probs = said.double().softmax(1).gather(1, classes[:, None])[:, 0]
    return -probs[kept].log().sum().item() / int(valid.sum())


def test_both_strong_views_learn_the_confident_pseudo_labels_half_each(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch(labeled=False)
    batch.valid_u[0, :, :40] = False
    with torch.no_grad():
        pseudo = build(new_network).net.eval()(batch.weak_u)
    values = pseudo.softmax(1).amax(1).flatten().sort().values
    threshold = float(values[len(values) // 2 :][:2].mean())  # half of the pixels reach it, none equals it
    method = build(new_network, labeler="eval", threshold=threshold, cutmix_probability=0.0, weight_fp=0.0)
    found = method.losses(batch, 0)["strong"].item()

    with torch.no_grad():
        said = method.net(torch.cat(batch.strong_u)).chunk(2)
    terms = [view_term(view, pseudo, batch.valid_u, threshold) for view in said]
    assert terms[0] != terms[1]
    assert found == pytest.approx(0.25 * sum(terms) / 2, rel=1e-5)


def test_the_disturbed_features_are_those_of_the_weak_view(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    method = build(new_network, threshold=0.0, dropout=0.0, weight_fp=1.0)
    found = method.losses(batch, 0)["fp"].item()
    with torch.no_grad():
        weak = build(new_network).net(torch.cat([batch.image_l, batch.weak_u]))[len(batch.image_l) :]
        expected = pseudo_label_cross_entropy(weak, weak).item()  # nothing left out: its own classes
    assert found == pytest.approx(expected, rel=1e-5)
    torch.manual_seed(4)
    disturbed = build(new_network, threshold=0.0, weight_fp=1.0).losses(batch, 0)["fp"].item()
    assert disturbed != pytest.approx(expected, rel=1e-3)


def test_the_views_are_mixed_each_by_its_own_boxes(new_network, make_batch, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    from napari_semiseg.methods import unimatch

    drawn = []

    def kept(shape: torch.Size, **options: object) -> torch.Tensor:
        drawn.append(original(shape, **options))
        return drawn[-1]

    original = unimatch.random_boxes
    monkeypatch.setattr(unimatch, "random_boxes", kept)
    torch.manual_seed(1)
    build(new_network, cutmix_probability=1.0).losses(make_batch(), 0)
    assert len(drawn) == 2
    assert not torch.equal(*drawn)


def test_pseudo_labels_carry_no_gradient_and_every_view_does(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch(labeled=False)
    method = build(new_network, threshold=0.0)
    losses = method.losses(batch, 0)
    assert set(losses) == {"strong", "fp"}
    for term in losses.values():
        method.zero_grad()
        term.backward(retain_graph=True)
        assert method.net.body[0].weight.grad.abs().sum() > 0
    features = method.net.features(batch.weak_u)
    assert not method._pseudo_labels(batch.weak_u, features).requires_grad


def test_where_nothing_is_confident_or_shown_the_labels_teach_alone(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    blind = replace(batch, valid_u=torch.zeros_like(batch.valid_u))
    for method, seen in ((build(new_network, threshold=1.0), batch), (build(new_network, threshold=0.0), blind)):
        losses = method.losses(seen, 0)
        assert losses["strong"].item() == losses["fp"].item() == 0
        assert losses["strong"].requires_grad
        assert losses["fp"].requires_grad
        assert losses["sup"].item() > 0


def test_the_second_version_has_a_teacher_no_third_view_and_divides_the_channels(  # type: ignore[no-untyped-def]
    new_network, make_batch, monkeypatch
) -> None:
    from napari_semiseg.methods import unimatch

    divided = []
    original = unimatch.complementary_dropout
    monkeypatch.setattr(unimatch, "complementary_dropout", lambda *two: divided.append(len(two)) or original(*two))
    method = build(new_network, **SOURCES["UniMatch V2"], threshold=0.0)
    losses = method.losses(make_batch(), 0)
    torch.stack(list(losses.values())).sum().backward()
    assert set(losses) == {"sup", "strong"}
    assert divided == [2]
    assert method.predictor() is method.teacher
    assert all(p.grad is None for p in method.teacher.parameters())


@pytest.mark.parametrize("labeler", ["train", "eval", "teacher"])
@pytest.mark.parametrize("weight_fp", [0.0, 0.25])
@pytest.mark.parametrize("complementary", [False, True])
def test_every_combination_of_its_options_gives_finite_terms(  # type: ignore[no-untyped-def]
    new_network, make_batch, labeler, weight_fp, complementary
) -> None:
    method = build(new_network, labeler=labeler, weight_fp=weight_fp, complementary=complementary, threshold=0.5)
    losses = method.losses(make_batch(), 0)
    torch.stack(list(losses.values())).sum().backward()
    assert set(losses) == {"sup", "strong", *(["fp"] if weight_fp else [])}
    assert all(bool(torch.isfinite(p.grad).all()) for p in method.net.parameters())


def test_an_encoder_can_learn_more_slowly_than_what_follows_and_the_teacher_not_at_all(new_network) -> None:  # type: ignore[no-untyped-def]
    method = build(new_network, labeler="teacher", encoder_lr_scale=0.1)
    method.net.encoder = method.net.body  # as pretrained networks name it
    (groups,) = method.parameter_groups()
    rest, encoder = ({id(p) for p in group["params"]} for group in groups)
    assert encoder == {id(p) for p in method.net.body.parameters()}
    assert rest == {id(p) for p in method.net.head.parameters()}
    assert [group.get("lr_scale", 1.0) for group in groups] == [1.0, 0.1]
