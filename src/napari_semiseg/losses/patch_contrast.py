"""Cross-patch dense contrast: cells of foreground patches against cells of background patches.

H. Wu et al., "Cross-patch dense contrastive learning for semi-supervised segmentation of cellular nuclei in
histopathologic images" (CDCL), CVPR 2022.

paper         here
ŷ             labels: the pseudo-label of a cell, 0 or 1
FS            foreground / size: the part of a patch's cells that is labeled 1 (Eq. 5)
FDP, BDP      category FOREGROUND (FS ≥ 0.7), BACKGROUND (FS ≤ 0.3); both inclusive
q, k₊         a row of the anchors' features, the same row of `positives`
FDB, BDB      the rows of `keys` that lie in such patches
mask          which rectangle of anchors and keys a pair lies in: it is never written down (Eq. 9)
τ             temperature

The mask is separable. With anchors and keys sorted by category and label, the pairs that Eq. 7 admits are four
rectangles, (F,1) with (B,0), (F,0) with (B,1), (B,0) with (F,1) and (B,1) with (F,0), and Eq. 7 is

    l(q) = softplus(logsumexp_k(q·k/τ) − q·k₊/τ)

over the keys of q's rectangle.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil, floor
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_semiseg.losses._reduce import in_full_precision
from napari_semiseg.losses.similarity import log_sum_exp_similarity, most_similar

MIXED, FOREGROUND, BACKGROUND, OUTSIDE = 0, 1, 2, 3
"""Categories of a cell by the patch that it lies in. OUTSIDE: in no whole patch of valid cells; never looked at."""

Rule = Literal["paper", "sum", "pixel", "random"]


@dataclass(frozen=True)
class PatchCells:
    """Feature cells of one source (student or teacher, this batch or an earlier one), in one row each.

    Attributes
    ----------
    features : Tensor, (N, D)
        Unit vectors. Gradients reach whatever requires them: detach what shall get none.
    labels : Tensor, (N,), integer
        Pseudo-labels: 1 nucleus, 0 background.
    category : Tensor, (N,), int8
        `MIXED`, `FOREGROUND`, `BACKGROUND` or `OUTSIDE`.
    foreground : Tensor, (N,), integer
        Cells labeled 1 in the cell's patch. Used by the rule "sum" only.
    size : int
        Cells in a patch.
    position : Tensor, (N,), int64
        Where the cell lies in the batch, the same number in student and teacher; -1 in history. Used by the rule
        "random" only.
    """

    features: Tensor
    labels: Tensor
    category: Tensor
    foreground: Tensor
    size: int
    position: Tensor

    def __len__(self) -> int:
        return len(self.features)

    @classmethod
    def from_maps(
        cls,
        features: Tensor,
        labels: Tensor,
        patch: int,
        *,
        low: float = 0.3,
        high: float = 0.7,
        valid: Tensor | None = None,
    ) -> Self:
        """Flatten maps row by row, so that equal shapes give equal rows.

        Parameters
        ----------
        features : Tensor, (B, D, h, w)
            Unit vectors along D.
        labels : Tensor, (B, h, w), integer
            Pseudo-labels on the grid of the features, 0 or 1.
        patch, low, high, valid
            As for `patch_categories`.
        """
        category, foreground = patch_categories(labels, patch, low=low, high=high, valid=valid)
        return cls(
            features=features.movedim(1, -1).flatten(0, -2),
            labels=labels.flatten(),
            category=category.flatten(),
            foreground=foreground.flatten(),
            size=patch * patch,
            position=torch.arange(labels.numel(), device=labels.device),
        )

    def select(self, rows: Tensor) -> Self:
        """Return the cells at `rows` (int64 or bool)."""
        return replace(
            self,
            features=self.features[rows],
            labels=self.labels[rows],
            category=self.category[rows],
            foreground=self.foreground[rows],
            position=self.position[rows],
        )

    def detached(self) -> Self:
        """Return the cells without gradient."""
        return replace(self, features=self.features.detach())

    def as_history(self) -> Self:
        """Return the cells as a later batch sees them: without gradient and without a place in it."""
        return replace(self.detached(), position=torch.full_like(self.position, -1))


def foreground_scores(labels: Tensor, patch: int) -> Tensor:
    """Return the foreground score FS of each whole patch (Eq. 5).

    Parameters
    ----------
    labels : Tensor, (B, h, w), integer
        1 is foreground.
    patch : int, >= 1
        Side of a patch, in cells. Cells behind the last whole patch are left out.

    Returns
    -------
    Tensor, (B, h // patch, w // patch), in [0, 1]
    """
    return _whole_patches(labels == 1, patch).sum((2, 4)) / patch**2


def patch_categories(
    labels: Tensor,
    patch: int,
    *,
    low: float = 0.3,
    high: float = 0.7,
    valid: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Sort every cell by the foreground score of its patch.

    Parameters
    ----------
    labels : Tensor, (B, h, w), integer
        1 is foreground.
    patch : int
        Side of a patch, in cells. Below 1, or above the sides of the map, there is no patch.
    low, high : float, in [0, 1]
        A patch is background up to `low` and foreground from `high` on. Counts of cells are compared with the
        decimal number as written, so that 3 of 10 are at most 0.3, whatever their nearest floats are.
    valid : Tensor, (B, h, w), bool, or None
        Cells that show the image. A patch with any other cell is left out.

    Returns
    -------
    category : Tensor, (B, h, w), int8
    foreground : Tensor, (B, h, w), int32
        Cells labeled 1 in the patch, 0 where there is no whole one.
    """
    category = torch.full(labels.shape, OUTSIDE, dtype=torch.int8, device=labels.device)
    foreground = torch.zeros(labels.shape, dtype=torch.int32, device=labels.device)
    if patch < 1:
        return category, foreground
    count = _whole_patches(labels == 1, patch).sum((2, 4), dtype=torch.int32)
    kind = torch.full_like(count, MIXED, dtype=torch.int8)
    kind[count <= floor(_exact(low) * patch**2)] = BACKGROUND
    kind[count >= ceil(_exact(high) * patch**2)] = FOREGROUND
    if valid is not None:
        kind[~_whole_patches(valid, patch).all(4).all(2)] = OUTSIDE
    _whole_patches(category, patch).copy_(kind[:, :, None, :, None])
    _whole_patches(foreground, patch).copy_(count[:, :, None, :, None])
    return category, foreground


@dataclass(frozen=True)
class ContrastTerm:
    """The contrastive loss, and what it was made of.

    Attributes
    ----------
    loss : Tensor, ()
    foreground_anchors, background_anchors : int
        Anchors in foreground and in background patches.
    foreground_keys, background_keys : int
        Keys in such patches: the sizes of the two banks.
    mean_negatives : float
        Negatives of an anchor, mean over all anchors.
    without_negatives : int
        Anchors that had none, and cost nothing.
    """

    loss: Tensor
    foreground_anchors: int
    background_anchors: int
    foreground_keys: int
    background_keys: int
    mean_negatives: float
    without_negatives: int


def cross_patch_contrast(
    anchors: PatchCells,
    positives: Tensor,
    keys: Sequence[PatchCells],
    *,
    temperature: float = 0.1,
    rule: Rule = "paper",
    score_limit: float = 1.0,
    chunk: int = 2048,
    epsilon: float = 0.0,
) -> ContrastTerm:
    r"""Mean over the cells of foreground and background patches of the contrast with their negatives.

    .. math:: L = \frac{1}{|Q|} \sum_{q \in Q} -\log
              \frac{e^{q \cdot k_+ / \tau}}{e^{q \cdot k_+ / \tau} + \sum_{k \in N(q)} e^{q \cdot k / \tau}}

    Parameters
    ----------
    anchors : PatchCells
        Student cells. Those of mixed patches are left out.
    positives : Tensor, (N, D)
        Unit vectors: for each anchor the teacher's feature of the same cell.
    keys : sequence of PatchCells, at least one
        Cells of student and teacher, of this batch and the one before. Gradients reach those that require them.
    temperature : float, > 0
        τ. Unstated in the paper, 0.1 in the released code.
    rule : {"paper", "sum", "pixel", "random"}
        Which keys are negatives of an anchor. "paper": in patches of the other category, and with another label.
        "sum": in any patch whose score plus the anchor's is at most `score_limit`, and with another label (the
        released code; not symmetric in the categories). "pixel": in any foreground or background patch, and with
        another label (the paper's ablation, Scheme 2). "random": in any such patch, at another position (Scheme 1).
    score_limit : float
        The limit of the rule "sum"; the released code adds the two thresholds, 0.3 + 0.7.
    chunk : int, >= 1
        Anchors at a time; changes memory and speed only.
    epsilon : float, >= 0
        0 is the exact form. With 1e-8, as in the released code, it is added to the denominator, relative to the
        largest similarity to any key, and to the fraction: no anchor then costs more than 18.42.

    Returns
    -------
    ContrastTerm
        Its loss is a zero on the graph, with zero gradient, where no anchor lies in a foreground or background
        patch. An anchor without negatives costs nothing (with `epsilon`, almost nothing) but counts in the mean.

    Raises
    ------
    ValueError
        Patches of anchors and keys differ in size: their scores are not of the same grain.

    References
    ----------
    Wu et al. (CDCL), CVPR 2022, Eqs. 7 to 12. All patches have the same size, so the mean over patches of means over
    their cells is the mean over cells.
    """
    rectangles = _rectangles(anchors, keys, rule, score_limit)
    valid = _in_bank(anchors)
    contrasted = torch.cat([anchors.labels.new_empty(0, dtype=torch.int64), *(one.rows for one in rectangles)])
    alone = _rows(valid.index_fill(0, contrasted, False))
    # All anchors at once: the gradient of each selection is as large as all features.
    rows = torch.cat([contrasted, alone])
    features = in_full_precision(anchors.features.index_select(0, rows))
    alike = (features * in_full_precision(positives.index_select(0, rows))).sum(1) / temperature
    *parts, left = torch.split(features, [*(len(one.rows) for one in rectangles), len(alone)])
    log_sums = torch.cat(
        [
            *(one.log_sums(part, keys, temperature, chunk) for part, one in zip(parts, rectangles, strict=True)),
            left.new_full((len(left),), -torch.inf),
        ]
    )
    if epsilon > 0:
        costs = _costs_with(epsilon, alike, log_sums, _largest(alike, features, keys, temperature, chunk))
    else:
        costs = F.softplus(log_sums - alike, threshold=40.0)
    return ContrastTerm(
        loss=costs.sum() / max(len(rows), 1),
        foreground_anchors=_count([anchors], FOREGROUND),
        background_anchors=_count([anchors], BACKGROUND),
        foreground_keys=_count(keys, FOREGROUND),
        background_keys=_count(keys, BACKGROUND),
        mean_negatives=sum(one.pairs for one in rectangles) / max(len(rows), 1),
        without_negatives=len(alone),
    )


@dataclass(frozen=True)
class _Rectangle:
    """Rows of anchors that have the same negatives, those in each part of the keys, and which pairs are left out."""

    rows: Tensor
    columns: Sequence[Tensor]
    skip: Tensor | None

    @property
    def pairs(self) -> int:
        left_out = 0 if self.skip is None else int((self.skip >= 0).sum())
        return len(self.rows) * sum(map(len, self.columns)) - left_out

    def log_sums(self, features: Tensor, keys: Sequence[PatchCells], temperature: float, chunk: int) -> Tensor:
        """Return the log-sum over its negatives for each anchor; `features` are those of the anchors."""
        others = [part.features.index_select(0, at) for part, at in zip(keys, self.columns, strict=True)]
        return log_sum_exp_similarity(features, torch.cat(others), temperature, chunk=chunk, skip=self.skip)


def _rectangles(anchors: PatchCells, keys: Sequence[PatchCells], rule: Rule, score_limit: float) -> list[_Rectangle]:
    """Return the rectangles of pairs that hold any. No anchor comes twice."""
    if len({part.size for part in (anchors, *keys)}) > 1:
        message = f"cells of patches of different sizes cannot be compared: {[part.size for part in (anchors, *keys)]}"
        raise ValueError(message)
    found = []
    for of_parts in zip(*(_pairs(anchors, part, rule, score_limit) for part in keys), strict=True):
        rows, columns = of_parts[0][0], [columns for _, columns in of_parts]
        if len(rows) and any(map(len, columns)):
            skip = _same_cell(anchors, rows, keys, columns) if rule == "random" else None
            found.append(_Rectangle(rows, columns, skip))
    return found


def _largest(alike: Tensor, features: Tensor, keys: Sequence[PatchCells], temperature: float, chunk: int) -> Tensor:
    """Return the largest similarity of each row to its positive or to any key, negative or not."""
    shown = [part.features.index_select(0, _rows(part.category != OUTSIDE)) for part in keys]
    every = in_full_precision(torch.cat(shown))
    if not len(every):
        return alike
    nearest = every.index_select(0, most_similar(features, every, chunk=chunk))
    return torch.maximum(alike, (features * nearest).sum(1) / temperature)


def _costs_with(epsilon: float, alike: Tensor, log_sums: Tensor, largest: Tensor) -> Tensor:
    share = torch.exp(alike - largest)
    return -torch.log(share / (share + torch.exp(log_sums - largest) + epsilon) + epsilon)


def _pairs(anchors: PatchCells, keys: PatchCells, rule: Rule, score_limit: float) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield rows of anchors with the rows of keys that are negatives of all of them, in an order set by the anchors."""
    q, k = _in_bank(anchors), _in_bank(keys)
    if rule == "random":
        yield _rows(q), _rows(k)
        return
    for label in (1, 0):
        q_label, k_label = anchors.labels == label, keys.labels != label
        if rule == "pixel":
            yield _rows(q & q_label), _rows(k & k_label)
        elif rule == "paper":
            for own, other in ((FOREGROUND, BACKGROUND), (BACKGROUND, FOREGROUND)):
                yield _rows((anchors.category == own) & q_label), _rows((keys.category == other) & k_label)
        else:
            yield from _by_score(anchors, q & q_label, keys, (keys.category != OUTSIDE) & k_label, score_limit)


def _by_score(
    anchors: PatchCells, q: Tensor, keys: PatchCells, k: Tensor, score_limit: float
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield, for each score of an anchor, the keys whose score is low enough: the first ones, once sorted."""
    most = floor(_exact(score_limit) * keys.size)
    columns = _rows(k)
    counts, order = keys.foreground[columns].sort(stable=True)
    columns = columns[order]
    for count in torch.unique(anchors.foreground[q]).tolist():
        admitted = int(torch.searchsorted(counts, most - count, right=True))
        yield _rows(q & (anchors.foreground == count)), columns[:admitted]


def _same_cell(anchors: PatchCells, rows: Tensor, keys: Sequence[PatchCells], columns: Sequence[Tensor]) -> Tensor:
    """Return for each key the place in `rows` of the anchor at the same position, or -1."""
    q = anchors.position[rows]
    k = torch.cat([part.position[at] for part, at in zip(keys, columns, strict=True)])
    place = torch.full((int(torch.cat([q, k]).max()) + 1,), -1, dtype=torch.int64, device=q.device)
    place[q] = torch.arange(len(q), device=q.device)
    return torch.where(k >= 0, place[k.clamp_min(0)], -1)


def _in_bank(cells: PatchCells) -> Tensor:
    return (cells.category == FOREGROUND) | (cells.category == BACKGROUND)


def _rows(chosen: Tensor) -> Tensor:
    return chosen.nonzero().squeeze(1)


def _count(parts: Sequence[PatchCells], category: int) -> int:
    return sum(int((part.category == category).sum()) for part in parts)


def _whole_patches(cells: Tensor, patch: int) -> Tensor:
    """View (B, h, w) as (B, h // patch, patch, w // patch, patch), without the cells behind the last whole patch."""
    rows, columns = cells.shape[1] // patch, cells.shape[2] // patch
    whole = cells[:, : rows * patch, : columns * patch]
    return whole.view(len(whole), rows, patch, columns, patch)


def _exact(number: float) -> Fraction:
    """Return the decimal number that was written, not its nearest float."""
    return Fraction(repr(float(number)))
