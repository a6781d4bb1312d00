"""Two networks of the same kind, taught by different things, and one answer of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_semiseg.nn.neighborhood import Neighborhood
from napari_semiseg.nn.network import Network, PerImage
from napari_semiseg.nn.stain_unet import AtImage, find_scale


class TwoOpinions(Network):
    """Two networks, of which the second knows nucleus or not, and nothing of classes.

    The answer is a mean of both in logits, in which the second counts `share`, less some `caution`. What stands out
    from its neighborhood and the mean of that neighborhood are weighed each by itself:

        f = log(p(nucleus) / p(background)),    h = log(q(nucleus) / q(background))
        z = (1 - share) (1 + contrast) (f - f̄) + share (h - h̄) + (1 - level) f̄ + level h̄ - caution
        level / (1 - level) = around share / (1 - share)

    f̄ and h̄ are means over the neighborhood of a pixel (`Neighborhood`). Which class a nucleus has is said by the first
    alone. On images that the first was taught by, it may count more than on others: see `at_home`.

    Parameters
    ----------
    first, second : Network
        Of the same kind, each with weights of its own.
    caution : float
        In logits: how much surer than even both have to be of a nucleus.
    contrast : float
        How much more what stands out for the first counts than what does for the second.
    around : float
        How many times as much the second counts for the mean of a neighborhood as for what stands out from it.

    Attributes
    ----------
    share : Tensor
        How much the second counts, in [0, 1].
    homes : dict of str to Tensor
        Images that the first was taught by, named by their fingerprints, and how much the second counts there.
    """

    share: Tensor
    caution: Tensor

    def __init__(
        self, first: Network, second: Network, caution: float = 0.0, contrast: float = 0.0, around: float = 1.0
    ) -> None:
        super().__init__()
        self.classes = first.classes
        self.feature_channels = first.feature_channels + second.feature_channels
        self.stride, self.divisor, self.notes = first.stride, first.divisor, first.notes
        self.first, self.second = first, second
        self.contrast, self.around = contrast, around
        self.neighborhood = Neighborhood(first.stride)
        self.reach = None if first.reach is None else first.reach + self.neighborhood.reach
        self.homes: dict[str, Tensor] = {}
        self.register_buffer("share", torch.tensor(0.0))
        self.register_buffer("caution", torch.tensor(caution))

    @property
    def both(self) -> tuple[Network, Network]:
        """The two networks."""
        return self.first, self.second

    def at_home(self, image: str) -> TwoOpinions:
        """Return the same networks as they are weighed, now and later, on an image that the first was taught by."""
        found = type(self)(self.first, self.second, contrast=self.contrast, around=self.around)
        found.neighborhood, found.caution = self.neighborhood, self.caution
        found.share = self.homes[image]
        return found

    def weigh_at_homes(self, shares: Mapping[str, float]) -> None:
        """Say how much the second counts on each image that the first was taught by; on others as on any."""
        for image in self.homes.keys() - shares.keys():
            self.homes[image].copy_(self.share)
        for image, share in shares.items():
            self.homes.setdefault(image, self.share.clone()).fill_(share)

    def features(self, image: Tensor) -> Tensor:
        """Return the features of both, one after the other."""
        return torch.cat([self.first.features(image), self.second.features(image)], 1)

    def logits_on_grid(self, features: Tensor) -> Tensor:
        """Return the answer of both for every cell."""
        own, others = features[:, : self.first.feature_channels], features[:, self.first.feature_channels :]
        first = self.first.logits_on_grid(own).log_softmax(1)
        kinds = first[:, 1:].log_softmax(1)
        both = self.weighed(nucleus_logit(first), nucleus_logit(self.second.logits_on_grid(others)))
        return torch.cat([torch.zeros_like(both), both - self.caution + kinds], 1)

    def weighed(self, first: Tensor, second: Tensor) -> Tensor:
        """Return z + caution of f and h, (B, 1, h, w)."""
        share = self.share
        level = self.around * share / (1 + (self.around - 1) * share)
        mean, other_mean = self.neighborhood(first), self.neighborhood(second)
        stands_out = (1 - share) * (1 + self.contrast) * (first - mean) + share * (second - other_mean)
        found: Tensor = stands_out + (1 - level) * mean + level * other_mean
        return found


class TwoOpinionsPerImage(TwoOpinions, PerImage):
    """`TwoOpinions` of networks that are shown the stain on the scale of their image."""

    def for_image(self, parts: Sequence[NDArray[np.uint8]], look: NDArray[np.uint8], *, gray: bool) -> nn.Module:
        """See `PerImage`. Who has no say in an image without classes is not asked."""
        return AtImage(_WhoHasASay(self), find_scale(parts, look, gray=gray))


class _WhoHasASay(nn.Module):
    """Two opinions, or as long as the first has no say, the second alone: half the work."""

    def __init__(self, both: TwoOpinions) -> None:
        super().__init__()
        self.both = both

    def forward(self, image: Tensor) -> Tensor:
        if self.both.share < 1 or self.both.classes > 2:
            found: Tensor = self.both(image)
            return found
        nucleus = nucleus_logit(self.both.second(image)) - self.both.caution
        return torch.cat([torch.zeros_like(nucleus), nucleus], 1)


def two_opinions(first: Network, second: Network, **weights: float) -> TwoOpinions:
    """Join two networks, weighed as `TwoOpinions` says; the second has no say yet."""
    kind = TwoOpinionsPerImage if isinstance(first, PerImage) else TwoOpinions
    return kind(first, second, **weights)


def nucleus_logit(logits: Tensor) -> Tensor:
    """Return log(p(nucleus) / p(background)), (B, 1, H, W), whatever class a nucleus has."""
    return logits[:, 1:].logsumexp(1, keepdim=True) - logits[:, :1]
