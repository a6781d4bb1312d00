"""What an idea is shown, and what it finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_semiseg.data.batch import IGNORE
from napari_semiseg.errors import InputError
from napari_semiseg.io.diagnostics import Diagnostic
from napari_semiseg.methods._base import Method
from napari_semiseg.nn.network import Network


@dataclass(frozen=True)
class Found:
    """Maps over the image by name, and numbers that were counted beside."""

    maps: Mapping[str, Diagnostic]
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Seen:
    """A method and a rectangle of an image, at the pixel size that it works with; in evaluation mode, no gradient.

    Attributes
    ----------
    method : Method
    image : Tensor, (1, 3, H, W), in [0, 1]
    truth : ndarray, (H, W), uint8, or None
        Classes; `IGNORE` where nothing is known. None where nothing is known at all.
    predictor : nn.Module or None
        What predicts this image, where that is not the same for all images (`PerImage`).
    """

    method: Method
    image: Tensor
    truth: NDArray[np.uint8] | None = None
    predictor: nn.Module | None = None

    @property
    def network(self) -> Network:
        """The network that predicts.

        Raises
        ------
        InputError
            If the method predicts without one.
        """
        network = self.method.predictor()
        if not isinstance(network, Network):
            raise InputError(f"The method '{self.method.name}' has no feature map to look at: ask for something else.")
        return network

    @property
    def known(self) -> NDArray[np.uint8]:
        """The truth.

        Raises
        ------
        InputError
            If none of the rectangle is known.
        """
        if self.truth is None or bool((self.truth == IGNORE).all()):
            raise InputError("No label lies in this rectangle to compare with: go to a labeled tile, or give --labels.")
        return self.truth

    @cached_property
    def probs(self) -> NDArray[np.float32]:
        """Probability of each class, (classes, H, W)."""
        predictor = self.predictor or self.method.predictor()
        probs: NDArray[np.float32] = predictor(self.image).float().softmax(1)[0].cpu().numpy()
        return probs
