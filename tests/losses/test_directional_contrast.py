import pytest
import torch

from napari_semiseg.losses.directional_contrast import SureCells, chosen_anchors, directional_contrast

TEMPERATURE, THRESHOLD = 0.1, 0.6


def cells(seed, count=40, classes=3, width=5):
    generator = torch.Generator().manual_seed(seed)
    features = torch.nn.functional.normalize(
        torch.randn(count, width, generator=generator, dtype=torch.float64), dim=1
    ).requires_grad_()
    labels = torch.randint(0, classes, (count,), generator=generator)
    confidence = torch.rand(count, generator=generator, dtype=torch.float64)
    return SureCells(features, labels, confidence)


def loop(anchors, targets, keys, key_labels, side, mean_over):
    """Eqs. 3 to 7 of CRCFP, cell by cell and key by key."""
    total, chosen = anchors.features.sum() * 0, 0
    for i in range(len(anchors)):
        sure = (anchors if side == "anchor" else targets).confidence[i] > THRESHOLD
        if not (sure and anchors.confidence[i] < targets.confidence[i]):
            continue
        chosen += 1
        a = anchors.features[i]
        alike = torch.exp((a * targets.features[i].detach()).sum() / TEMPERATURE)
        unlike = 0.0
        for k in range(len(keys)):
            if key_labels[k] != anchors.labels[i]:
                unlike = unlike + torch.exp((a * keys[k]).sum() / TEMPERATURE)
        total = total - torch.log(alike / (alike + unlike))
    return total / (len(anchors) if mean_over == "overlap" else max(1, chosen))


@pytest.mark.parametrize("side", ["anchor", "target"])
@pytest.mark.parametrize("mean_over", ["overlap", "anchors"])
def test_it_is_the_double_loop_of_the_paper(agree, side, mean_over):
    anchors, targets, bank = cells(0), cells(1), cells(2, 25)
    options = {"threshold": THRESHOLD, "side": side, "mean_over": mean_over}
    found = directional_contrast(
        anchors, targets, bank.features, bank.labels, temperature=TEMPERATURE, chunk=7, **options
    )
    expected = loop(anchors, targets, bank.features, bank.labels, side, mean_over)

    agree(found.loss, expected, anchors.features, bank.features)
    assert 0 < found.anchors < len(anchors)


def test_no_gradient_reaches_the_targets():
    anchors, targets, bank = cells(0), cells(1), cells(2)
    directional_contrast(anchors, targets, bank.features, bank.labels).loss.backward()

    assert anchors.features.grad.abs().max() > 0
    assert targets.features.grad is None


def test_gradients_reach_only_the_less_sure_of_two_cells():
    anchors, targets, bank = cells(0), cells(1), cells(2)
    keys = bank.features.detach()
    forth = directional_contrast(anchors, targets, keys, bank.labels, threshold=0.2)
    back = directional_contrast(targets, anchors, keys, bank.labels, threshold=0.2)
    (forth.loss + back.loss).backward()
    pulled = anchors.features.grad.abs().sum(1) > 0, targets.features.grad.abs().sum(1) > 0

    assert not (pulled[0] & pulled[1]).any()
    assert (anchors.confidence < targets.confidence)[pulled[0]].all()
    assert (targets.confidence < anchors.confidence)[pulled[1]].all()


def test_equally_sure_cells_are_pulled_in_neither_direction():
    anchors = cells(0)
    targets = SureCells(cells(1).features, anchors.labels, anchors.confidence)

    assert not chosen_anchors(anchors, targets, threshold=0.0).any()


def test_the_threshold_is_that_of_the_side_that_was_asked_for():
    features, labels = torch.eye(3), torch.zeros(3, dtype=torch.long)
    anchors = SureCells(features, labels, torch.tensor([0.5, 0.8, 0.75]))
    targets = SureCells(features, labels, torch.tensor([0.9, 0.9, 0.76]))

    assert chosen_anchors(anchors, targets, side="target").tolist() == [True, True, True]
    assert chosen_anchors(anchors, targets, side="anchor").tolist() == [False, True, False]  # above, not at


def assert_zero(term, features):
    (gradient,) = torch.autograd.grad(term.loss, features)
    assert term.loss.item() == 0
    assert gradient.abs().max() == 0


def test_where_nobody_is_sure_it_is_a_zero_on_the_graph():
    anchors, targets, bank = cells(0), cells(1), cells(2)
    assert_zero(directional_contrast(anchors, targets, bank.features, bank.labels, threshold=1.0), anchors.features)


@pytest.mark.parametrize("rows", [0, 40])
def test_without_negatives_it_costs_nothing(rows):
    anchors, targets, bank = cells(0, classes=1), cells(1, classes=1), cells(2, classes=1).select(torch.arange(rows))
    term = directional_contrast(anchors, targets, bank.features, bank.labels)

    assert_zero(term, anchors.features)
    assert term.anchors > 0
    assert term.mean_negatives == 0


def test_without_an_overlap_it_costs_nothing():
    nothing, bank = cells(0, count=0), cells(2)
    term = directional_contrast(nothing, nothing, bank.features, bank.labels)

    assert term.loss.item() == 0
    assert term.loss.requires_grad


def test_the_mean_number_of_negatives_is_told():
    features = torch.nn.functional.normalize(torch.randn(2, 4), dim=1)
    anchors = SureCells(features, torch.tensor([0, 1]), torch.tensor([0.1, 0.1]))
    targets = SureCells(features, torch.tensor([0, 1]), torch.tensor([0.9, 0.9]))
    keys = torch.nn.functional.normalize(torch.randn(5, 4), dim=1)
    term = directional_contrast(anchors, targets, keys, torch.tensor([0, 0, 0, 1, 2]))

    assert term.mean_negatives == (2 + 4) / 2  # of class 0: one of 1 and one of 2; of class 1: all but one


def test_half_precision_features_are_contrasted_in_single_precision():
    anchors, targets, bank = cells(0), cells(1), cells(2)
    half = [SureCells(c.features.bfloat16(), c.labels, c.confidence) for c in (anchors, targets, bank)]
    term = directional_contrast(half[0], half[1], half[2].features, bank.labels)
    exact = directional_contrast(anchors, targets, bank.features, bank.labels)

    assert term.loss.dtype == torch.float32
    assert term.loss.item() == pytest.approx(exact.loss.item(), rel=0.05)
