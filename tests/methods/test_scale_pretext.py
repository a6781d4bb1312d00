"""Scale pretext: its terms, its magnifications, and its level."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from napari_semiseg.methods._base import Task
from napari_semiseg.methods.scale_pretext import (
    ScalePretext,
    ScalePretextConfig,
    magnifications,
    mean_square,
    roughness,
)
from napari_semiseg.nn.attention import WARPS, AttentionNetwork, level_of

SMALL = {"width": 4, "encoder": "resnet18", "pretrained": False}


def build(**options):
    torch.manual_seed(0)
    config = ScalePretextConfig(**{**SMALL, **options})
    return ScalePretext(lambda: pytest.fail("it brings its own"), Task(steps=40, crop=64), config)


def test_the_attention_network_is_as_large_as_in_the_paper():
    attention = sum(p.numel() for p in AttentionNetwork().parameters())

    # 3x3 convolutions without bias: 3 to 64 and twelve 64 to 64, thirteen normalizations, and the last layer.
    assert attention == 27 * 64 + 12 * 9 * 64 * 64 + 13 * 128 + 65


def test_every_warp_is_undone_by_its_inverse():
    x = torch.arange(24.0).view(1, 1, 4, 6)

    assert all(torch.equal(back(warp(x)), x) for warp, back in WARPS)
    assert len({(tuple(warp(x).flatten().tolist()), tuple(warp(x).shape)) for warp, _ in WARPS}) == 6


def test_the_level_leaves_the_share_above_it():
    scores = torch.rand(3, 1, 50, 40, generator=torch.Generator().manual_seed(0))
    level = level_of(scores, 0.07)
    plain = sum(sorted(one.flatten().tolist())[math.floor(0.93 * 1_999)] for one in scores) / 3

    assert level.item() == pytest.approx(plain, abs=2e-3)
    assert (scores > level).float().mean().item() == pytest.approx(0.07, abs=0.01)


def test_the_running_level_remembers_nine_parts_in_ten(make_batch, monkeypatch):
    monkeypatch.setattr("napari_semiseg.methods.scale_pretext.level_of", lambda *_: torch.tensor(1.0))
    method, batch = build(), make_batch()
    for step in range(2):
        method.losses(batch, step)

    assert method.net.level.item() == pytest.approx(0.19)


def test_magnifications_are_means_over_ever_larger_windows():
    crops = torch.rand(2, 4, 64, 64, dtype=torch.float64)
    crops[:, -1] = 1
    patches, seen = magnifications(crops)

    assert patches.shape == (6, 3, 16, 16)
    assert bool((seen == 1).all())
    for b in range(2):  # the widest window is the whole crop
        for y, x in ((0, 0), (3, 7)):
            plain = sum(crops[b, 1, 4 * y + i, 4 * x + j].item() for i in range(4) for j in range(4)) / 16
            assert patches[4 + b, 1, y, x].item() == pytest.approx(plain, abs=1e-12)


def test_what_lies_outside_the_image_is_not_seen_at_any_magnification():
    crops = torch.ones(1, 4, 64, 64)
    crops[:, -1, 0, 0] = 0
    _, seen = magnifications(crops)

    assert seen[2, 0, 0, 0] == 0
    assert seen[2].sum() == 16 * 16 - 1


def test_roughness_is_the_plain_mean_over_neighbors_and_so_is_its_gradient():
    a = torch.rand(2, 1, 3, 4, dtype=torch.float64, requires_grad=True)
    seen = torch.ones_like(a)
    down = [abs(a[b, 0, y + 1, x] - a[b, 0, y, x]) for b in range(2) for y in range(2) for x in range(4)]
    across = [abs(a[b, 0, y, x + 1] - a[b, 0, y, x]) for b in range(2) for y in range(3) for x in range(3)]
    plain = sum(down) / len(down) + sum(across) / len(across)
    found = roughness(a, seen)

    assert found.item() == pytest.approx(plain.item(), abs=1e-9)
    [mine], [theirs] = torch.autograd.grad(found, a), torch.autograd.grad(plain, a)
    assert torch.allclose(mine, theirs, atol=1e-9)


def test_the_mean_square_is_that_of_the_pixels_seen_and_so_is_its_gradient(agree):
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.rand(2, 1, 3, 4, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2))
    seen = (torch.rand(2, 1, 3, 4, generator=generator, dtype=torch.float64) > 0.3).double()
    at = seen.nonzero().tolist()
    plain = sum((one[b, c, y, x] - other[b, c, y, x]) ** 2 for b, c, y, x in at) / len(at)

    agree(mean_square(one, other, seen), plain, one, other)


def test_pixels_that_are_not_seen_count_in_no_mean():
    one, other = torch.zeros(1, 1, 2, 2), torch.tensor([[[[1.0, 2.0], [3.0, 5.0]]]])
    seen = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]])

    assert mean_square(one, other, seen).item() == pytest.approx(5)
    assert mean_square(one, other, torch.zeros_like(seen)).item() == 0
    assert roughness(other, torch.zeros_like(seen)).item() == 0


def test_the_target_of_turned_patches_has_no_gradient(make_batch):
    method = build(weight_smooth=0, weight_scales=0)
    batch = make_batch()
    torch.manual_seed(1)
    losses = method.losses(batch, 0)

    assert set(losses) == {"scale", "smooth", "turned", "scales"}
    assert losses["turned"].requires_grad
    assert not method._turned(batch.weak_u[..., :16, :16]).requires_grad


def test_a_crop_of_which_nothing_is_seen_tells_no_magnification(make_batch):
    batch = make_batch()
    half = replace(batch, valid_u=torch.tensor([True, False])[:, None, None] & batch.valid_u)
    method, told = build(), []
    method.tell.register_forward_hook(lambda *passed: told.append(passed[-1]))
    found = method.losses(half, 0)["scale"]
    costs = torch.nn.functional.cross_entropy(told[0], torch.tensor([0, 0, 1, 1, 2, 2]), reduction="none")

    assert found.item() == pytest.approx(costs[::2].mean().item(), rel=1e-6)


def test_where_nothing_is_seen_the_level_stays(make_batch):
    batch, method = make_batch(), build()
    method.losses(batch, 0)
    before = method.net.level.clone()
    method.losses(replace(batch, valid_u=torch.zeros_like(batch.valid_u)), 1)

    assert torch.equal(method.net.level, before)


def test_it_learns_to_tell_magnifications(make_batch):
    method = build().train()
    batch = make_batch()
    optimizer = torch.optim.Adam(method.parameters(), lr=2e-3)
    told = []
    for step in range(80):
        torch.manual_seed(step)
        losses = method.losses(batch, step)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        told.append(method.counters()["magnification told"])

    assert sum(told[-20:]) / 20 > 0.5, told  # by chance a third


def test_a_prediction_of_one_class_is_told_within_fifty_steps_and_gets_a_level_of_its_own(make_batch):
    method, batch = build(), make_batch()
    method.level.fill_(1e3)  # above all scores, and for more than fifty steps to come
    told = steps_of(method, batch, range(50))

    [(after, sentence)] = told
    assert after == 30
    assert "no nucleus was found in crops" in sentence
    assert "follows what is predicted" in sentence
    found = (method.predictor().eval()(batch.weak_u).softmax(1)[:, 1] > 0.5).float().mean().item()
    assert 0.01 < found < 0.3  # the share of pixels that is looked at is 0.07
    assert method.guard.weight == 1


def test_a_prediction_of_both_classes_keeps_the_level_of_the_batches(make_batch):
    method, batch = build(), make_batch()
    method._look = lambda *_: setattr(method, "_found", 0.07)  # as if every look found some nuclei
    told = steps_of(method, batch, range(50))

    assert told == []
    assert torch.equal(method.net.level, method.level)


def test_agreement_counts_a_tenth_while_one_class_is_predicted(make_batch):
    batch, whole, cut = make_batch(), build(), build()
    cut.guard.steps.fill_(30)
    plain, less = (with_seed(method.losses, batch, 0) for method in (whole, cut))

    assert less["scale"].item() == plain["scale"].item()
    for name in ("smooth", "turned", "scales"):
        assert less[name].item() == pytest.approx(plain[name].item() / 10, rel=1e-5)


def with_seed(function, *arguments):
    torch.manual_seed(0)
    return function(*arguments)


def steps_of(method, batch, steps):
    """Pass through steps without learning, and return what was said, and after how many."""
    told = []
    for step in steps:
        with torch.no_grad():
            with_seed(method.losses, batch, step)
        method.after_step(step)
        told += [(step + 1, sentence) for sentence in method.warnings()]
    return told


def test_an_averaged_prediction_is_the_mean_of_eight_attentions():
    torch.manual_seed(0)
    net = AttentionNetwork(3, average=True).double().eval()
    image = torch.rand(1, 3, 24, 32, dtype=torch.float64)
    with torch.no_grad():
        found = net(image).softmax(1)[:, 1:]
        each = [net.attention(net.scores(image))]
        each += [back(net.attention(net.scores(warp(image)))) for warp, back in WARPS]
        half = net.attention(net.scores(torch.nn.functional.avg_pool2d(image, 2)))
        each.append(torch.nn.functional.interpolate(half, size=(24, 32), mode="bilinear"))

    assert len(each) == 8
    assert found.numpy() == pytest.approx((sum(each) / 8).numpy(), abs=1e-6)


@pytest.mark.parametrize("average", [False, True])
def test_the_reach_is_as_far_as_it_sees(average):
    torch.manual_seed(0)
    net = AttentionNetwork(2, average=average).double().eval()
    side = 2 * net.reach + 12
    image = torch.rand(1, 3, side, side, dtype=torch.float64)
    changed = image.clone()
    middle = side // 2
    changed[..., middle - net.reach - 1, :] = 0
    with torch.no_grad():
        difference = (net(image) - net(changed)).abs().amax((0, 1, 3))

    assert difference[middle].item() == 0
    assert difference[middle - net.reach - 1].item() > 0
