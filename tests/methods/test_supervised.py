"""Labels only: what is said where nothing but one class is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from napari_semiseg.data.batch import IGNORE, Batch
from napari_semiseg.methods._base import Task
from napari_semiseg.methods.supervised import Supervised, SupervisedConfig

Batches = Callable[..., Batch]


def blind(new_network, patience: int = 3) -> Supervised:  # type: ignore[no-untyped-def]
    """A network that finds background everywhere, whatever it is shown."""
    torch.manual_seed(0)
    method = Supervised(new_network(2), Task(crop=64), SupervisedConfig(collapse_patience=patience)).train()
    with torch.no_grad():
        method.net.head.bias.copy_(torch.tensor([9.0, -9.0]))
    return method


def said_in(method: Supervised, batch: Batch, steps: int) -> list[list[str]]:
    said = []
    for step in range(steps):
        assert method.losses(batch, step) is not None
        method.after_step(step)
        said.append(method.warnings())
    return said


def test_one_class_found_where_labels_have_two_is_told_once_and_changes_nothing(
    new_network, make_batch: Batches
) -> None:  # type: ignore[no-untyped-def]
    method, batch = blind(new_network), make_batch()
    before = {name: value.clone() for name, value in method.net.named_parameters()}
    said = said_in(method, batch, 5)

    assert [len(sentences) for sentences in said] == [0, 0, 1, 0, 0]
    assert "no nucleus was found in labeled crops" in said[2][0]
    assert method.counters() == {"found nuclei": 0.0}
    assert all(torch.equal(value, before[name]) for name, value in method.net.named_parameters())


def test_labels_of_one_class_prove_nothing(new_network, make_batch: Batches) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    background = replace(batch, label_l=torch.zeros_like(batch.label_l))
    unknown = replace(batch, label_l=torch.full_like(batch.label_l, IGNORE))
    method = blind(new_network)

    assert said_in(method, background, 5) == said_in(method, unknown, 5) == [[]] * 5
    assert method.counters() == {}


def test_without_patience_nothing_is_said(new_network, make_batch: Batches) -> None:  # type: ignore[no-untyped-def]
    assert said_in(blind(new_network, patience=0), make_batch(), 5) == [[]] * 5
