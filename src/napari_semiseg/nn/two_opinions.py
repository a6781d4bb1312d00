"""A network with a second classifier, and one answer of both."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_semiseg.nn.network import Network, PerImage
from napari_semiseg.nn.stain_unet import AtImage, find_scale


class TwoOpinions(Network):
    """A network whose features are classified twice: by its own classifier, and by one that knows nucleus or not.

    The answer is the mean of both in logits, in which the second counts `share`:

        z = (1 - share) log(p(nucleus) / p(background)) + share log(q(nucleus) / q(background))

    Which class a nucleus has is said by the first alone.

    Parameters
    ----------
    network : Network
    """

    share: Tensor

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.classes, self.feature_channels = network.classes, network.feature_channels
        self.stride, self.divisor, self.reach = network.stride, network.divisor, network.reach
        self.notes = network.notes
        self.network = network
        self.second = nn.Conv2d(network.feature_channels, 2, 1)
        self.register_buffer("share", torch.tensor(0.0))

    def features(self, image: Tensor) -> Tensor:
        """See `Network`."""
        return self.network.features(image)

    def opinions(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the network's own classifier says, (B, classes, H, W), and what the second says, (B, 2, H, W)."""
        features = self.features(image)
        return self.network.classify(features), self.network.upsampled(self.second(features))

    def logits_on_grid(self, features: Tensor) -> Tensor:
        """Return the answer of both for every cell."""
        own, second = self.network.logits_on_grid(features).log_softmax(1), self.second(features)
        kinds = own[:, 1:].log_softmax(1)
        nucleus = own[:, 1:].logsumexp(1, keepdim=True) - own[:, :1]
        both = (1 - self.share) * nucleus + self.share * (second[:, 1:] - second[:, :1])
        return torch.cat([torch.zeros_like(both), both + kinds], 1)


class TwoOpinionsPerImage(TwoOpinions, PerImage):
    """`TwoOpinions` of a network that is shown the stain on the scale of its image."""

    def for_image(self, parts: Sequence[NDArray[np.uint8]], look: NDArray[np.uint8], *, gray: bool) -> nn.Module:
        """See `PerImage`."""
        return AtImage(self, find_scale(parts, look, gray=gray))


def with_second_opinion(network: Network) -> TwoOpinions:
    """Give a network a second classifier, which has no say yet."""
    return TwoOpinionsPerImage(network) if isinstance(network, PerImage) else TwoOpinions(network)
