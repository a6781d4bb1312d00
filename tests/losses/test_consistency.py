import math

import pytest
import torch

from napari_semiseg.losses.consistency import (
    logit_mse,
    probability_mse,
    pseudo_label_cross_entropy,
    softmax_mse,
)

VALID = torch.tensor([[[True, True], [False, True]], [[True, False], [True, True]]])


def probabilities(logits):
    """Class probabilities of every pixel, as lists that stay on the graph."""
    found = {}
    for b, i, j in torch.ones_like(logits[:, 0]).nonzero().tolist():
        powers = logits[b, :, i, j].exp()
        found[b, i, j] = [power / sum(powers) for power in powers]
    return found


def squared_difference_loop(student, teacher, threshold=-1.0):
    p, t = probabilities(student), probabilities(teacher)
    counted = [at for at in p if VALID[at] and max(t[at]) > threshold]
    terms = [(p[at][c] - t[at][c]) ** 2 for at in counted for c in range(student.shape[1])]
    return sum(terms) / len(terms)


def pseudo_label_loop(student, teacher, kept=lambda certainty: True, mean_over="kept"):
    p, t = probabilities(student), probabilities(teacher)
    valid = [at for at in p if VALID[at]]
    counted = [at for at in valid if kept(max(t[at]))]
    assert counted
    terms = [-torch.log(p[at][t[at].index(max(t[at]))]) for at in counted]
    return sum(terms) / len(valid if mean_over == "valid" else counted)


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(3)
    student = torch.randn(2, 3, 2, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    return student, 2 * torch.randn(2, 3, 2, 2, generator=generator, dtype=torch.float64)


def test_the_squared_difference_is_the_mean_over_valid_pixels_and_classes(agree, logits):
    student, teacher = logits
    agree(softmax_mse(student, teacher, valid=VALID), squared_difference_loop(student, teacher), student)


def test_the_squared_difference_can_be_summed_over_classes(agree, logits):
    student, teacher = logits
    found = softmax_mse(student, teacher, valid=VALID, over_classes="sum")
    agree(found, 3 * squared_difference_loop(student, teacher), student)


def test_probabilities_can_be_compared_as_they_are(agree, logits):
    student, teacher = logits
    found = probability_mse(student.softmax(1), teacher.softmax(1), valid=VALID)
    agree(found, squared_difference_loop(student, teacher), student)


@pytest.mark.parametrize(("over_classes", "divisor"), [("mean", 3), ("sum", 1)])
def test_logits_can_be_compared_as_they_are(agree, logits, over_classes, divisor):
    student, teacher = logits
    counted = VALID.nonzero().tolist()
    squares = [(student[b, c, i, j] - teacher[b, c, i, j]) ** 2 for b, i, j in counted for c in range(3)]
    found = logit_mse(student, teacher, valid=VALID, over_classes=over_classes)
    agree(found, sum(squares) / len(counted) / divisor, student)


def test_the_squared_difference_can_leave_out_what_the_teacher_is_not_sure_of(agree, logits):
    student, teacher = logits
    found = softmax_mse(student, teacher, valid=VALID, threshold=0.75)
    agree(found, squared_difference_loop(student, teacher, threshold=0.75), student)


def test_the_pseudo_label_is_the_class_that_the_teacher_finds_most_likely(agree, logits):
    student, teacher = logits
    agree(pseudo_label_cross_entropy(student, teacher, valid=VALID), pseudo_label_loop(student, teacher), student)


@pytest.mark.parametrize(
    ("keep", "kept"), [("confident", lambda certainty: certainty >= 0.7), ("unconfident", lambda c: c <= 0.7)]
)
@pytest.mark.parametrize("mean_over", ["kept", "valid"])
def test_a_threshold_keeps_one_side_and_the_mean_is_over_the_pixels_asked_for(agree, logits, keep, kept, mean_over):
    student, teacher = logits
    loss = pseudo_label_cross_entropy(student, teacher, valid=VALID, threshold=0.7, keep=keep, mean_over=mean_over)
    agree(loss, pseudo_label_loop(student, teacher, kept, mean_over), student)


def at_one_half():
    """A student, and a teacher that is exactly half sure of one of two pixels and quite sure of the other."""
    student = torch.tensor([[0.3, -0.2], [-1.0, 0.9]], dtype=torch.float64).reshape(1, 2, 1, 2).requires_grad_()
    return student, torch.tensor([[0.0, 3.0], [0.0, -3.0]], dtype=torch.float64).reshape(1, 2, 1, 2)


def test_a_pixel_exactly_at_the_threshold_is_kept_on_either_side(agree):
    student, teacher = at_one_half()
    p = probabilities(student)
    costs = [-torch.log(p[0, 0, x][0]) for x in (0, 1)]
    confident, unconfident = (
        pseudo_label_cross_entropy(student, teacher, threshold=0.5, keep=keep) for keep in ("confident", "unconfident")
    )
    agree(confident, (costs[0] + costs[1]) / 2, student)
    agree(unconfident, costs[0], student)


def test_a_pixel_exactly_at_the_threshold_is_not_kept_consistent(agree):
    student, teacher = at_one_half()
    p, t = probabilities(student)[0, 0, 1], probabilities(teacher)[0, 0, 1]
    agree(
        softmax_mse(student, teacher, threshold=0.5), sum((a - b) ** 2 for a, b in zip(p, t, strict=True)) / 2, student
    )


def test_equal_teacher_logits_give_the_lowest_class():
    student = torch.tensor([2.0, -1.0]).reshape(1, 2, 1, 1)
    loss = pseudo_label_cross_entropy(student, torch.zeros(1, 2, 1, 1))
    assert loss.item() == pytest.approx(math.log1p(math.exp(-3.0)))


@pytest.mark.parametrize("loss", [softmax_mse, probability_mse, logit_mse, pseudo_label_cross_entropy])
def test_no_gradient_reaches_the_teacher(loss):
    student = torch.randn(1, 2, 2, 2, requires_grad=True)
    teacher = torch.randn(1, 2, 2, 2, requires_grad=True)
    loss(student, teacher).backward()
    assert student.grad.abs().max() > 0
    assert teacher.grad is None


@pytest.mark.parametrize("loss", [softmax_mse, pseudo_label_cross_entropy])
@pytest.mark.parametrize("empty", [{"valid": torch.zeros(1, 2, 2, dtype=torch.bool)}, {"threshold": 1.0}])
def test_with_no_pixel_that_counts_it_is_a_zero_that_sends_back_zeros(loss, empty):
    student = torch.randn(1, 2, 2, 2, requires_grad=True)
    value = loss(student, torch.zeros(1, 2, 2, 2), **empty)
    value.backward()
    assert value.item() == 0.0
    assert torch.equal(student.grad, torch.zeros_like(student))
