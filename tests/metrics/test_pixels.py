"""Scores of pixels, against plain loops over pixels."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from napari_semiseg import metrics


@st.composite
def class_maps(draw, classes=4):
    shape = draw(array_shapes(min_dims=2, max_dims=2, max_side=6))
    maps = arrays(np.uint8, shape, elements=st.integers(0, classes - 1))
    return draw(maps), draw(maps), draw(arrays(bool, shape))


@settings(deadline=None, max_examples=150)
@given(class_maps())
def test_every_score_of_the_foreground_equals_a_count_by_hand(maps):
    predicted, truth, valid = maps
    tp = fp = fn = tn = right = 0
    for p, t, v in zip(predicted.flat, truth.flat, valid.flat, strict=True):
        if v:
            tp += bool(p > 0 and t > 0)
            fp += bool(p > 0 and t == 0)
            fn += bool(p == 0 and t > 0)
            tn += bool(p == 0 and t == 0)
            right += bool(p == t)

    table = metrics.confusion(predicted, truth, 4, valid=valid)

    assert metrics.foreground(table).tolist() == [[tn, fp], [fn, tp]]
    if not valid.any():
        assert all(math.isnan(score(table)) for score in (metrics.dice, metrics.iou, metrics.accuracy))
        return
    assert metrics.dice(table) == (2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 1)
    assert metrics.iou(table) == (tp / (tp + fp + fn) if tp + fp + fn else 1)
    assert metrics.sensitivity(table) == (tp / (tp + fn) if tp + fn else 1)
    assert metrics.specificity(table) == (tn / (tn + fp) if tn + fp else 1)
    assert metrics.accuracy(table) == right / int(valid.sum())


@settings(deadline=None, max_examples=150)
@given(class_maps())
def test_scores_of_classes_equal_a_count_by_hand_and_absent_classes_do_not_count(maps):
    predicted, truth, _ = maps
    dices, ious = [], []
    for c in range(4):
        both = sum(p == c and t == c for p, t in zip(predicted.flat, truth.flat, strict=True))
        either = sum(p == c or t == c for p, t in zip(predicted.flat, truth.flat, strict=True))
        ious.append(both / either if either else math.nan)
        dices.append(2 * both / (both + either) if either else math.nan)

    table = metrics.confusion(predicted, truth, 4)

    np.testing.assert_allclose(metrics.class_iou(table), ious, atol=1e-12)
    np.testing.assert_allclose(metrics.class_dice(table), dices, atol=1e-12)
    assert metrics.mean_iou(table) == pytest.approx(np.nanmean(ious))
    assert metrics.mean_dice(table) == pytest.approx(np.nanmean(dices))


@settings(deadline=None, max_examples=50)
@given(class_maps(), class_maps())
def test_tables_add_up_to_the_table_of_both_images(first, second):
    both = [np.concatenate([a.ravel(), b.ravel()]) for a, b in zip(first[:2], second[:2], strict=True)]

    added = metrics.confusion(*first[:2], 4) + metrics.confusion(*second[:2], 4)

    np.testing.assert_array_equal(metrics.confusion(*both, 4), added)


def test_nothing_to_find_and_nothing_found_is_perfect():
    empty = np.zeros((3, 3), dtype=bool)
    table = metrics.confusion(empty, empty)
    assert metrics.dice(table) == metrics.iou(table) == metrics.sensitivity(table) == metrics.mean_iou(table) == 1


def test_a_false_alarm_in_an_empty_image_has_dice_zero():
    table = metrics.confusion(np.ones((3, 3), dtype=bool), np.zeros((3, 3), dtype=bool))
    assert metrics.dice(table) == metrics.iou(table) == metrics.specificity(table) == 0
    assert metrics.sensitivity(table) == 1


def test_ignored_pixels_may_hold_any_class():
    truth = np.array([[0, 1, 255]], dtype=np.uint8)
    table = metrics.confusion(np.array([[0, 1, 1]]), truth, valid=truth != 255)
    assert table.tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize(
    ("predicted", "truth"),
    [(np.zeros((2, 2)), np.zeros((2, 3))), (np.full((2, 2), 2), np.zeros((2, 2))), (-np.ones((1, 1)), np.ones((1, 1)))],
)
def test_shapes_and_classes_that_do_not_fit_are_refused(predicted, truth):
    with pytest.raises(ValueError, match=r"shape|classes"):
        metrics.confusion(predicted, truth)
