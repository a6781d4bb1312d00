"""Confidence maps while a run goes on: what is looked at first, as often as they cost little."""

from __future__ import annotations

import contextlib
import io
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from napari_semiseg import atomic
from napari_semiseg.blocks import Box
from napari_semiseg.engine.infer import confidence_map
from napari_semiseg.engine.patch_histograms import patch_histograms
from napari_semiseg.engine.propose import by_threshold, nuclei_of
from napari_semiseg.engine.recipe import Recipe
from napari_semiseg.errors import InputError
from napari_semiseg.events import PatchesCounted, PreviewWritten, Written
from napari_semiseg.postprocess.instances import smallest_area
from napari_semiseg.postprocess.merge import SplitRule

FIRST_STEP = 20
"""Steps before the first map: one that fewer have shaped says nothing."""
SHARE = 0.1
"""Share of the run's time that maps may take."""
LARGEST = 2048
"""Side of the largest map, in pixels: beyond that only what is in view, or every second pixel …"""
WIDEST = 2 * LARGEST
"""Side of the largest rectangle that a map is computed of, in pixels: more would hold up the run for minutes."""
KEPT = 60
"""Maps kept of each image; when there are more, every second one of the older half goes."""


class Previewer:
    """Decides when a confidence map is due, and writes it.

    Parameters
    ----------
    folder : Path
        Where the maps go.
    recipe : Recipe
        Of the run; its predictor draws the maps.

    Attributes
    ----------
    counted : PatchesCounted
        Of the last map.
    """

    counted: PatchesCounted

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.folder = folder
        self.recipe = recipe
        self.image = 0
        self.box: Box | None = None
        self._next = 0.0

    def focus(self, image: int, box: Box) -> None:
        """Turn to another rectangle, at once."""
        if 0 <= image < len(self.recipe.data.images):
            self.image, self.box = image, box
            self._next = 0.0

    def due(self, step: int) -> bool:
        """Whether a map should be written after this step."""
        return step + 1 >= FIRST_STEP and time.monotonic() >= self._next and self.recipe.method.ready_to_predict(step)

    def write(self, step: int, predictor: nn.Module) -> PreviewWritten:
        """Write the map of the rectangle in focus."""
        begun = time.monotonic()
        image = self.recipe.data.images[self.image]
        box = _shown(self.box, image.shape, self._labeled())
        downsample = max(1, -(-max(box.shape) // LARGEST))
        confidence = confidence_map(
            predictor,
            image,
            box,
            device=self.recipe.device,
            divisor=predictor.divisor,  # type: ignore[arg-type]
            reach=predictor.reach,  # type: ignore[arg-type]
            downsample=downsample,
            scale=self.recipe.data.scales[self.image],
        )
        path = self.folder / f"image-{self.image}-step-{step + 1:07d}.npy"
        buffer = io.BytesIO()
        np.save(buffer, confidence[0] if len(confidence) == 1 else confidence, allow_pickle=False)
        atomic.write_bytes(path, buffer.getvalue())
        _thin_out(self.folder, self.image)
        nucleus = confidence.sum(0, dtype=np.uint16).clip(max=255).astype(np.uint8)
        by_confidence, by_entropy = patch_histograms(nucleus, downsample)
        self.counted = PatchesCounted(step + 1, self.image, by_confidence.tolist(), by_entropy.tolist())
        cost = time.monotonic() - begun
        self._next = time.monotonic() + max(1.0, cost * (1 / SHARE - 1))
        return PreviewWritten(step + 1, str(path), self.image, (box.y0, box.x0, box.y1, box.x1), downsample)

    def propose(self, index: int, box: Box, path: str, predictor: nn.Module | None) -> Written:
        """Write the nuclei of a rectangle, at full size; without a predictor those of the threshold.

        Raises
        ------
        InputError
            If there is no such place, or the file cannot be written.
        """
        if not 0 <= index < len(self.recipe.data.images):
            raise InputError(f"The training knows no image {index}: train again to have nuclei proposed there.")
        image = self.recipe.data.images[index]

        def confidence(part: Box) -> NDArray[np.uint8]:
            assert predictor is not None
            return confidence_map(
                predictor,
                image,
                part,
                device=self.recipe.device,
                divisor=predictor.divisor,  # type: ignore[arg-type]
                reach=predictor.reach,  # type: ignore[arg-type]
                scale=self.recipe.data.scales[index],
            )

        rule = SplitRule(min_area=smallest_area(image.mpp), mpp=image.mpp)
        by = "threshold" if predictor is None else "network"
        nuclei = nuclei_of(by_threshold(image) if predictor is None else confidence, box, image.shape, rule)
        return nuclei.write(path, self.recipe.choices.classes[1:], by=by)

    def _labeled(self) -> Box | None:
        """Return a region of the image that is labeled: where to look on a slide that nobody looks at."""
        regions = (*self.recipe.data.validation, *self.recipe.data.labeled)
        return next((region.box for region in regions if region.image == self.image), None)


def _thin_out(folder: Path, image: int) -> None:
    """Remove maps of an image where there are too many; those of before a run was resumed count as well."""
    written = sorted(folder.glob(f"image-{image}-step-*.npy"))
    if len(written) > KEPT:
        for old in written[1 : len(written) // 2 : 2]:
            with contextlib.suppress(PermissionError):  # on Windows, while it is being read: then it stays
                old.unlink(missing_ok=True)


def _shown(box: Box | None, shape: tuple[int, int], labeled: Box | None) -> Box:
    """Return the rectangle to draw: the whole image where that is small, else what is in view, or around a label."""
    whole = Box.whole(shape)
    if max(shape) <= LARGEST or (box is None and max(shape) <= WIDEST):
        return whole
    if box is None and labeled is not None:
        box = labeled.grown(LARGEST // 2)
    seen = whole if box is None else box.intersect(whole)
    seen = seen if seen.area else whole
    (y0, y1), (x0, x1) = (_at_most(WIDEST, *ends) for ends in ((seen.y0, seen.y1), (seen.x0, seen.x1)))
    return Box(y0, x0, y1, x1)


def _at_most(length: int, low: int, high: int) -> tuple[int, int]:
    """Return the middle of an interval that is too long."""
    spare = max(0, high - low - length)
    return low + spare // 2, high - spare + spare // 2
