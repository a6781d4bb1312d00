"""What holds for every method of the registry."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from napari_semiseg.data.batch import Batch
from napari_semiseg.engine.optim import OptimConfig, descend
from napari_semiseg.methods._base import FittedMethod, Method, PseudoLabelConfig, Task
from napari_semiseg.methods._registry import METHODS, find_method
from napari_semiseg.nn.network import Network

Networks = Callable[..., Callable]
Batches = Callable[..., Batch]

descending = [name for name, kind in METHODS.items() if not issubclass(kind, FittedMethod)]
every_method = pytest.mark.parametrize("name", METHODS)
descending_methods = pytest.mark.parametrize("name", descending)
few_label_methods = pytest.mark.parametrize("name", [name for name in descending if METHODS[name].labels != "unused"])
no_label_methods = pytest.mark.parametrize("name", [name for name in descending if METHODS[name].labels == "unused"])

SMALL: dict[str, dict[str, object]] = {
    "csl": {"patch": 12, "candidate_stride": 8, "restarts": 1},
    "dualrel": {"prototypes": 4, "references": 16, "channels": 8},
    "gct": {"detector_width": 4},
    "scale_pretext": {"width": 4, "encoder": "resnet18", "pretrained": False},
}
"""Options that bring a method to the size of the test's network and crops."""


def build(
    name: str, networks: Networks, batch: Batch, *, classes: int = 2, steps: int = 40, **options: object
) -> Method:
    torch.manual_seed(0)
    kind = METHODS[name]
    options = {**SMALL.get(name, {}), **options}
    task = Task(classes=classes, steps=steps, crop=64, seed=0, probe=batch.weak_u)
    return kind(networks(classes), task, kind.Config(**options)).train()


def learn(method: Method, batch: Batch, steps: range, optimizers: list | None = None) -> list:
    optimizers = optimizers or [OptimConfig(lr=5e-3).build(groups) for groups in method.parameter_groups()]
    for step in steps:
        torch.manual_seed(step)
        losses = method.losses(batch, step)
        if losses is not None:
            assert descend(optimizers, torch.stack(list(losses.values())).sum(), 1.0, 0.0)
        method.after_step(step)
    return optimizers


@few_label_methods
def test_it_learns_one_batch(name: str, new_network: Networks, make_batch: Batches) -> None:
    batch = make_batch()
    averaged = {"ema_decay": 0.8} if "ema_decay" in METHODS[name].Config.model_fields else {}
    method = build(name, new_network, batch, **averaged)
    learn(method, batch, range(40))

    with torch.no_grad():
        found = method.predictor().eval()(batch.image_l).argmax(1)
    overlap = 2 * ((found == 1) & (batch.label_l == 1)).sum() / ((found == 1).sum() + (batch.label_l == 1).sum())
    assert overlap > 0.9


@no_label_methods
def test_without_labels_its_loss_on_one_batch_falls(name: str, new_network: Networks, make_batch: Batches) -> None:
    batch = make_batch(labeled=False)
    method = build(name, new_network, batch)
    before = _mean_loss(method, batch)
    learn(method, batch, range(30))

    assert _mean_loss(method, batch) < 0.9 * before


def _mean_loss(method: Method, batch: Batch, draws: int = 4) -> float:
    """Return the mean over a few draws of what a step draws, with the network as it is."""
    sums = []
    for seed in range(100, 100 + draws):
        torch.manual_seed(seed)
        with torch.no_grad():
            losses = method.losses(batch, 0)
        sums += [] if losses is None else [float(torch.stack(list(losses.values())).sum())]
    return sum(sums) / len(sums)


@descending_methods
def test_no_gradient_reaches_what_it_does_not_train(name: str, new_network: Networks, make_batch: Batches) -> None:
    batch = make_batch()
    method = build(name, new_network, batch)
    learn(method, batch, range(30))
    losses = next(found for step in range(30, 40) if (found := method.losses(batch, step)) is not None)
    torch.stack(list(losses.values())).sum().backward()

    trained = {id(p) for groups in method.parameter_groups() for group in groups for p in group["params"]}
    frozen = [p for p in method.parameters() if id(p) not in trained]
    assert all(p.grad is None for p in frozen)
    assert any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in method.parameters())


@descending_methods
def test_saved_and_loaded_it_goes_on_identically(name: str, new_network: Networks, make_batch: Batches) -> None:
    batch = make_batch()
    method = build(name, new_network, batch)
    optimizers = learn(method, batch, range(12))
    state = {key: value.clone() for key, value in method.state_dict().items()}
    optimizer_states = [deepcopy(optimizer.state_dict()) for optimizer in optimizers]
    other = build(name, new_network, batch)
    other.load_state_dict(state)
    others = [OptimConfig(lr=5e-3).build(groups) for groups in other.parameter_groups()]
    for mine, saved in zip(others, optimizer_states, strict=True):
        mine.load_state_dict(saved)

    learn(method, batch, range(12, 16), optimizers)
    learn(other, batch, range(12, 16), others)

    assert all(torch.equal(value, other.state_dict()[key]) for key, value in method.state_dict().items())


@descending_methods
def test_a_batch_without_labels_is_no_error(name: str, new_network: Networks, make_batch: Batches) -> None:
    batch = make_batch(labeled=False)
    method = build(name, new_network, batch)

    losses = method.losses(batch, 20)

    assert losses is None or all(bool(torch.isfinite(term)) for term in losses.values())


@few_label_methods
def test_a_batch_that_is_all_ignored_costs_nothing_in_the_supervised_terms(
    name: str, new_network: Networks, make_batch: Batches
) -> None:
    batch = make_batch(ignored=True)
    method = build(name, new_network, batch)

    losses = method.losses(batch, 0)

    assert losses is not None
    assert losses["sup"].item() == 0
    assert losses["sup"].requires_grad


@descending_methods
@pytest.mark.parametrize("labeled", [True, False])
def test_a_batch_in_which_nothing_counts_teaches_nothing(
    name: str, labeled: bool, new_network: Networks, make_batch: Batches
) -> None:
    batch = blinded(make_batch(ignored=True, labeled=labeled))
    method = build(name, new_network, batch)
    losses = method.losses(batch, 30)  # after every warm-up
    if losses is None:
        return

    assert {term: value.item() for term, value in losses.items()} == dict.fromkeys(losses, 0.0)
    assert all(value.requires_grad for value in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    moved = {key for key, p in method.named_parameters() if p.grad is not None and not bool((p.grad == 0).all())}
    assert moved == set()


def blinded(batch: Batch) -> Batch:
    """Let no pixel of the unlabeled crops show the image."""
    nothing = torch.zeros_like(batch.valid_u)
    pair = replace(batch.pair_u, valid=(nothing, nothing))
    return replace(batch, valid_u=nothing, pair_u=pair, whole_valid_u=nothing)


EVERYTHING_COUNTS: dict[str, dict[str, object]] = {
    "cutmix_seg": {"threshold": 0.0},
    "fixmatch": {"threshold": 0.0},
    "unimatch": {"threshold": 0.0},
    "cac": {"threshold": 0.0},
    "cps": {"weight_cps": 0.2},  # labels of an untrained network at full weight drown those of the batch
    "crcfp": {"threshold": 0.0, "cross_threshold": 0.0},
}
"""Thresholds that an untrained network passes, so that pseudo-labels teach, and not too loudly."""
SUPERVISED_TERMS = {"sup", "dice", "fd"}


@pytest.mark.parametrize("name", [name for name in descending if METHODS[name].classes == "any"])
def test_five_classes_are_learned_also_where_unlabeled_crops_count(
    name: str, new_network: Networks, make_batch: Batches
) -> None:
    batch = make_batch(classes=5)
    averaged = {"ema_decay": 0.8} if "ema_decay" in METHODS[name].Config.model_fields else {}
    method = build(name, new_network, batch, classes=5, **EVERYTHING_COUNTS.get(name, {}), **averaged)
    learn(method, batch, range(36))  # of 40: past every warm-up, and no ramp is at its beginning
    losses = method.losses(batch, 36)

    assert losses is not None
    assert all(bool(torch.isfinite(term)) for term in losses.values())
    unsupervised = {term: value.item() for term, value in losses.items() if term not in SUPERVISED_TERMS}
    if name != "gct":  # of so small a crop its detector sees a single cell, which stands out nowhere: see test_gct
        assert all(value > 0 for value in unsupervised.values()), unsupervised
    assert bool(unsupervised) == (name != "supervised")
    with torch.no_grad():
        logits = method.predictor().eval()(batch.weak_u)
    assert logits.shape == (2, 5, 64, 64)
    assert bool(torch.isfinite(logits).all())
    assert len(logits.argmax(1).unique()) > 2  # background, and more than one class of nuclei


pseudo_label_methods = pytest.mark.parametrize(
    "name", [name for name, kind in METHODS.items() if issubclass(kind.Config, PseudoLabelConfig)]
)


@pseudo_label_methods
def test_pseudo_labels_of_one_class_come_to_count_a_tenth_and_the_user_is_told(
    name: str, new_network: Networks, make_batch: Batches
) -> None:
    batch = make_batch(labeled=False)
    method = build(name, new_network, batch, collapse_patience=3)
    with torch.no_grad():
        for net in (module for module in method.modules() if isinstance(module, Network) and hasattr(module, "head")):
            net.head.bias.copy_(torch.tensor([9.0, -9.0]))  # background everywhere
    told = []
    for _ in range(5):
        _losses(method, batch)
        method.after_step(20)
        told.append(method.warnings())

    assert [len(said) for said in told] == [0, 0, 1, 0, 0]
    assert "no nucleus" in told[2][0]
    assert method.counters()["pseudo-labeled nuclei"] == 0
    whole = build(name, new_network, batch, collapse_patience=0)
    whole.load_state_dict(method.state_dict())
    cut, uncut = (torch.stack(list(_losses(one, batch).values())).sum() for one in (method, whole))
    assert cut.item() == pytest.approx(uncut.item() / 10, rel=1e-4)


@pytest.mark.parametrize("name", ["cac", "cdcl", "crcfp"])
def test_a_contrast_without_negatives_is_a_zero_on_the_graph(
    name: str, new_network: Networks, make_batch: Batches
) -> None:
    batch = make_batch(labeled=False)
    method = build(name, new_network, batch)
    with torch.no_grad():
        for net in (module for module in method.modules() if isinstance(module, Network) and hasattr(module, "head")):
            net.head.bias.copy_(torch.tensor([9.0, -9.0]))  # background everywhere: nothing to keep apart
    term = _losses(method, batch)["contr"]

    assert term.item() == 0
    assert term.requires_grad
    assert next(value for key, value in method.counters().items() if key.startswith("negatives")) == 0


def _losses(method: Method, batch: Batch) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    losses = method.losses(batch, 20)
    assert losses is not None
    return losses


@every_method
def test_a_single_crop_of_one_color_breaks_nothing(name: str, new_network: Networks, make_batch: Batches) -> None:
    batch = make_batch(size=1)
    gray = torch.full_like(batch.weak_u, 0.5)
    batch = replace(batch, image_l=gray, weak_u=gray, strong_u=(gray, gray))
    method = build(name, new_network, batch)
    learn(method, batch, range(20, 23))  # which asserts that every step could be made

    assert all(bool(torch.isfinite(value).all()) for value in method.state_dict().values())


@every_method
def test_its_options_are_described_and_bounded(name: str) -> None:
    kind = find_method(name)
    for option, field in kind.Config.model_fields.items():
        assert field.description, f"{name}.{option}"
    assert kind.title
    assert kind.does.endswith(".")
    assert kind.does.count(". ") == 0, "one sentence"
    assert all(work.endswith(".") for work in kind.references)
