"""A trained run, ready to predict."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from napari_semiseg.engine.checkpoint import RunFolder, require_match
from napari_semiseg.engine.recipe import Choices
from napari_semiseg.errors import InputError
from napari_semiseg.nn.turned import Sides, TurnAveraged


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


def load_predictor(run: Path, device: torch.device, turns: Sides = 1) -> Predictor:
    """Load the best model of a run folder.

    Parameters
    ----------
    run : Path
        A run folder, or a model that was exported from one (``.safetensors`` with its card beside it).
    device : torch.device
    turns : {1, 4, 8}
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
    # Whatever weights the network began with are about to be replaced: nothing is fetched for them.
    choices = Choices.checked(card["choices"], f"the model of {folder.path}")
    choices = choices.model_copy(update={"weights": "none"})
    network = choices.build(device).predictor()
    require_match(tensors, network.state_dict(), folder.path)
    network.load_state_dict(tensors)
    whole = network if turns == 1 else TurnAveraged(network, turns).to(device)
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
