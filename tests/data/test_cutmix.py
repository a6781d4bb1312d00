"""Boxes as the two released codes draw them, and what is pasted by them."""

from __future__ import annotations

import math

import pytest
import torch

from napari_semiseg.data.cutmix import boxes_of_area, mixed, partner, random_boxes


def sides(box):
    rows, columns = box.any(1).nonzero().flatten(), box.any(0).nonzero().flatten()
    assert int(box.sum()) == len(rows) * len(columns)  # it is a rectangle
    return len(rows), len(columns)


def test_boxes_of_one_area_cover_that_share_in_many_shapes():
    torch.manual_seed(0)
    boxes = boxes_of_area((200, 64, 96), area=0.5)
    assert boxes.float().mean((1, 2)).sub(0.5).abs().max() < 0.02  # sides are rounded
    heights = torch.tensor([sides(box)[0] for box in boxes]) / 64
    assert heights.min() >= 0.5
    assert math.log(0.5) / 2 == pytest.approx(float(heights.log().mean()), abs=0.05)  # the logarithm is uniform


def test_boxes_of_one_area_lie_anywhere_in_the_crop():
    torch.manual_seed(0)
    covered = boxes_of_area((500, 32, 32), area=0.25).float().mean(0)
    assert covered[4:-4, 4:-4].min() > 0
    torch.testing.assert_close(covered, covered.flip(0), rtol=0, atol=0.15)


def test_a_box_of_the_whole_area_is_the_whole_crop():
    assert boxes_of_area((3, 16, 16), area=1.0).all()


def test_random_boxes_keep_within_their_bounds():
    torch.manual_seed(0)
    boxes = random_boxes((300, 100, 100), probability=1.0, area=(0.1, 0.3), aspect=2.0)
    for box in boxes:
        high, wide = sides(box)
        assert 0.1 * 100**2 - (high + wide + 1) <= high * wide <= 0.3 * 100**2  # sides are rounded down
        assert 0.5 * (wide - 2) <= high <= 2.0 * (wide + 1)


def test_some_crops_get_no_box():
    torch.manual_seed(0)
    boxes = random_boxes((400, 16, 16), probability=0.5)
    assert boxes.any(2).any(1).float().mean().item() == pytest.approx(0.5, abs=0.1)
    assert not random_boxes((20, 16, 16), probability=0.0).any()


@pytest.mark.parametrize("draw", [boxes_of_area, random_boxes])
def test_the_global_seed_fixes_the_boxes(draw):
    drawn = []
    for _ in range(2):
        torch.manual_seed(5)
        drawn.append(draw((6, 32, 32)))
    assert torch.equal(*drawn)
    assert not torch.equal(drawn[0], draw((6, 32, 32)))


def test_images_and_masks_are_mixed_by_the_same_boxes():
    boxes = torch.zeros(3, 4, 4, dtype=torch.bool)
    boxes[0, 1:3, 1:3] = True
    values = torch.arange(3.0)[:, None, None, None].expand(3, 2, 4, 4)
    pasted = mixed(boxes, values)
    assert (pasted[0][:, 1:3, 1:3] == 2).all()  # of the crop before it
    assert pasted[0].sum() == 2 * 4 * 2
    assert torch.equal(pasted[1:], values[1:])
    assert torch.equal(mixed(boxes, values[:, 0]), pasted[:, 0])
    assert torch.equal(partner(torch.arange(3)), torch.tensor([2, 0, 1]))


def test_a_single_crop_stays_as_it_is():
    values = torch.rand(1, 3, 8, 8)
    assert torch.equal(mixed(boxes_of_area((1, 8, 8)), values), values)
