"""Batches as a function of the step."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
import torch

from napari_semiseg.blocks import Box
from napari_semiseg.data.batch import IGNORE, Views
from napari_semiseg.data.sampler import Sampler, SamplerConfig
from napari_semiseg.data.sources import LabeledRegion, TrainingData, class_labels
from napari_semiseg.io.images import from_array

CONFIG = SamplerConfig(crop=32, batch_labeled=3, batch_unlabeled=2)


def field(seed: int = 0, side: int = 128) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def data(**changes: object) -> TrainingData:
    images = [from_array(field(0), "a"), from_array(field(1), "b")]
    label = np.ones((64, 64), np.uint8)
    regions = [LabeledRegion(f"a#{k}", 0, Box(0, 64 * k, 64, 64 * k + 64), label, 1) for k in range(2)]
    return TrainingData(images, regions, **changes)  # type: ignore[arg-type]


def test_the_batch_of_a_step_is_always_the_same_and_that_of_the_next_another() -> None:
    views = Views(labeled=True, weak=True, strong=2)
    one, again = (Sampler(data(), views, CONFIG, seed=5).batch(7) for _ in range(2))
    other = Sampler(data(), views, CONFIG, seed=5).batch(8)

    assert torch.equal(one.image_l, again.image_l)
    assert torch.equal(one.strong_u[1], again.strong_u[1])
    assert not torch.equal(one.weak_u, other.weak_u)


def test_only_the_views_that_were_asked_for_are_made() -> None:
    batch = Sampler(data(), Views(labeled=True), CONFIG, 0).batch(0)
    assert batch.weak_u is None
    assert batch.strong_u == ()

    batch = Sampler(data(), Views(labeled=False, weak=True), CONFIG, 0).batch(0)
    assert batch.image_l is None
    assert batch.weak_u.shape == (2, 3, 32, 32)


def test_without_a_label_unlabeled_crops_fill_the_batch_until_there_is_one() -> None:
    some, views = data(), Views(labeled=True, weak=True)
    regions, some.labeled = some.labeled, []
    sampler = Sampler(some, views, CONFIG, 0)
    before = sampler.batch(3)
    some.labeled = regions
    after = sampler.batch(3)

    assert before.image_l is None
    assert len(before.weak_u) == 3 + 2
    assert (len(after.image_l), len(after.weak_u)) == (3, 2)
    assert torch.equal(after.weak_u, before.weak_u[:2])


def test_strong_views_show_the_weak_view_in_other_colors() -> None:
    config = CONFIG.model_copy(update={"color_strong": "none"})
    batch = Sampler(data(), Views(weak=True, strong=1), config, 0).batch(3)
    assert torch.equal(batch.strong_u[0], batch.weak_u)

    colored = Sampler(data(), Views(weak=True, strong=1), CONFIG, 0).batch(3)
    assert torch.equal(colored.weak_u, batch.weak_u)
    assert not torch.equal(colored.strong_u[0], colored.weak_u)


def test_every_region_comes_once_in_each_round() -> None:
    sampler = Sampler(data(), Views(), CONFIG, 0)
    turns = [sampler._turn(k) for k in range(8)]
    assert [sorted(turns[k : k + 2]) for k in range(0, 8, 2)] == [[0, 1]] * 4


def told(found: TrainingData) -> Iterable[int]:
    return Sampler(found, Views(), CONFIG, 0).batch(0).labeled_pixels.values()


def test_a_batch_says_for_how_many_pixels_of_the_run_labels_speak() -> None:
    assert list(told(data())) == [2 * 64 * 64]
    assert list(told(data(scales=(0.5, 1.0)))) == [2 * 32 * 32]

    scribbled = data()
    label = np.full((64, 64), IGNORE, np.uint8)
    label[5, 5:25] = 1
    scribbled.labeled = [LabeledRegion("a#0", 0, Box(0, 0, 64, 64), label, 0)]
    assert list(told(scribbled)) == [10 * 20]


def test_what_lies_beyond_a_labeled_region_is_ignored_not_background() -> None:
    config = CONFIG.model_copy(update={"crop": 96, "scale": 0.0, "degrees": 0.0})
    label = Sampler(data(), Views(), config, 0).batch(0).label_l

    assert set(label.unique().tolist()) == {1, IGNORE}


def test_excluded_regions_count_nowhere() -> None:
    hidden = data(excluded=[(0, Box(0, 0, 128, 128)), (1, Box(0, 0, 128, 128))])
    batch = Sampler(hidden, Views(weak=True), CONFIG, 0).batch(0)

    assert not batch.valid_u.any()


def test_pixels_beyond_the_image_are_not_valid() -> None:
    small = TrainingData([from_array(field(0, side=24), "tiny")])
    config = CONFIG.model_copy(update={"scale": 0.0, "degrees": 0.0})
    valid = Sampler(small, Views(labeled=False, weak=True), config, 0).batch(0).valid_u

    assert valid.float().mean() == pytest.approx(24 * 24 / (32 * 32), abs=0.02)


def test_on_a_device_images_are_fractions_and_labels_indices() -> None:
    batch = Sampler(data(), Views(weak=True), CONFIG, 0).batch(0).to(torch.device("cpu"))

    assert batch.image_l.dtype == torch.float32
    assert 0 <= batch.image_l.min() <= batch.image_l.max() <= 1
    assert batch.label_l.dtype == torch.int64


def test_a_nucleus_without_a_class_is_ignored() -> None:
    instances = np.array([[0, 1], [2, 0]])
    classes = np.array([[0, 3], [0, 2]])
    assert class_labels(instances, classes).tolist() == [[0, 3], [IGNORE, IGNORE]]
    assert class_labels(instances).tolist() == [[0, 1], [1, 0]]


def smooth(height: int, width: int, step: float) -> np.ndarray:
    """A field whose red is the row's place and whose green the column's, in units of `step` pixels."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    return np.stack([rows * step, columns * step, np.full_like(rows, 99)], -1).round().astype(np.uint8)


def test_crops_of_images_with_other_pixels_show_the_same_tissue_at_one_size_with_its_label() -> None:
    fine, coarse = from_array(smooth(200, 200, 1), "fine"), from_array(smooth(100, 100, 2), "coarse")
    truth = np.zeros((200, 200), np.uint8)
    truth[60:140, 80:160] = 1
    still = SamplerConfig(crop=64, batch_labeled=1, scale=0.0, degrees=0.0, color_labeled="none")
    crops = []
    for image, label, scale in ((fine, truth, 0.5), (coarse, truth[::2, ::2], 1.0)):
        region = LabeledRegion("r", 0, Box.whole(label.shape), label, 1)
        batch = Sampler(TrainingData([image], [region], scales=[scale]), Views(), still, 0).batch(0)
        crops.append((batch.image_l.int(), batch.label_l))

    assert (crops[0][0] - crops[1][0]).abs().max() <= 2
    assert (crops[0][1] != crops[1][1]).float().mean() < 0.02


def test_fixed_crops_too_are_at_the_pixel_size_of_the_run() -> None:
    probes = [
        Sampler(TrainingData([from_array(image, "a")], scales=[scale]), Views(weak=True), CONFIG, 0).probe(2, 32)
        for image, scale in ((smooth(200, 200, 1), 0.5), (smooth(100, 100, 2), 1.0))
    ]

    assert torch.allclose(*probes, atol=2 / 255)


def test_places_excluded_in_pixels_of_the_image_are_excluded_at_any_size() -> None:
    hidden = TrainingData([from_array(field(0, 256), "a")], excluded=[(0, Box(0, 0, 256, 128))], scales=[0.5])
    sampler = Sampler(hidden, Views(weak=True, augment=False), CONFIG.model_copy(update={"crop": 128}), 0)
    valid = sampler.batch(0).valid_u

    assert valid.float().mean() == pytest.approx(0.5, abs=0.2)
    assert bool(valid.any(1).all(1).logical_not().any())  # whole columns are hidden, and only columns
    assert torch.equal(valid[0].any(0).expand(128, -1) & valid[0].any(1)[:, None], valid[0])


def test_crops_of_tinted_glass_are_passed_over_for_tissue() -> None:
    half = np.full((128, 256, 3), (240, 222, 234), np.uint8)
    half[:, 128:] = field(0)
    sampler = Sampler(TrainingData([from_array(half, "a")]), Views(labeled=False, weak=True), CONFIG, 0)
    seen = torch.cat([sampler.batch(step).weak_u for step in range(10)])

    assert bool((seen.float().std((2, 3)).amax(1) > 4).all())
