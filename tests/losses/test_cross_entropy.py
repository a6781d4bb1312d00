import math

import pytest
import torch

from napari_semiseg.data import batch
from napari_semiseg.losses import cross_entropy as module
from napari_semiseg.losses.cross_entropy import cross_entropy

IGNORE = 255


def loop(logits, label):
    """The mean over labeled pixels, one pixel at a time."""
    terms = []
    for b, i, j in (label != IGNORE).nonzero().tolist():
        powers = logits[b, :, i, j].exp()
        terms.append(-torch.log(powers[label[b, i, j]] / sum(powers)))
    return sum(terms) / len(terms)


def test_it_is_the_mean_over_the_labeled_pixels_of_the_negative_log_probability(agree):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 2, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    label = torch.tensor([[[0, 1], [2, IGNORE]], [[1, 1], [IGNORE, 0]]])
    agree(cross_entropy(logits, label), loop(logits, label), logits)


def test_weights_of_classes_count_in_the_sum_and_in_what_it_is_divided_by(agree):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 2, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    label = torch.tensor([[[0, 1], [2, IGNORE]], [[1, 1], [IGNORE, 0]]])
    weights = [1.93, 8.06, 0.5]
    total, divisor = 0.0, 0.0
    for b, i, j in (label != IGNORE).nonzero().tolist():
        powers, found = logits[b, :, i, j].exp(), int(label[b, i, j])
        total = total - weights[found] * torch.log(powers[found] / sum(powers))
        divisor += weights[found]
    agree(cross_entropy(logits, label, weights=torch.tensor(weights, dtype=torch.float64)), total / divisor, logits)


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 4.0])])
def test_with_every_pixel_ignored_it_is_a_zero_that_sends_back_zeros(weights):
    logits = torch.randn(1, 2, 2, 2, requires_grad=True)
    loss = cross_entropy(logits, torch.full((1, 2, 2), IGNORE), weights=weights)
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_ignored_pixels_get_no_gradient():
    logits = torch.randn(1, 2, 1, 2, requires_grad=True)
    cross_entropy(logits, torch.tensor([[[1, IGNORE]]])).backward()
    assert logits.grad[..., 0].abs().min() > 0
    assert torch.equal(logits.grad[..., 1], torch.zeros(1, 2, 1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single_precision(dtype):
    logits = torch.zeros(4, 2, 160, 160, dtype=dtype)
    loss = cross_entropy(logits, torch.zeros(4, 160, 160, dtype=torch.long))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.log(2), rel=1e-5)


def test_losses_and_batches_agree_on_the_ignored_class():
    assert module.IGNORE == batch.IGNORE == IGNORE
