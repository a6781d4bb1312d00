import pytest
import torch

from napari_semiseg.nn.channel_dropout import channel_dropout, complementary_dropout


def test_whole_channels_are_left_out_and_the_others_enlarged():
    torch.manual_seed(0)
    left = channel_dropout(torch.ones(4, 500, 3, 3), 0.5)
    assert set(left.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(left.amax((2, 3)), left.amin((2, 3)))
    assert left.mean().item() == pytest.approx(1.0, abs=0.1)


def test_every_channel_is_in_one_view_or_shared_by_both():
    torch.manual_seed(0)
    first, second = complementary_dropout(torch.ones(6, 400, 2, 2), torch.ones(6, 400, 2, 2))
    assert torch.equal(first + second, torch.full_like(first, 2.0))
    whole = (first == 1).flatten(1).all(1)
    assert int(whole.sum()) == 3  # half of the images keep everything
    divided = first[~whole]
    assert set(divided.unique().tolist()) == {0.0, 2.0}
    assert divided.mean().item() == pytest.approx(1.0, abs=0.15)
    assert torch.equal(divided.amax((2, 3)), divided.amin((2, 3)))


def test_both_views_get_a_gradient():
    first, second = (torch.ones(2, 50, 2, 2, requires_grad=True) for _ in range(2))
    torch.stack(complementary_dropout(first, second)).sum().backward()
    assert torch.equal(first.grad + second.grad, torch.full_like(first, 2.0))
