"""Whatever happens to the bytes of a run folder, it is refused in a sentence or read as it was."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from napari_semiseg.engine.checkpoint import RunFolder, Snapshot, _checksum, read_card
from napari_semiseg.engine.predictor import load_predictor
from napari_semiseg.errors import InputError


def saved(folder: Path) -> tuple[RunFolder, nn.Module, torch.optim.Optimizer]:
    run = RunFolder(folder)
    run.begin()
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    run.save(model, [optimizer], Snapshot(1, {"best": 1}))
    return run, model, optimizer


mutations = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=6)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=mutations, keep=st.floats(0, 1), which=st.sampled_from([".safetensors", ".json"]))
def test_a_mutated_or_truncated_checkpoint_is_passed_over_never_half_read(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[float, int]], keep: float, which: str
) -> None:
    run, model, optimizer = saved(tmp_path_factory.mktemp("run"))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    path = (run.checkpoints / "step-0000001").with_suffix(which)
    data = bytearray(path.read_bytes())
    for place, value in changes:
        data[int(place * (len(data) - 1))] = value
    path.write_bytes(bytes(data[: max(1, int(keep * len(data)) + 1)]))

    snapshot, passed_over = run.restore(model, [optimizer])

    assert (snapshot is None) == bool(passed_over)
    assert all("\n" not in sentence for sentence in passed_over)

    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000 + "]" * 100_000,
        '{"schema": 1, "schema": 1}',
        '{"schema": NaN}',
        '{"schema": 99}',
        '{"schema": "one"}',
        "[]",
        "",
        "null",
    ],
)
def test_a_broken_run_json_is_refused_in_one_sentence(tmp_path: Path, text: str) -> None:
    run, _, _ = saved(tmp_path / "run")
    (run.path / "run.json").write_text(text)

    with pytest.raises(InputError, match=r"run\.json") as refusal:
        run.read_config()

    assert "\n" not in str(refusal.value)


class _Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".pkl", ".npy", ".npz"])
def test_a_pickle_is_refused_and_never_opened(tmp_path: Path, suffix: str) -> None:
    canary = tmp_path / "canary"
    path = tmp_path / f"model{suffix}"
    path.write_bytes(pickle.dumps(_Canary(canary)))

    with pytest.raises(InputError, match="can run programs"):
        read_card(path)

    assert not canary.exists()


def test_a_pickle_under_the_name_of_a_checkpoint_is_never_opened(tmp_path: Path) -> None:
    run, model, optimizer = saved(tmp_path / "run")
    canary = tmp_path / "canary"
    data = pickle.dumps(_Canary(canary))
    path = run.checkpoints / "step-0000001.safetensors"
    path.write_bytes(data)
    card = json.loads(path.with_suffix(".json").read_text())
    del card["checksum"]
    card |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    path.with_suffix(".json").write_text(json.dumps({**card, "checksum": _checksum(card)}))

    snapshot, passed_over = run.restore(model, [optimizer])

    assert snapshot is None
    assert "damaged" in passed_over[0]
    assert not canary.exists()


@pytest.mark.parametrize("choices", [{}, {"method": "magic"}, {"method": "supervised", "classes": ["a"] * 10**6}])
def test_a_model_whose_card_says_nonsense_is_refused(tmp_path: Path, choices: dict) -> None:
    run, model, _ = saved(tmp_path / "run")
    run.save_model(model, 1, {"choices": choices, "threshold": 0.5})

    with pytest.raises(InputError):
        load_predictor(run.path, torch.device("cpu"))
