"""Model files and cards that anyone may have written: never executed, never half used, refused in one sentence."""

from __future__ import annotations

import hashlib
import json
import math
import os
import pickle
import shutil
import struct
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from napari_semiseg import atomic
from napari_semiseg.engine.checkpoint import RunFolder, _checksum
from napari_semiseg.engine.control import Control
from napari_semiseg.engine.predict import PredictRequest, predict
from napari_semiseg.engine.predictor import load_predictor
from napari_semiseg.engine.recipe import Choices
from napari_semiseg.engine.requests import TrainRequest
from napari_semiseg.engine.train import train
from napari_semiseg.errors import InputError
from napari_semiseg.events import Finished, Pause, Resume, Saved, StepDone, Warned

Ask = Callable[..., TrainRequest]
CPU = torch.device("cpu")
DEEP = "[" * 100_000 + "]" * 100_000


@pytest.fixture(autouse=True)
def _quiet(one_thread: None) -> None:
    """One thread is enough for what is refused."""


@pytest.fixture(scope="module")
def run_as_made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps with two checkpoints, of steps 1 and 4, and what it learned from."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "labels").mkdir()
    image = np.random.default_rng(0).integers(0, 255, (128, 128, 3)).astype(np.uint8)
    tifffile.imwrite(folder / "field.tif", image, photometric="rgb")
    tifffile.imwrite(folder / "labels" / "field.tif", np.kron(np.eye(8), np.ones((16, 16))).astype(np.uint8))
    request = TrainRequest(
        images=(str(folder / "field.tif"),),
        labels=str(folder / "labels"),
        out=str(folder / "run"),
        method="supervised",
        network="small_unet",
        subimage=64,
        steps=4,
        device="cpu",
        set={"crop": 64, "batch_labeled": 2},
    )
    control = Control()
    for event in train(request, control):
        if isinstance(event, StepDone) and event.step == 0:
            control.send(Pause())
            control.send(Resume())
    found = sorted(path.stem for path in (folder / "run" / "checkpoints").glob("step-*.safetensors"))
    assert found == ["step-0000001", "step-0000004"]
    return folder / "run"


@pytest.fixture
def run(run_as_made: Path, tmp_path: Path) -> Path:
    """A copy of that run, to damage."""
    return Path(shutil.copytree(run_as_made, tmp_path / "run"))


def refused(attempt: Callable[[], Any]) -> str:
    """Return the one sentence with which something is refused."""
    with pytest.raises(InputError) as error:
        attempt()
    assert "\n" not in str(error.value)
    assert str(error.value).endswith(".")
    return str(error.value)


def best(run: Path) -> Path:
    return max((run / "checkpoints").glob("best-*.safetensors"))


def edit_card(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a card and give it the checksum of what it then holds, as someone would who means harm."""
    card = json.loads(path.with_suffix(".json").read_text())
    del card["checksum"]
    card = change(card) or card
    path.with_suffix(".json").write_text(json.dumps({**card, "checksum": _checksum(card)}))


def put(path: Path, data: bytes) -> None:
    """Replace a model file, and make its card agree with it."""
    path.write_bytes(data)
    edit_card(path, lambda card: card.update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest()))


# ---- pickles


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.path}",)


def pickled(path: Path, canary: Path) -> None:
    if path.suffix == ".npz":
        np.savez(path, np.array([Canary(canary)], dtype=object), allow_pickle=True)
    elif path.suffix == ".npy":
        np.save(path, np.array([Canary(canary)], dtype=object), allow_pickle=True)
    elif path.suffix in (".pt", ".ckpt"):
        torch.save({"state_dict": Canary(canary)}, path)
    else:
        path.write_bytes(pickle.dumps(Canary(canary)))


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".pkl", ".npy", ".npz", ".safetensors"])
def test_a_program_in_a_model_file_is_not_run_however_it_is_given(ask: Ask, tmp_path: Path, suffix: str) -> None:
    canary, path = tmp_path / "canary", tmp_path / f"model{suffix}"
    pickled(path, canary)
    image = next((tmp_path / "fields" / "images").iterdir())
    predicting = PredictRequest(run=str(path), images=(str(image),), out=str(tmp_path / "out"), device="cpu")
    for attempt in (
        lambda: list(predict(predicting)),
        lambda: next(train(ask(weights=str(path)))),
        lambda: next(train(ask(out=str(path), resume=True))),
    ):
        refused(attempt)
    assert not canary.exists()


def test_a_program_in_the_place_of_a_runs_model_is_not_run(run: Path, tmp_path: Path) -> None:
    pickled(tmp_path / "model.pt", tmp_path / "canary")
    for path in (run / "checkpoints").glob("best-*.safetensors"):
        put(path, (tmp_path / "model.pt").read_bytes())

    assert "no safetensors file" in refused(lambda: load_predictor(run, CPU))
    assert not (tmp_path / "canary").exists()


# ---- safetensors


def lies(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Model files that claim what is not so, made of a sound one."""
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    first, second = [name for name in header if name != "__metadata__"][:2]

    def rebuilt(text: bytes) -> bytes:
        return struct.pack("<Q", len(text)) + text + body

    def changed(name: str, **values: Any) -> bytes:
        return rebuilt(json.dumps({**header, name: {**header[name], **values}}).encode())

    yield "a header of 2^60 bytes", struct.pack("<Q", 2**60) + data[8:]
    yield "10 GB declared", changed(first, shape=[10 * 2**28], data_offsets=[0, 10 * 2**30])
    yield "overlapping", changed(first, data_offsets=header[second]["data_offsets"])
    yield "backwards", changed(first, data_offsets=header[first]["data_offsets"][::-1])
    yield "another shape", changed(first, shape=[*header[first]["shape"], 2])
    yield "an unknown type", changed(first, dtype="F4")
    yield (
        "a name twice",
        rebuilt(json.dumps(header).encode()[:-1] + f',"{first}":{json.dumps(header[first])}}}'.encode()),
    )
    yield "a name missing", rebuilt(json.dumps({k: v for k, v in header.items() if k != first}).encode())
    yield "too deep", rebuilt(DEEP.encode())


def test_weights_that_lie_are_refused_by_every_reader(run: Path, ask: Ask, tmp_path: Path) -> None:
    path, given = best(run), tmp_path / "given.safetensors"
    for older in (run / "checkpoints").glob("best-*.safetensors"):
        if older != path:
            older.unlink()
    for what, data in lies(path.read_bytes()):
        put(path, data)
        given.write_bytes(data)
        assert refused(lambda: load_predictor(run, CPU)), what
        assert refused(lambda: next(train(ask(out=str(tmp_path / "new"), weights=str(given))))), what


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(run: Path, ask: Ask, tmp_path: Path, value: float) -> None:
    tensors = load_file(best(run))
    name = next(name for name, tensor in tensors.items() if tensor.is_floating_point())
    tensors[name].view(-1)[0] = value
    save_file(tensors, tmp_path / "given.safetensors")
    for path in (run / "checkpoints").glob("best-*.safetensors"):
        put(path, (tmp_path / "given.safetensors").read_bytes())

    assert "NaN or infinity" in refused(lambda: load_predictor(run, CPU))
    assert "not finite" in refused(
        lambda: next(train(ask(out=str(tmp_path / "new"), weights=str(tmp_path / "given.safetensors"))))
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="peak memory is measured in a process of its own, on POSIX")
def test_refusing_takes_little_memory(tmp_path: Path) -> None:
    """A header of 2^60 bytes, 10 GB declared, and a card of 1 GB that takes no room on the disk."""
    tensor = {"dtype": "F32", "shape": [10 * 2**28], "data_offsets": [0, 10 * 2**30]}
    text = json.dumps({"weight": tensor}).encode()
    (tmp_path / "large.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(100))
    (tmp_path / "header.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}")
    with (tmp_path / "run.json").open("wb") as file:
        file.truncate(2**30)
    script = """
        import resource, sys
        from pathlib import Path
        from torch import nn
        from napari_semiseg.engine.checkpoint import RunFolder, read_tensors
        from napari_semiseg.errors import InputError
        from napari_semiseg.nn.weights import load_weights

        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

        folder = Path(sys.argv[1])
        module = nn.Linear(2, 2)
        before = peak()
        large, header = folder / "large.safetensors", folder / "header.safetensors"
        for attempt in (
            lambda: load_weights(module, large),
            lambda: load_weights(module, header),
            lambda: read_tensors(large, {"bytes": 10 * 2**30}),
            lambda: RunFolder(folder).read_config(),
        ):
            try:
                attempt()
            except InputError:
                print("refused")
        print((peak() - before) // 1024)
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), tmp_path], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    *refusals, megabytes = done.stdout.split()

    assert refusals == ["refused"] * 4
    assert int(megabytes) < 200


# ---- cards and configurations


@pytest.mark.parametrize(
    "change",
    [
        lambda card: card.update(schema=99),
        lambda card: card.update(schema=0),
        lambda card: card.update(schema="1"),
        lambda card: card.pop("choices"),
        lambda card: card.update(choices=[]),
        lambda card: card["choices"].update(classes=["a"] * 10**6),
        lambda card: card["choices"].update(classes=["background"]),
        lambda card: card["choices"].update(classes=5),
        lambda card: card["choices"].update(network="../../evil"),
        lambda card: card["choices"].update(method="os.system"),
        lambda card: card["choices"].update(steps=10**30),
        lambda card: card["choices"].update(seed=-1),
        lambda card: card["choices"].update(mpp=-1),
        lambda card: card["choices"]["optim"].update(lr=-1),
        lambda card: card["choices"]["sampler"].update(crop=10**9),
        lambda card: card.pop("threshold"),
        lambda card: card.update(threshold="high"),
        lambda card: card.update(threshold=7.0),
        lambda card: card.pop("step"),
        lambda card: card.update(step="../x"),
        lambda card: ["a list"],
    ],
)
def test_a_card_that_says_nonsense_is_refused_though_its_checksum_is_right(
    run: Path, change: Callable[[dict[str, Any]], Any]
) -> None:
    for path in (run / "checkpoints").glob("best-*.safetensors"):
        if path != best(run):
            path.unlink()

    def changed(card: dict[str, Any]) -> Any:
        result = change(card)
        return {"list": result} if isinstance(result, list) else None

    edit_card(best(run), changed)

    refused(lambda: load_predictor(run, CPU))


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config.update(schema=99),
        lambda config: config.pop("choices"),
        lambda config: config.pop("request"),
        lambda config: config["choices"]["optim"].update(lr=-1),
        lambda config: config["choices"].update(classes=["a"] * 10**6),
        lambda config: config["choices"].update(steps=-5),
        lambda config: config["request"].update(minutes=-1),
        lambda config: config["request"].update(unheard_of=1),
        lambda config: config.update(choices="all"),
    ],
)
def test_a_run_whose_configuration_says_nonsense_is_not_resumed(
    run: Path, ask: Ask, change: Callable[[dict[str, Any]], Any]
) -> None:
    config = json.loads((run / "run.json").read_text())
    change(config)
    (run / "run.json").write_text(json.dumps(config))

    refused(lambda: next(train(ask(out=str(run), resume=True))))


@pytest.mark.parametrize(
    "state", [{}, {"rate": -1}, {"rate": 10**9}, {"best_dice": "high"}, {"rollbacks": -(10**9)}, {"unheard_of": 1}]
)
def test_a_checkpoint_whose_state_says_nonsense_is_not_resumed(run: Path, ask: Ask, state: dict[str, Any]) -> None:
    for path in (run / "checkpoints").glob("step-*.safetensors"):
        edit_card(path, lambda card: card.update(state={**card["state"], **state} if state else {}))

    assert "the checkpoint" in refused(lambda: list(train(ask(out=str(run), resume=True))))


def test_a_run_in_which_somebody_trains_is_left_alone(run: Path, ask: Ask) -> None:
    first = train(ask(out=str(run), resume=True))
    next(first)

    assert "being written by another job" in refused(lambda: next(train(ask(out=str(run), resume=True))))
    first.close()
    assert isinstance(list(train(ask(out=str(run), resume=True)))[-1], Finished)


@pytest.mark.parametrize(
    "text", [DEEP, '{"a": 1, "a": 2}', '{"schema": NaN}', '{"schema": 1e999}', "{", "null", "\x00", '{"schema": -1}']
)
def test_a_card_that_is_no_plain_json_is_refused(run: Path, ask: Ask, text: str) -> None:
    for path in (run / "checkpoints").glob("*.json"):
        path.write_text(text)
    (run / "run.json").write_text(text)

    refused(lambda: load_predictor(run, CPU))
    refused(lambda: next(train(ask(out=str(run), resume=True))))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in nested JSON."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_value_in_the_card_of_a_checkpoint_may_be_wrong(run: Path, data: st.DataObject) -> None:
    """The checksum is right all the same; the checkpoint is then used as it is, passed over, or refused."""
    path = max((run / "checkpoints").glob("step-*.safetensors"))
    before = path.with_suffix(".json").read_bytes()
    card = json.loads(before)
    place = data.draw(st.sampled_from(sorted(places(card), key=str)))
    value = data.draw(json_values)

    def change(card: dict[str, Any]) -> None:
        holder = card
        for key in place[:-1]:
            holder = holder[key]
        holder[place[-1]] = value

    try:
        if place != ("checksum",):
            edit_card(path, change)
        folder = RunFolder(run)
        method, optimizers = parts_of(run)
        snapshot, passed_over = folder.restore(method, optimizers)
        assert snapshot is not None
        assert snapshot.step == (1 if passed_over else value if place == ("step",) else 4)
        assert all("\n" not in sentence for sentence in passed_over)
        assert all(bool(tensor.isfinite().all()) for tensor in method.state_dict().values())
    finally:
        path.with_suffix(".json").write_bytes(before)


@cache
def parts_of(run: Path) -> tuple[torch.nn.Module, list[torch.optim.Optimizer]]:
    choices = Choices.checked(atomic.read_json(run / "run.json")["choices"], "run.json")
    method = choices.build(CPU)
    return method, [choices.optim.build(groups) for groups in method.parameter_groups()]


# ---- checkpoints that do not belong


def test_a_checkpoint_of_other_classes_or_another_network_is_refused(run: Path, ask: Ask) -> None:
    config = json.loads((run / "run.json").read_text())
    wrong = json.loads(json.dumps(config))
    wrong["choices"]["classes"] = ["background", "tumor", "stroma"]
    (run / "run.json").write_text(json.dumps(wrong))
    refused(lambda: list(train(ask(out=str(run), resume=True))))
    three = Choices.checked(wrong["choices"], "run.json").build(CPU)
    assert "other classes" in refused(lambda: RunFolder(run).restore(three, []))
    edit_card(best(run), lambda card: card["choices"].update(classes=wrong["choices"]["classes"]))
    assert "other classes" in refused(lambda: load_predictor(run, CPU))

    wrong = json.loads(json.dumps(config))
    wrong["choices"]["network"] = "unet_resnet18"
    wrong["choices"]["weights"] = "none"
    (run / "run.json").write_text(json.dumps(wrong))
    assert "belongs to another network" in refused(lambda: list(train(ask(out=str(run), resume=True))))


def test_a_damaged_checkpoint_is_said_and_the_one_before_it_gone_on_with(run: Path, ask: Ask) -> None:
    path = max((run / "checkpoints").glob("step-*.safetensors"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    events = list(train(ask(out=str(run), resume=True)))

    told = [event.message for event in events if isinstance(event, Warned)]
    assert any("step-0000004" in message and "The checkpoint before it is used" in message for message in told), told
    assert [event.step for event in events if isinstance(event, StepDone)] != []
    assert isinstance(events[-1], Finished)
    assert [event.step for event in events if isinstance(event, Saved)][-1] == 4
    assert RunFolder(run).latest() == path
    assert math.isfinite(load_predictor(run, CPU).threshold)
