"""Scores of objects: how well nuclei were found and delineated, one by one.

`compare` matches the nuclei of an image once and counts; the counts of many images add up, so that every score exists
per image and pooled.

Empty cases: no nucleus in the truth and none predicted is a perfect answer, every score is 1; nuclei on one side only
give 0. With nuclei on both sides and no match, SQ is 0.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ObjectCounts:
    """What is counted when predicted nuclei are compared with true ones. Counts of several images can be added.

    Attributes
    ----------
    truth, predicted : int
        Number of nuclei.
    matched : int
        True positives: pairs of nuclei whose IoU is greater than 0.5. No nucleus can have two such partners.
    matched_iou : float
        Sum of the IoU of these pairs.
    shared, joined : int, in pixels
        Numerator and denominator of the aggregated Jaccard index.
    """

    truth: int = 0
    predicted: int = 0
    matched: int = 0
    matched_iou: float = 0.0
    shared: int = 0
    joined: int = 0

    def __add__(self, other: ObjectCounts) -> ObjectCounts:
        """Pool two images."""
        return ObjectCounts(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    @property
    def aji(self) -> float:
        """Aggregated Jaccard index, in [0, 1].

        Every true nucleus is paired with the predicted one of highest IoU (the lower label on a tie); the sum of the
        intersections over the sum of the unions, where true nuclei without a partner and predicted nuclei that were
        nobody's partner add to the unions. A predicted nucleus may be the partner of several.

        References
        ----------
        Kumar et al., IEEE TMI 36(7), 2017, Algorithm 1.
        """
        return self.shared / self.joined if self.joined else 1.0

    @property
    def sq(self) -> float:
        """Segmentation quality: mean IoU of the matched pairs, in [0, 1]."""
        if self.matched:
            return self.matched_iou / self.matched
        return 0.0 if self.truth or self.predicted else 1.0

    @property
    def dq(self) -> float:
        """Detection quality: TP / (TP + FP / 2 + FN / 2), in [0, 1]."""
        nuclei = self.truth + self.predicted
        return 2 * self.matched / nuclei if nuclei else 1.0

    @property
    def f1(self) -> float:
        """F1 score of detection at IoU 0.5, in [0, 1]: with the match IoU > 0.5 it is `dq` by another name."""
        return self.dq

    @property
    def pq(self) -> float:
        """Panoptic quality, SQ times DQ, in [0, 1].

        References
        ----------
        Kirillov et al., CVPR 2019, Eq. 2; one class.
        """
        return self.sq * self.dq

    @property
    def count_error(self) -> int:
        """Number of predicted nuclei less that of true ones; negative where nuclei are missing."""
        return self.predicted - self.truth


def compare(predicted: NDArray[Any], truth: NDArray[Any]) -> ObjectCounts:
    """Match the nuclei of an image with the true ones.

    Parameters
    ----------
    predicted, truth : array of int, of the same shape
        Instance labels, 0 is background. Ids need not be consecutive; what has one id is one nucleus, even in pieces.

    Returns
    -------
    ObjectCounts

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"prediction and truth differ in shape: {predicted.shape} and {truth.shape}")
    predicted, area_p = _numbered(predicted)
    truth, area_t = _numbered(truth)

    both = (predicted > 0) & (truth > 0)
    pairs, overlap = np.unique(truth[both] * len(area_p) + predicted[both], return_counts=True)
    t, p = np.divmod(pairs, len(area_p))
    union = area_t[t] + area_p[p] - overlap
    ious = overlap / union

    hits = ious > 0.5
    best = _best_of_each(t, p, ious)
    lonely_t = np.ones(len(area_t), dtype=bool)
    lonely_t[t] = False
    lonely_p = np.ones(len(area_p), dtype=bool)
    lonely_p[p[best]] = False
    lonely_t[0] = lonely_p[0] = False  # background
    return ObjectCounts(
        truth=len(area_t) - 1,
        predicted=len(area_p) - 1,
        matched=int(hits.sum()),
        matched_iou=float(ious[hits].sum()),
        shared=int(overlap[best].sum()),
        joined=int(union[best].sum() + area_t[lonely_t].sum() + area_p[lonely_p].sum()),
    )


def _numbered(labels: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Renumber nuclei from 1 in the order of their ids; return them with the area of each, background first."""
    labels = labels.astype(np.int64, copy=False)
    if labels.size and labels.min() >= 0 and labels.max() <= 4 * labels.size + 1_000:  # much faster than sorting
        counts = np.bincount(labels.ravel())
        counts[0] += 1  # background is number 0, also where there is none
        number = np.cumsum(counts > 0) - 1
        areas = counts[counts > 0].astype(np.int64)
        areas[0] -= 1
        return number[labels], areas
    ids, number = np.unique(np.append(labels.ravel(), 0), return_inverse=True)
    if ids[0] < 0:
        raise ValueError(f"instance labels cannot be negative, and the lowest here is {ids[0]}")
    areas = np.bincount(number).astype(np.int64)
    areas[0] -= 1
    return number[:-1].reshape(labels.shape).astype(np.int64), areas


def _best_of_each(t: NDArray[np.int64], p: NDArray[np.int64], ious: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return for each true nucleus in `t` the index of its pair of highest IoU (on a tie the lower predicted label)."""
    order = np.lexsort((p, -ious, t))
    first = np.ones(len(order), dtype=bool)
    first[1:] = t[order][1:] != t[order][:-1]
    return order[first]
