import pytest

from napari_semiseg.nn.collapse import CUT, CollapseGuard


def watched(guard, *shares):
    said = []
    for share in shares:
        guard.watch(share)
        said += guard.warnings(share)
    return said


@pytest.mark.parametrize(("share", "words"), [(0.0, "no nucleus"), (1.0, "nothing but nuclei")])
def test_one_class_for_too_many_steps_cuts_the_weight_and_is_said_once(share, words):
    guard = CollapseGuard(3)
    assert watched(guard, share, share) == []
    assert guard.weight == 1.0
    (said,) = watched(guard, share, share, share)
    assert words in said
    assert guard.weight == CUT


def test_both_classes_again_restore_the_weight_and_a_second_collapse_is_said_again():
    guard = CollapseGuard(2)
    watched(guard, 0.0, 0.0)
    watched(guard, 0.2)
    assert guard.weight == 1.0
    assert len(watched(guard, 0.0, 0.0)) == 1


def test_steps_without_pseudo_labels_are_not_counted():
    guard = CollapseGuard(2)
    assert watched(guard, 0.0, None, None) == []
    assert len(watched(guard, 0.0)) == 1


def test_without_patience_nothing_is_a_collapse():
    guard = CollapseGuard(0)
    assert watched(guard, *[0.0] * 100) == []
    assert guard.weight == 1.0


def test_the_count_is_saved():
    guard, other = CollapseGuard(2), CollapseGuard(2)
    watched(guard, 0.0, 0.0)
    other.load_state_dict(guard.state_dict())
    assert other.weight == CUT
