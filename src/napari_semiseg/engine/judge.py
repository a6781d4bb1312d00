"""How good a run is on the labels that it has set aside, beside the threshold that needs no training."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from napari_semiseg import metrics
from napari_semiseg.blocks import Box
from napari_semiseg.data.batch import IGNORE
from napari_semiseg.engine.infer import confidence_map
from napari_semiseg.postprocess.proposal import propose

if TYPE_CHECKING:
    from napari_semiseg.data.sources import LabeledRegion
    from napari_semiseg.engine.recipe import Recipe

VALIDATIONS = 30
"""How often a run is judged at most."""
FEWEST_VALIDATIONS = 5
"""How often it is judged at least; where that takes too long, fewer regions judge."""
FEWEST_JUDGES = 3
"""Regions that judge at least, where there are as many."""
SHARE = 0.25
"""Share of a run's time that judging may take."""
AROUND = 2048
"""Side, in pixels, of an image that the threshold is found in as a whole."""


FIT_SHARE = 0.02
"""Share of a run's time that may go into scoring what it learns from."""
MOSTLY_KNOWN = 0.5
"""Part of a region's pixels whose label is known, at least, for a score on it to mean something."""


class Pace(NamedTuple):
    """How a run that counts in minutes spends its time: optimizer steps, validations, and regions that judge."""

    steps: int
    validations: int
    judges: int


def pace(budget: float, step: float, region: float, regions: int) -> Pace:
    """Divide a run's time between learning and judging.

    Parameters
    ----------
    budget : float
        Seconds of the run.
    step, region : float
        Seconds that one optimizer step takes, and judging by one region.
    regions : int
        Regions set aside.
    """
    if not regions:
        return Pace(max(1, int(budget / step)), VALIDATIONS, 0)
    affordable = SHARE * budget / region
    judges = min(regions, max(FEWEST_JUDGES, int(affordable / FEWEST_VALIDATIONS)))
    validations = min(VALIDATIONS, max(1, int(affordable / judges)))
    left = max(budget / 2, budget - validations * judges * region)
    return Pace(max(1, int(left / step)), validations, judges)


def seconds_per_region(recipe: Recipe) -> float:
    """Measure how long judging by one region takes, after one time to warm up; 0 where there is none."""
    if not recipe.data.validation:
        return 0.0
    _dice(recipe, recipe.data.validation[0])
    begun = time.perf_counter()
    _dice(recipe, recipe.data.validation[0])
    return time.perf_counter() - begun


def dice_of_regions(recipe: Recipe) -> dict[str, float]:
    """Return, by the name of each region that judges, the foreground Dice of the predictor at threshold 0.5."""
    return {region.name: _dice(recipe, region) for region in _judges(recipe)}


class Fit:
    """How well a run gives back the labels that it learns from, looked at a few regions at a time.

    Parameters
    ----------
    recipe : Recipe
        Its regions may change meanwhile.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._begun, self._spent = time.monotonic(), 0.0
        self._seen: dict[str, int] = {}

    def scores(self, step: int) -> dict[str, float]:
        """Return the Dice of the regions that were not looked at for longest: one, and more while there is time."""
        regions = [
            region
            for region in self._recipe.data.labeled
            if self._seen.get(region.name, -1) < step and np.mean(region.label != IGNORE) >= MOSTLY_KNOWN
        ]
        found: dict[str, float] = {}
        for region in sorted(regions, key=lambda region: self._seen.get(region.name, -1)):
            begun = time.monotonic()
            if found and self._spent > FIT_SHARE * (begun - self._begun):
                break
            found[region.name] = _dice(self._recipe, region)
            self._seen[region.name] = step
            self._spent += time.monotonic() - begun
        return found


def threshold_dice(recipe: Recipe) -> float:
    """Return what the threshold that needs no training gives on the same regions.

    Otsu's threshold is that of the whole image where it is small enough to be read, else of the region's surroundings.
    """
    surroundings: dict[tuple[int, Box], list[LabeledRegion]] = {}
    for region in _judges(recipe):
        whole = Box.whole(recipe.data.images[region.image].shape)
        seen = whole if whole.area <= AROUND**2 else region.box.grown(AROUND // 4).intersect(whole)
        surroundings.setdefault((region.image, seen), []).append(region)
    scores = []
    for (index, seen), regions in surroundings.items():
        image = recipe.data.images[index]
        mask, _ = propose(image.read(seen), image.gray)
        scores += [
            _region_dice(mask[region.box.shifted(-seen.y0, -seen.x0).slices], region.label) for region in regions
        ]
    return float(np.mean(scores))


def _judges(recipe: Recipe) -> list[LabeledRegion]:
    return recipe.data.validation[: recipe.choices.judges]


def _dice(recipe: Recipe, region: LabeledRegion) -> float:
    predictor = recipe.method.predictor()
    confidence = confidence_map(
        predictor,
        recipe.data.images[region.image],
        region.box,
        device=recipe.device,
        divisor=predictor.divisor,  # type: ignore[arg-type]
        reach=predictor.reach,  # type: ignore[arg-type]
        scale=recipe.data.scales[region.image],
    )
    # The sum of all classes of nuclei, as the confidence of nucleus.
    return _region_dice(confidence.astype(np.uint16).sum(0) >= 128, region.label)


def _region_dice(mask: np.ndarray, label: np.ndarray) -> float:
    known = label != IGNORE
    return metrics.dice(metrics.confusion(mask, np.where(known, label > 0, False), valid=known))
