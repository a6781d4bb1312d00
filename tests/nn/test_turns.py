import pytest
import torch

from napari_semiseg.nn.turns import Turns


def turns(flip, quarters, scale=None):
    return Turns(torch.tensor([flip]), torch.tensor([quarters]), None if scale is None else torch.tensor([scale]))


def test_a_map_is_flipped_upside_down_and_then_turned_counterclockwise():
    image = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[None, None]
    assert turns(True, 0).apply(image)[0, 0].tolist() == [[3, 4], [1, 2]]
    assert turns(False, 1).apply(image)[0, 0].tolist() == [[2, 4], [1, 3]]
    assert turns(True, 1).apply(image)[0, 0].tolist() == [[4, 2], [3, 1]]


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_turning_back_and_flipping_back_gives_the_map_again(flip, quarters):
    image = torch.rand(1, 3, 6, 6)
    back = turns(False, -quarters).apply(turns(flip, quarters).apply(image))
    assert torch.equal(turns(flip, 0).apply(back), image)


def test_a_scale_of_one_changes_nothing():
    image = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(turns(False, 0, 1.0).apply(image), image, rtol=0, atol=1e-6)


def test_a_coordinate_is_magnified_about_the_center():
    side = 32
    column = torch.arange(side, dtype=torch.float32).expand(1, 1, side, side)
    found = turns(False, 0, 1.1).apply(column)[0, 0, 0]
    center = (side - 1) / 2
    torch.testing.assert_close(found, center + (torch.arange(side) - center) / 1.1, rtol=0, atol=1e-4)


def test_what_a_smaller_scale_brings_in_at_the_border_is_not_shown():
    mask = torch.ones(1, 40, 40, dtype=torch.bool)
    smaller, larger = turns(False, 0, 0.8).apply_mask(mask), turns(False, 0, 1.2).apply_mask(mask)
    assert not smaller[0, 0].any()
    assert not smaller[0, :, -1].any()
    assert smaller.sum().item() == pytest.approx(32**2, rel=0.15)
    assert larger[0, 1:-1, 1:-1].all()


def test_only_what_is_made_of_true_pixels_stays_true():
    mask = torch.ones(1, 21, 21, dtype=torch.bool)
    mask[0, 10, 10] = False  # the center stays where it is
    for scale, hidden in ((0.93, 1), (1.07, 9)):  # magnified, its neighbors are interpolated from it
        middle = turns(False, 1, scale).apply_mask(mask)[0, 5:16, 5:16]
        assert not middle[5, 5]
        assert int((~middle).sum()) == hidden


def test_the_gradient_passes_a_turn():
    image = torch.rand(2, 1, 6, 6, dtype=torch.float64, requires_grad=True)
    drawn = Turns(torch.tensor([True, False]), torch.tensor([1, 2]), torch.tensor([0.9, 1.1]))
    assert torch.autograd.gradcheck(drawn.apply, image)


def test_each_map_is_turned_in_its_own_way_that_the_seed_fixes():
    torch.manual_seed(0)
    drawn = Turns.draw(400, 0.1)
    assert drawn.flips.float().mean().item() == pytest.approx(0.5, abs=0.1)
    assert torch.bincount(drawn.quarters, minlength=4).min() > 60
    assert drawn.scales.min() >= 0.9
    assert drawn.scales.max() <= 1.1
    torch.manual_seed(0)
    assert torch.equal(Turns.draw(400, 0.1).quarters, drawn.quarters)
    assert Turns.draw(3).scales is None
