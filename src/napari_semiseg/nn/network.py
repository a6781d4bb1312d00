"""What every segmentation network is: features on a grid, and a classifier over them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn


class PerImage(nn.Module, ABC):
    """A predictor that looks at an image as a whole before it predicts parts of it.

    Called on its own it takes what it is shown for the whole image.
    """

    @abstractmethod
    def for_image(self, parts: Sequence[NDArray[np.uint8]], look: NDArray[np.uint8], *, gray: bool) -> nn.Module:
        """Return what predicts the parts of one image.

        Parameters
        ----------
        parts : sequence of ndarray, (h, w, 3), uint8
            The image, or samples of its tissue.
        look : ndarray, (h, w, 3), uint8
            The whole image, perhaps at a lower resolution.
        gray : bool
            Whether its file has one channel.
        """


class Network(nn.Module, ABC):
    """Images to features on a coarser grid, features to logits.

    Attributes
    ----------
    classes : int
        Number of classes, with background.
    feature_channels : int
        D, the channels of `features`.
    stride : int
        s, pixels per cell of the feature grid.
    divisor : int
        Sides of an input must be multiples of this, and block origins too.
    reach : int or None
        Pixels from an output pixel to the furthest input pixel it depends on; None where that is the whole image.
    notes : tuple of str
        What the user should know of how the network was made, one plain sentence each (weights that could not be
        fetched).
    """

    classes: int
    feature_channels: int
    stride: int
    divisor: int
    reach: int | None
    notes: tuple[str, ...] = ()

    @abstractmethod
    def features(self, image: Tensor) -> Tensor:
        """Return features.

        Parameters
        ----------
        image : Tensor, (B, 3, H, W), in [0, 1]
            Sides are multiples of `divisor`.

        Returns
        -------
        Tensor, (B, D, H / s, W / s)
        """

    @abstractmethod
    def logits_on_grid(self, features: Tensor) -> Tensor:
        """Classify every cell: (B, D, h, w) → logits (B, classes, h, w). `features` may be pooled first."""

    def classify(self, features: Tensor) -> Tensor:
        """Return logits at the input's size, (B, classes, h * s, w * s)."""
        return self.upsampled(self.logits_on_grid(features))

    def upsampled(self, logits: Tensor) -> Tensor:
        """Bring logits from the feature grid to the input's size."""
        if self.stride == 1:
            return logits
        return F.interpolate(logits, scale_factor=self.stride, mode="bilinear", align_corners=False)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits, (B, classes, H, W)."""
        return self.classify(self.features(image))


@contextmanager
def computing_features(module: nn.Module, by: Callable[[Network, Tensor], Tensor]) -> Iterator[list[Network]]:
    """Let every network in a module that is not made of others compute its features in another way.

    Outside of the context the module is as it was: what copies or saves it does so outside.

    Parameters
    ----------
    module : nn.Module
    by : callable
        A network and a batch → features; ``type(network).features`` is the network's own way.

    Yields
    ------
    list of Network
    """
    networks = [part for part in module.modules() if isinstance(part, Network) and not _holds_another(part)]
    for network in networks:
        network.features = partial(by, network)  # type: ignore[method-assign]
    try:
        yield networks
    finally:
        for network in networks:
            del network.features


def _holds_another(network: Network) -> bool:
    return any(isinstance(part, Network) for part in network.modules() if part is not network)
