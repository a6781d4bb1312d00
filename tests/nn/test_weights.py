import json
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from napari_semiseg.errors import InputError
from napari_semiseg.nn.weights import PICKLES, load_weights


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))


def file_of(path, header: dict | bytes, data: bytes = b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def refused(path, *, by: nn.Module | None = None) -> str:
    module = by or small()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(InputError) as caught:
        load_weights(module, path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    sentence = str(caught.value)
    assert str(path) in sentence
    assert "\n" not in sentence
    return sentence


def test_weights_come_back_as_they_were_saved(tmp_path):
    saved, loaded = small(), small()
    saved(torch.rand(4, 1, 3, 3))
    with torch.no_grad():
        saved[0].weight.add_(1)
    save_file(saved.state_dict(), tmp_path / "w.safetensors")
    load_weights(loaded, tmp_path / "w.safetensors")
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in saved.state_dict().items())


def test_counts_of_batches_may_be_missing(tmp_path):
    state = {name: tensor for name, tensor in small().state_dict().items() if "num_batches" not in name}
    state["0.weight"] = state["0.weight"] + 1
    save_file(state, tmp_path / "w.safetensors")
    module = small()
    load_weights(module, tmp_path / "w.safetensors")
    assert torch.equal(module[0].weight, state["0.weight"])


class Canary:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("suffix", [*PICKLES, ".PTH", ".safetensors"])
def test_a_pickle_is_refused_and_never_run(tmp_path, suffix):
    canary = tmp_path / "canary"
    path = tmp_path / f"weights{suffix}"
    if suffix == ".npy":
        np.save(path, np.array([Canary(canary)], dtype=object), allow_pickle=True)
    elif suffix == ".npz":
        np.savez(path, np.array([Canary(canary)], dtype=object), allow_pickle=True)
    elif suffix == ".pkl":
        path.write_bytes(pickle.dumps(Canary(canary)))
    else:
        torch.save({"weight": Canary(canary)}, path)
    sentence = refused(path)
    assert not canary.exists()
    if suffix != ".safetensors":
        assert "can run a program" in sentence


def test_another_shape_type_or_name_is_named(tmp_path):
    path = tmp_path / "w.safetensors"
    state = small().state_dict()
    save_file(state | {"0.weight": torch.zeros(3, 1, 1, 1)}, path)
    assert "'0.weight' has the shape [3, 1, 1, 1] and not [2, 1, 1, 1]" in refused(path)
    save_file(state | {"0.bias": torch.zeros(2, dtype=torch.float16)}, path)
    assert "'0.bias' is of type torch.float16 and not torch.float32" in refused(path)
    save_file({name: tensor for name, tensor in state.items() if name != "0.bias"}, path)
    assert "'0.bias' is missing" in refused(path)
    save_file(state | {"extra": torch.zeros(1)}, path)
    assert "'extra' is unknown" in refused(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(tmp_path, value):
    path = tmp_path / "w.safetensors"
    save_file(small().state_dict() | {"0.bias": torch.tensor([0.0, value])}, path)
    assert "not finite, in '0.bias'" in refused(path)


def test_a_file_cut_off_anywhere_is_refused(tmp_path):
    whole = tmp_path / "whole.safetensors"
    save_file(small().state_dict(), whole)
    content = whole.read_bytes()
    cut = tmp_path / "cut.safetensors"
    module = small()
    for length in range(len(content)):
        cut.write_bytes(content[:length])
        refused(cut, by=module)


def test_headers_that_lie_are_refused_before_anything_is_allocated(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", 2**60) + b"{}")
    assert "header of 1,152,921,504,606,846,976 bytes" in refused(path)
    path.write_bytes(struct.pack("<Q", 64 * 2**20) + b"{}")
    assert "header" in refused(path)

    def tensor(first, last, shape, dtype="F32"):
        return {"dtype": dtype, "shape": shape, "data_offsets": [first, last]}

    ten_gigabytes = 10 * 2**30
    lies = [
        {"a": tensor(0, ten_gigabytes, [ten_gigabytes // 4])},  # declared and not there
        {"a": tensor(0, 8, [2]), "b": tensor(4, 12, [2])},  # overlapping
        {"a": tensor(0, 8, [3])},  # shape and size disagree
        {"a": tensor(8, 0, [2])},
        {"a": tensor(0, 12, [2**62, 2**62])},
        {"a": tensor(0, 12, [3], "F4_UNHEARD_OF")},
        {"a": 3},
        [],
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
    ]
    for lie in lies:
        assert "damaged" in refused(file_of(path, lie, bytes(12)))


def test_what_is_no_file_is_refused(tmp_path):
    assert "There is no file" in refused(tmp_path / "missing.safetensors")
    folder = tmp_path / "folder.safetensors"
    folder.mkdir()
    assert "There is no file" in refused(folder)
    loop = tmp_path / "loop.safetensors"
    loop.symlink_to(loop)
    assert "There is no file" in refused(loop)
    if not hasattr(os, "mkfifo"):
        pytest.skip("no named pipes here")
    os.mkfifo(tmp_path / "pipe.safetensors")
    assert "There is no file" in refused(tmp_path / "pipe.safetensors")
