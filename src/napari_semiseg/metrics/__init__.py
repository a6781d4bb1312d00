"""How good a segmentation is, by pixels and by objects, and how sure. NumPy and SciPy only."""

from napari_semiseg.metrics.objects import ObjectCounts, compare
from napari_semiseg.metrics.pixels import (
    accuracy,
    class_dice,
    class_iou,
    confusion,
    dice,
    foreground,
    iou,
    mean_dice,
    mean_iou,
    sensitivity,
    specificity,
)

__all__ = [
    "ObjectCounts",
    "accuracy",
    "class_dice",
    "class_iou",
    "compare",
    "confusion",
    "dice",
    "foreground",
    "iou",
    "mean_dice",
    "mean_iou",
    "sensitivity",
    "specificity",
]
