"""The run folder survives what happens to files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from napari_semiseg.engine.checkpoint import RunFolder, Snapshot
from napari_semiseg.engine.predictor import load_predictor
from napari_semiseg.errors import InputError


def trained(width: int = 4) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Linear(3, width)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
    return model, optimizer


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.begin()
    return folder


def test_weights_optimizer_and_state_come_back_bit_by_bit(run: RunFolder) -> None:
    model, optimizer = trained()
    run.save(model, [optimizer], Snapshot(2, {"best": 0.5}))
    fresh = nn.Linear(3, 4)
    other = torch.optim.Adam(fresh.parameters(), lr=0.1)

    snapshot, passed_over = run.restore(fresh, [other])

    assert snapshot is not None
    assert (snapshot.step, snapshot.state, passed_over) == (2, {"best": 0.5}, [])
    assert torch.equal(fresh.weight, model.weight)
    for mine, theirs in zip(other.state.values(), optimizer.state.values(), strict=True):
        assert all(torch.equal(mine[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize("name", ["slide.tif", "checkpoints/my-model.safetensors", "preview/figure.npy"])
def test_a_folder_of_something_else_is_refused_and_left_as_it_was(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("precious")
    before = sorted(tmp_path.rglob("*"))

    with pytest.raises(InputError, match=r"holds something else .* choose another --out"):
        RunFolder(tmp_path).begin()

    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_offered_as_a_run_is_refused_with_what_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"\x80\x04")

    with pytest.raises(InputError, match="is a file, and a trained model is read from the run folder"):
        load_predictor(tmp_path / "model.pt", torch.device("cpu"))


def test_discarding_a_run_leaves_what_others_put_beside_it(run: RunFolder) -> None:
    model, optimizer = trained()
    run.save(model, [optimizer], Snapshot(2))
    (run.checkpoints / "notes.txt").write_text("precious")
    (run.checkpoints / "old").mkdir()

    run.discard()

    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["notes.txt", "old"]


def test_only_the_last_three_checkpoints_stay(run: RunFolder) -> None:
    model, optimizer = trained()
    for step in range(5):
        run.save(model, [optimizer], Snapshot(step))

    assert [path.stem for path in sorted(run.checkpoints.glob("*.safetensors"))] == [
        "step-0000002",
        "step-0000003",
        "step-0000004",
    ]
    assert (run.checkpoints / "LATEST").read_text() == "step-0000004"


@pytest.mark.parametrize("damage", ["truncate", "flip", "no card", "card of another", "empty"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(run: RunFolder, damage: str) -> None:
    model, optimizer = trained()
    run.save(model, [optimizer], Snapshot(1))
    path = run.save(model, [optimizer], Snapshot(2))
    data = path.read_bytes()
    match damage:
        case "truncate":
            path.write_bytes(data[: len(data) // 2])
        case "flip":
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        case "no card":
            path.with_suffix(".json").unlink()
        case "card of another":
            older = run.checkpoints / "step-0000001.json"
            path.with_suffix(".json").write_bytes(older.read_bytes().replace(b'"step": 1', b'"step": 2'))
        case "empty":
            path.write_bytes(b"")

    snapshot, passed_over = run.restore(model, [optimizer])

    assert snapshot is not None
    assert snapshot.step == 1
    assert len(passed_over) == 1
    assert "step-0000002" in passed_over[0]


def test_every_truncation_of_a_checkpoint_is_noticed(run: RunFolder) -> None:
    model, optimizer = trained()
    path = run.save(model, [optimizer], Snapshot(1))
    data = path.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")

    for length in [*range(0, header, 7), header, len(data) - 1]:
        path.write_bytes(data[:length])
        assert run.latest() is None


def test_a_checkpoint_of_another_architecture_is_refused_with_the_tensor_that_differs(run: RunFolder) -> None:
    model, optimizer = trained(width=4)
    run.save(model, [optimizer], Snapshot(1))
    wider, its_optimizer = trained(width=5)

    with pytest.raises(InputError, match="another network or other classes"):
        run.restore(wider, [its_optimizer])


def test_nan_weights_are_never_taken_up(run: RunFolder) -> None:
    model, optimizer = trained()
    model.weight.data[0, 0] = float("nan")
    run.save(model, [optimizer], Snapshot(1))

    snapshot, passed_over = run.restore(model, [optimizer])

    assert snapshot is None
    assert "NaN" in passed_over[0]


def test_a_run_of_a_newer_version_is_refused(run: RunFolder) -> None:
    (run.path / "run.json").write_text(json.dumps({"schema": 99}))

    with pytest.raises(InputError, match="newer version"):
        run.read_config()


def test_a_folder_without_a_model_says_what_to_do(run: RunFolder) -> None:
    with pytest.raises(InputError, match="train first"):
        run.read_model()
