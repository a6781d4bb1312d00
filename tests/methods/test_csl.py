"""CSL: skipped batches, restarts, and the choice that needs no label."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from napari_semiseg.data.batch import Batch
from napari_semiseg.engine.optim import OptimConfig, descend, forget
from napari_semiseg.errors import InputError
from napari_semiseg.methods._base import Task
from napari_semiseg.methods.csl import CSL, TABLE_1, CSLConfig

SMALL = {"patch": 12, "candidate_stride": 8}


def build(probe: torch.Tensor, steps: int = 60, **options: object) -> CSL:
    torch.manual_seed(0)
    return CSL(lambda: None, Task(steps=steps, crop=64, probe=probe), CSLConfig(**{**SMALL, **options})).train()


def test_labels_are_never_looked_at(make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    one, other = build(batch.weak_u), build(batch.weak_u)
    torch.manual_seed(1)
    with_labels = one.losses(batch, 0)
    torch.manual_seed(1)
    without = other.losses(replace(batch, image_l=None, label_l=None), 0)

    assert with_labels is not None
    assert without is not None
    assert {name: term.item() for name, term in with_labels.items()} == {
        name: term.item() for name, term in without.items()
    }


def test_networks_are_tried_in_turn_and_the_best_goes_on(make_batch) -> None:  # type: ignore[no-untyped-def]
    method = build(make_batch().weak_u, steps=100, restarts=3, explore=0.6)
    method.best_restart.fill_(1)

    assert [method._turn(step) for step in (0, 19, 20, 39, 40, 59, 60, 99)] == [0, 0, 1, 1, 2, 2, 1, 1]


def test_the_channel_and_polarity_that_agree_with_the_threshold_are_chosen(make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    method = build(batch.weak_u, restarts=1)
    net = method.nets[0]
    dark = batch.weak_u.mean(1, keepdim=True)
    noise = torch.rand(dark.shape, generator=torch.Generator().manual_seed(0))
    confidences = torch.cat([noise, dark.clamp(0, 1), noise, noise], 1)  # channel 1 is sure of what is bright
    net.confidences = lambda image: confidences[[int((batch.weak_u - image).abs().flatten(1).sum(1).argmin())]]
    method._judge(0)

    assert int(method.best.chosen) == 1
    assert bool(method.best.inverted)
    assert float(method.best_agreement) > 0.8


def test_a_batch_of_one_sign_is_skipped_and_a_network_that_stays_so_begins_anew(make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    method = build(batch.weak_u, restarts=1, patience=3)
    net = method.nets[0]
    with torch.no_grad():
        net.last.weight.zero_()
        net.last.bias.fill_(40.0)  # sure of everything: no window is negative

    said = []
    for step in range(3):
        assert method.losses(batch, step) is None
        method.after_step(step)
        said.append(method.warnings())

    assert float(net.last.bias.detach().abs().max()) < 1
    assert int(method.idle) == 0
    assert said[:2] == [[], []]
    assert "one class everywhere" in said[2][0]


def test_of_each_network_that_begins_anew_the_user_is_told_once(make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    method = build(batch.weak_u, steps=60, restarts=2, patience=2)
    said: list[str] = []
    for step in range(24):  # the first network's turn ends after 18
        with torch.no_grad():
            for net in method.nets:
                net.last.bias.fill_(40.0)
        method.losses(batch, step)
        method.after_step(step)
        said += method.warnings()

    assert ["network 1 of 2" in said[0], "network 2 of 2" in said[1], len(said)] == [True, True, 2]


def saturated(batch: Batch, **options: object) -> CSL:
    """A method whose network, trained a little, has become sure of everything: no window is negative."""
    method = build(batch.weak_u, restarts=1, patience=3, **options)
    method.optimizers = [OptimConfig(lr=1e-3, optimizer="adam").build(groups) for groups in method.parameter_groups()]
    run(method, batch, range(4))
    with torch.no_grad():
        method.nets[0].last.bias.fill_(40.0)
    return method


def run(method: CSL, batch: Batch, steps: range) -> None:
    """Go on as the engine does."""
    for step in steps:
        torch.manual_seed(step)
        losses = method.losses(batch, step)
        if losses is not None:
            assert descend(method.optimizers, torch.stack(list(losses.values())).sum(), 1.0, 0.0)
        method.after_step(step)
        forget(method.optimizers, method.begun_anew())


@pytest.mark.parametrize("similarity", ["mse", "ce", "cosine", "kl", "mi"])
def test_it_learns_one_batch_with_the_patches_that_were_drawn_of_it(make_batch, monkeypatch, similarity) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    method = build(batch.weak_u, restarts=1, similarity=similarity, patch=16, bandwidth=0.05)
    method.optimizers = [OptimConfig(lr=1e-3, optimizer="adam").build(groups) for groups in method.parameter_groups()]
    drawn = method._drawn(method.nets[0].confidences(batch.weak_u).detach(), batch.valid_u)
    monkeypatch.setattr(method, "_drawn", lambda *_: drawn)  # with others the loss would change for their number alone

    def terms() -> dict[str, float]:
        torch.manual_seed(100)  # which draws the anchors
        losses = method.losses(batch, 0)
        assert losses is not None
        return {name: term.item() for name, term in losses.items()}

    before = terms()
    run(method, batch, range(15))
    after = terms()

    assert after["intra"] < 0.99 * before["intra"]
    assert after["inter"] < 0.99 * before["inter"]


def test_a_network_that_begins_anew_does_so_without_the_moments_of_the_one_before(make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    method = saturated(batch)
    (optimizer,) = method.optimizers
    assert len(optimizer.state) == len(list(method.nets.parameters()))
    run(method, batch, range(4, 7))

    assert len(optimizer.state) == 0
    assert method.begun_anew()
    method.after_step(7)
    assert method.begun_anew() == []  # said once


def test_a_run_resumed_after_a_network_began_anew_equals_one_that_was_not(make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    method = saturated(batch, similarity="cosine", patch=16)
    run(method, batch, range(4, 7))
    resumed = build(batch.weak_u, restarts=1, patience=3, similarity="cosine", patch=16)
    resumed.load_state_dict(method.state_dict())
    resumed.optimizers = [OptimConfig(lr=1e-3, optimizer="adam").build(g) for g in resumed.parameter_groups()]
    for one, other in zip(resumed.optimizers, method.optimizers, strict=True):
        one.load_state_dict({"state": other.state_dict()["state"], "param_groups": one.state_dict()["param_groups"]})
    run(method, batch, range(7, 12))
    run(resumed, batch, range(7, 12))

    assert any(len(optimizer.state) for optimizer in method.optimizers)
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in method.state_dict().items())


def test_a_batch_that_shows_no_whole_window_is_skipped_and_nobody_begins_anew_for_it(make_batch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    blind = replace(batch, valid_u=torch.zeros_like(batch.valid_u))
    method = build(batch.weak_u, restarts=1, patience=2)
    for step in range(3):
        assert method.losses(blind, step) is None
        method.after_step(step)

    assert int(method.idle) == 0
    assert method.begun_anew() == []
    assert method.counters()["drawn patches"] == 0


def test_patches_are_drawn_only_where_the_image_is_shown(make_batch, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    batch = make_batch()
    shown = torch.zeros_like(batch.valid_u)
    shown[:, :, :40] = True
    method = build(batch.weak_u)
    for sampler in ("entropy", "confidence", "top-k"):
        method.config = method.config.model_copy(update={"sampler": sampler})
        drawn = method._drawn(torch.rand(2, 4, 64, 64), shown)
        assert len(drawn.left) > 0
        assert int((drawn.left + drawn.size).max()) <= 40


@pytest.mark.parametrize("row", TABLE_1)
def test_every_row_of_table_1_is_a_set_of_options(row) -> None:  # type: ignore[no-untyped-def]
    chosen = CSLConfig.checked(TABLE_1[row], "the table")
    number = int(row.rpartition(" ")[2])
    assert number == (chosen.patch if "size" in row else chosen.patches)


def test_the_paper_s_choice_from_table_1_is_the_default() -> None:
    assert CSLConfig() == CSLConfig(**TABLE_1["patches 10"]) == CSLConfig(**TABLE_1["patch size 50"])


def test_features_of_a_patch_that_is_too_small_are_refused_with_what_to_do() -> None:
    with pytest.raises(InputError, match="--set patch=15"):
        CSLConfig.checked({"similarity": "cosine", "patch": 14}, "--set")


def test_a_network_is_not_begun_anew_for_the_idleness_of_the_one_before(make_batch) -> None:  # type: ignore[no-untyped-def]
    method = build(make_batch().weak_u, steps=100, restarts=3, explore=0.6, patience=3)
    method.idle.fill_(2)
    method.after_step(19)  # the last of the first network

    assert int(method.idle) == 0


@pytest.mark.parametrize("similarity", ["mse", "ce", "cosine", "kl", "mi"])
@pytest.mark.parametrize("sampler", ["entropy", "confidence", "top-k"])
@pytest.mark.parametrize(("normalizer", "channels"), [("code", 1), ("paper", 4)])
def test_every_combination_of_its_options_gives_finite_terms(
    make_batch: Callable[..., Batch], similarity: str, sampler: str, normalizer: str, channels: int
) -> None:
    batch = make_batch()
    options = {"similarity": similarity, "sampler": sampler, "normalizer": normalizer, "channels": channels}
    method = build(batch.weak_u, patch=16, **options)
    losses = next(found for step in range(20) if (found := method.losses(batch, step)) is not None)
    torch.stack(list(losses.values())).sum().backward()

    assert all(bool(torch.isfinite(term)) for term in losses.values())
    trained = [*method.nets[0].parameters(), *(method.featurizers[0].parameters() if method.featurizers else ())]
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in trained)
