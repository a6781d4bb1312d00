"""A threshold on gray levels: the first baseline of the CSL paper.

N. Boserup, R. Selvan, "Efficient Self-Supervision using Patch-based Contrastive Learning for Histopathology Image
Segmentation", NLDL 2023, Table 1 ("threshold").

    nucleus  ⟺  I(x) < t,    t = argmax_{t ∈ {0, 1/99, …, 1}}  mean over labeled regions of Dice(I < t, y)

paper              here
I                  gray level (ITU-R BT.601) of the image, scaled to 0.95 I + 0.05 as in the released code
training images    the labeled cells or tiles of the run
the first of ties  the first of ties

`rule="otsu"` takes Otsu's threshold of each image instead and looks at no label: ``level ≤ t`` with 256 bins.

Deviations: both sides of the threshold are tried (`nuclei="auto"`; the paper has H&E only, where nuclei are dark), and
without labels nuclei are the rarer side where nothing is stained. Pixels without a label count nowhere. A region
without nuclei counts with Dice 1 where none are found, else 0. In the released code the mask is broadcast over
channels; here the image has one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import nn

from napari_semiseg.data.batch import IGNORE, Batch
from napari_semiseg.errors import InputError
from napari_semiseg.methods._base import FittedMethod, MethodConfig, Task
from napari_semiseg.nn.network import Network
from napari_semiseg.nn.threshold import GrayThreshold, gray_levels, slope_at
from napari_semiseg.postprocess.threshold import find_stain
from napari_semiseg.works import BOSERUP, OTSU

LEVELS = 100
"""Thresholds that are tried."""


class IntensityThresholdConfig(MethodConfig):
    """Options of `IntensityThreshold`."""

    rule: Literal["optimal", "otsu"] = Field(
        "optimal", description="optimal: best Dice on the labeled regions, as the paper; otsu: of each image, no label."
    )
    nuclei: Literal["auto", "dark", "bright"] = Field(
        "auto", description="Side of the threshold that is nucleus; auto: the better one by the same rule."
    )


class IntensityThreshold(FittedMethod):
    """One gray level for all images, chosen by the labels."""

    name: ClassVar[str] = "intensity_threshold"
    title: ClassVar[str] = "Threshold on gray levels"
    does: ClassVar[str] = (
        "A pixel is nucleus by its gray level alone: beyond one level for all images, chosen by the labels, "
        "or beyond Otsu's threshold of each image."
    )
    references: ClassVar[tuple[str, ...]] = (BOSERUP, OTSU)
    Config: ClassVar[type[MethodConfig]] = IntensityThresholdConfig
    labels: ClassVar[Literal["needed", "used", "unused"]] = "used"
    classes: ClassVar[Literal["two", "any"]] = "two"

    def __init__(self, new_network: Callable[[], Network], task: Task, config: IntensityThresholdConfig) -> None:
        super().__init__(new_network, task, config)
        self.config = config
        self.threshold = GrayThreshold()

    def fit(self, regions: Iterable[Batch]) -> None:
        """Try all thresholds on all regions."""
        if self.config.rule == "otsu":
            self.threshold.set_per_image(bright=self._bright())
            return
        levels, truths = [], []
        for batch in regions:
            assert batch.image_l is not None
            assert batch.label_l is not None
            known = batch.label_l != IGNORE
            if bool(known.any()):
                levels.append(gray_levels(batch.image_l)[known].cpu().numpy())
                truths.append((batch.label_l[known] > 0).cpu().numpy())
        if not levels:
            raise InputError(
                "The method 'intensity_threshold' chooses its threshold by labels, and there are none: label a tile, "
                "give --labels, or --set rule=otsu."
            )
        tried = np.linspace(0.0, 1.0, LEVELS)
        best, value, bright = -1.0, 0.0, False
        for side in {"auto": (False, True), "dark": (False,), "bright": (True,)}[self.config.nuclei]:
            each = [dice_of_levels(*one, tried, bright=side) for one in zip(levels, truths, strict=True)]
            scores = np.mean(each, axis=0)
            if scores.max() > best:
                best, value, bright = float(scores.max()), float(tried[scores.argmax()]), side
        self.threshold.set(value, slope_at(np.concatenate(levels), value), bright=bright)

    def predictor(self) -> nn.Module:
        """Return the threshold."""
        return self.threshold

    def _bright(self) -> bool:
        """Return whether nuclei are bright in most of the crops of the run, by the rarer side of Otsu's threshold."""
        if self.config.nuclei != "auto" or self.task.probe is None:
            return self.config.nuclei == "bright"
        crops = (self.task.probe * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        stains = [find_stain(crop, gray=not np.ptp(crop, -1).any()) for crop in crops]
        return 2 * stains.count("intensity") > len(stains)


def dice_of_levels(
    levels: NDArray[np.float32], truth: NDArray[np.bool_], thresholds: NDArray[np.float64], *, bright: bool
) -> NDArray[np.float64]:
    """Return the Dice of a region at each threshold.

    Parameters
    ----------
    levels : ndarray, (P,), gray levels
    truth : ndarray, (P,), bool
        Where nuclei are.
    thresholds : ndarray, (T,)
    bright : bool
        Whether nuclei are above the threshold; else they are below. Strictly in both cases.

    Returns
    -------
    ndarray, (T,)
        1 where there is no nucleus and none is found.
    """
    # Compared as the predictor compares: in single precision.
    limits = torch.from_numpy(thresholds).float().numpy()
    order = np.argsort(levels, kind="stable")
    ordered, hits = levels[order], np.concatenate([[0], np.cumsum(truth[order])])
    place = np.searchsorted(ordered, limits, side="right" if bright else "left")
    found = len(ordered) - place if bright else place
    common = hits[-1] - hits[place] if bright else hits[place]
    both = found + hits[-1]
    return np.where(both > 0, 2 * common / np.maximum(both, 1), 1.0)
