"""Methods without gradient: thresholds and the random forest."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.feature import multiscale_basic_features
from sklearn.ensemble import RandomForestClassifier

from napari_semiseg import metrics
from napari_semiseg.data.batch import IGNORE, Batch
from napari_semiseg.errors import InputError
from napari_semiseg.methods._base import FittedMethod, Task
from napari_semiseg.methods._registry import METHODS
from napari_semiseg.methods.hematoxylin_threshold import StainThreshold
from napari_semiseg.methods.intensity_threshold import IntensityThreshold, dice_of_levels
from napari_semiseg.methods.random_forest import RandomForest
from napari_semiseg.nn.forest import PixelForest, float32_at_most
from napari_semiseg.nn.threshold import GrayThreshold, gray_levels, otsu
from napari_semiseg.postprocess.proposal import propose

SMALL = {"random_forest": {"trees": 8, "leaves": 64, "pixels": 2_000}}
fitted_methods = pytest.mark.parametrize("name", [n for n, kind in METHODS.items() if issubclass(kind, FittedMethod)])


def build(name, *, classes=2, seed=0, probe=None, **options):
    kind = METHODS[name]
    config = kind.Config(**{**SMALL.get(name, {}), **options})
    return kind(lambda: pytest.fail("it needs no network"), Task(classes, seed=seed, probe=probe), config)


def one_by_one(batch):
    return [Batch(image[None], label[None]) for image, label in zip(batch.image_l, batch.label_l, strict=True)]


def found(method, image):
    with torch.no_grad():
        return method.predictor().eval()(image).argmax(1)


@fitted_methods
def test_it_finds_dark_squares_on_light_ground(name, make_batch):
    batch = make_batch()
    method = build(name)
    method.fit(one_by_one(batch))
    mask = found(method, batch.image_l)

    assert metrics.dice(metrics.confusion(mask.numpy() == 1, batch.label_l.numpy() == 1)) > 0.9


@fitted_methods
def test_saved_and_loaded_it_predicts_the_same(name, make_batch):
    batch = make_batch()
    method, other = build(name), build(name)
    method.fit(one_by_one(batch))
    other.load_state_dict(method.state_dict())

    assert torch.equal(method.predictor().eval()(batch.image_l), other.predictor().eval()(batch.image_l))


@fitted_methods
def test_the_same_seed_finds_the_same(name, make_batch):
    batch = make_batch()
    methods = [build(name, seed=3) for _ in range(2)]
    for method in methods:
        method.fit(one_by_one(batch))

    assert torch.equal(*(method.predictor()(batch.image_l) for method in methods))


@fitted_methods
def test_it_has_nothing_to_descend(name, make_batch):
    method = build(name)

    assert method.losses(make_batch(), 0) is None
    assert method.parameter_groups() == []
    assert not list(method.parameters())


@fitted_methods
def test_what_it_sees_around_a_pixel_is_within_its_reach(name, make_batch):
    batch = make_batch(size=1)
    method = build(name)
    method.fit(one_by_one(batch))
    predictor = method.predictor().eval()
    reach = predictor.reach
    if name == "hematoxylin_threshold":  # the threshold itself is that of the image
        pixels = (batch.image_l[0] * 255).round().byte().permute(1, 2, 0).numpy()
        predictor = predictor.for_image([pixels], pixels, gray=False)
    canvas = torch.nn.functional.pad(batch.image_l, [reach] * 4, mode="circular")
    whole, middle = predictor(canvas), slice(reach + 10, reach + 30)
    part = predictor(canvas[..., 10 : 30 + 2 * reach, 10 : 30 + 2 * reach])

    assert torch.allclose(whole[..., middle, middle], part[..., reach : reach + 20, reach : reach + 20], atol=1e-5)


def test_the_hematoxylin_threshold_is_the_proposal_to_the_byte():
    rng = np.random.default_rng(0)
    image = np.where(rng.random((40, 50, 1)) < 0.2, [90, 60, 140], [225, 170, 205]).astype(np.uint8)
    mask, confidence = propose(image)

    logits = StainThreshold()(torch.from_numpy(image).permute(2, 0, 1)[None] / 255)
    again = (logits.softmax(1)[0, 1] * 255).round().byte().numpy()

    assert mask.any()
    assert np.array_equal(again, confidence)


@pytest.mark.parametrize("bright", [False, True])
def test_dice_at_every_threshold_is_that_of_a_plain_loop(bright):
    rng = np.random.default_rng(1)
    levels = rng.integers(0, 100, 300).astype(np.float32) / 99  # many fall on a threshold exactly
    truth = rng.random(300) < 0.3
    thresholds = np.linspace(0, 1, 100)
    plain = [
        metrics.dice(metrics.confusion(levels > t if bright else levels < t, truth)) for t in thresholds.astype("f4")
    ]

    assert dice_of_levels(levels, truth, thresholds, bright=bright) == pytest.approx(plain, abs=1e-12)


def test_without_nuclei_an_empty_mask_is_right():
    levels = np.array([0.2, 0.4], np.float32)

    assert dice_of_levels(levels, np.zeros(2, bool), np.array([0.1, 0.3]), bright=False).tolist() == [1, 0]


def test_the_best_threshold_is_the_first_of_the_best_and_strict(make_batch):
    batch = make_batch()
    method = build("intensity_threshold")
    method.fit(one_by_one(batch))
    tried = np.linspace(0, 1, 100).astype(np.float32)
    gray = gray_levels(batch.image_l).numpy()
    scores = [
        np.mean(
            [metrics.dice(metrics.confusion(g < t, y == 1)) for g, y in zip(gray, batch.label_l.numpy(), strict=True)]
        )
        for t in tried
    ]

    assert float(method.threshold.value) == pytest.approx(tried[int(np.argmax(scores))])
    confidence = (method.predictor()(batch.image_l).softmax(1)[:, 1] * 255).round()
    assert np.array_equal(confidence.numpy() >= 128, gray < float(method.threshold.value))


def test_pixels_without_a_label_do_not_choose_the_threshold(make_batch):
    batch = make_batch(size=1)
    spoiled = batch.image_l.clone()
    spoiled[..., :32, :] = 0.0
    label = batch.label_l.clone()
    label[:, :32] = IGNORE
    methods = [build("intensity_threshold") for _ in range(2)]
    for method, image in zip(methods, (batch.image_l, spoiled), strict=True):
        method.fit([Batch(image, label)])

    assert methods[0].threshold.value == methods[1].threshold.value


def test_a_threshold_by_labels_without_labels_says_what_to_do():
    with pytest.raises(InputError, match="rule=otsu"):
        build("intensity_threshold").fit([])


def test_otsu_needs_no_label_and_differs_by_image(make_batch):
    batch = make_batch(size=1)
    method = build("intensity_threshold", rule="otsu", probe=batch.weak_u)
    method.fit([])
    darker = 0.5 * batch.image_l

    for image in (batch.image_l, darker):
        mask = found(method, image).numpy()
        assert metrics.dice(metrics.confusion(mask == 1, batch.label_l.numpy() == 1)) > 0.9
    assert isinstance(method, IntensityThreshold)


def test_otsu_is_the_largest_variance_between_two_classes():
    levels = np.random.default_rng(2).beta(2, 5, 500).astype(np.float32)
    value, _ = otsu(levels)

    def between(t):
        low, high = levels[levels < t].astype(float), levels[levels >= t].astype(float)
        return low.size * high.size * (low.mean() - high.mean()) ** 2 if low.size and high.size else 0.0

    best = max(np.linspace(0, 1, 257)[1:], key=between)
    assert value == pytest.approx(best, abs=2 / 256)


def test_on_a_dark_field_nuclei_are_bright(make_batch):
    batch = make_batch()
    method = build("intensity_threshold")
    method.fit([Batch(1 - one.image_l, one.label_l) for one in one_by_one(batch)])

    assert bool(method.threshold.bright)
    assert metrics.dice(metrics.confusion(found(method, 1 - batch.image_l).numpy(), batch.label_l.numpy())) > 0.9


def test_a_flat_image_has_nothing_beyond_its_threshold():
    flat = torch.full((1, 3, 8, 8), 0.5)

    assert not GrayThreshold().set_per_image(bright=False)(flat).argmax(1).any()
    assert not StainThreshold()(flat).argmax(1).any()


def test_the_forest_votes_as_scikit_learn_does():
    rng = np.random.default_rng(4)
    image = rng.random((30, 36, 3)).astype(np.float32)
    features = multiscale_basic_features(image, channel_axis=-1, sigma_min=1, sigma_max=8).reshape(-1, 48)
    classes = rng.choice([0, 2], len(features))  # class 1 of three is never labeled
    grown = RandomForestClassifier(7, max_depth=9, max_leaf_nodes=100, random_state=0).fit(features, classes)
    forest = PixelForest(3, trees=7, leaves=100, depth=9)
    forest.take_over(grown)

    probs = forest(torch.from_numpy(image).permute(2, 0, 1)[None]).softmax(1)[0].permute(1, 2, 0).reshape(-1, 3)

    assert probs[:, [0, 2]].numpy() == pytest.approx(grown.predict_proba(features), abs=1e-5)
    assert float(probs[:, 1].max()) < 1e-5


def test_a_limit_in_single_precision_parts_the_same_numbers():
    values = np.random.default_rng(5).random(1_000).astype(np.float32)
    limits = (values[:-1].astype(np.float64) + values[1:]) / 2

    for numbers in (values, np.nextafter(values, np.float32(2))):
        assert np.array_equal(numbers[:-1] <= limits, numbers[:-1] <= float32_at_most(limits))


def test_a_forest_on_a_graphics_card_votes_as_on_a_processor():
    torch.manual_seed(0)
    rng = np.random.default_rng(1)
    features, kinds = rng.random((4_000, 48), np.float32), rng.integers(0, 3, 4_000)
    grown = RandomForestClassifier(5, max_depth=9, max_leaf_nodes=100, random_state=0).fit(features, kinds)
    forest = PixelForest(3, trees=5, leaves=100, depth=9)
    forest.take_over(grown)
    by_tensors, by_trees = forest._voted(torch.from_numpy(features)), forest.probabilities(torch.from_numpy(features))
    assert torch.allclose(by_tensors, by_trees, atol=1e-6)


def test_the_forest_learns_from_as_many_pixels_as_it_is_told_evenly_from_all_regions(make_batch):
    batch = make_batch(size=4)
    method = build("random_forest", pixels=1_000)
    assert isinstance(method, RandomForest)
    marked = [Batch(one.image_l, torch.full_like(one.label_l, number)) for number, one in enumerate(one_by_one(batch))]
    features, classes = method.sample(marked)

    assert features.shape == (1_000, 48)
    assert np.bincount(classes).min() > 180


def test_the_forest_knows_several_classes(make_batch):
    batch = make_batch(classes=4)
    method = build("random_forest", classes=4, pixels=4_000)
    method.fit(one_by_one(batch))

    assert (found(method, batch.image_l) == batch.label_l).float().mean() > 0.9


def test_labels_that_are_all_to_be_ignored_are_said(make_batch):
    with pytest.raises(InputError, match="ignored"):
        build("random_forest").fit(one_by_one(make_batch(ignored=True)))
