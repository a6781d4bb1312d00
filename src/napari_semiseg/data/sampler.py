"""Batches as a function of the step.

The batch of a step depends on the run's seed, the step's number and the data, and on nothing that went before. So
there is no state to save, and a resumed run draws what an uninterrupted one would have drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from napari_semiseg.blocks import Box
from napari_semiseg.config import Config
from napari_semiseg.data.batch import IGNORE, PAIR_STEP, Batch, Pair, Views
from napari_semiseg.data.guide import Guide
from napari_semiseg.data.sources import LabeledRegion, TrainingData
from napari_semiseg.data.transforms import COLORS, ColorName, ColorRange, Geometry, GeometryRange
from napari_semiseg.io.rescale import Readable, Rescaled, scaled_box

GLASS_SPREAD = 4.0
"""Standard deviation over pixels, in the color that varies most (0 to 255), under which a crop shows glass."""


class SamplerConfig(Config):
    """How crops are drawn."""

    crop: int = Field(160, ge=32, le=1024, multiple_of=4, description="Side of a training crop, in pixels.")
    batch_labeled: int = Field(8, ge=1, le=256, description="Labeled crops in a step.")
    batch_unlabeled: int = Field(
        8, ge=1, le=256, description="Unlabeled crops in a step; where nothing is labeled, as many as both together."
    )
    scale: float = Field(0.2, ge=0, lt=0.9, description="Crops are magnified by 1 ± this.")
    degrees: float = Field(15.0, ge=0, le=45, description="Crops are rotated by up to ± this many degrees.")
    color_labeled: ColorName = Field("mild", description="Color changes of labeled crops.")
    color_strong: ColorName = Field("paper", description="Color changes of the strong views of unlabeled crops.")
    stain_jitter: float = Field(
        0.3,
        ge=0,
        le=2,
        description="How far the stain's channel is moved, in standard deviations, and by what part stretched.",
    )
    stain_dropout: float = Field(
        0.2, ge=0, le=1, description="How often the stain's channel of a crop shows nothing, so that shape is learned."
    )
    field: float = Field(
        1.75, ge=0, le=100, description="Side of the view of a whole image, in crops: larger ones show a part; 0, all."
    )


_AT_THRESHOLD = 127.5
_PER_DEVIATION = 255 / 8
"""The stain's channel in bytes: what is at the threshold, and how much makes a standard deviation."""


@dataclass(frozen=True)
class _Window:
    """What was read for an unlabeled crop, or for a pair of them."""

    index: int
    box: Box
    pixels: NDArray[np.uint8]
    geometry: Geometry
    offset: tuple[int, int] = (0, 0)


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
    guide : Guide, optional
        Where nuclei may be; needed where the views have a guide, and with `scaled`.
    scaled : bool
        Whether crops have a fourth channel: the stain on the scale of their image. The weak views show it as it is;
        where color is drawn, the channel is moved and stretched a little, or left out.
    """

    def __init__(
        self,
        data: TrainingData,
        views: Views,
        config: SamplerConfig,
        seed: int,
        guide: Guide | None = None,
        *,
        scaled: bool = False,
    ) -> None:
        if (views.guide or scaled) and guide is None:
            raise ValueError("Views with a guide, and crops with the scale of their image, need a guide.")
        self.data = data
        self.guide = guide
        self.scaled = scaled
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
        self._overviews: dict[int, NDArray[np.uint8]] = {}

    def batch(self, step: int) -> Batch:
        """Return the batch of a step; images and labels are still uint8 (`Batch.to` makes them what `Batch` says)."""
        batch = Batch()
        if self.views.labeled and self.data.labeled:
            image, label = self._labeled(step)
            batch = replace(batch, image_l=image, label_l=label, labeled_pixels=self._told())
        if self.views.weak or self.views.strong:
            weak, valid, strong, guide = self._unlabeled(step)
            batch = replace(batch, weak_u=weak, strong_u=strong, valid_u=valid, guide_u=guide)
        if self.views.pairs is not None:
            pair, whole, shown = self._pairs(step, self.views.pairs)
            batch = replace(batch, pair_u=pair, whole_u=whole, whole_valid_u=shown)
        return batch

    def _told(self) -> dict[str, int]:
        told: dict[str, float] = {}
        for region in self.data.labeled:
            image = self.data.images[region.image].identity  # a copy of an image is the same one
            told[image] = told.get(image, 0.0) + region.told * self.data.scales[region.image] ** 2
        return {image: round(pixels) for image, pixels in told.items()}

    def probe(self, count: int, crop: int) -> Tensor:
        """Return fixed unlabeled crops, (count, C, crop, crop), in [0, 1]: the same in every run of one seed."""
        crops = [
            self._unlabeled_crop(np.random.default_rng([self.seed, 2, 0, k]), crop, Geometry())[0] for k in range(count)
        ]
        return torch.stack(crops).float() / 255

    def regions(self, margin: int = 0) -> Iterator[Batch]:
        """Yield every labeled region whole, as a batch of one, uint8, not augmented.

        Parameters
        ----------
        margin : int
            Pixels of the image to show around it; their labels are `IGNORE`.
        """
        for region in self.data.labeled:
            scale = self.data.scales[region.image]
            box = scaled_box(region.box, scale).grown(margin)
            image, label = _tensor(self._images[region.image].read(box)), _cut(region, box, scale)
            yield Batch(image[None], torch.from_numpy(label)[None])

    @property
    def _unlabeled_crops(self) -> int:
        """Where nothing is labeled yet, unlabeled crops take the place of labeled ones: a step stays as large."""
        free = self.config.batch_labeled if self.views.labeled and not self.data.labeled else 0
        return self.config.batch_unlabeled + free

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
        box = _around(_center(scaled_box(region.box, scale), crop / geometry.scale, rng), geometry.window(crop))
        image = self._channels(region.image, self._images[region.image].read(box))
        label = torch.from_numpy(_cut(region, box, scale))[None]
        image = geometry.apply(image, crop)
        if self.views.augment:
            image = self._recolored(image, COLORS[self.config.color_labeled], rng)
        return image, geometry.apply(label, crop, nearest=True, fill=IGNORE)[0]

    def _unlabeled(self, step: int) -> tuple[Tensor, Tensor, tuple[Tensor, ...], Tensor | None]:
        weak, valid, guides = [], [], []
        strong: list[list[Tensor]] = [[] for _ in range(self.views.strong)]
        color = COLORS[self.config.color_strong]
        for place in range(self._unlabeled_crops):
            rng = np.random.default_rng([self.seed, 1, step, place])
            window = self._tissue(rng, self.config.crop, None)
            image, seen = self._cut_out(window, self.config.crop)
            weak.append(image)
            valid.append(seen)
            if self.views.guide:
                guides.append(self._guided(window))
            for view in strong:
                view.append(self._recolored(image, color, rng))
        guide = torch.stack(guides) if guides else None
        return torch.stack(weak), torch.stack(valid), tuple(torch.stack(view) for view in strong), guide

    def _guided(self, window: _Window) -> Tensor:
        """Return the map of the guide at the crop that a window was read for."""
        assert self.guide is not None
        beyond = torch.from_numpy(self.guide.read(window.index, window.box))[None]
        return window.geometry.apply(beyond, self.config.crop)[0]

    def _unlabeled_crop(self, rng: np.random.Generator, crop: int, fixed: Geometry | None) -> tuple[Tensor, Tensor]:
        """Return a crop, and where it shows the image."""
        return self._cut_out(self._tissue(rng, crop, fixed), crop)

    def _pairs(self, step: int, overlap: tuple[float, float]) -> tuple[Pair, Tensor | None, Tensor | None]:
        """Return the pairs of a step, and where they are wanted the whole images with what of them counts."""
        firsts, seconds, wholes, offsets, flips = [], [], [], [], []
        for place in range(self.config.batch_unlabeled):
            rng = np.random.default_rng([self.seed, 4, step, place])
            window = self._tissue(rng, self.config.crop, None, overlap)
            flipped = (rng.random(2) < 0.5) & self.views.augment
            first, second = self._pair(window, flipped, rng)
            firsts.append(first)
            seconds.append(second)
            offsets.append(window.offset)
            flips.append(flipped)
            if self.views.whole:
                whole, shown = self._field(window)
                if self.views.augment:
                    whole = self._recolored(whole, COLORS[self.config.color_strong], rng)
                wholes.append((whole, shown))
        images, valid = zip(_stacked(firsts), _stacked(seconds), strict=True)
        pair = Pair(images, valid, torch.tensor(offsets), torch.from_numpy(np.stack(flips)))
        return (pair, *_stacked(wholes)) if wholes else (pair, None, None)

    def _pair(
        self, window: _Window, flipped: NDArray[np.bool_], rng: np.random.Generator
    ) -> list[tuple[Tensor, Tensor]]:
        """Cut both crops out of what was read for them; flip and color each by itself."""
        crop, (dy, dx) = self.config.crop, window.offset
        side = crop + max(abs(dy), abs(dx))
        image, valid = self._cut_out(window, side)
        y, x = (side - crop - abs(dy)) // 2 + max(0, -dy), (side - crop - abs(dx)) // 2 + max(0, -dx)
        color = COLORS[self.config.color_strong]
        found = []
        for top, left, flip in ((y, x, flipped[0]), (y + dy, x + dx, flipped[1])):
            part, shown = (view[..., top : top + crop, left : left + crop] for view in (image, valid))
            part, shown = (part.flip(-1), shown.flip(-1)) if flip else (part, shown)
            if self.views.augment:
                part = self._recolored(part, color, rng)
            found.append((part.contiguous(), shown.contiguous()))
        return found

    def _field(self, window: _Window) -> tuple[Tensor, Tensor]:
        """Return the image around a pair, squashed to a crop, and what of it counts.

        It is the whole image where that is at most `SamplerConfig.field` crops wide, and a part of that size elsewhere:
        a slide squashed to a crop would show no nucleus. Nothing is smoothed, as in the released code of CRCFP.
        """
        crop, whole = self.config.crop, self._whole(window.index)
        side = round(self.config.field * crop)
        part = _inside(window.box, side, whole) if side else whole
        ys, xs = (_nearest(low, high, crop) for low, high in ((part.y0, part.y1), (part.x0, part.x1)))
        if side:
            image = self._images[window.index].read(part)[np.ix_(ys - part.y0, xs - part.x0)]
        else:
            image = self._overview(window.index)
        counts = np.ones((1, crop, crop), np.uint8)
        for box in self._excluded(window.index):
            hidden = ((ys >= box.y0) & (ys < box.y1))[:, None] & ((xs >= box.x0) & (xs < box.x1))
            counts[:, hidden] = 0
        turned = replace(window.geometry, scale=1.0, degrees=0.0)
        shown = turned.apply(torch.from_numpy(counts), crop)[0].bool()
        return turned.apply(self._channels(window.index, image), crop), shown

    def _overview(self, index: int) -> NDArray[np.uint8]:
        """Return all of an image, squashed to a crop: read once, from the coarsest level that is fine enough."""
        crop = self.config.crop
        if index not in self._overviews:
            small = self.data.images[index].overview(2 * crop)
            self._overviews[index] = small[np.ix_(*(_nearest(0, length, crop) for length in small.shape[:2]))]
        return self._overviews[index]

    def _tissue(
        self,
        rng: np.random.Generator,
        crop: int,
        fixed: Geometry | None,
        overlap: tuple[float, float] | None = None,
    ) -> _Window:
        """Read the window of a crop, or with `overlap` of a pair.

        It shows tissue, and its center lies in no excluded region, as far as a few tries find such a place.
        """
        for _ in range(10):
            index = int(rng.choice(len(self.data.images), p=self._share))
            geometry = self._draw(rng) if fixed is None else fixed
            offset = (0, 0) if overlap is None else self._offset(index, geometry, crop, overlap, rng)
            side = crop + max(map(abs, offset))
            center = _center(self._whole(index), side / geometry.scale, rng)
            box = _around(center, geometry.window(side))
            pixels = self._images[index].read(box)
            if _spread(pixels) >= GLASS_SPREAD and not self._is_excluded(index, _around(center, 1)):
                break
        return _Window(index, box, pixels, geometry, offset)

    def _offset(
        self, index: int, geometry: Geometry, crop: int, overlap: tuple[float, float], rng: np.random.Generator
    ) -> tuple[int, int]:
        """Draw how far the second crop of a pair lies from the first, as far as the image has room for both."""
        height, width = (round(length * geometry.scale) for length in self._whole(index).shape)
        if geometry.quarter_turns % 2:
            height, width = width, height
        offsets = _offsets(crop, max(0, height - crop), max(0, width - crop), overlap)
        dy, dx = offsets[int(rng.integers(len(offsets)))]
        return int(dy), int(dx)

    def _cut_out(self, window: _Window, crop: int) -> tuple[Tensor, Tensor]:
        """Return the crop that a window was read for, and where it shows the image."""
        box, geometry = window.box, window.geometry
        inside = np.zeros((1, *box.shape), np.uint8)
        common = box.intersect(self._whole(window.index)).shifted(-box.y0, -box.x0)
        inside[(slice(None), *common.slices)] = 1
        for excluded in self._excluded(window.index):
            if (hidden := box.intersect(excluded)).area:
                inside[(slice(None), *hidden.shifted(-box.y0, -box.x0).slices)] = 0
        image = geometry.apply(self._channels(window.index, window.pixels), crop)
        if inside.all():  # as nearly everywhere, and a window holds all of its crop
            return image, torch.ones((crop, crop), dtype=torch.bool)
        return image, geometry.apply(torch.from_numpy(inside), crop, nearest=True)[0].bool()

    def _channels(self, index: int, pixels: NDArray[np.uint8]) -> Tensor:
        """Return pixels of an image as (3, h, w), or with the stain on the image's scale as (4, h, w)."""
        image = _tensor(pixels)
        if not self.scaled:
            return image
        assert self.guide is not None
        return torch.cat([image, torch.from_numpy(self.guide.channel(index, pixels))[None]])

    def _recolored(self, image: Tensor, color: ColorRange | None, rng: np.random.Generator) -> Tensor:
        """Draw a color for a crop; the stain's channel is not made from it anew, but drawn by itself."""
        drawn = image[:3] if color is None else color.draw(rng).apply(image[:3])
        if not self.scaled:
            return drawn
        channel, width = image[3:].float() - _AT_THRESHOLD, self.config.stain_jitter
        stretch, shift = 1 + rng.uniform(-width, width), _PER_DEVIATION * rng.uniform(-width, width)
        shown = rng.random() >= self.config.stain_dropout
        moved = (channel * stretch + shift) * shown + _AT_THRESHOLD
        return torch.cat([drawn, moved.round_().clamp_(0, 255).to(torch.uint8)])

    def _is_excluded(self, image: int, center: Box) -> bool:
        return any(box.contains(center) for box in self._excluded(image))

    def _excluded(self, image: int) -> list[Box]:
        return [scaled_box(box, self.data.scales[image]) for index, box in self.data.excluded if index == image]

    def _whole(self, image: int) -> Box:
        return scaled_box(Box.whole(self.data.images[image].shape), self.data.scales[image])

    def _draw(self, rng: np.random.Generator) -> Geometry:
        return self._geometry.draw(rng) if self.views.augment else Geometry()


@lru_cache(maxsize=64)
def _order(seed: int, rounds: int, count: int) -> tuple[int, ...]:
    return tuple(np.random.default_rng([seed, 3, rounds]).permutation(count).tolist())


@lru_cache(maxsize=64)
def _offsets(crop: int, down: int, right: int, overlap: tuple[float, float]) -> NDArray[np.intp]:
    """Return every offset, (N, 2), at most `down` and `right` pixels either way, at which two crops overlap as asked.

    Two crops at the same place, where there is none: the image has no room for two.
    """
    dy, dx = (
        np.arange(-(room // PAIR_STEP), room // PAIR_STEP + 1) * PAIR_STEP
        for room in (min(down, crop - 1), min(right, crop - 1))
    )
    common = ((crop - abs(dy))[:, None] * (crop - abs(dx))).astype(float)
    found = common / (2 * crop**2 - common)
    at = np.argwhere((found >= overlap[0]) & (found <= overlap[1]))
    return np.stack([dy[at[:, 0]], dx[at[:, 1]]], 1) if len(at) else np.zeros((1, 2), np.intp)


def _spread(pixels: NDArray[np.uint8]) -> float:
    """Return the standard deviation over every fourth pixel, in the color that varies most."""
    some = torch.from_numpy(np.ascontiguousarray(pixels[::2, ::2])).flatten(0, 1).float()
    return float(some.std(0, correction=0).max())


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


def _inside(around: Box, side: int, whole: Box) -> Box:
    """Return a square about the middle of a rectangle, moved into the image; no larger than the image."""
    spans = []
    for middle, low, high in (
        ((around.y0 + around.y1) // 2, whole.y0, whole.y1),
        ((around.x0 + around.x1) // 2, whole.x0, whole.x1),
    ):
        length = min(side, high - low)
        start = min(max(middle - length // 2, low), high - length)
        spans.append((start, start + length))
    (y0, y1), (x0, x1) = spans
    return Box(y0, x0, y1, x1)


def _nearest(low: int, high: int, count: int) -> NDArray[np.intp]:
    """Return `count` of the pixels from `low` to `high`, at equal distances."""
    return low + np.floor((np.arange(count) + 0.5) * (high - low) / count).astype(np.intp)


def _cut(region: LabeledRegion, box: Box, scale: float) -> np.ndarray:
    """Return the label under `box`, in pixels of the run; `IGNORE` beyond the region."""
    label = np.full(box.shape, IGNORE, np.uint8)
    if scale == 1.0:  # nothing to look up
        common = box.intersect(region.box)
        if common.area:
            part = region.label[common.shifted(-region.box.y0, -region.box.x0).slices]
            label[common.shifted(-box.y0, -box.x0).slices] = part
        return label
    rows, columns = (
        np.floor((np.arange(low, high) + 0.5) / scale).astype(np.intp) - start
        for low, high, start in ((box.y0, box.y1, region.box.y0), (box.x0, box.x1, region.box.x0))
    )
    height, width = region.label.shape
    known = (rows >= 0) & (rows < height), (columns >= 0) & (columns < width)
    label[np.ix_(*known)] = region.label[np.ix_(rows[known[0]], columns[known[1]])]
    return label


def _stacked(views: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Make a batch of images and one of masks."""
    return torch.stack([image for image, _ in views]), torch.stack([mask for _, mask in views])


def _tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
