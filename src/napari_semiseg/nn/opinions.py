"""Several networks asked about the same image: what each of them says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_semiseg.nn.network import PerImage
from napari_semiseg.nn.stain_unet import AtImage, find_scale
from napari_semiseg.nn.two_opinions import TwoOpinions


class Opinions(nn.Module):
    """What each of some networks says of an image, in the form of one distribution.

    The softmax of its answer is (1 - Σ p_i / n, p_1 / n, …, p_n / n), where p_i is the probability of nucleus that the
    i-th of n opinions gives: so what makes maps of confidence of a network makes one map for each of them. A network
    of two opinions gives both, unless only one of them has a say.

    Parameters
    ----------
    networks : sequence of nn.Module
        (B, 3, H, W) → logits (B, classes, H, W), background first; at least one.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits, (B, 1 + n, H, W)."""
        each = [nucleus for network in self.networks for nucleus in _asked(network, image)]
        shares = torch.stack(each, 1) / len(each)
        whole = torch.cat([1 - shares.sum(1, keepdim=True), shares], 1)
        return whole.clamp_min(torch.finfo(torch.float32).tiny).log()


class OpinionsPerImage(Opinions, PerImage):
    """`Opinions` of networks some of which look at an image as a whole first."""

    def for_image(self, parts: Sequence[NDArray[np.uint8]], look: NDArray[np.uint8], *, gray: bool) -> nn.Module:
        """See `PerImage`."""
        ready: list[nn.Module] = []
        for network in self.networks:
            if isinstance(network, TwoOpinions) and isinstance(network, PerImage):
                ready.append(AtImage(Opinions([network]), find_scale(parts, look, gray=gray)))
            elif isinstance(network, PerImage):
                ready.append(network.for_image(parts, look, gray=gray))
            else:
                ready.append(network)
        return ready[0] if len(ready) == 1 and isinstance(ready[0], AtImage) else Opinions(ready)


def opinions_of(networks: Sequence[nn.Module]) -> Opinions:
    """Ask some networks, each about the same image."""
    per_image = any(isinstance(network, PerImage) for network in networks)
    return OpinionsPerImage(networks) if per_image else Opinions(networks)


def _asked(network: nn.Module, image: Tensor) -> list[Tensor]:
    """Return the probability of nucleus by each opinion of a network, (B, H, W)."""
    if isinstance(network, AtImage) and isinstance(network.network, Opinions):
        shares = network(image).softmax(1)[:, 1:]
        return list((shares * shares.shape[1]).unbind(1))
    if isinstance(network, TwoOpinions) and 0 < float(network.share) < 1:
        return [1 - logits.float().softmax(1)[:, 0] for logits in (network.first(image), network.second(image))]
    return [1 - network(image).float().softmax(1)[:, 0]]
