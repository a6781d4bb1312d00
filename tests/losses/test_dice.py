import pytest
import torch

from napari_semiseg.losses.dice import soft_dice

IGNORE = 255


def loop(logits, label, classes, smooth):
    """One minus the mean of the classes' coefficients, one pixel at a time."""
    coefficients = []
    for c in classes:
        overlap, size = 0.0, 0.0
        for b, i, j in (label != IGNORE).nonzero().tolist():
            powers = logits[b, :, i, j].exp()
            p, g = powers[c] / sum(powers), float(label[b, i, j] == c)
            overlap, size = overlap + p * g, size + p + g
        coefficients.append((2 * overlap + smooth) / (size + smooth))
    return 1 - sum(coefficients) / len(coefficients)


def sure_of(label):
    return 40.0 * torch.nn.functional.one_hot(label, 2).movedim(-1, 1).double()


@pytest.mark.parametrize("background", [False, True])
def test_it_is_one_minus_the_mean_coefficient_over_the_classes(agree, background):
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 3, 2, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    label = torch.tensor([[[0, 1], [2, IGNORE]], [[1, 1], [IGNORE, 0]]])
    found = soft_dice(logits, label, background=background, smooth=0.5)
    agree(found, loop(logits, label, range(0 if background else 1, 3), smooth=0.5), logits)


def test_a_perfect_prediction_costs_nothing_and_a_wrong_one_costs_one():
    label = torch.tensor([[[0, 1], [1, 0]]])
    assert soft_dice(sure_of(label), label).item() == pytest.approx(0.0, abs=1e-9)
    assert soft_dice(sure_of(1 - label), label).item() == pytest.approx(1.0, abs=1e-4)


def test_no_nucleus_labeled_and_none_predicted_costs_nothing():
    label = torch.zeros(1, 2, 2, dtype=torch.long)
    assert soft_dice(sure_of(label), label).item() == pytest.approx(0.0, abs=1e-9)


def test_with_every_pixel_ignored_it_is_a_zero_that_sends_back_zeros():
    logits = torch.randn(1, 2, 2, 2, requires_grad=True)
    loss = soft_dice(logits, torch.full((1, 2, 2), IGNORE))
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(logits.grad, torch.zeros_like(logits))
