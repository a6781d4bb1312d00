"""Scores of pixels, all from one table of counts.

`confusion` counts an image once. The table of an image gives its scores; the sum of the tables of many images gives the
pooled scores; the mean of the scores of the images is what most papers call Dice. These differ, so a figure is worth
nothing without saying which it is.

Empty cases, the same for every function here:

- a table without any pixel has no score: NaN;
- no nucleus in the truth and none predicted is a perfect answer: Dice and IoU of the foreground are 1 (one without the
  other gives 0);
- sensitivity is 1 where there was no nucleus to find, specificity is 1 where there was no background to leave alone;
- a class that is neither in the truth nor predicted has no score (NaN) and is left out of means over classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.int64]


def confusion(
    predicted: NDArray[Any], truth: NDArray[Any], classes: int = 2, *, valid: NDArray[np.bool_] | None = None
) -> Table:
    """Count pixels by their true and their predicted class.

    Parameters
    ----------
    predicted, truth : array of int or bool, of the same shape
        Class of every pixel: 0 background, 1 and up the classes of nuclei; masks count as two classes. Instance labels
        have to be made into a mask (``labels > 0``) first.
    classes : int
        C, with background.
    valid : array of bool, of the same shape, optional
        Pixels to count; the others are ignored, and their class may be any number.

    Returns
    -------
    array of int64, (C, C), in pixels
        Rows are the truth, columns the prediction.

    Raises
    ------
    ValueError
        If shapes differ, or a class is not in ``0 .. classes - 1``.
    """
    if predicted.shape != truth.shape or (valid is not None and valid.shape != truth.shape):
        raise ValueError(f"prediction and truth differ in shape: {predicted.shape} and {truth.shape}")
    if valid is not None:
        predicted, truth = predicted[valid], truth[valid]
    for name, array in (("predicted", predicted), ("truth", truth)):
        if array.size and (int(array.min()) < 0 or int(array.max()) >= classes):
            raise ValueError(f"{name} holds classes {array.min()} to {array.max()}, but there are {classes} classes")
    pairs = truth.ravel().astype(np.intp) * classes + predicted.ravel().astype(np.intp)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes).astype(np.int64)


def foreground(table: Table) -> Table:
    """Merge all classes of nuclei into one: (C, C) → (2, 2)."""
    merged = np.add.reduceat(np.add.reduceat(table, [0, 1], axis=0), [0, 1], axis=1)
    return merged.astype(np.int64)


def dice(table: Table) -> float:
    """Dice coefficient of the foreground, 2 TP / (2 TP + FP + FN), in [0, 1]."""
    (_, fp), (fn, tp) = foreground(table).tolist()
    return _ratio(2 * tp, 2 * tp + fp + fn, table)


def iou(table: Table) -> float:
    """Jaccard index (intersection over union) of the foreground, TP / (TP + FP + FN), in [0, 1]."""
    (_, fp), (fn, tp) = foreground(table).tolist()
    return _ratio(tp, tp + fp + fn, table)


def accuracy(table: Table) -> float:
    """Fraction of pixels whose class is right, in [0, 1]; a nucleus of the wrong class is wrong."""
    return _ratio(int(np.trace(table)), int(table.sum()), table)


def sensitivity(table: Table) -> float:
    """Fraction of the true foreground that was found (recall), TP / (TP + FN), in [0, 1]."""
    _, (fn, tp) = foreground(table).tolist()
    return _ratio(tp, tp + fn, table)


def specificity(table: Table) -> float:
    """Fraction of the true background that was left alone, TN / (TN + FP), in [0, 1]."""
    (tn, fp), _ = foreground(table).tolist()
    return _ratio(tn, tn + fp, table)


def class_iou(table: Table) -> NDArray[np.float64]:
    """Intersection over union of each class, background first: (C, C) → (C,); NaN for a class that does not occur."""
    hits = np.diag(table).astype(float)
    union = table.sum(0) + table.sum(1) - hits
    ratio: NDArray[np.float64] = np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0)
    return ratio


def class_dice(table: Table) -> NDArray[np.float64]:
    """Dice of each class, background first: 2 IoU / (1 + IoU); (C, C) → (C,); NaN for a class that does not occur."""
    overlap = class_iou(table)
    return 2 * overlap / (1 + overlap)


def mean_iou(table: Table) -> float:
    """Mean of `class_iou` over the classes that occur, background included (mIoU), in [0, 1]."""
    return _mean(class_iou(table))


def mean_dice(table: Table) -> float:
    """Mean of `class_dice` over the classes that occur, background included (mDice), in [0, 1]."""
    return _mean(class_dice(table))


def _ratio(part: int, whole: int, table: Table) -> float:
    if whole:
        return part / whole
    return 1.0 if table.any() else float("nan")


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
