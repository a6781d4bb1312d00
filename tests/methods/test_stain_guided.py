"""The stain as a weak label."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from napari_semiseg.data.batch import IGNORE, Batch
from napari_semiseg.methods._base import Task
from napari_semiseg.methods.stain_guided import StainGuided, StainGuidedConfig
from napari_semiseg.nn.neighborhood import Neighborhood
from napari_semiseg.nn.stain_unet import StainUNet
from napari_semiseg.nn.two_opinions import two_opinions

GROWN = {"labels_full_at": 1}
"""Labels count in full at once."""

Networks = Callable[..., Callable]
Batches = Callable[..., Batch]


def method(networks: Networks, *, classes: int = 2, steps: int = 100, **options: object) -> StainGuided:
    torch.manual_seed(0)
    return StainGuided(networks(classes), Task(classes, steps, crop=64), StainGuidedConfig(**GROWN | options))


def guided(batch: Batch, guide: Tensor) -> Batch:
    return replace(batch, guide_u=guide)


def test_its_terms_are_the_equations(new_network: Networks, make_batch: Batches) -> None:
    """Cross-entropy over the sure pixels, by a plain loop in double precision."""
    one = method(new_network, weight_guide=0.5, background_below=0.0, nucleus_above=0.34).double()
    batch = make_batch(labeled=False, size=1)
    guide = 2 * torch.rand(1, 64, 64, generator=torch.Generator().manual_seed(1)) - 1
    guide[0, 10, :2] = torch.tensor([0.0, 0.34])  # on the borders: in doubt
    strong = batch.strong_u[0].double()
    valid = torch.ones(1, 64, 64, dtype=torch.bool)
    valid[:, :8] = False
    loss = one.losses(replace(batch, guide_u=guide, strong_u=(strong,), valid_u=valid), step=3)["stain"]

    probs = one.net.second(strong).softmax(1)[0]
    terms = []
    for y in range(8, 64):
        for x in range(64):
            if guide[0, y, x] < 0.0:
                terms.append(-probs[0, y, x].log())
            elif guide[0, y, x] > torch.tensor(0.34):
                terms.append(-probs[1, y, x].log())
    expected = 0.5 * torch.stack(terms).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9)

    weights = list(one.net.second.parameters())
    for ours, theirs in zip(
        torch.autograd.grad(loss, weights, retain_graph=True), torch.autograd.grad(expected, weights), strict=True
    ):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-15)


def test_without_labels_the_stain_alone_predicts(new_network: Networks, make_batch: Batches) -> None:
    one, batch = method(new_network), make_batch(labeled=False)
    assert set(one.losses(batch, 0)) == {"stain"}
    one.after_step(0)
    assert one.predictor().share == 1.0


def taught(one: StainGuided, *batches: Batch) -> StainGuided:
    for step, batch in enumerate(batches):
        one.losses(batch, step)
        one.after_step(step)
    return one


def test_the_stain_is_worth_so_many_labeled_pixels(new_network: Networks, make_batch: Batches) -> None:
    for images, share in ((1, 0.5), (3, 0.1), (48, 0.25 / 576.25)):
        told = {f"image {number}": 500_000 for number in range(images)}
        one = taught(method(new_network, stain_worth=0.5), replace(make_batch(), labeled_pixels=told))
        assert one.predictor().share == pytest.approx(share)
        assert one.net.share == pytest.approx(share)


@pytest.mark.parametrize(
    ("told", "away", "at_a"),
    [
        ({"a": 250_000}, 0.25, 2.0),
        ({"a": 24_000_000}, 0.5, 192),
        ({"a": 24_000_000, "b": 250_000, "c": 750_000}, 1.25, 192.75),
    ],
    ids=["little", "much of one image", "of three images"],
)
def test_labels_count_eight_times_on_their_image_and_on_others_never_for_more_than_the_stain(
    new_network: Networks, make_batch: Batches, told: dict[str, int], away: float, at_a: float
) -> None:
    one = taught(method(new_network, stain_worth=0.5), replace(make_batch(), labeled_pixels=told))

    for network in (one.net, one.predictor()):
        assert network.share == pytest.approx(0.25 / (0.25 + away**2))
        assert network.at_home("a").share == pytest.approx(0.25 / (0.25 + at_a**2))
        assert network.homes.keys() == told.keys()


def test_labels_that_come_late_count_as_far_as_they_have_taught(new_network: Networks, make_batch: Batches) -> None:
    early, late = make_batch(labeled=False), replace(make_batch(), labeled_pixels=dict.fromkeys("abc", 500_000))
    one = taught(method(new_network, stain_worth=0.5), *[early] * 9, late)
    assert one.predictor().share == pytest.approx(0.25 / (0.25 + 2.25 * 2 * 1 / 10))
    assert taught(one, *[late] * 10).predictor().share == pytest.approx(0.1), "taught half as often: they count fully"


def test_labels_count_little_while_their_network_is_young(new_network: Networks, make_batch: Batches) -> None:
    early, batch = make_batch(labeled=False), replace(make_batch(), labeled_pixels=dict.fromkeys("abc", 500_000))
    one = taught(method(new_network, stain_worth=0.5, labels_full_at=10), *[early] * 5, *[batch] * 5)
    pixels = 1.5 * (5 / 10) ** 2
    at_home = (8 * 0.5 + 1.0) * (5 / 10) ** 2
    assert one.predictor().share == pytest.approx(0.25 / (0.25 + pixels**2))
    assert one.predictor().at_home("a").share == pytest.approx(0.25 / (0.25 + at_home**2))
    grown = taught(one, *[batch] * 5).predictor()
    assert grown.share == pytest.approx(0.1), "ten steps with labels, whatever came before them"
    assert taught(one, *[batch] * 5).predictor().share == pytest.approx(0.1)


def test_labels_that_are_undone_have_no_say(new_network: Networks, make_batch: Batches) -> None:
    one = taught(method(new_network), replace(make_batch(), labeled_pixels={"a": 1_000_000}))
    assert one.predictor().share < 1
    undone = taught(one, make_batch(labeled=False)).predictor()
    assert undone.share == undone.at_home("a").share == 1.0


@pytest.mark.parametrize(("place", "share"), [(0, 1.0), (1, 0.0)], ids=["labels", "stain"])
def test_a_network_that_finds_one_class_everywhere_has_no_say_and_the_user_is_told(
    new_network: Networks, make_batch: Batches, place: int, share: float
) -> None:
    one, said = method(new_network, stain_worth=0.25, collapse_patience=3), []
    batch = replace(make_batch(), labeled_pixels={"a": 250_000})
    blind, seeing = one.net.both[place], one.net.both[1 - place]
    with torch.no_grad():
        blind.head.bias.copy_(torch.tensor([9.0, -9.0]))  # background everywhere
        feature = seeing.features((batch.strong_u[0], batch.image_l)[place]).sum(1)
        seeing.head.weight.zero_()
        seeing.head.weight[1] = 1.0
        seeing.head.bias.copy_(torch.stack([feature.mean(), torch.zeros(())]))  # nuclei where features are high
    for step in range(5):
        one.losses(batch, step)
        one.after_step(step)
        said.append((len(one.warnings()), float(one.predictor().share)))

    assert [count for count, _ in said] == [0, 0, 1, 0, 0]
    assert [value for _, value in said] == [0.5, 0.5, share, share, share]
    assert taught(method(new_network, stain_worth=0.25, collapse_patience=0), *[batch] * 5).predictor().share == 0.5


def test_where_nothing_is_unlabeled_the_labels_alone_predict(new_network: Networks, make_batch: Batches) -> None:
    batch = replace(make_batch(), labeled_pixels={"a": 1_000}, weak_u=None, strong_u=(), valid_u=None, guide_u=None)
    assert taught(method(new_network), batch).predictor().share == 0.0


def test_the_average_of_late_labels_forgets_what_the_network_was_before_them(
    new_network: Networks, make_batch: Batches
) -> None:
    one = taught(method(new_network), *[make_batch(labeled=False)] * 5)
    with torch.no_grad():
        for parameter in one.net.first.parameters():
            parameter.add_(1.0)
    taught(one, replace(make_batch(), labeled_pixels={"a": 1_000}))
    assert one.average is not None
    for averaged, parameter in zip(one.average.first.parameters(), one.net.first.parameters(), strict=True):
        assert torch.equal(averaged, parameter)


def test_labels_teach_one_network_and_the_stain_the_other(new_network: Networks, make_batch: Batches) -> None:
    one = method(new_network)
    losses = one.losses(make_batch(), 0)
    taught = {
        name: torch.autograd.grad(loss, tuple(weights(one)), retain_graph=True, materialize_grads=True)
        for name, loss in losses.items()
    }

    assert [bool(gradient.any()) for gradient in taught["sup"]] == [True, False]
    assert [bool(gradient.any()) for gradient in taught["stain"]] == [False, True]


def weights(one: StainGuided) -> list[Tensor]:
    """Some weights of either network."""
    return [one.net.first.head.weight, one.net.second.head.weight]


def test_in_doubt_nothing_is_learned(new_network: Networks, make_batch: Batches) -> None:
    one = method(new_network)
    loss = one.losses(guided(make_batch(labeled=False), torch.full((2, 64, 64), 0.2)), 0)["stain"]
    loss.backward()

    assert loss.item() == 0.0
    assert one.net.second.head.weight.grad is not None
    assert not any(weight.grad.any() for weight in one.net.parameters() if weight.grad is not None)
    assert one.counters()["sure of stain"] == 0.0


@pytest.mark.parametrize(("contrast", "around"), [(0.0, 1.0), (0.5, 1.0), (0.25, 9.0)])
def test_the_answer_is_a_mean_of_both_in_logits_and_classes_are_those_of_the_labels(
    new_network: Networks, contrast: float, around: float
) -> None:
    network = two_opinions(new_network(5)(), new_network(5)(), caution=0.4, contrast=contrast, around=around)
    network.double().eval()
    network.share.fill_(0.3)
    image = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    features = network.features(image)
    own, second = (one.logits_on_grid(one.features(image)).softmax(1) for one in (network.first, network.second))
    answer = network.logits_on_grid(features).softmax(1)

    nucleus = own[:, 1:].sum(1)
    mean = Neighborhood(network.stride).double()
    f, h = (nucleus / own[:, 0]).log()[:, None], (second[:, 1:].sum(1) / second[:, 0]).log()[:, None]
    level = around * 0.3 / (around * 0.3 + 0.7)
    z = 0.7 * (1 + contrast) * (f - mean(f)) + 0.3 * (h - mean(h)) + (1 - level) * mean(f) + level * mean(h) - 0.4
    z = z[:, 0]
    assert torch.allclose(answer[:, 1:].sum(1), z.sigmoid(), atol=1e-5)
    assert torch.allclose(answer[:, 1:] / answer[:, 1:].sum(1, keepdim=True), own[:, 1:] / nucleus[:, None], atol=1e-5)


def test_on_images_that_labels_came_from_the_same_networks_are_weighed_as_they_are_there(
    new_network: Networks,
) -> None:
    network = two_opinions(new_network()(), new_network()(), caution=0.4, contrast=0.25, around=9.0).eval()
    network.share.fill_(0.6)
    network.weigh_at_homes({"a": 0.5})
    home = network.at_home("a").eval()
    network.weigh_at_homes({"a": 0.1, "b": 0.9})  # it has gone on learning
    image = torch.rand(1, 3, 16, 16)
    answer = home(image)

    assert not torch.allclose(answer, network(image))
    network.share.fill_(0.1)
    assert torch.equal(answer, network(image))
    network.weigh_at_homes({"b": 0.9})
    assert home.share == pytest.approx(0.1), "without labels it is an image like any other"


def test_labels_that_are_all_ignored_teach_nothing(new_network: Networks, make_batch: Batches) -> None:
    losses = method(new_network).losses(make_batch(ignored=True), 0)
    assert losses["sup"].item() == 0.0
    assert (make_batch(ignored=True).label_l == IGNORE).all()


def test_who_has_no_say_is_not_asked_and_the_answer_is_the_same() -> None:
    torch.manual_seed(0)
    both = two_opinions(StainUNet(), StainUNet(), caution=0.4).eval()
    both.share.fill_(1.0)
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    shown = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    alone = both.for_image([image], image, gray=False)
    asked: list[object] = []
    both.first.stain_input.register_forward_hook(lambda *_: asked.append(1))
    with torch.inference_mode():
        answer = alone(shown)
        assert not asked
        whole = both(torch.cat([shown, alone.scale.channel(shown)], 1))
        both.share.fill_(0.3)
        assert not torch.allclose(alone(shown).softmax(1), answer.softmax(1), atol=1e-3), "labels have come since"
        assert asked
    assert torch.allclose(answer.softmax(1), whole.softmax(1), atol=1e-6)
