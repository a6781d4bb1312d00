"""What a gesture over a tile does."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_semiseg.app import corrections
from napari_semiseg.app.corrections import correct
from napari_semiseg.app.painting import BACKGROUND_ID, PROPOSED_FROM, from_layer, to_layer
from napari_semiseg.project.tile_annotation import ACCEPTED_FROM, PROPOSED, Tally

A, B = PROPOSED_FROM, PROPOSED_FROM + 1


@pytest.fixture
def labels() -> np.ndarray:
    """Two proposed nuclei side by side with a gap of two pixels, and a drawn one below."""
    labels = np.zeros((40, 40), np.uint16)
    labels[5:15, 4:16] = A
    labels[5:15, 18:30] = B
    labels[25:35, 10:20] = 7
    return labels


def applied(labels: np.ndarray, correction: corrections.Correction | None) -> np.ndarray:
    assert correction is not None
    after = labels.copy()
    after[correction.where] = correction.numbers
    return after


def test_a_click_accepts_a_proposed_nucleus_and_no_other(labels):
    found = correct(labels, [(10, 10)])
    after = applied(labels, found)

    assert found.gesture == "accept"
    assert (after[5:15, 4:16] == ACCEPTED_FROM).all()
    assert found.heirs == {ACCEPTED_FROM: A}
    assert correct(labels, [(30, 15)]) is None  # a drawn one is accepted already
    assert correct(labels, [(1, 1)]) is None


def test_accepting_the_rest_keeps_nuclei_apart(labels):
    after = applied(labels, corrections.accept_all(labels))

    assert np.unique(after).tolist() == [0, 7, ACCEPTED_FROM, ACCEPTED_FROM + 1]
    assert corrections.accept_all(after) is None


def test_a_nucleus_is_deleted_whoever_made_it(labels):
    assert not (applied(labels, corrections.delete(labels, 7)) == 7).any()
    assert not (applied(labels, corrections.delete(labels, A)) == A).any()
    assert corrections.delete(labels, BACKGROUND_ID) is None


@pytest.mark.parametrize("path", [[(2, 9), (18, 10)], [(0, 2), (17, 17)], [(18, 16), (2, 4)]])
def test_a_path_across_a_nucleus_cuts_it_and_loses_no_pixel(labels, path):
    found = correct(labels, path)
    after = applied(labels, found)

    assert found.gesture == "cut"
    parts = np.unique(after[labels == A])
    assert parts.tolist() == [8, 9]
    assert all(ndimage.label(after == part)[1] == 1 for part in parts)
    assert ((after == 0) == (labels == 0)).all()
    assert set(found.heirs.values()) == {A}
    assert (after[labels == B] == B).all()


def test_a_path_that_ends_inside_cuts_nothing(labels):
    assert correct(labels, [(2, 9), (9, 9)]) is None


def test_a_cut_that_leaves_a_splinter_is_none(labels):
    assert correct(labels, [(2, 4), (18, 4)]) is None


def test_a_path_from_one_nucleus_into_another_joins_them_across_the_gap(labels):
    found = correct(labels, [(10, 10), (10, 24)])
    after = applied(labels, found)

    assert found.gesture == "join"
    assert ndimage.label(after == 8)[1] == 1
    assert (after[(labels == A) | (labels == B)] == 8).all()
    assert not np.isin(after, (A, B)).any()
    assert (after[labels == 7] == 7).all()


def ring(y: float, x: float, radius: float) -> list[tuple[float, float]]:
    return [(y + radius * np.sin(turn), x + radius * np.cos(turn)) for turn in np.linspace(0, 2 * np.pi, 30)]


def test_a_ring_around_a_nucleus_draws_it_anew_and_spares_its_neighbors(labels):
    found = correct(labels, ring(10, 10, 7.5))
    after = applied(labels, found)

    assert found.gesture == "redraw"
    assert not (after == A).any()
    assert (after[labels == B] == B).all()
    assert after[3, 10] == 8
    assert after[5, 4] == 0  # a corner of the old nucleus that the ring leaves out
    assert found.heirs == {8: A}


def test_a_ring_on_free_ground_draws_a_nucleus(labels):
    found = correct(labels, ring(30, 32, 4))

    assert found.gesture == "draw"
    assert (applied(labels, found) == 8).sum() > 30
    assert found.heirs == {}


def test_a_ring_may_leave_the_tile(labels):
    after = applied(labels, correct(labels, ring(39, 30, 5)))

    assert (after[-1, 27:34] == 8).all()


def test_what_is_not_accepted_is_kept_on_disk_and_counts_for_nothing(labels):
    after = applied(labels, correct(labels, [(10, 10)]))
    annotation = from_layer(after, {7: 3})

    assert annotation.tally == Tally(drawn=1, accepted=1, proposed=1)
    assert annotation.nuclei == 2
    assert (annotation.classes[labels == B] == PROPOSED).all()
    again, class_of = to_layer(annotation)
    np.testing.assert_array_equal(again, after)
    assert class_of[7] == 3


def test_ids_of_other_origin_are_not_taken_for_proposals():
    from napari_semiseg.project.tile_annotation import TileAnnotation

    instance = np.array([[0, 50_000, 2]], np.uint32)
    labels, _ = to_layer(TileAnnotation(instance, np.array([[0, 2, 2]], np.uint8)))

    assert labels.tolist() == [[0, 2, 1]]
