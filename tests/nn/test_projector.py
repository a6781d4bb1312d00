import torch

from napari_semiseg.nn.projector import Projector, unit_length


def test_it_has_as_many_parameters_as_the_papers():
    assert sum(p.numel() for p in Projector().parameters()) == 98_688


def test_projections_have_unit_length_on_a_grid_twice_as_coarse():
    projection = Projector(8, 16)(torch.randn(2, 8, 10, 6))
    assert projection.shape == (2, 16, 5, 3)
    torch.testing.assert_close(projection.norm(dim=1), torch.ones(2, 5, 3))


def test_pooling_is_an_average_and_can_be_left_out():
    torch.manual_seed(0)
    pooled, plain = Projector(4, 4), Projector(4, 4, pool=1)
    plain.load_state_dict(pooled.state_dict())
    features = torch.randn(1, 4, 6, 6)
    by_hand = features.unfold(2, 2, 2).unfold(3, 2, 2).mean(dim=(4, 5))
    torch.testing.assert_close(pooled(features), plain(by_hand))


def test_a_zero_vector_stays_zero_and_its_gradient_is_finite():
    vectors = torch.zeros(1, 5, 1, 1, requires_grad=True)
    unit = unit_length(vectors)
    unit.sum().backward()
    assert torch.equal(unit, torch.zeros(1, 5, 1, 1))
    assert vectors.grad is not None
    assert vectors.grad.isfinite().all()


def test_half_precision_is_normalized_in_single_and_double_stays_double():
    unit = unit_length(torch.full((1, 4), 300.0, dtype=torch.float16))
    assert unit.dtype == torch.float32
    torch.testing.assert_close(unit, torch.full((1, 4), 0.5))
    assert unit_length(torch.ones(1, 4, dtype=torch.float64)).dtype == torch.float64
