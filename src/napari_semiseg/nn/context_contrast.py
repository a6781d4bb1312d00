"""The contrast of two overlapping crops: projector, pseudo-labels and a memory of negatives around one loss.

X. Lai et al., "Semi-supervised semantic segmentation with directional context-aware consistency" (CAC), CVPR 2021;
CRCFP has the same. The loss itself is `losses.directional_contrast`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_semiseg.io.diagnostics import Boxes, Categories, Diagnostic, Meaning
from napari_semiseg.losses._reduce import most_likely
from napari_semiseg.losses.cells import whole_cells
from napari_semiseg.losses.directional_contrast import Side, SureCells, chosen_anchors, directional_contrast
from napari_semiseg.nn.collapse import NUCLEI
from napari_semiseg.nn.memory_bank import MemoryBank
from napari_semiseg.nn.network import Network
from napari_semiseg.nn.projector import Projector

STEP = 8
"""The two crops that `ContextContrast.shown` cuts lie a multiple of this apart, in pixels: a coarse cell."""
CROPS: Mapping[int, Meaning] = {
    1: Meaning("first crop", (86, 180, 233)),
    2: Meaning("second crop", (230, 159, 0)),
}
PULLED: Mapping[int, Meaning] = {
    1: Meaning("in both crops, pulled by neither", (150, 150, 150)),
    2: Meaning("the first crop's cell is pulled toward the second's", (86, 180, 233)),
    3: Meaning("the second crop's cell is pulled toward the first's", (230, 159, 0)),
}


@dataclass(frozen=True)
class ContextTerm:
    """Both directions of the contrast, and what they were made of.

    Attributes
    ----------
    loss : Tensor, ()
    counters : dict
        ``overlap cells``, ``pulled cells``: those of either direction, ``negatives per cell``: their mean over these;
        of all cells of both crops that show the image, the shares of `NUCLEI` and ``confident`` ones.
    """

    loss: Tensor
    counters: dict[str, float]


class ContextContrast(nn.Module):
    """Pull together what two crops show of the same tissue, away from what is classified otherwise.

    Negatives are drawn at random from both crops of this batch, and from those that were drawn in the batches before.
    They carry no gradient.

    Parameters
    ----------
    feature_channels : int
        D of the network's features.
    projection : int
        Length of a projection.
    pool : int
        Side of the pooling before projection and classification.
    negatives : int
        Cells drawn of each crop of a pair, over the whole batch; all of them where there are fewer.
    history : int
        Batches before this one whose negatives are remembered.
    """

    def __init__(self, feature_channels: int, *, projection: int, pool: int, negatives: int, history: int) -> None:
        super().__init__()
        self.projector = Projector(feature_channels, projection, pool)
        self.negatives, self.history = negatives, history
        self.bank = MemoryBank(
            batches=max(1, history),
            capacity=2 * negatives,
            fields={"features": ((projection,), torch.float32), "labels": ((), torch.int64)},
        )
        self._drawn: dict[str, Tensor] | None = None

    def grid(self, features: Tensor) -> tuple[int, int]:
        """Return rows and columns of the grid that features (B, D, h, w) are compared on."""
        height, width = features.shape[-2:]
        return height // self.projector.pool, width // self.projector.pool

    def forward(
        self,
        net: Network,
        features: Sequence[Tensor],
        overlap: Sequence[Tensor],
        valid: Sequence[Tensor],
        *,
        temperature: float = 0.1,
        threshold: float = 0.75,
        side: Side = "target",
        mean_over: Literal["overlap", "anchors"] = "anchors",
    ) -> ContextTerm:
        """Contrast the crops of a pair in both directions.

        Parameters
        ----------
        net : Network
            Its classifier gives pseudo-labels and confidence, without gradient.
        features : two Tensors, each (B, D, h, w)
            Of the two crops.
        overlap : two Tensors, each (N,), int64
            `Pair.overlap` on `grid` of the features.
        valid : two Tensors, each (B, H, W), bool
            Pixels that show the image. A cell with any other is neither compared nor a negative.
        temperature, threshold, side, mean_over
            As for `directional_contrast`.
        """
        grid = self.grid(features[0])
        crops = [self._cells(net, maps) for maps in features]
        shown = [whole_cells(mask, grid).flatten() for mask in valid]
        common = shown[0][overlap[0]] & shown[1][overlap[1]]
        first, second = (cells.select(rows[common]) for cells, rows in zip(crops, overlap, strict=True))
        keys = self._keys(crops, shown)
        there, back = (
            directional_contrast(
                *pair,
                keys["features"],
                keys["labels"],
                temperature=temperature,
                threshold=threshold,
                side=side,
                mean_over=mean_over,
            )
            for pair in ((first, second), (second, first))
        )
        pulled = there.anchors + back.anchors
        negatives = there.anchors * there.mean_negatives + back.anchors * back.mean_negatives
        seen = [cells.select(mask) for cells, mask in zip(crops, shown, strict=True)]
        counters = {
            NUCLEI: _share([cells.labels > 0 for cells in seen]),
            "confident": _share([cells.confidence > threshold for cells in seen]),
            "overlap cells": float(len(first)),
            "pulled cells": float(pulled),
            "negatives per cell": negatives / max(1, pulled),
        }
        return ContextTerm(there.loss + back.loss, counters)

    def remember(self) -> None:
        """Keep the negatives that the last call drew, for the next ones."""
        if self._drawn is not None and self.history:
            self.bank.push(**self._drawn)
        self._drawn = None

    def shown(
        self, net: Network, image: Tensor, crop: int, *, threshold: float, side: Side
    ) -> Mapping[str, Diagnostic]:
        """Cut two overlapping crops out of an image, and show which of their common cells are pulled, and which way.

        Parameters
        ----------
        net : Network
        image : Tensor, (1, 3, H, W)
            Sides are multiples of `STEP` and of the network's divisor.
        crop : int
            Side of a crop; smaller where the image has no room for two that lie apart.
        threshold, side
            As for `directional_contrast`.
        """
        unit = math.lcm(STEP, net.divisor)
        height, width = image.shape[-2:]
        edge = max(unit, min(crop, 3 * min(height, width) // 4) // unit * unit)
        corners = _two_corners(height, width, edge)
        grid = image.new_zeros((height, width))
        cells = []
        for y, x in corners:
            features = net.features(image[..., y : y + edge, x : x + edge])
            cells.append(self._cells(net, features))
            cell = edge // self.grid(features)[0]
        kinds = grid[::cell, ::cell].to(torch.uint8)
        at = [torch.zeros_like(kinds, dtype=torch.int64) - 1 for _ in corners]
        side_cells = edge // cell
        for rows, (y, x) in zip(at, corners, strict=True):
            place = torch.arange(side_cells**2, device=kinds.device).reshape(side_cells, side_cells)
            rows[y // cell : y // cell + side_cells, x // cell : x // cell + side_cells] = place
        common = (at[0] >= 0) & (at[1] >= 0)
        first, second = (each.select(rows[common]) for each, rows in zip(cells, at, strict=True))
        kind = torch.ones_like(first.labels)
        kind[chosen_anchors(first, second, threshold=threshold, side=side)] = 2
        kind[chosen_anchors(second, first, threshold=threshold, side=side)] = 3
        kinds[common] = kind.to(torch.uint8)
        boxes = np.array([(y, x, y + edge, x + edge) for y, x in corners], np.float32)
        return {
            "pulled cells": Categories(kinds.cpu().numpy(), PULLED),
            "overlapping crops": Boxes(boxes, np.array([1, 2], np.uint8), CROPS),
        }

    def _cells(self, net: Network, features: Tensor) -> SureCells:
        """Return every cell of the pooled features, projected and classified."""
        probs = self._classified(net, features.detach()).float().softmax(1)
        return SureCells(
            features=self.projector(features).movedim(1, -1).flatten(0, -2),
            labels=most_likely(probs).flatten(),
            confidence=probs.amax(1).flatten(),
        )

    @torch.no_grad()
    def _classified(self, net: Network, features: Tensor) -> Tensor:
        """Classify pooled features in eval mode: no dropout, and no batch statistics of pooled features."""
        pool, was_training = self.projector.pool, net.training
        net.eval()
        logits = net.logits_on_grid(F.avg_pool2d(features, pool) if pool > 1 else features)
        net.train(was_training)
        return logits

    def _keys(self, crops: Sequence[SureCells], shown: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return the negatives drawn of this batch, and those that are remembered."""
        drawn = []
        for cells, mask in zip(crops, shown, strict=True):
            rows = mask.nonzero().squeeze(1)
            drawn.append(cells.select(rows[torch.randperm(len(rows), device=rows.device)[: self.negatives]]))
        self._drawn = {
            "features": torch.cat([cells.features.detach() for cells in drawn]),
            "labels": torch.cat([cells.labels for cells in drawn]),
        }
        if not self.history:
            return self._drawn
        return {name: torch.cat([self._drawn[name], old]) for name, old in self.bank.rows().items()}


def _share(masks: Sequence[Tensor]) -> float:
    """Return the share of True in masks, (N,); 0 where they are empty."""
    whole = torch.cat(list(masks))
    return float(whole.float().mean()) if len(whole) else 0.0


def _two_corners(height: int, width: int, edge: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Draw where two crops of an image lie so that they share a quarter to three quarters of each side, if they can."""
    corners = []
    for length in (height, width):
        room = (length - edge) // STEP
        apart = min(room, max(1, round(edge / STEP * (0.25 + 0.5 * float(torch.rand(()))))))
        start = int(torch.randint(0, room - apart + 1, ()))
        ends = (start * STEP, (start + apart) * STEP)
        corners.append(ends if bool(torch.rand(()) < 0.5) else ends[::-1])
    (y1, y2), (x1, x2) = corners
    return (y1, x1), (y2, x2)
