"""The contrast of two overlapping crops: projector, pseudo-labels and a memory of negatives around one loss.

X. Lai et al., "Semi-supervised semantic segmentation with directional context-aware consistency" (CAC), CVPR 2021;
CRCFP has the same. The loss itself is `losses.directional_contrast`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_semiseg.losses.cells import whole_cells
from napari_semiseg.losses.directional_contrast import Side, SureCells, directional_contrast
from napari_semiseg.nn.memory_bank import MemoryBank
from napari_semiseg.nn.network import Network
from napari_semiseg.nn.projector import Projector


@dataclass(frozen=True)
class ContextTerm:
    """Both directions of the contrast, and what they were made of.

    Attributes
    ----------
    loss : Tensor, ()
    counters : dict
        ``overlap cells``, ``pulled cells``: those of either direction, ``negatives per cell``: their mean over these;
        of all cells of both crops that show the image, the shares of ``pseudo-labeled nuclei`` and ``confident`` ones.
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
            "pseudo-labeled nuclei": _share([cells.labels > 0 for cells in seen]),
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

    def _cells(self, net: Network, features: Tensor) -> SureCells:
        """Return every cell of the pooled features, projected and classified."""
        probs = self._classified(net, features.detach()).float().softmax(1)
        return SureCells(
            features=self.projector(features).movedim(1, -1).flatten(0, -2),
            labels=probs.argmax(1).flatten(),
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
