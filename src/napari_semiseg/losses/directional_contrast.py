"""Directional contrast: what two crops show of the same tissue is pulled together, toward the surer of the two.

X. Lai et al., "Semi-supervised semantic segmentation with directional context-aware consistency" (CAC), CVPR 2021;
R. M. S. Bashir et al., "Consistency regularisation in varying contexts and feature perturbations for semi-supervised
semantic segmentation of histology images" (CRCFP), Medical Image Analysis 2024.

paper           here
φᵤ₁, φᵤ₂        rows of `anchors` and of `targets`: the same cell, seen in two crops
ŷᵤ₁             label of an anchor's cell
max C(fᵤ₁)      confidence of an anchor's cell, max C(fᵤ₂) of a target's
M₊, M_c         `chosen_anchors` (Eqs. 6 and 7 of CRCFP)
M₋              keys of another label (Eq. 5): never written down
λ, τ            threshold, temperature

Anchors of one label share their negatives: all keys of the other labels. So each label is one rectangle of products,
and no mask of anchors by keys is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_semiseg.losses._reduce import in_full_precision
from napari_semiseg.losses.similarity import log_sum_exp_similarity

Side = Literal["anchor", "target"]


@dataclass(frozen=True)
class SureCells:
    """Cells of a feature map with what their network says of them, in one row each.

    Attributes
    ----------
    features : Tensor, (N, D)
        Unit vectors. Gradients reach whatever requires them: detach what shall get none.
    labels : Tensor, (N,), int64
        Pseudo-labels: the likeliest class.
    confidence : Tensor, (N,), in [0, 1]
        Its probability.
    """

    features: Tensor
    labels: Tensor
    confidence: Tensor

    def __len__(self) -> int:
        return len(self.features)

    def select(self, rows: Tensor) -> SureCells:
        """Return the cells at `rows` (int64 or bool)."""
        return SureCells(self.features[rows], self.labels[rows], self.confidence[rows])


@dataclass(frozen=True)
class DirectionalTerm:
    """The loss of one direction, and what it was made of.

    Attributes
    ----------
    loss : Tensor, ()
    anchors : int
        Cells that were pulled.
    mean_negatives : float
        Negatives of such a cell, mean over them.
    """

    loss: Tensor
    anchors: int
    mean_negatives: float


def chosen_anchors(anchors: SureCells, targets: SureCells, *, threshold: float = 0.75, side: Side = "target") -> Tensor:
    """Return which anchors are pulled, (N,), bool: those less sure than their targets, where one side is sure enough.

    Parameters
    ----------
    anchors, targets : SureCells
        Row by row the same cell. Equal confidence chooses neither direction.
    threshold : float, in [0, 1]
        λ. The confidence of that side lies above it.
    side : {"anchor", "target"}
        "anchor": Eq. 6 of CRCFP. "target": its released code, and CAC.
    """
    sure = (anchors if side == "anchor" else targets).confidence > threshold
    return sure & (anchors.confidence < targets.confidence)


def directional_contrast(
    anchors: SureCells,
    targets: SureCells,
    keys: Tensor,
    key_labels: Tensor,
    *,
    temperature: float = 0.1,
    threshold: float = 0.75,
    side: Side = "target",
    mean_over: Literal["overlap", "anchors"] = "anchors",
    chunk: int = 2048,
) -> DirectionalTerm:
    r"""Contrast of one direction, from anchors to targets.

    .. math:: \ell = \frac{1}{Z} \sum_i M_i \left( -\log \frac{e^{a_i \cdot b_i / \tau}}
              {e^{a_i \cdot b_i / \tau} + \sum_{k : \hat y_k \neq \hat y_i} e^{a_i \cdot k / \tau}} \right)

    Parameters
    ----------
    anchors, targets : SureCells
        a and b: row by row the same cell, seen in two crops. No gradient reaches the targets.
    keys : Tensor, (K, D)
        Unit vectors. Gradients reach them where they require one.
    key_labels : Tensor, (K,), int64
        Their pseudo-labels.
    temperature : float, > 0
        τ.
    threshold, side
        As for `chosen_anchors`, which is M.
    mean_over : {"overlap", "anchors"}
        Z: all cells of the overlap (Eq. 3 of CRCFP), or those that were chosen (the released codes).
    chunk : int, >= 1
        Anchors at a time; changes memory and speed only.

    Returns
    -------
    DirectionalTerm
        Its loss is a zero on the graph, with zero gradient, where no anchor is chosen. An anchor without negatives
        costs nothing but counts in the mean.

    References
    ----------
    Bashir et al. (CRCFP), Eqs. 3 to 7; Lai et al. (CAC), CVPR 2021. The released codes add 1e-8 to denominator and
    fraction; this form is exact.
    """
    chosen = chosen_anchors(anchors, targets, threshold=threshold, side=side)
    costs, pairs = in_full_precision(anchors.features[:0]).sum(), 0  # a zero on the graph
    for label in torch.unique(anchors.labels[chosen]).tolist():
        rows = (chosen & (anchors.labels == label)).nonzero().squeeze(1)
        others = (key_labels != label).nonzero().squeeze(1)
        if not len(others):
            continue
        pulled = in_full_precision(anchors.features.index_select(0, rows))
        toward = in_full_precision(targets.features.detach().index_select(0, rows))
        log_sums = log_sum_exp_similarity(pulled, keys.index_select(0, others), temperature, chunk=chunk)
        costs = costs + F.softplus(log_sums - (pulled * toward).sum(1) / temperature, threshold=40.0).sum()
        pairs += len(rows) * len(others)
    count = int(chosen.sum())
    return DirectionalTerm(
        loss=costs / max(1, len(anchors) if mean_over == "overlap" else count),
        anchors=count,
        mean_negatives=pairs / max(1, count),
    )
