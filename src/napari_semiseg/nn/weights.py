"""Weights from a file that someone gives: checked before anything of it is used."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from napari_semiseg.errors import InputError

PICKLES = (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle", ".npy", ".npz")
"""Suffixes of files that may run a program when they are read."""

_HEADER_LIMIT = 8 * 2**20  # bytes: five thousand tensors need one of them
_HEADS = ("fc.", "classifier.", "head.", "last_linear.")  # what ImageNet's thousand classes hang on
_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def load_weights(module: nn.Module, path: Path, *, parts: Iterable[nn.Module] = ()) -> None:
    """Load a safetensors file into a module, or into the one of its parts that it was made for.

    Names, shapes, types and finiteness are checked against the architecture, the first three before any tensor is read,
    and nothing is changed unless all are right. Counts of batches may be missing. A classification head that the part
    has not is left alone.

    Parameters
    ----------
    module : nn.Module
        The whole network.
    path : Path
        A ``.safetensors`` file. Anything else is refused, unread.
    parts : iterable of nn.Module
        Encoders of the network, for which a file of their own will do.

    Raises
    ------
    InputError
        If the file is not one, or is not for this architecture.
    """
    stored = read_header(path)
    targets = [(module, stored)]
    targets += [(part, {k: v for k, v in stored.items() if not k.startswith(_HEADS)}) for part in parts]
    complaints = [_mismatch(target, of) for target, of in targets]
    if None not in complaints:
        closest = min(range(len(targets)), key=lambda k: len(targets[k][0].state_dict().keys() ^ targets[k][1].keys()))
        raise InputError(
            f"{path} holds weights of another network: {complaints[closest]}; choose the network it was made with."
        )
    target, stored = targets[complaints.index(None)]
    target.load_state_dict(_counts(target) | _tensors(path, stored))


def read_header(path: Path) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """Return the type and shape of every tensor in a safetensors file, without reading one.

    Raises
    ------
    InputError
        If the file is a pickle, is not there, or is damaged: a header that is too long, twice the same name, sizes that
        overlap or that the file does not have.
    """
    if path.suffix.lower() in PICKLES:
        raise InputError(
            f"{path} is not read, since such a file can run a program when opened: give a .safetensors file."
        )
    if not path.is_file():
        raise InputError(f"There is no file {path}: give the path of a .safetensors file.")
    check_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
            return {name: (_TYPES[part.get_dtype()], tuple(part.get_shape())) for name, part in slices.items()}
    except (SafetensorError, OSError, KeyError):
        raise InputError(f"{path} is damaged or no safetensors file: copy it again from where it came.") from None


def check_header(path: Path) -> None:
    """Check the part of a safetensors file that names its tensors, before anything is made of it.

    Raises
    ------
    InputError
        If it is too long, no JSON, or gives a name twice.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _HEADER_LIMIT:
            raise InputError(f"{path} is damaged or no safetensors file: it claims a header of {length:,} bytes.")
        header = file.read(length)
    try:
        json.loads(header, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        raise InputError(f"{path} is damaged or no safetensors file: copy it again from where it came.") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a name comes twice")
    return dict(pairs)


def _mismatch(module: nn.Module, stored: Mapping[str, tuple[torch.dtype, tuple[int, ...]]]) -> str | None:
    """Return the first difference between an architecture and what is stored, in words."""
    expected = module.state_dict()
    for name, tensor in expected.items():
        if name not in stored:
            if _counts_batches(name):
                continue
            return f"'{name}' is missing"
        dtype, shape = stored[name]
        if shape != tuple(tensor.shape):
            return f"'{name}' has the shape {list(shape)} and not {list(tensor.shape)}"
        if dtype != tensor.dtype:
            return f"'{name}' is of type {dtype} and not {tensor.dtype}"
    unknown = stored.keys() - expected.keys()
    return f"'{min(unknown)}' is unknown" if unknown else None


def _tensors(path: Path, names: Iterable[str]) -> dict[str, Tensor]:
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in names}
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise InputError(
                f"{path} holds values that are not finite, in '{name}': choose weights of a run that went well."
            )
    return tensors


def _counts(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in module.state_dict().items() if _counts_batches(name)}


def _counts_batches(name: str) -> bool:
    return name.endswith("num_batches_tracked")
