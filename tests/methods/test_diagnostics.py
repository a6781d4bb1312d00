"""What methods show of themselves."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from napari_semiseg.data.batch import Batch
from napari_semiseg.engine.infer import evaluating
from napari_semiseg.io.diagnostics import Amount, Boxes, Categories
from napari_semiseg.methods._base import Method, Task
from napari_semiseg.methods._registry import METHODS

Batches = Callable[..., Batch]

SMALL: dict[str, dict[str, object]] = {
    "csl": {"patch": 12, "candidate_stride": 8, "restarts": 1},
    "dualrel": {"prototypes": 4, "references": 16, "channels": 8},
}
showing = pytest.mark.parametrize("name", [name for name, kind in METHODS.items() if kind.shows])


def build(name: str, new_network, crop: int = 64, **options: object) -> Method:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    kind = METHODS[name]
    return kind(new_network(2), Task(crop=crop, seed=0), kind.Config(**{**SMALL.get(name, {}), **options})).train()


def look(method: Method, image: torch.Tensor, seed: int = 0) -> dict:
    torch.manual_seed(seed)
    with torch.no_grad(), evaluating(method):
        return dict(method.diagnostics(image))


def test_the_methods_of_the_papers_that_draw_patches_crops_or_prototypes_show_them() -> None:
    assert {name for name, kind in METHODS.items() if kind.shows} >= {"csl", "cdcl", "cac", "crcfp", "dualrel"}


@showing
def test_looking_changes_nothing_and_the_seed_fixes_what_is_seen(name: str, new_network, make_batch: Batches) -> None:  # type: ignore[no-untyped-def]
    method, image = build(name, new_network), make_batch().weak_u[:1]
    before = {key: value.clone() for key, value in method.state_dict().items()}
    one, again = look(method, image), look(method, image)

    assert one
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())
    assert method.training
    for key, item in one.items():
        for part in ("values", "corners", "kinds"):
            if hasattr(item, part):
                assert np.array_equal(getattr(item, part), getattr(again[key], part), equal_nan=True)


@showing
def test_every_number_of_a_map_has_a_meaning(name: str, new_network, make_batch: Batches) -> None:  # type: ignore[no-untyped-def]
    image = make_batch().weak_u[:1].repeat(1, 1, 2, 3)  # 128 x 192: not square
    for item in look(build(name, new_network), image).values():
        match item:
            case Categories(values, meanings):
                assert set(np.unique(values)) - {0} <= set(meanings)
                assert values.shape[1] * 128 == values.shape[0] * 192
            case Boxes(corners, kinds, meanings):
                assert set(kinds.tolist()) <= set(meanings)
                assert corners.min() >= 0
                assert corners[:, 2].max() <= 128
                assert corners[:, 3].max() <= 192
            case Amount(values, low, high, _):
                assert low < high
                assert np.nanmin(values) >= low


def test_csl_draws_positive_patches_in_white_and_negative_ones_in_red_as_many_for_each_area(
    new_network, make_batch: Batches
) -> None:  # type: ignore[no-untyped-def]
    method = build("csl", new_network, patches=10)
    crop = look(method, make_batch().weak_u[:1])["drawn patches"]
    wide = look(method, make_batch().weak_u[:1].repeat(1, 1, 2, 2))["drawn patches"]

    assert (len(crop.corners), len(wide.corners)) == (10, 40)
    assert (crop.corners[:, 2:] - crop.corners[:, :2]).tolist() == [[12, 12]] * 10
    assert crop.meanings[1].color == (255, 255, 255)
    assert crop.meanings[2].color == (222, 20, 35)
    net = method.best
    with torch.no_grad():
        net.last.weight.zero_()
        net.last.bias.fill_(40.0)
    assert set(look(method, make_batch().weak_u[:1])["drawn patches"].kinds.tolist()) == {1}


@pytest.mark.parametrize(("bias", "kind"), [((-9.0, 9.0), 1), ((9.0, -9.0), 2)])
def test_cdcl_sorts_patches_of_the_size_of_an_eighth_of_a_crop(
    new_network, make_batch: Batches, bias, kind: int
) -> None:  # type: ignore[no-untyped-def]
    method = build("cdcl", new_network)
    with torch.no_grad():
        method.teacher.net.head.bias.copy_(torch.tensor(bias))
    found = look(method, make_batch().weak_u[:1])

    assert np.unique(found["patches"].values).tolist() == [kind]
    assert np.unique(found["foreground score"].values).tolist() == [2.0 - kind]


def test_crops_overlap_and_cells_outside_of_both_are_not_drawn(new_network, make_batch: Batches) -> None:  # type: ignore[no-untyped-def]
    method = build("crcfp", new_network, crop=64, threshold=0.0)
    image = make_batch().weak_u[:1].repeat(1, 1, 2, 2)
    for seed in range(5):
        found = look(method, image, seed)
        first, second = found["overlapping crops"].corners
        top, left = np.maximum(first[:2], second[:2])
        bottom, right = np.minimum(first[2:], second[2:])
        assert bottom > top
        assert right > left
        drawn = found["pulled cells"].values > 0
        cell = 128 // drawn.shape[0]
        rows, columns = drawn.nonzero()
        assert (rows.min() * cell, columns.min() * cell) == (top, left)
        assert ((rows.max() + 1) * cell, (columns.max() + 1) * cell) == (bottom, right)
        kinds = found["pulled cells"].values
        assert (kinds == 2).any()
        assert (kinds == 3).any()  # with no threshold the surer of two always pulls


def test_prototypes_are_named_with_their_reliability(new_network, make_batch: Batches) -> None:  # type: ignore[no-untyped-def]
    found = look(build("dualrel", new_network), make_batch().weak_u[:1])

    assert set(found["strongest prototype"].meanings) == {1, 2, 3, 4}
    assert "reliability 0." in found["strongest prototype"].meanings[1].words
    assert ((found["reliability"].values >= 0) & (found["reliability"].values <= 1)).all()
    activations = [item for name, item in found.items() if name.startswith("activation")]
    assert len(activations) == 4
    assert activations[0].values.mean() == pytest.approx(1, rel=1e-3)
