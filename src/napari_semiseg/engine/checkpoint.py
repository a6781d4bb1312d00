"""The run folder: what a run writes, and how it is found again.

``run.json`` says what the run is; ``events.jsonl`` what happened; ``checkpoints/step-N.safetensors`` with
``step-N.json`` holds everything that a resumed run needs, and ``LATEST`` names the newest;
``checkpoints/best-N.safetensors`` is the predictor to use. Nothing is written over: each file comes into being whole
under its own name, and counts once the card with its hash lies beside it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from pydantic import ConfigDict, Field
from torch import Tensor, nn
from torch.optim import Optimizer

from napari_semiseg import atomic
from napari_semiseg.config import Config
from napari_semiseg.errors import InputError
from napari_semiseg.io.event_log import EventLog, open_log
from napari_semiseg.nn.weights import check_header

SCHEMA_VERSION = 1
KEPT = 3
"""How many of the newest checkpoints stay."""
_OURS = re.compile(r"\.semiseg-.*|LATEST|(step|best)-\d{7}\.(json|safetensors)|image-\d+-step-\d{7}\.npy")
"""Names of what a run writes into its two folders; the first are unfinished files."""


@dataclass(frozen=True)
class Snapshot:
    """What is known of a checkpoint beside its tensors.

    Attributes
    ----------
    step : int
        Steps done; the next one has this number.
    state : dict
        What the training loop keeps (guard, best score …), plain JSON.
    """

    step: int
    state: dict[str, Any] = field(default_factory=dict)


class _Card(Config):
    """What lies beside every file of tensors; cards of earlier versions may say more."""

    model_config = ConfigDict(extra="ignore", strict=True)

    step: int = Field(ge=0, le=10**9)
    sha256: str = Field(min_length=64, max_length=64)
    bytes: int = Field(ge=0)


class _StepCard(_Card):
    state: dict[str, Any]


class _ModelCard(_Card):
    choices: dict[str, Any]
    threshold: float = Field(ge=0, le=1)
    homes: dict[str, float] = Field(default_factory=dict)


class RunFolder:
    """A folder that belongs to one training run.

    Parameters
    ----------
    path : Path
        Made where it does not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._made: list[Path] = []

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def preview(self) -> Path:
        """Folder of the confidence maps."""
        return self.path / "preview"

    @property
    def diagnostics(self) -> Path:
        """Folder of the looks inside the method."""
        return self.path / "diagnostics"

    def begin(self) -> None:
        """Make the folders.

        Raises
        ------
        InputError
            If they cannot be written, or hold what is no part of a run.
        """
        self._make(self.path)
        self._refuse_strangers()
        self._make(self.checkpoints)
        self._make(self.preview)

    def _make(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True)
        except FileExistsError:  # whether it is a folder, and ours, is found out below
            pass
        except OSError as error:
            raise InputError(
                f"The run folder {folder} cannot be made ({error.strerror}): choose another place with --out."
            ) from None
        else:
            self._made.append(folder)
        atomic.require_writable(folder)

    def _refuse_strangers(self) -> None:
        """Refuse a folder that is used for something else: a run drops and discards files in its own."""
        if (self.path / "run.json").exists():
            return
        known = {self.checkpoints, self.preview, self.path / "events.jsonl"}
        strangers = [path for path in self.path.iterdir() if path not in known and not path.name.startswith(".")]
        for folder in filter(Path.is_dir, (self.checkpoints, self.preview)):
            strangers += [path for path in folder.iterdir() if not _OURS.fullmatch(path.name)]
        if strangers:
            raise InputError(
                f"{self.path} holds something else ({min(strangers).relative_to(self.path)}), and a run needs a folder "
                "of its own: choose another --out."
            )

    def withdraw(self) -> None:
        """Remove the folders that `begin` has made, where nothing has come of the run."""
        if (self.path / "run.json").exists():
            return
        with contextlib.suppress(OSError):  # one that holds something stays, and what is above it
            for folder in reversed(self._made):
                folder.rmdir()

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write ``run.json``."""
        atomic.write_json(self.path / "run.json", {"schema": SCHEMA_VERSION, **config})

    def read_config(self) -> dict[str, Any]:
        """Read ``run.json``.

        Raises
        ------
        InputError
            If this is no run folder, or one of a newer version.
        """
        return _read_card(self.path / "run.json", f"{self.path} is no run folder")

    def log(self) -> AbstractContextManager[EventLog]:
        """Open ``events.jsonl`` for appending; see `open_log`."""
        return open_log(self.path / "events.jsonl")

    def save(self, method: nn.Module, optimizers: Sequence[Optimizer], snapshot: Snapshot) -> Path:
        """Write a checkpoint, then point to it, then drop the oldest.

        Returns
        -------
        Path
            The safetensors file.
        """
        tensors = {f"method.{name}": tensor for name, tensor in method.state_dict().items()}
        for number, optimizer in enumerate(optimizers):
            # Rates, betas and the like come from the run's own options; the others are tensors.
            for index, values in optimizer.state_dict()["state"].items():
                for name, value in values.items():
                    if value is not None:
                        tensors[f"optimizer.{number}.{index}.{name}"] = value
        name = f"step-{snapshot.step:07d}"
        path = self.checkpoints / f"{name}.safetensors"
        write_tensors(path, tensors, {"step": snapshot.step, "state": snapshot.state}, copies=KEPT)
        atomic.write_text(self.checkpoints / "LATEST", name)
        _drop(sorted(self.checkpoints.glob("step-*.safetensors"), reverse=True)[KEPT:])
        return path

    def restore(self, method: nn.Module, optimizers: Sequence[Optimizer]) -> tuple[Snapshot | None, list[str]]:
        """Load the newest checkpoint that verifies.

        Returns
        -------
        Snapshot or None
            None where there is no usable checkpoint: the run starts from the beginning.
        list of str
            Sentences on checkpoints that had to be passed over.

        Raises
        ------
        InputError
            If a checkpoint that verifies belongs to another architecture or other classes.
        """
        passed_over = []
        for path in sorted(self.checkpoints.glob("step-*.safetensors"), reverse=True):
            try:
                card = read_card(path)
                checked = _StepCard.checked(card, str(path.with_suffix(".json")))
                tensors = read_tensors(path, card)
            except InputError as error:
                passed_over.append(f"{error} The checkpoint before it is used.")
                continue
            expected = {f"method.{name}": tensor for name, tensor in method.state_dict().items()}
            stored = {name: tensor for name, tensor in tensors.items() if name.startswith("method.")}
            require_match(stored, expected, path)
            states = [_optimizer_state(number, one, tensors, path) for number, one in enumerate(optimizers)]
            method.load_state_dict({name.removeprefix("method."): tensor for name, tensor in stored.items()})
            for optimizer, state in zip(optimizers, states, strict=True):
                optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
            return Snapshot(checked.step, checked.state), passed_over
        return None, passed_over

    def latest(self) -> Path | None:
        """Return the newest checkpoint that verifies, if any."""
        for path in sorted(self.checkpoints.glob("step-*.safetensors"), reverse=True):
            if verifies(path):
                return path
        return None

    def save_model(self, predictor: nn.Module, step: int, card: Mapping[str, Any]) -> Path:
        """Write the predictor of a step, and drop all but the one before it: the newest is the one that is kept.

        Those of later steps go too: the run has gone back behind them.
        """
        path = self.checkpoints / f"best-{step:07d}.safetensors"
        write_tensors(path, predictor.state_dict(), {"schema": SCHEMA_VERSION, "step": step, **card}, copies=1)
        models = sorted(self.checkpoints.glob("best-*.safetensors"), reverse=True)
        place = models.index(path)
        _drop([*models[:place], *models[place + 2 :]])
        return path

    def go_back_to_model(self, step: int) -> bool:
        """Drop the predictors of later steps, whose training was lost; False, and all stay, where this one is gone."""
        path = self.checkpoints / f"best-{step:07d}.safetensors"
        if not verifies(path):
            return False
        _drop([later for later in self.checkpoints.glob("best-*.safetensors") if later.name > path.name])
        return True

    def read_model(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Read the newest predictor that verifies: its tensors and its card.

        Raises
        ------
        InputError
            If there is none.
        """
        reasons = []
        for path in sorted(self.checkpoints.glob("best-*.safetensors"), reverse=True):
            try:
                return self.read_model_file(path)
            except InputError as error:
                reasons.append(str(error))
        raise InputError(
            " ".join(reasons) or f"{self.path} holds no trained model: train first, or give another run folder."
        )

    @staticmethod
    def read_model_file(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Read a predictor that was exported, from a safetensors file with its card beside it; see `read_model`."""
        card = read_card(path)
        checked = _ModelCard.checked(card, str(path.with_suffix(".json")))
        return read_tensors(path, card), checked.model_dump()

    def discard(self) -> None:
        """Remove what a canceled run leaves behind, all but ``run.json`` and ``events.jsonl``."""
        for folder in (self.checkpoints, self.preview):
            for path in folder.iterdir():
                if _OURS.fullmatch(path.name):
                    path.unlink()
        for path in self.diagnostics.glob("*.npz"):
            path.unlink()


def write_tensors(path: Path, tensors: Mapping[str, Tensor], card: Mapping[str, Any], *, copies: int) -> None:
    """Write tensors, then the card with their hash beside them: without the card the file does not count.

    What is there already, whole, is not written again: a kill in between would cost a checkpoint that was safe.

    Parameters
    ----------
    copies : int
        How many such files must fit on the disk.

    Raises
    ------
    InputError
        If they do not fit.
    """
    data = safetensors.torch.save(
        {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    )
    # As JSON gives it back, so that it can be compared with what was read.
    whole = json.loads(json.dumps({**card, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}))
    if _is_there(path, whole):
        return
    atomic.require_space(path.parent, copies * len(data), "the checkpoints")
    path.with_suffix(".json").unlink(missing_ok=True)
    atomic.write_bytes(path, data)
    atomic.write_json(path.with_suffix(".json"), {**whole, "checksum": _checksum(whole)})


def read_card(path: Path) -> dict[str, Any]:
    """Read the card beside a safetensors file.

    Raises
    ------
    InputError
        If there is none, it is damaged, or the file is of a kind that can run programs.
    """
    if path.suffix in {".pt", ".pth", ".ckpt", ".pkl", ".npy", ".npz"}:
        raise InputError(
            f"{path} was refused: files of this kind can run programs when they are opened. Give a .safetensors file."
        )
    card = _read_card(path.with_suffix(".json"), f"{path} has no card ({path.with_suffix('.json').name})")
    if card.pop("checksum", None) != _checksum(card):
        raise InputError(f"{path.with_suffix('.json')} is damaged: its checksum is another.")
    return card


def read_tensors(path: Path, card: Mapping[str, Any]) -> dict[str, Tensor]:
    """Read tensors whose hash agrees with their card.

    Raises
    ------
    InputError
        If the file is missing, of another size, damaged, or holds NaN or infinity.
    """
    try:
        size = path.stat().st_size
    except OSError:
        raise InputError(f"{path} is missing.") from None
    if size != card.get("bytes") or atomic.sha256_of(path) != card.get("sha256"):
        raise InputError(f"{path} is damaged: its bytes do not agree with its card.")
    check_header(path)
    try:
        tensors = safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise InputError(f"{path} is damaged: {error}.") from None
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise InputError(f"{path} holds NaN or infinity in {name}: it cannot be used.")
    return tensors


def require_match(stored: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path) -> None:
    """Check names, shapes and types.

    Raises
    ------
    InputError
        If they belong to another architecture or another number of classes.
    """
    for name in expected.keys() | stored.keys():
        if name not in stored or name not in expected:
            where = "lacks" if name not in stored else "has a surplus"
            raise InputError(f"{path} belongs to another network: it {where} {name}. Use the run's own settings.")
        if stored[name].shape != expected[name].shape or stored[name].dtype != expected[name].dtype:
            raise InputError(
                f"{path} belongs to another network or other classes: {name} is {tuple(stored[name].shape)} "
                f"instead of {tuple(expected[name].shape)}. Use the run's own settings."
            )


def _is_there(path: Path, card: Mapping[str, Any]) -> bool:
    try:
        return read_card(path) == card and atomic.sha256_of(path) == card["sha256"]
    except InputError:
        return False


def _drop(paths: Sequence[Path]) -> None:
    for path in paths:
        path.with_suffix(".json").unlink(missing_ok=True)
        path.unlink()


def verifies(path: Path) -> bool:
    """Whether a checkpoint's bytes agree with its card."""
    try:
        read_tensors(path, read_card(path))
    except InputError:
        return False
    return True


def _read_card(path: Path, otherwise: str) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{otherwise}: {path.name} is missing there.")
    card = atomic.read_json(path)
    if not isinstance(card, dict):
        raise InputError(f"{path} is damaged: it holds no JSON object.")
    schema = card.get("schema", SCHEMA_VERSION)
    if type(schema) is not int or schema < 1:
        raise InputError(f"{path} is damaged: its schema is no version number.")
    if schema > SCHEMA_VERSION:
        raise InputError(f"{path} was written by a newer version of napari-semiseg: update to read it.")
    return card


def _checksum(card: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(card, sort_keys=True).encode()).hexdigest()


def _optimizer_state(
    number: int, optimizer: Optimizer, tensors: Mapping[str, Tensor], path: Path
) -> dict[int, dict[str, Tensor]]:
    """Gather the tensors of one optimizer by the place of their parameter."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    prefix = f"optimizer.{number}."
    for name, tensor in tensors.items():
        if name.startswith(prefix):
            index, _, key = name.removeprefix(prefix).partition(".")
            if not index.isdecimal() or int(index) >= len(parameters):
                raise InputError(f"{path} belongs to another network: it has a surplus {name}. Train anew.")
            parameter = parameters[int(index)]
            if tensor.shape not in ((), parameter.shape):
                raise InputError(f"{path} belongs to another network: {name} has another shape. Train anew.")
            state.setdefault(int(index), {})[key] = _laid_out_as(parameter, tensor)
    return state


def _laid_out_as(parameter: Tensor, tensor: Tensor) -> Tensor:
    """Return values in the memory layout of their weights: a file holds plain rows, and mixed layouts are slow."""
    if tensor.shape != parameter.shape:
        return tensor
    return torch.empty_like(parameter, dtype=tensor.dtype, requires_grad=False).copy_(tensor)
