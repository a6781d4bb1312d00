import math

import pytest
import torch

from napari_semiseg.losses.similarity import log_sum_exp_similarity, most_similar


def vectors(rows, width=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, width, generator=generator, dtype=torch.float64, requires_grad=True)


def loop(anchors, keys, temperature, skip=None):
    found = []
    for row, q in enumerate(anchors):
        kept = [k for at, k in enumerate(keys) if skip is None or skip[at] != row]
        found.append(torch.log(sum(torch.exp((q * k).sum() / temperature) for k in kept)))
    return torch.stack(found)


@pytest.mark.parametrize("temperature", [0.7, 0.02], ids=["small exponents", "exponents that overflow unless shifted"])
@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_a_row_is_the_logarithm_of_the_sum_over_all_keys(agree, temperature, chunk):
    anchors, keys = vectors(9), vectors(13, seed=1)
    weights = torch.arange(1.0, 10.0, dtype=torch.float64)
    found = log_sum_exp_similarity(anchors, keys, temperature, chunk=chunk)
    expected = loop(anchors, keys, temperature)
    agree((found * weights).sum(), (expected * weights).sum(), anchors, keys)


@pytest.mark.parametrize("temperature", [0.7, 0.02])
def test_a_skipped_pair_is_left_out(agree, temperature):
    anchors, keys = vectors(5), vectors(7, seed=1)
    skip = torch.tensor([2, -1, 0, 0, 4, -1, 2])
    found = log_sum_exp_similarity(anchors, keys, temperature, chunk=2, skip=skip)
    agree(found.sum(), loop(anchors, keys, temperature, skip).sum(), anchors, keys)


@pytest.mark.parametrize("temperature", [0.7, 0.02])
def test_more_keys_than_fit_one_block_are_merged(temperature):
    anchors, keys = vectors(3), vectors(1_300, seed=1)
    found = log_sum_exp_similarity(anchors, keys, temperature)
    torch.testing.assert_close(found, (anchors @ keys.T / temperature).logsumexp(1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("temperature", [0.7, 0.02])
def test_the_gradients_are_those_of_finite_differences(temperature):
    anchors, keys = vectors(4, width=3), vectors(5, width=3, seed=1)
    assert torch.autograd.gradcheck(lambda a, k: log_sum_exp_similarity(a, k, temperature, chunk=3), (anchors, keys))


@pytest.mark.parametrize("temperature", [0.7, 0.02])
def test_an_anchor_with_every_key_skipped_costs_nothing_and_sends_back_zeros(temperature):
    anchors, keys = vectors(2), vectors(1, seed=1)
    rows = log_sum_exp_similarity(anchors, keys, temperature, skip=torch.tensor([0]))
    assert rows[0].item() == -math.inf
    torch.nn.functional.softplus(rows).sum().backward()
    assert torch.equal(anchors.grad[0], torch.zeros(4, dtype=torch.float64))
    assert anchors.grad[1].abs().max() > 0
    assert torch.isfinite(keys.grad).all()


def test_autocast_does_not_lower_the_precision():
    anchors, keys = vectors(8, 32).detach().float().requires_grad_(), vectors(9, 32, seed=1).detach().float()
    exact = log_sum_exp_similarity(anchors, keys, 0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = log_sum_exp_similarity(anchors, keys, 0.1)
        (gradient,) = torch.autograd.grad(found.sum(), anchors)
    assert found.dtype == torch.float32
    assert torch.equal(found, exact)
    assert torch.equal(gradient, torch.autograd.grad(exact.sum(), anchors)[0])


def test_single_precision_is_enough_for_cosines():
    unit = [torch.nn.functional.normalize(vectors(n, 128, seed=n).detach(), dim=1) for n in (50, 2_000)]
    found = []
    for dtype in (torch.float32, torch.float64):
        anchors, keys = (rows.to(dtype).requires_grad_() for rows in unit)
        rows = log_sum_exp_similarity(anchors, keys, 0.1)
        found.append([rows.detach(), *torch.autograd.grad(rows.sum(), (anchors, keys))])
    for single, double in zip(*found, strict=True):
        assert (single - double).abs().max() < 1e-5 * double.abs().max()


def test_keys_without_gradient_get_none():
    anchors, keys = vectors(3), vectors(4, seed=1).detach()
    log_sum_exp_similarity(anchors, keys, 0.5).sum().backward()
    assert anchors.grad.abs().min() > 0
    assert keys.grad is None


@pytest.mark.parametrize(("temperature", "chunk"), [(0.0, 8), (-1.0, 8), (0.1, 0)])
def test_a_temperature_or_chunk_that_is_not_positive_is_refused(temperature, chunk):
    with pytest.raises(ValueError, match="must be positive"):
        log_sum_exp_similarity(vectors(2), vectors(2), temperature, chunk=chunk)


def test_the_most_similar_key_is_the_first_of_equals():
    keys = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]]).repeat(300, 1)
    assert most_similar(torch.eye(2), keys, chunk=1).tolist() == [1, 0]
