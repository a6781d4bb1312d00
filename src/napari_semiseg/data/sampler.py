"""Batches as a function of the step.

The batch of a step depends on the run's seed, the step's number and the data, and on nothing that went before. So
there is no state to save, and a resumed run draws what an uninterrupted one would have drawn.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from napari_semiseg.blocks import Box
from napari_semiseg.config import Config
from napari_semiseg.data.batch import IGNORE, Batch, Views
from napari_semiseg.data.sources import LabeledRegion, TrainingData
from napari_semiseg.data.transforms import COLORS, ColorName, Geometry, GeometryRange
from napari_semiseg.io.rescale import Readable, Rescaled

GLASS_SPREAD = 4.0
"""Standard deviation over pixels, in the color that varies most (0 to 255), under which a crop shows glass."""


class SamplerConfig(Config):
    """How crops are drawn."""

    crop: int = Field(160, ge=32, le=1024, multiple_of=4, description="Side of a training crop, in pixels.")
    batch_labeled: int = Field(8, ge=1, le=256, description="Labeled crops in a step.")
    batch_unlabeled: int = Field(8, ge=1, le=256, description="Unlabeled crops in a step.")
    scale: float = Field(0.2, ge=0, lt=0.9, description="Crops are magnified by 1 ± this.")
    degrees: float = Field(15.0, ge=0, le=45, description="Crops are rotated by up to ± this many degrees.")
    color_labeled: ColorName = Field("mild", description="Color changes of labeled crops.")
    color_strong: ColorName = Field("paper", description="Color changes of the strong views of unlabeled crops.")


class Sampler:
    """Draws the batch of any step.

    Images are first brought to the run's pixel size, as they are for a prediction, and crops are then cut out of them.

    Parameters
    ----------
    data : TrainingData
    views : Views
        What the method needs; nothing else is made.
    config : SamplerConfig
    seed : int
    """

    def __init__(self, data: TrainingData, views: Views, config: SamplerConfig, seed: int) -> None:
        self.data = data
        self.views = views
        self.config = config
        self.seed = seed
        self._images: list[Readable] = [
            image if scale == 1.0 else Rescaled(image, scale)
            for image, scale in zip(data.images, data.scales, strict=True)
        ]
        areas = np.array([float(self._whole(index).area) for index in range(len(data.images))])
        self._share = areas / areas.sum()
        self._geometry = GeometryRange(config.scale, config.degrees)

    def batch(self, step: int) -> Batch:
        """Return the batch of a step; images and labels are still uint8 (`Batch.to` makes them what `Batch` says)."""
        labeled = self._labeled(step) if self.views.labeled and self.data.labeled else (None, None)
        if not (self.views.weak or self.views.strong):
            return Batch(*labeled)
        weak, valid, strong = self._unlabeled(step)
        return Batch(labeled[0], labeled[1], weak_u=weak, strong_u=strong, valid_u=valid)

    def probe(self, count: int, crop: int) -> Tensor:
        """Return fixed unlabeled crops, (count, 3, crop, crop), in [0, 1]: the same for every run of one seed."""
        crops = [
            self._unlabeled_crop(np.random.default_rng([self.seed, 2, 0, k]), crop, Geometry())[0] for k in range(count)
        ]
        return torch.stack(crops).float() / 255

    def _labeled(self, step: int) -> tuple[Tensor, Tensor]:
        size = self.config.batch_labeled
        images, labels = [], []
        for place in range(size):
            rng = np.random.default_rng([self.seed, 0, step, place])
            region = self.data.labeled[self._turn(step * size + place)]
            image, label = self._labeled_crop(region, rng)
            images.append(image)
            labels.append(label)
        return torch.stack(images), torch.stack(labels)

    def _turn(self, drawn: int) -> int:
        """Return which labeled region comes `drawn`-th: each once in every round, in an order of the round's own."""
        count = len(self.data.labeled)
        rounds, place = divmod(drawn, count)
        return int(_order(self.seed, rounds, count)[place])

    def _labeled_crop(self, region: LabeledRegion, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        crop = self.config.crop
        geometry = self._draw(rng)
        scale = self.data.scales[region.image]
        box = _around(_center(_scaled(region.box, scale), crop / geometry.scale, rng), geometry.window(crop))
        image = _tensor(self._images[region.image].read(box))
        label = torch.from_numpy(_cut(region, box, scale))[None]
        image = geometry.apply(image, crop)
        color = COLORS[self.config.color_labeled]
        if color is not None and self.views.augment:
            image = color.draw(rng).apply(image)
        return image, geometry.apply(label, crop, nearest=True, fill=IGNORE)[0]

    def _unlabeled(self, step: int) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        weak, valid = [], []
        strong: list[list[Tensor]] = [[] for _ in range(self.views.strong)]
        color = COLORS[self.config.color_strong]
        for place in range(self.config.batch_unlabeled):
            rng = np.random.default_rng([self.seed, 1, step, place])
            image, seen = self._unlabeled_crop(rng, self.config.crop, None)
            weak.append(image)
            valid.append(seen)
            for view in strong:
                view.append(image if color is None else color.draw(rng).apply(image))
        return torch.stack(weak), torch.stack(valid), tuple(torch.stack(view) for view in strong)

    def _unlabeled_crop(self, rng: np.random.Generator, crop: int, fixed: Geometry | None) -> tuple[Tensor, Tensor]:
        """Return a crop, and where it shows the image.

        It shows tissue, and its center lies in no excluded region, as far as a few tries find such a place.
        """
        for _ in range(10):
            index = int(rng.choice(len(self.data.images), p=self._share))
            geometry = self._draw(rng) if fixed is None else fixed
            center = _center(self._whole(index), crop / geometry.scale, rng)
            box = _around(center, geometry.window(crop))
            window = self._images[index].read(box)
            if window.std((0, 1)).max() >= GLASS_SPREAD and not self._is_excluded(index, _around(center, 1)):
                break
        inside = np.zeros((1, *box.shape), np.uint8)
        common = box.intersect(self._whole(index)).shifted(-box.y0, -box.x0)
        inside[(slice(None), *common.slices)] = 1
        for excluded in self._excluded(index):
            if (hidden := box.intersect(excluded)).area:
                inside[(slice(None), *hidden.shifted(-box.y0, -box.x0).slices)] = 0
        return geometry.apply(_tensor(window), crop), geometry.apply(torch.from_numpy(inside), crop, nearest=True)[
            0
        ].bool()

    def _is_excluded(self, image: int, center: Box) -> bool:
        return any(box.contains(center) for box in self._excluded(image))

    def _excluded(self, image: int) -> list[Box]:
        return [_scaled(box, self.data.scales[image]) for index, box in self.data.excluded if index == image]

    def _whole(self, image: int) -> Box:
        return _scaled(Box.whole(self.data.images[image].shape), self.data.scales[image])

    def _draw(self, rng: np.random.Generator) -> Geometry:
        return self._geometry.draw(rng) if self.views.augment else Geometry()


@lru_cache(maxsize=64)
def _order(seed: int, rounds: int, count: int) -> tuple[int, ...]:
    return tuple(np.random.default_rng([seed, 3, rounds]).permutation(count).tolist())


def _center(region: Box, side: float, rng: np.random.Generator) -> tuple[float, float]:
    """Draw the center of a crop.

    Up to an eighth of the crop may lie beyond the region, so that its border is learned as often as its middle.
    """
    margin = side * 3 / 8
    return tuple(  # type: ignore[return-value]
        (low + high) / 2 if high - low <= 2 * margin else float(rng.uniform(low + margin, high - margin))
        for low, high in ((region.y0, region.y1), (region.x0, region.x1))
    )


def _around(center: tuple[float, float], side: int) -> Box:
    y0, x0 = (round(c - side / 2) for c in center)
    return Box(y0, x0, y0 + side, x0 + side)


def _scaled(box: Box, scale: float) -> Box:
    """Return a rectangle of an image in pixels of the run, at least one of them."""
    y0, x0, y1, x1 = (round(value * scale) for value in box)
    return Box(y0, x0, max(y1, y0 + 1), max(x1, x0 + 1))


def _cut(region: LabeledRegion, box: Box, scale: float) -> np.ndarray:
    """Return the label under `box`, in pixels of the run; `IGNORE` beyond the region."""
    label = np.full(box.shape, IGNORE, np.uint8)
    rows, columns = (
        np.floor((np.arange(low, high) + 0.5) / scale).astype(np.intp) - start
        for low, high, start in ((box.y0, box.y1, region.box.y0), (box.x0, box.x1, region.box.x0))
    )
    height, width = region.label.shape
    known = (rows >= 0) & (rows < height), (columns >= 0) & (columns < width)
    label[np.ix_(*known)] = region.label[np.ix_(rows[known[0]], columns[known[1]])]
    return label


def _tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
