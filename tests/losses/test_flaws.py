"""Flaw maps: blurred, widened and normalized as the code of the paper does, and what is exchanged by them."""

import math

import pytest
import torch

from napari_semiseg.losses.flaws import exchange, flaw_targets, gaussian_blur, handled_flaws


def reflected(index, size):
    index = abs(index)
    return index if index < size else 2 * (size - 1) - index


def blur_loop(values, kernel):
    half, sigma = kernel // 2, 0.3 * ((kernel - 1) / 2 - 1) + 0.8
    at = range(-half, half + 1)
    weights = [[math.exp(-(i * i + j * j) / (2 * sigma**2)) for j in at] for i in at]
    total = sum(map(sum, weights))
    height, width = len(values), len(values[0])
    return [
        [
            sum(
                weights[i + half][j + half] / total * values[reflected(y + i, height)][reflected(x + j, width)]
                for i in range(-half, half + 1)
                for j in range(-half, half + 1)
            )
            for x in range(width)
        ]
        for y in range(height)
    ]


def widen_loop(values):
    size = len(values)
    return [
        [
            max(values[reflected(y + i, size)][reflected(x + j, size)] for i in (-1, 0, 1) for j in (-1, 0, 1))
            for x in range(size)
        ]
        for y in range(size)
    ]


def normalize_loop(values):
    low, high = min(map(min, values)), max(map(max, values))
    return [[(value - low) / (high - low + 1e-9) for value in row] for row in values]


@pytest.fixture
def random():
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.rand(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("kernel", [1, 3, 7])
def test_a_blur_is_the_gaussian_of_its_kernel(random, kernel):
    maps = random(1, 1, 9, 9)
    found = gaussian_blur(maps, kernel)[0, 0]
    expected = torch.tensor(blur_loop(maps[0, 0].tolist(), kernel), dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("nu", [0, 1, 2])
def test_targets_are_blurred_widened_and_normalized_differences(random, nu):
    probs, known = random(1, 2, 16, 16).softmax(1), torch.ones(1, 16, 16, dtype=torch.bool)
    onehot = torch.nn.functional.one_hot((random(1, 16, 16) > 0.5).long(), 2).movedim(-1, 1).double()
    values = (0.5 * (onehot - probs).abs().sum(1))[0].tolist()
    values = blur_loop(values, 3)
    for _ in range(nu):
        values = blur_loop(widen_loop(values), 5)
    expected = torch.tensor(normalize_loop(values), dtype=torch.float64)
    torch.testing.assert_close(flaw_targets(probs, onehot, known, nu=nu)[0, 0], expected, rtol=1e-9, atol=1e-9)


def test_a_perfect_prediction_and_one_without_labels_have_no_flaw(random):
    onehot = torch.eye(2, dtype=torch.float64)[:, :, None, None].expand(2, 2, 16, 16)
    every, none = torch.ones(2, 16, 16, dtype=torch.bool), torch.zeros(2, 16, 16, dtype=torch.bool)
    assert flaw_targets(onehot, onehot, every).abs().max() == 0
    assert flaw_targets(random(2, 2, 16, 16), onehot, none).abs().max() == 0


def test_what_the_detector_says_is_smoothed_and_normalized_and_faint_maps_are_zero(random):
    maps = random(2, 1, 48, 48) - 0.3
    maps[1] = maps[1] * 0.05  # nowhere above 0.1
    found = handled_flaws(maps)
    values = [[max(value, 0.0) for value in row] for row in maps[0, 0].tolist()]
    expected = torch.tensor(normalize_loop(blur_loop(values, 3)), dtype=torch.float64)
    torch.testing.assert_close(found[0, 0], expected, rtol=1e-9, atol=1e-9)
    assert found[1].abs().max() == 0


def test_each_pixel_follows_the_prediction_with_the_smaller_flaw():
    left, right = torch.zeros(1, 2, 1, 5), torch.ones(1, 2, 1, 5)
    flaws_left = torch.tensor([0.1, 0.5, 0.3, 0.7, 0.9]).view(1, 1, 1, 5)
    flaws_right = torch.tensor([0.2, 0.4, 0.3, 0.5, 0.8]).view(1, 1, 1, 5)
    found = exchange(left, right, flaws_left, flaws_right, threshold=0.6)

    assert found.left[0, 0, 0].tolist() == [0, 1, 0, 1, 0]  # equal flaws, and flaws beyond the threshold: its own
    assert found.right[0, 0, 0].tolist() == [0, 1, 1, 1, 1]
    assert found.both_bad[0, 0, 0].tolist() == [False, False, False, False, True]
    assert found.taken.item() == pytest.approx(2 / 5)
