"""Prototypes of an image, found by attention over its pixels, and a network whose pixels are read with their help.

After DualRel (Mai et al., CVPR 2023). Only its supplement is public: what it defines is marked with its equation, the
rest is ours.

paper          here
X              the features of an image's cells, reduced to `channels`
s_{k,i}        `direct`: correlation of prototype k and cell i, normalized over cells
u_i            `usage` of a cell, Σ_k s_{k,i}                                                   Eq. 5
X^R            the `references` cells of highest usage
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_semiseg.nn.network import Network

_HIDDEN = -1e4
"""Correlation of a cell that shows no image: its share is 0 in float32, and never NaN."""
_COARSE = 4
"""Pixels per cell, at least, of the grid on which prototypes are gathered."""


@dataclass(frozen=True)
class PrototypeReading:
    """What a network read in a batch.

    Attributes
    ----------
    logits : Tensor, (B, classes, h, w)
        On the feature grid.
    prototypes : Tensor, (B, K, C)
        Of each image: the mean of its cells, weighted by the correlation.
    correlation : Tensor, (B, K, N)
        Rectified correlation of prototypes and cells, of sum 1 over the N cells of the coarse grid.
    usage : Tensor, (B, N)
        Share of each cell in all prototypes together, of sum K.
    """

    logits: Tensor
    prototypes: Tensor
    correlation: Tensor
    usage: Tensor


class PrototypeNetwork(Network):
    r"""A network whose features are first joined with the prototypes of the image that they resemble.

    .. math:: s_{k,i} = \mathrm{softmax}_i \frac{P_k \cdot X_i}{\sqrt C}, \qquad u_i = \sum_k s_{k,i}

    The cells of highest usage are references. Prototype and cell are described by how they resemble these,
    :math:`\rho_k` and :math:`\sigma_i`, each a distribution over references, and the correlation is rectified by how
    alike the descriptions are:

    .. math:: \hat s_{k,i} = \mathrm{softmax}_i \Big( \frac{P_k \cdot X_i}{\sqrt C}
              + \beta \cos(\rho_k, \sigma_i) \Big), \qquad p_k = \sum_i \hat s_{k,i} X_i

    Each cell then takes the mix of the prototypes that it resembles, and the classifier of `body` reads both.

    Parameters
    ----------
    body : Network
    prototypes : int
        K, at least 1.
    references : int
        References of an image, at least 1; all cells where there are fewer.
    channels : int
        C, the length of a prototype.
    beta : float
        β; 0 leaves the direct correlation as it is.
    """

    reach = None  # prototypes are gathered over the whole input

    def __init__(
        self, body: Network, *, prototypes: int = 16, references: int = 128, channels: int = 128, beta: float = 1.0
    ) -> None:
        super().__init__()
        self.body, self.references, self.beta = body, references, beta
        self.classes, self.feature_channels = body.classes, body.feature_channels
        self.stride, self.divisor, self.notes = body.stride, body.divisor, body.notes
        self.prototypes = nn.Parameter(torch.randn(prototypes, channels))
        self.reduce = nn.Conv2d(body.feature_channels, channels, 1)
        self.fuse = nn.Conv2d(2 * channels, body.feature_channels, 1)

    @property
    def pool(self) -> int:
        """Cells of the feature grid along a side of one of the coarse grid."""
        return max(1, _COARSE // self.stride)

    def features(self, image: Tensor) -> Tensor:
        """Return the features of `body`."""
        return self.body.features(image)

    def logits_on_grid(self, features: Tensor) -> Tensor:
        """Classify every cell with the help of the prototypes: (B, D, h, w) → logits (B, classes, h, w)."""
        return self.read(features).logits

    def upsampled(self, logits: Tensor) -> Tensor:
        """Bring logits from the feature grid to the input's size, as `body` does."""
        return self.body.upsampled(logits)

    def read(self, features: Tensor, shown: Tensor | None = None) -> PrototypeReading:
        """Gather prototypes and classify every cell.

        Parameters
        ----------
        features : Tensor, (B, D, h, w)
        shown : Tensor, (B, h, w), bool, or None
            Cells that show the image: no prototype is gathered from the others.
        """
        reduced = self.reduce(features)
        cells = _precise(self.coarse(reduced)).flatten(2).transpose(1, 2)  # (B, N, C)
        hidden = None if shown is None else self.coarse(shown[:, None].float()).flatten(1) < 1
        asked = _precise(self.prototypes).expand(len(cells), -1, -1)
        direct = _correlation(asked, cells)
        if hidden is not None:
            direct = direct.masked_fill(hidden[:, None], _HIDDEN)
        usage = direct.softmax(2).sum(1)
        correlation = (direct + self.beta * self._referential(asked, cells, usage)).softmax(2)
        prototypes = correlation @ cells
        fused = torch.cat([reduced, self._mixed(reduced, prototypes)], 1)
        return PrototypeReading(
            logits=self.body.logits_on_grid(features + self.fuse(fused)),
            prototypes=prototypes,
            correlation=correlation,
            usage=usage,
        )

    def coarse(self, maps: Tensor) -> Tensor:
        """Bring maps, (B, D, h, w), to the grid on which prototypes are gathered."""
        return F.avg_pool2d(maps, self.pool) if self.pool > 1 else maps

    def _referential(self, asked: Tensor, cells: Tensor, usage: Tensor) -> Tensor:
        """Return how alike prototypes and cells are by their resemblance to the references, (B, K, N), in [0, 1]."""
        count = min(self.references, usage.shape[1])
        best = usage.argsort(dim=1, descending=True, stable=True)[:, :count]
        references = cells.gather(1, best[..., None].expand(-1, -1, cells.shape[2]))
        of_prototypes = _correlation(asked, references).softmax(2)
        of_cells = _correlation(cells, references).softmax(2)
        return F.normalize(of_prototypes, dim=2) @ F.normalize(of_cells, dim=2).transpose(1, 2)

    def _mixed(self, reduced: Tensor, prototypes: Tensor) -> Tensor:
        """Return for each cell of the feature grid the mix of the prototypes that it resembles, (B, C, h, w)."""
        cells = _precise(reduced).flatten(2).transpose(1, 2)
        shares = _correlation(cells, prototypes).softmax(2)
        return (shares @ prototypes).transpose(1, 2).reshape(reduced.shape).to(reduced.dtype)


def _precise(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _correlation(one: Tensor, other: Tensor) -> Tensor:
    """Return scaled products, (B, R, S), of (B, R, C) and (B, S, C)."""
    return one @ other.transpose(1, 2) / math.sqrt(one.shape[2])
