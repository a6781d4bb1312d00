from copy import deepcopy

import pytest
import torch
from torch import nn

from napari_semiseg.nn.ema import ema_decay, ema_update


def test_the_decay_warms_up_as_the_papers_codes_do():
    table = {0: 0.0, 1: 0.5, 2: 2 / 3, 9: 0.9, 998: 1 - 1 / 999, 999: 0.999, 1_000: 0.999, 50_000: 0.999}
    for step, expected in table.items():
        assert ema_decay(step, 0.999) == pytest.approx(expected, abs=1e-12)


def test_a_teacher_follows_the_rule_number_by_number():
    torch.manual_seed(0)
    student = nn.Linear(2, 1, bias=False).double()
    teacher = deepcopy(student)
    with torch.no_grad():
        teacher.weight.fill_(7.0)
    expected = [7.0, 7.0]
    for step in range(50):
        with torch.no_grad():
            student.weight.copy_(torch.randn(1, 2, dtype=torch.float64))
        alpha = min(1 - 1 / (step + 1), 0.9)
        expected = [alpha * t + (1 - alpha) * s for t, s in zip(expected, student.weight[0].tolist(), strict=True)]
        ema_update(teacher, student, ema_decay(step, 0.9))
        assert teacher.weight[0].tolist() == pytest.approx(expected, abs=1e-12)


def test_the_first_step_copies_the_student_exactly():
    student, teacher = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
    ema_update(teacher, student, ema_decay(0, 0.999))
    assert torch.equal(teacher.weight, student.weight)


def test_running_statistics_are_averaged_and_counts_copied():
    teacher, student = nn.BatchNorm2d(2).double(), nn.BatchNorm2d(2).double()
    student(torch.rand(4, 2, 3, 3, dtype=torch.float64) + 5)
    mean = student.running_mean.clone()
    ema_update(teacher, student, 0.75)
    torch.testing.assert_close(teacher.running_mean, 0.25 * mean, rtol=0, atol=1e-12)
    assert teacher.num_batches_tracked == 1


def test_a_teacher_that_gathers_its_own_statistics_keeps_them():
    teacher, student = nn.BatchNorm2d(2).double(), nn.BatchNorm2d(2).double()
    nn.init.constant_(student.weight, 3.0)
    student(torch.rand(4, 2, 3, 3, dtype=torch.float64) + 5)
    ema_update(teacher, student, 0.75, buffers=False)
    assert teacher.weight.tolist() == [1.5, 1.5]
    assert teacher.running_mean.tolist() == [0.0, 0.0]
    assert teacher.num_batches_tracked == 0


def test_the_student_stays_and_no_gradient_is_recorded():
    student = nn.Linear(3, 3)
    teacher = deepcopy(student).requires_grad_(False)
    before = student.weight.clone()
    ema_update(teacher, student, 0.5)
    assert torch.equal(student.weight, before)
    assert teacher.weight.grad_fn is None
    assert not teacher.weight.requires_grad


def test_different_architectures_are_refused():
    with pytest.raises(ValueError, match="same tensors"):
        ema_update(nn.Linear(2, 2), nn.Linear(2, 2, bias=False), 0.5)
