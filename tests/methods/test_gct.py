"""GCT: who learns from what, and with which optimizer."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from tests.losses.test_flaws import blur_loop, normalize_loop, widen_loop

from napari_semiseg.data.batch import IGNORE, Batch
from napari_semiseg.engine.optim import OptimConfig, descend
from napari_semiseg.methods._base import Task
from napari_semiseg.methods.gct import GCT, GCTConfig


def build(new_network, steps: int = 90, **options) -> GCT:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    return GCT(new_network(), Task(steps=steps, crop=64), GCTConfig(**{"detector_width": 4, **options})).train()


def reached(method: GCT, term: torch.Tensor) -> set[str]:
    method.zero_grad()
    term.backward(retain_graph=True)
    return {
        name
        for name, part in method.named_children()
        if any(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())
    }


def larger(batch: Batch) -> Batch:
    """Put four of each crop side by side: of the small ones the detector sees a single cell."""
    return Batch(
        image_l=batch.image_l.repeat(1, 1, 2, 2),
        label_l=batch.label_l.repeat(1, 2, 2),
        weak_u=batch.weak_u.repeat(1, 1, 2, 2),
        valid_u=batch.valid_u.repeat(1, 2, 2),
    )


def finding(method: GCT) -> GCT:
    """Let the detector find flaws, which an untrained one does not."""
    torch.nn.init.constant_(method.detector.layers[-1].bias, 1.0)
    return method


def test_the_two_networks_begin_with_other_weights(new_network) -> None:  # type: ignore[no-untyped-def]
    method = build(new_network)
    assert not torch.equal(method.left.head.weight, method.right.head.weight)


def test_the_detector_learns_from_labels_and_the_networks_from_all_else(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    method = finding(build(new_network, threshold=0.1))
    losses = method.losses(larger(make_batch()), 40)

    assert reached(method, losses["fd"]) == {"detector"}
    assert reached(method, losses["sup"]) == {"left", "right"}
    assert reached(method, losses["dc"]) == {"left", "right"}
    assert method.counters()["wrong in both"] > 0
    assert reached(method, losses["fc"]) == {"left", "right"}


class PlainDetector(torch.nn.Module):
    """Any function of image and probabilities whose flaw map differs from place to place, with few weights."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(3 + classes, 1, 3, padding=1)
        torch.nn.init.constant_(self.layer.bias, 1.0)  # finds flaws, as `finding` has it

    def forward(self, image: torch.Tensor, probs: torch.Tensor) -> torch.Tensor:
        return self.layer(torch.cat([image, probs], 1))


def handled(flaws: list) -> list:
    """Smooth a flaw map, and bring it to [0, 1]; one that is faint everywhere has no flaw."""
    smooth = blur_loop([[max(value, 0.0) for value in row] for row in flaws], 2 * (len(flaws) // 32) + 1)
    shown = max(map(max, smooth)) > 0.1
    return normalize_loop([[value if shown else 0.0 for value in row] for row in smooth])


def flaws_of(probs: list, label: list, nu: int = 1) -> list:
    """Return what the detector is to find, of (C, H, W) and of labels with 255 where nothing is known."""
    side, classes = len(label), range(len(probs))

    def wrong(y: int, x: int) -> float:
        if label[y][x] == 255:
            return 0.0
        return 0.5 * sum(abs((label[y][x] == c) - probs[c][y][x]) for c in classes)

    values = [[wrong(y, x) for x in range(side)] for y in range(side)]
    values = blur_loop(values, 2 * (side // 16) + 1)
    for _ in range(nu):
        values = blur_loop(widen_loop(values), 2 * (side // 8) + 1)
    return normalize_loop(values)


def plain_terms(probs: list, flaws: list, label: list, counted: list, threshold: float) -> dict:
    """Return L_fc, L_dc and L_FD by loops over images and pixels, each summed over both networks.

    `probs` and `flaws` are those of the left and of the right network, on the graph; labeled images come first.
    """
    images, classes, side = range(len(counted)), range(probs[0].shape[1]), range(len(counted[0]))
    seen = [[handled(flaws[n][b, 0].tolist()) for b in images] for n in (0, 1)]
    at = [(b, y, x) for b in images for y in side for x in side if counted[b][y][x]]
    fc = dc = fd = 0
    for b, y, x in at:
        high = [seen[n][b][y][x] > threshold for n in (0, 1)]
        flaw = [1.0 if high[n] else seen[n][b][y][x] for n in (0, 1)]
        for n in (0, 1):
            fc += flaws[n][b, 0, y, x] ** 2 / len(at) if all(high) else 0
            better = n if flaw[n] <= flaw[1 - n] else 1 - n
            for c in classes:
                target = probs[better][b, c, y, x].item()
                dc += (probs[n][b, c, y, x] - target) ** 2 / len(at) / len(classes)
    labeled = [(b, y, x) for b, y, x in at if b < len(label)]
    for n in (0, 1):
        wrong = [flaws_of(probs[n][b].tolist(), label[b]) for b in range(len(label))]
        for b, y, x in labeled:
            fd += (flaws[n][b, 0, y, x] - wrong[b][y][x]) ** 2 / len(labeled)
    return {"fc": fc, "dc": dc, "fd": fd}


@pytest.mark.parametrize("classes", [2, 5])
def test_the_terms_are_those_of_the_paper(agree, new_network, make_batch, classes) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    method = GCT(new_network(classes), Task(classes, steps=90, crop=64), GCTConfig(detector_width=4, threshold=0.2))
    method.detector = PlainDetector(classes)
    method = method.double().train()
    batch = small_and_precise(make_batch(classes=classes, size=1))
    image, label = torch.cat([batch.image_l, batch.weak_u]), batch.label_l
    probs = [net(image).softmax(1) for net in (method.left, method.right)]
    flaws = [method.detector(image, each) for each in probs]
    counted = torch.cat([label != IGNORE, batch.valid_u])
    plain = plain_terms(probs, flaws, label.tolist(), counted.tolist(), threshold=0.2)
    losses = method.losses(batch, 4)

    # Not the bias before a normalization: it has no gradient, only what rounding leaves of one.
    nets = [weights for net in (method.left, method.right) for weights in net.parameters() if weights.ndim > 1]
    ramp = math.exp(-5 * (1 - 4 / 10) ** 2)  # five of 45 epochs are ten of 90 steps
    assert losses["fc"] > 0
    agree(losses["fc"], plain["fc"], *nets)
    agree(losses["dc"], 100 * ramp * plain["dc"], *nets)
    agree(losses["fd"], 10 / 2 * plain["fd"], *method.detector.parameters())


def small_and_precise(batch: Batch) -> Batch:
    """Cut 32 x 32 pixels out of a batch, some of them without a label or an image, in double precision."""
    label, valid = batch.label_l[:, 16:48, 16:48].clone(), batch.valid_u[:, 16:48, 16:48].clone()
    label[:, :5], valid[:, :, :7] = IGNORE, False
    image, other = batch.image_l[..., 16:48, 16:48].double(), batch.strong_u[1][..., 16:48, 16:48].flip(-1).double()
    return Batch(image_l=image, label_l=label, weak_u=other, valid_u=valid)


def test_every_part_has_its_own_optimizer_and_the_detector_adam(new_network) -> None:  # type: ignore[no-untyped-def]
    method = build(new_network)
    run = OptimConfig(optimizer="sgd", lr=0.01, weight_decay=5e-4)
    left, right, detector = (run.build(groups) for groups in method.parameter_groups())

    assert type(left) is type(right) is torch.optim.SGD
    assert type(detector) is torch.optim.Adam
    assert left.param_groups[0]["lr"] == 0.01
    assert detector.param_groups[0]["lr"] == 1e-4
    assert detector.param_groups[0]["betas"] == (0.9, 0.99)
    assert detector.param_groups[0]["weight_decay"] == 0
    trained = [p for optimizer in (left, right, detector) for group in optimizer.param_groups for p in group["params"]]
    assert len(trained) == len(list(method.parameters())) == len(set(map(id, trained)))


def test_one_descent_moves_all_three(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    method, batch = build(new_network), make_batch()
    optimizers = [OptimConfig(optimizer="sgd", lr=0.01).build(groups) for groups in method.parameter_groups()]
    before = {name: value.clone() for name, value in method.named_parameters()}
    assert descend(optimizers, torch.stack(list(method.losses(batch, 40).values())).sum(), 1.0, 0.0)

    after = dict(method.named_parameters())
    moved = {name.partition(".")[0] for name, value in before.items() if not torch.equal(value, after[name])}
    assert moved == {"left", "right", "detector"}


def test_pixels_without_a_label_or_an_image_count_nowhere(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch(ignored=True)
    blind = replace(batch, valid_u=torch.zeros_like(batch.valid_u))
    losses = build(new_network, threshold=0.0).losses(blind, 40)

    assert {name: term.item() for name, term in losses.items()} == dict.fromkeys(("sup", "fd", "fc", "dc"), 0.0)
    assert all(term.requires_grad for term in losses.values())


def test_it_learns_from_unlabeled_crops_alone_and_from_labeled_ones_alone(new_network, make_batch) -> None:  # type: ignore[no-untyped-def]
    method = build(new_network)
    assert set(method.losses(make_batch(labeled=False), 40)) == {"fc", "dc"}
    assert set(method.losses(replace(make_batch(), weak_u=None, valid_u=None), 40)) == {"sup", "fd", "fc", "dc"}
