import math

import pytest
import torch

from napari_semiseg.losses.entropy import softmax_entropy


def loop(logits, valid):
    """CDCL Eq. 15, one valid pixel at a time."""
    terms = []
    for b, i, j in valid.nonzero().tolist():
        powers = logits[b, :, i, j].exp()
        terms.append(-sum(power / sum(powers) * torch.log(power / sum(powers)) for power in powers))
    return sum(terms) / len(terms)


def test_it_is_the_mean_entropy_of_the_valid_pixels(agree):
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(2, 3, 2, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    valid = torch.tensor([[[True, True], [False, True]], [[True, False], [True, True]]])
    agree(softmax_entropy(logits, valid=valid), loop(logits, valid), logits)
    agree(softmax_entropy(logits), loop(logits, torch.ones_like(valid)), logits)


def test_it_is_log_c_where_nothing_is_known():
    assert softmax_entropy(torch.zeros(1, 4, 2, 2)).item() == pytest.approx(math.log(4), rel=1e-6)


def test_it_is_zero_with_a_finite_gradient_where_a_probability_underflows():
    logits = torch.tensor([1e4, 0.0]).reshape(1, 2, 1, 1).requires_grad_()
    loss = softmax_entropy(logits)
    loss.backward()
    assert loss.item() == 0.0
    assert torch.isfinite(logits.grad).all()


def test_without_a_valid_pixel_it_is_a_zero_that_sends_back_zeros():
    logits = torch.randn(1, 2, 2, 2, requires_grad=True)
    loss = softmax_entropy(logits, valid=torch.zeros(1, 2, 2, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(logits.grad, torch.zeros_like(logits))
