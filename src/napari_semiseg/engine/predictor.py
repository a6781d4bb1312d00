"""A trained run, ready to predict."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from napari_semiseg.engine.checkpoint import RunFolder, require_match
from napari_semiseg.engine.recipe import Choices
from napari_semiseg.errors import InputError
from napari_semiseg.nn.turned import FIELD, Looks, TurnAveraged
from napari_semiseg.nn.two_opinions import TwoOpinions


@dataclass(frozen=True)
class Predictor:
    """A network and what it has to be told about images.

    Attributes
    ----------
    network : nn.Module
        (B, 3, H, W) in [0, 1] → logits (B, classes, H, W); in evaluation mode, on `device`.
    classes : tuple of str
        Background first.
    divisor : int
        Sides and origins of blocks are multiples of it.
    reach : int or None
        Pixels that an output pixel sees on each side; None where that is the whole image.
    mpp : float or None
        Pixel size that the network was trained at, in µm, where it is known.
    threshold : float
        Confidence from which a pixel is nucleus.
    step : int
        The step whose weights these are.
    device : torch.device
    """

    network: nn.Module
    classes: tuple[str, ...]
    divisor: int
    reach: int | None
    mpp: float | None
    threshold: float
    step: int
    device: torch.device


def load_predictor(run: Path, device: torch.device, turns: Looks = 1) -> Predictor:
    """Load the best model of a run folder.

    Parameters
    ----------
    run : Path
        A run folder, or a model that was exported from one (``.safetensors`` with its card beside it).
    device : torch.device
    turns : {1, 4, 8, "auto"}
        From how many sides it looks at an image; see `TurnAveraged`.

    Raises
    ------
    InputError
        If the folder holds no usable model.
    """
    folder = RunFolder(run)
    exported = folder.path.suffix == ".safetensors"
    if folder.path.is_file() and not exported:
        raise InputError(
            f"{run} is a file, and a trained model is read from the run folder that a training made: name that folder."
        )
    tensors, card = folder.read_model_file(folder.path) if exported else folder.read_model()
    choices = _choices(card["choices"], folder.path)
    network = choices.build(device).predictor()
    require_match(tensors, network.state_dict(), folder.path)
    network.load_state_dict(tensors)
    if isinstance(network, TwoOpinions):
        network.weigh_at_homes(card["homes"])
    whole = network if turns == 1 else _turned(network, turns).to(device)
    return Predictor(
        network=whole.eval(),
        classes=choices.classes,
        divisor=int(getattr(network, "divisor", 1)),
        reach=getattr(network, "reach", None),
        mpp=choices.mpp,
        threshold=card["threshold"],
        step=card["step"],
        device=device,
    )


def _turned(network: nn.Module, turns: Looks) -> TurnAveraged:
    return TurnAveraged(network, 4, FIELD) if turns == "auto" else TurnAveraged(network, turns)


def load_second_opinion(run: Path, device: torch.device) -> nn.Module | None:
    """Load the network that learned beside the one that predicts, as it was when the run was last saved.

    Returns
    -------
    nn.Module or None
        None where the method has one network, or no checkpoint is left that can be read.

    Raises
    ------
    InputError
        If this is no run folder, or its checkpoints belong to another architecture.
    """
    folder = RunFolder(run)
    method = _choices(folder.read_config().get("choices", {}), folder.path).build(device)
    network = method.second_opinion()
    if network is None or folder.restore(method, [])[0] is None:
        return None
    return network.eval()


def _choices(said: Any, path: Path) -> Choices:
    """Check what a run was trained with; the weights it began with are about to be replaced, and are not fetched."""
    return Choices.checked(said, f"the model of {path}").model_copy(update={"weights": "none"})
