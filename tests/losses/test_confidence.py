import pytest
import torch

from napari_semiseg.losses.confidence import confident_mse

VALID = torch.tensor([[[True, True], [False, True]], [[True, False], [True, True]]])
THRESHOLD = 0.7


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(3)
    student = torch.randn(2, 3, 2, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    return student, 2 * torch.randn(2, 3, 2, 2, generator=generator, dtype=torch.float64)


def loop(student, teacher, weigh, divisor):
    squares, sure = [], []
    for b, i, j in VALID.nonzero().tolist():
        p, t = ([z[b, c, i, j].exp() / z[b, :, i, j].exp().sum() for c in range(3)] for z in (student, teacher))
        squares.append(sum((p[c] - t[c]) ** 2 for c in range(3)) / divisor)
        sure.append(float(max(t) >= THRESHOLD))
    assert 0 < sum(sure) < len(sure)
    if weigh == "pixels":
        return sum(k * square for k, square in zip(sure, squares, strict=True)) / len(sure)
    return sum(sure) / len(sure) * sum(squares) / len(squares)


@pytest.mark.parametrize("weigh", ["batch", "pixels"])
@pytest.mark.parametrize(("over_classes", "divisor"), [("sum", 1), ("mean", 3)])
def test_it_is_the_squared_difference_times_the_share_or_the_mask_of_sure_pixels(
    agree, logits, weigh, over_classes, divisor
):
    student, teacher = logits
    found = confident_mse(student, teacher, threshold=THRESHOLD, valid=VALID, weigh=weigh, over_classes=over_classes)
    agree(found, loop(student, teacher, weigh, divisor), student)


@pytest.mark.parametrize("weigh", ["batch", "pixels"])
def test_a_pixel_exactly_at_the_threshold_is_sure(agree, weigh):
    student = torch.tensor([[0.3, -0.2], [-1.0, 0.9]], dtype=torch.float64).reshape(1, 2, 1, 2).requires_grad_()
    teacher = torch.tensor([[0.0, 3.0], [0.0, -3.0]], dtype=torch.float64).reshape(1, 2, 1, 2)
    every = sum(
        (z.exp()[c] / z.exp().sum() - t.exp()[c] / t.exp().sum()) ** 2
        for z, t in ((student[0, :, 0, x], teacher[0, :, 0, x]) for x in (0, 1))
        for c in (0, 1)
    )
    agree(confident_mse(student, teacher, threshold=0.5, weigh=weigh), every / 2, student)


@pytest.mark.parametrize("weigh", ["batch", "pixels"])
@pytest.mark.parametrize("empty", [{"valid": torch.zeros(2, 2, 2, dtype=torch.bool)}, {"threshold": 1.0}])
def test_with_nothing_valid_or_nothing_sure_it_is_a_zero_that_sends_back_zeros(logits, weigh, empty):
    student, teacher = logits
    value = confident_mse(student, teacher, **{"threshold": 0.9, **empty}, weigh=weigh)
    value.backward()
    assert value.item() == 0.0
    assert torch.equal(student.grad, torch.zeros_like(student))


def test_no_gradient_reaches_the_teacher():
    student, teacher = (torch.randn(1, 2, 2, 2, requires_grad=True) for _ in range(2))
    confident_mse(student, teacher, threshold=0.0).backward()
    assert student.grad.abs().max() > 0
    assert teacher.grad is None
