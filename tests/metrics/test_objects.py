"""Scores of nuclei, against the definitions written out as loops over nuclei."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from napari_semiseg.metrics import ObjectCounts, compare


def aji_by_hand(predicted, truth):
    """Kumar et al. 2017, Algorithm 1, over sets of pixels."""
    nuclei_t, nuclei_p = pixels_of(truth), pixels_of(predicted)
    shared = joined = 0
    used = set()
    for nucleus in nuclei_t.values():
        best, best_iou = None, 0.0
        for label, other in nuclei_p.items():  # ascending: the lower label wins a tie
            if (iou := len(nucleus & other) / len(nucleus | other)) > best_iou:
                best, best_iou = label, iou
        shared += len(nucleus & nuclei_p[best]) if best else 0
        joined += len(nucleus | nuclei_p[best]) if best else len(nucleus)
        used.add(best)
    joined += sum(len(other) for label, other in nuclei_p.items() if label not in used)
    return shared / joined if joined else 1.0


def pq_by_hand(predicted, truth):
    """Kirillov et al. 2019, over sets of pixels: (pq, sq, dq, tp)."""
    nuclei_t, nuclei_p = pixels_of(truth), pixels_of(predicted)
    ious = [len(a & b) / len(a | b) for a in nuclei_t.values() for b in nuclei_p.values()]
    hits = [iou for iou in ious if iou > 0.5]
    tp, fp, fn = len(hits), len(nuclei_p) - len(hits), len(nuclei_t) - len(hits)
    if not nuclei_p and not nuclei_t:
        return 1.0, 1.0, 1.0, 0
    sq = sum(hits) / tp if tp else 0.0
    dq = tp / (tp + fp / 2 + fn / 2)
    return sq * dq, sq, dq, tp


def pixels_of(labels):
    return {int(i): set(zip(*np.nonzero(labels == i), strict=True)) for i in np.unique(labels) if i}


@st.composite
def label_pairs(draw):
    shape = draw(array_shapes(min_dims=2, max_dims=2, max_side=7))
    ids = st.sampled_from([0, 0, 1, 2, 3, 7, 2**31, 2**32 - 1])
    labels = arrays(np.uint32, shape, elements=ids)
    return draw(labels), draw(labels)


@settings(deadline=None, max_examples=200)
@given(label_pairs())
def test_every_score_equals_its_definition(labels):
    predicted, truth = labels
    pq, sq, dq, tp = pq_by_hand(predicted, truth)

    counts = compare(predicted, truth)

    assert counts.aji == pytest.approx(aji_by_hand(predicted, truth))
    assert (counts.pq, counts.sq, counts.dq, counts.f1) == pytest.approx((pq, sq, dq, dq))
    assert counts.matched == tp
    assert counts.count_error == len(pixels_of(predicted)) - len(pixels_of(truth))


@settings(deadline=None, max_examples=50)
@given(label_pairs(), st.sampled_from([1, 5, 10_000]))
def test_scores_do_not_depend_on_the_ids(labels, factor):
    predicted, truth = (array.astype(np.int64) for array in labels)
    assert compare(predicted * factor, truth * factor * 3) == compare(predicted, truth)


def test_labels_compared_with_themselves_are_perfect():
    labels = np.kron(np.arange(12).reshape(3, 4), np.ones((5, 5), dtype=int))
    counts = compare(labels, labels)
    assert (counts.aji, counts.pq, counts.f1, counts.count_error, counts.matched) == (1, 1, 1, 0, 11)


def test_counts_of_two_images_pool():
    one = np.array([[1, 1, 1, 0], [2, 2, 0, 0]])
    two = np.array([[1, 1, 0, 0], [0, 0, 3, 3]])
    pooled = compare(one, two) + compare(two, one)
    side_by_side = compare(np.hstack([one, two + (two > 0) * 10]), np.hstack([two, one + (one > 0) * 10]))
    assert pooled == side_by_side
    assert pooled == ObjectCounts(truth=4, predicted=4, matched=2, matched_iou=4 / 3, shared=4, joined=14)


def test_no_nuclei_at_all_is_perfect_and_nuclei_on_one_side_are_worth_nothing():
    none, one = np.zeros((4, 4), dtype=int), np.eye(4, dtype=int)
    assert all(getattr(compare(none, none), score) == 1 for score in ("aji", "pq", "sq", "dq", "f1"))
    assert all(getattr(compare(one, none), score) == 0 for score in ("aji", "pq", "sq", "dq", "f1"))
    assert all(getattr(compare(none, one), score) == 0 for score in ("aji", "pq", "sq", "dq", "f1"))


def test_an_iou_of_exactly_one_half_is_no_match():
    assert compare(np.array([[1, 1]]), np.array([[1, 0]])).matched == 0


def test_negative_labels_and_other_shapes_are_refused():
    with pytest.raises(ValueError, match="negative"):
        compare(np.array([[-1, 0]]), np.array([[0, 0]]))
    with pytest.raises(ValueError, match="shape"):
        compare(np.zeros((2, 2), int), np.zeros((2, 3), int))
