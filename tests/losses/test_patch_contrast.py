import math
import subprocess
import sys

import pytest
import torch

from napari_semiseg.losses.patch_contrast import (
    BACKGROUND,
    FOREGROUND,
    MIXED,
    OUTSIDE,
    PatchCells,
    cross_patch_contrast,
    foreground_scores,
    patch_categories,
)

PATCH, WIDTH, TEMPERATURE = 2, 3, 0.1


def maps(seed, share):
    """Unit features and labels of two 4 x 6 maps; the patches are foreground, background and mixed ones."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2, WIDTH, 4, 6, generator=generator, dtype=torch.float64)
    score = torch.rand(2, 2, 3, generator=generator).repeat_interleave(PATCH, 1).repeat_interleave(PATCH, 2)
    labels = (torch.rand(2, 4, 6, generator=generator) < 0.85 * (score < share) + 0.1).long()
    return torch.nn.functional.normalize(features, dim=1).requires_grad_(), labels


@pytest.fixture
def sources():
    """Student, teacher and history, the maps beside the cells."""
    all_maps = [maps(seed, share) for seed, share in ((0, 0.5), (1, 0.5), (2, 0.4))]
    student, teacher, history = (PatchCells.from_maps(features, labels, PATCH) for features, labels in all_maps)
    return [features for features, _ in all_maps], student, teacher, history


def cells_of(features, labels):
    """Every cell with the score of its patch, counted anew: (feature, label, score, position)."""
    found = []
    for b, i, j in torch.ones_like(labels).nonzero().tolist():
        top, left = i - i % PATCH, j - j % PATCH
        patch = labels[b, top : top + PATCH, left : left + PATCH]
        score = sum(patch.flatten().tolist()) / PATCH**2
        found.append((features[b, :, i, j], labels[b, i, j].item(), score, (b, i, j)))
    return found


def is_bank(score):
    return score <= 0.3 or score >= 0.7


def is_negative(rule, anchor, key, current):
    (_, q_label, q_score, q_at), (_, k_label, k_score, k_at) = anchor, key
    if rule == "paper":
        opposite = (q_score >= 0.7 and k_score <= 0.3) or (q_score <= 0.3 and k_score >= 0.7)
        return opposite and q_label != k_label
    if rule == "sum":
        return q_score + k_score <= 0.3 + 0.7 and q_label != k_label
    if rule == "pixel":
        return is_bank(k_score) and q_label != k_label
    return is_bank(k_score) and not (current and q_at == k_at)


def loop(rule, student, teacher, history):
    """Eqs. 7 to 12 over patches, their cells, and all keys of the current and the previous batch."""
    anchors, positives, old = cells_of(*student), cells_of(*teacher), cells_of(*history)
    keys = [(key, True) for key in anchors + positives] + [(key, False) for key in old]
    per_patch, negatives = {}, 0
    for anchor, positive in zip(anchors, positives, strict=True):
        q, _, score, (b, i, j) = anchor
        if not is_bank(score):
            continue
        alike = torch.exp((q * positive[0]).sum() / TEMPERATURE)
        others = [key[0] for key, current in keys if is_negative(rule, anchor, key, current)]
        negatives += len(others)
        other = sum(torch.exp((q * k).sum() / TEMPERATURE) for k in others)
        per_patch.setdefault((b, i // PATCH, j // PATCH), []).append(-torch.log(alike / (alike + other)))
    means = [sum(costs) / PATCH**2 for costs in per_patch.values()]
    return sum(means) / len(means), negatives / (len(means) * PATCH**2)


@pytest.mark.parametrize("rule", ["paper", "sum", "pixel", "random"])
def test_it_is_the_mean_over_patches_of_the_mean_over_their_cells_of_equation_7(agree, sources, rule):
    features, student, teacher, history = sources
    labels = [cells.labels.reshape(2, 4, 6) for cells in (student, teacher, history)]
    keys = [student, teacher, PatchCells.from_maps(features[2], labels[2], PATCH)]
    keys[2].position[:] = -1
    term = cross_patch_contrast(student, teacher.features, keys, temperature=TEMPERATURE, rule=rule, chunk=5)
    expected, negatives = loop(rule, *zip(features, labels, strict=True))
    agree(term.loss, expected, *features)
    assert term.mean_negatives == pytest.approx(negatives, rel=1e-12)


def test_without_keys_that_want_a_gradient_it_reaches_the_anchors_alone(agree, sources):
    features, student, teacher, history = sources
    keys = [part.as_history() for part in (student, teacher, history)]
    term = cross_patch_contrast(student, teacher.features.detach(), keys, temperature=TEMPERATURE)
    term.loss.backward()
    assert features[0].grad.abs().max() > 0
    assert features[1].grad is None
    assert features[2].grad is None


def test_detached_and_attached_keys_give_the_same_loss_but_not_the_same_gradient(sources):
    features, student, teacher, history = sources
    keys = [student, teacher, history]
    attached = cross_patch_contrast(student, teacher.features, keys).loss
    detached = cross_patch_contrast(student, teacher.features, [part.detached() for part in keys]).loss
    assert attached.item() == detached.item()
    of_attached, of_detached = (torch.autograd.grad(loss, features[0])[0] for loss in (attached, detached))
    assert (of_attached - of_detached).abs().max() > 1e-3


@pytest.mark.parametrize("rule", ["paper", "sum", "pixel", "random"])
@pytest.mark.parametrize("epsilon", [0.0, 1e-8])
def test_the_chunk_changes_nothing(agree, sources, rule, epsilon):
    features, student, teacher, history = sources
    keys = [student, teacher, history.as_history()]
    one, many = (
        cross_patch_contrast(student, teacher.features, keys, rule=rule, chunk=chunk, epsilon=epsilon).loss
        for chunk in (1, 2048)
    )
    agree(one, many, *features[:2])


def released_form(student, positives, parts, epsilon):
    """The dense form of the released code: masks, one maximum over all keys, and epsilon twice."""
    fields = ("features", "labels", "foreground")
    features, labels, foreground = (torch.cat([getattr(part, name) for part in parts]) for name in fields)
    pos = (student.features * positives).sum(1, keepdim=True) / TEMPERATURE
    neg = torch.cat([pos, student.features @ features.T / TEMPERATURE], 1)
    score, score_all = student.foreground / student.size, foreground / student.size
    mask = (score[:, None] + score_all[None]).double() <= 0.3 + 0.7
    mask &= student.labels[:, None] != labels[None]
    mask = torch.cat([torch.ones_like(mask[:, :1]), mask], 1)
    top = neg.max(1, keepdim=True)[0]
    summed = (torch.exp(neg - top) * mask).sum(1)
    costs = -torch.log(torch.exp(pos - top).squeeze(1) / (summed + epsilon) + epsilon)
    return costs[(score <= 0.3) | (score >= 0.7)].mean()


@pytest.mark.parametrize("epsilon", [1e-8, 1e-3])
def test_with_epsilon_it_is_the_released_code(agree, sources, epsilon):
    features, student, teacher, history = sources
    keys = [student, teacher, history]
    term = cross_patch_contrast(
        student, teacher.features, keys, temperature=TEMPERATURE, rule="sum", epsilon=epsilon, chunk=3
    )
    agree(term.loss, released_form(student, teacher.features, keys, epsilon), *features)


def test_with_epsilon_no_anchor_costs_more_than_its_logarithm():
    q = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    anchor = one_cell(q, label=1, category=FOREGROUND)
    key = one_cell(q, label=0, category=BACKGROUND)
    exact, capped = (
        cross_patch_contrast(anchor, -q, [key], temperature=0.05, epsilon=epsilon).loss.item() for epsilon in (0, 1e-8)
    )
    assert exact == pytest.approx(40.0)
    assert capped == pytest.approx(-math.log(1e-8), rel=1e-6)


def one_cell(feature, label, category):
    return PatchCells(
        features=feature,
        labels=torch.tensor([label]),
        category=torch.tensor([category], dtype=torch.int8),
        foreground=torch.tensor([label]),
        size=1,
        position=torch.zeros(1, dtype=torch.int64),
    )


def test_the_rules_of_paper_and_code_differ_where_the_anchor_is_background():
    features = torch.nn.functional.normalize(torch.randn(1, 2, 10, 40), dim=1)
    labels = torch.zeros(1, 10, 40, dtype=torch.long)
    counts = 30, 80, 50, 20  # of 100 cells: background, foreground, mixed, background
    for patch, count in enumerate(counts):
        labels[0, : count // 10, 10 * patch : 10 * patch + 10] = 1
    cells = PatchCells.from_maps(features, labels, 10)
    anchors = cells.select((cells.category == BACKGROUND) & (cells.foreground == 30) & (cells.labels == 0))
    paper, code = (cross_patch_contrast(anchors, anchors.features, [cells], rule=rule) for rule in ("paper", "sum"))
    assert paper.mean_negatives == 80
    assert code.mean_negatives == 30 + 50 + 20  # every patch up to 0.7, itself too, but not the foreground one


@pytest.mark.parametrize(("patch", "low", "high"), [(10, 30, 70), (20, 120, 280), (5, 7, 18)])
def test_a_patch_at_a_threshold_is_in(patch, low, high):
    for count, category in ((low, BACKGROUND), (low + 1, MIXED), (high - 1, MIXED), (high, FOREGROUND)):
        labels = torch.zeros(patch * patch, dtype=torch.long)
        labels[:count] = 1
        found, foreground = patch_categories(labels.reshape(1, patch, patch), patch)
        assert found.unique().tolist() == [category]
        assert foreground.unique().tolist() == [count]


@pytest.mark.parametrize(("low", "high"), [(0.1, 0.9), (0.07, 0.93), (0.29, 0.57), (0.14, 0.58)])
def test_a_threshold_is_the_decimal_number_as_written(low, high):
    for percent in range(101):
        labels = torch.zeros(100, dtype=torch.long)
        labels[:percent] = 1
        found = patch_categories(labels.reshape(1, 10, 10), 10, low=low, high=high)[0].unique().tolist()
        expected = BACKGROUND if percent <= round(100 * low) else FOREGROUND if percent >= round(100 * high) else MIXED
        assert found == [expected]


def test_the_score_is_the_labeled_part_of_each_whole_patch():
    labels = torch.tensor([[1, 1, 0, 0, 1], [1, 0, 0, 0, 1], [0, 0, 1, 1, 1]]).unsqueeze(0)
    assert foreground_scores(labels, 2).tolist() == [[[0.75, 0.0]]]
    assert foreground_scores(labels, 4).shape == (1, 0, 1)


def test_cells_behind_the_last_whole_patch_and_patches_with_invalid_cells_are_left_out():
    labels = torch.ones(1, 5, 4, dtype=torch.long)
    valid = torch.ones(1, 5, 4, dtype=torch.bool)
    valid[0, 0, 0] = False
    category, foreground = patch_categories(labels, 2, valid=valid)
    assert category[0].tolist() == [[3, 3, 1, 1], [3, 3, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1], [3, 3, 3, 3]]
    assert foreground[0, 4].tolist() == [0, 0, 0, 0]
    features = torch.nn.functional.normalize(torch.randn(1, 3, 5, 4), dim=1)
    cells = PatchCells.from_maps(features, labels, 2, valid=valid)
    term = cross_patch_contrast(cells, cells.features, [cells])
    assert term.foreground_anchors == term.foreground_keys == 12


@pytest.mark.parametrize("patch", [0, 9])
def test_without_a_whole_patch_every_cell_is_left_out(patch):
    assert patch_categories(torch.ones(1, 4, 4, dtype=torch.long), patch)[0].unique().tolist() == [OUTSIDE]


def assert_zero(term, features):
    (gradient,) = torch.autograd.grad(term.loss, features)
    assert term.loss.item() == pytest.approx(0.0, abs=1e-6)
    assert gradient.abs().max().item() == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("epsilon", [0.0, 1e-8])
@pytest.mark.parametrize("rule", ["paper", "pixel"])
@pytest.mark.parametrize("label", [0, 1])
def test_a_batch_of_one_class_has_no_negatives_and_costs_nothing(rule, epsilon, label):
    features = torch.nn.functional.normalize(torch.randn(1, 3, 4, 4), dim=1).requires_grad_()
    cells = PatchCells.from_maps(features, torch.full((1, 4, 4), label), PATCH)
    term = cross_patch_contrast(cells, cells.features.detach(), [cells], rule=rule, epsilon=epsilon)
    assert_zero(term, features)
    assert (term.foreground_anchors, term.background_anchors) == (16 * label, 16 - 16 * label)
    assert term.without_negatives == 16
    assert term.mean_negatives == 0.0


@pytest.mark.parametrize("epsilon", [0.0, 1e-8])
@pytest.mark.parametrize("rule", ["paper", "sum", "pixel", "random"])
def test_a_batch_of_mixed_patches_has_no_anchors_and_costs_nothing(rule, epsilon):
    features = torch.nn.functional.normalize(torch.randn(1, 3, 4, 4), dim=1).requires_grad_()
    labels = torch.tensor([0, 1]).repeat(8).reshape(1, 4, 4)
    cells = PatchCells.from_maps(features, labels, PATCH)
    term = cross_patch_contrast(cells, cells.features, [cells], rule=rule, epsilon=epsilon)
    (gradient,) = torch.autograd.grad(term.loss, features)
    assert term.loss.item() == 0.0
    assert torch.equal(gradient, torch.zeros_like(features))
    assert term.foreground_anchors == term.background_anchors == 0


@pytest.mark.parametrize("epsilon", [0.0, 1e-8])
@pytest.mark.parametrize("rule", ["paper", "sum", "pixel", "random"])
def test_empty_banks_cost_nothing(sources, rule, epsilon):
    features, student, teacher, _ = sources
    nothing = teacher.select(torch.zeros(0, dtype=torch.int64))
    term = cross_patch_contrast(student, teacher.features.detach(), [nothing], rule=rule, epsilon=epsilon)
    assert_zero(term, features[0])
    assert term.without_negatives == term.foreground_anchors + term.background_anchors > 0


def test_selected_anchors_cost_what_they_cost_among_all(sources):
    _, student, teacher, history = sources
    keys = [student, teacher, history.as_history()]
    for rule in ("paper", "sum", "pixel", "random"):
        total = cross_patch_contrast(student, teacher.features, keys, rule=rule)
        parts = [torch.arange(0, len(student), 3), torch.arange(1, len(student), 3), torch.arange(2, len(student), 3)]
        found = [cross_patch_contrast(student.select(p), teacher.features[p], keys, rule=rule) for p in parts]
        counts = [term.foreground_anchors + term.background_anchors for term in found]
        mean = sum(term.loss * count for term, count in zip(found, counts, strict=True)) / sum(counts)
        assert mean.item() == pytest.approx(total.loss.item(), rel=1e-12)


def test_half_precision_features_are_contrasted_in_single_precision(sources):
    _, student, teacher, _ = sources
    half = [
        PatchCells(
            cells.features.bfloat16(), cells.labels, cells.category, cells.foreground, cells.size, cells.position
        )
        for cells in (student, teacher)
    ]
    term = cross_patch_contrast(half[0], half[1].features, half)
    exact = cross_patch_contrast(student, teacher.features, [student, teacher])
    assert term.loss.dtype == torch.float32
    assert term.loss.item() == pytest.approx(exact.loss.item(), rel=0.02)


def test_patches_of_different_sizes_cannot_be_compared(sources):
    _, student, teacher, _ = sources
    other = PatchCells.from_maps(torch.ones(1, WIDTH, 3, 3).double(), torch.ones(1, 3, 3, dtype=torch.long), 3)
    with pytest.raises(ValueError, match="different sizes"):
        cross_patch_contrast(student, teacher.features, [student, other])


MEASURE = """
import torch
from napari_semiseg.losses.patch_contrast import BACKGROUND, FOREGROUND, PatchCells, cross_patch_contrast

def peak_mb():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024

def cells(count, grad):
    half = torch.arange(count) % 2
    return PatchCells(
        torch.nn.functional.normalize(torch.randn(count, 64), dim=1).requires_grad_(grad),
        half, torch.where(half == 1, FOREGROUND, BACKGROUND).to(torch.int8), half, 1, torch.arange(count),
    )

for anchors, keys in ((500, 1000), (5000, 40000)):
    q, k = cells(anchors, True), cells(keys, True)
    before = peak_mb()
    cross_patch_contrast(q, torch.roll(q.features.detach(), 2, 0), [k]).loss.backward()
    assert q.features.grad.abs().max() > 0 and k.features.grad.abs().max() > 0
print(peak_mb() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_the_matrix_of_similarities_is_never_written_down():
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 120  # the two rectangles are 200 MB each, the keys and their gradient 10 MB each
