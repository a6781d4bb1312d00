"""Pairs of overlapping crops, told apart by an image that shows its own coordinates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from napari_semiseg.blocks import Box
from napari_semiseg.data.batch import PAIR_STEP, Views
from napari_semiseg.data.sampler import Sampler, SamplerConfig
from napari_semiseg.data.sources import TrainingData
from napari_semiseg.io.images import Image, from_array

CROP = 64
PAIRS = Views(labeled=False, pairs=(0.1, 1.0))
STILL = SamplerConfig(crop=CROP, batch_unlabeled=6, scale=0.0, degrees=0.0, color_strong="none")


def coordinates(height: int = 240, width: int = 240) -> np.ndarray:
    """An image whose red is the row and whose green the column of a pixel, and whose blue is noise."""
    rows, columns = np.mgrid[:height, :width]
    noise = np.random.default_rng(0).integers(0, 256, (height, width))
    return np.stack([rows, columns, noise], -1).astype(np.uint8)


def sampler(image: np.ndarray | Image, config: SamplerConfig = STILL, views: Views = PAIRS, **changes: Any) -> Sampler:
    image = from_array(image, "a") if isinstance(image, np.ndarray) else image
    return Sampler(TrainingData([image], **changes), views, config, seed=0)


def on_overlap(batch: Any, cell: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Means of both crops over the cells that they share, (N, 3), and which of these show the image, (N,)."""
    grid = (CROP // cell, CROP // cell)
    rows = batch.pair_u.overlap(grid)
    maps = [F.avg_pool2d(image.float(), cell) for image in batch.pair_u.images]
    shown = [F.avg_pool2d(valid.float()[:, None], cell)[:, 0] > 0.999 for valid in batch.pair_u.valid]
    first, second = (m.movedim(1, -1).flatten(0, 2)[row] for m, row in zip(maps, rows, strict=True))
    return first, second, shown[0].flatten()[rows[0]] & shown[1].flatten()[rows[1]]


@pytest.mark.parametrize("cell", [1, 2, 4, 8])
def test_the_overlap_of_both_crops_shows_the_same_pixels_in_the_same_order(cell: int) -> None:
    flips = set()
    for step in range(8):
        batch = sampler(coordinates()).batch(step)
        first, second, _ = on_overlap(batch, cell)
        assert torch.equal(first, second)
        flips |= {tuple(flipped) for flipped in batch.pair_u.flipped.tolist()}
    assert flips == {(False, False), (False, True), (True, False), (True, True)}


def test_it_is_the_same_tissue_under_scale_and_rotation_too() -> None:
    config = STILL.model_copy(update={"scale": 0.3, "degrees": 20.0})
    for step in range(4):
        first, second, shown = on_overlap(sampler(coordinates(), config).batch(step), 8)
        assert shown.float().mean() > 0.5
        assert torch.equal(first, second)


def test_the_overlap_is_as_large_as_the_offset_says() -> None:
    batch = sampler(coordinates()).batch(0)
    rows, _ = batch.pair_u.overlap((8, 8))
    expected = [(CROP - abs(dy)) * (CROP - abs(dx)) // PAIR_STEP**2 for dy, dx in batch.pair_u.offset.tolist()]

    assert [int((rows // 64 == image).sum()) for image in range(6)] == expected


@pytest.mark.parametrize("bounds", [(0.1, 1.0), (0.3, 0.5), (0.9, 1.0)])
def test_offsets_are_multiples_of_eight_at_which_the_crops_overlap_as_asked(bounds: tuple[float, float]) -> None:
    views = Views(labeled=False, pairs=bounds)
    offsets = torch.cat([sampler(coordinates(), views=views).batch(step).pair_u.offset for step in range(20)])
    common = ((CROP - offsets.abs()).prod(1)).double()
    overlap = common / (2 * CROP**2 - common)

    assert (offsets % PAIR_STEP == 0).all()
    assert overlap.min() >= bounds[0]
    assert overlap.max() <= bounds[1]
    if bounds == (0.1, 1.0):
        assert overlap.min() < 0.2
        assert len(offsets.unique(dim=0)) > 60


def test_a_pair_is_a_function_of_seed_step_and_place() -> None:
    one, again = (sampler(coordinates()).batch(3).pair_u for _ in range(2))
    fewer = sampler(coordinates(), STILL.model_copy(update={"batch_unlabeled": 2})).batch(3).pair_u
    other = sampler(coordinates()).batch(4).pair_u

    assert torch.equal(one.images[1], again.images[1])
    assert torch.equal(one.images[1][:2], fewer.images[1])
    assert not torch.equal(one.images[1], other.images[1])


def test_each_crop_of_a_pair_has_colors_of_its_own() -> None:
    config = STILL.model_copy(update={"color_strong": "paper"})
    plain, colored = (
        sampler(coordinates(), c, Views(labeled=False, pairs=(1.0, 1.0))).batch(1).pair_u for c in (STILL, config)
    )
    first, second = (image.float().mean((2, 3)) for image in colored.images)

    assert torch.equal(plain.offset, torch.zeros(6, 2, dtype=torch.int64))
    assert (first - second).abs().max() > 10


def test_an_image_without_room_for_two_crops_gives_one_twice() -> None:
    batch = sampler(coordinates(CROP + 4, CROP - 10)).batch(0)
    _, _, shown = on_overlap(batch, 2)

    assert (batch.pair_u.offset == 0).all()
    assert 0.5 < shown.float().mean() < 1  # the image ends inside the crops


def test_where_only_one_axis_has_room_the_crops_lie_along_it() -> None:
    offsets = torch.cat([sampler(coordinates(240, CROP)).batch(step).pair_u.offset for step in range(10)])
    along_rows = offsets.abs().amax(0) > 0

    assert bool(along_rows.any())
    assert bool((offsets.abs().amin(1) == 0).all())  # quarter turns make it rows or columns


def test_excluded_regions_are_not_valid_in_either_crop() -> None:
    batch = sampler(coordinates(), excluded=[(0, Box(0, 0, 240, 240))]).batch(0)

    assert not any(valid.any() for valid in batch.pair_u.valid)


def test_no_pair_and_no_whole_image_is_made_unless_asked_for() -> None:
    batch = sampler(coordinates(), views=Views(labeled=False, weak=True)).batch(0)
    assert batch.pair_u is None
    assert batch.whole_u is None
    batch = sampler(coordinates()).batch(0)
    assert batch.weak_u is None
    assert batch.whole_u is None
    with pytest.raises(ValueError, match="ask for pairs"):
        Views(whole=True)
    with pytest.raises(ValueError, match="least first"):
        Views(pairs=(0.5, 0.1))


WHOLE = Views(labeled=False, pairs=(0.1, 1.0), whole=True)


def spread(image: torch.Tensor) -> list[float]:
    """How many rows and how many columns of the source an image (3, H, W) spans, from its first pixel to its last."""
    return [float(image[k].float().amax() - image[k].float().amin()) for k in (0, 1)]


def test_a_whole_image_is_squashed_to_a_crop_without_a_pixel_that_was_not_there() -> None:
    source = coordinates(100, 90)
    batch = sampler(source, STILL, WHOLE).batch(0)
    colors = {tuple(color) for color in source.reshape(-1, 3).tolist()}

    assert batch.whole_u.shape == (6, 3, CROP, CROP)
    assert {tuple(color) for color in batch.whole_u[0].flatten(1).T.tolist()} <= colors
    assert spread(batch.whole_u[0]) == [99, 89]
    assert batch.whole_valid_u.all()


def test_of_an_image_larger_than_the_field_the_part_around_the_pair_is_shown() -> None:
    config = STILL.model_copy(update={"field": 2.0})
    batch = sampler(coordinates(), config, WHOLE).batch(0)
    for image in range(6):
        rows, columns = batch.whole_u[image, 0], batch.whole_u[image, 1]
        pair = [view[image] for view in batch.pair_u.images]
        assert spread(batch.whole_u[image]) == [126, 126]  # every second of 128 pixels
        middle = [(min(int(v[k].min()) for v in pair) + max(int(v[k].max()) for v in pair)) / 2 for k in (0, 1)]
        assert int(rows.min()) <= middle[0] <= int(rows.max())
        assert int(columns.min()) <= middle[1] <= int(columns.max())


def test_a_whole_image_is_colored_by_itself_and_its_pair_is_the_same_without_it() -> None:
    config = STILL.model_copy(update={"color_strong": "paper", "field": 0.0})
    still = config.model_copy(update={"color_strong": "none"})
    plain, colored = (sampler(coordinates(), one, WHOLE).batch(0) for one in (still, config))
    alone = sampler(coordinates(), config).batch(0)

    assert torch.equal(plain.pair_u.offset, colored.pair_u.offset)
    assert not any(map(torch.equal, plain.whole_u, colored.whole_u))
    assert all(map(torch.equal, alone.pair_u.images, colored.pair_u.images))


def test_a_field_of_zero_shows_all_of_an_image_whatever_its_size() -> None:
    config = STILL.model_copy(update={"field": 0.0})
    batch = sampler(coordinates(), config, WHOLE).batch(0)

    assert all(min(spread(image)) > 230 for image in batch.whole_u)


@pytest.mark.parametrize("field", [0.0, 1.75, 100.0])
def test_excluded_regions_do_not_count_in_the_whole_image(field: float) -> None:
    config = STILL.model_copy(update={"field": field, "crop": 64})
    batch = sampler(coordinates(128, 128), config, WHOLE, excluded=[(0, Box(0, 0, 64, 128))]).batch(0)
    hidden = batch.whole_u[:, 0] < 64

    assert (batch.whole_valid_u == ~hidden).float().mean() > 0.98
    assert hidden.any()


class _Watched(Image):
    """A slide of 40,000 pixels that is made where it is read, and remembers what was."""

    def __init__(self) -> None:
        self.read_boxes: list[tuple[Box, int]] = []
        self.name = self.source = "slide"
        self.levels = [(40_000, 40_000), (1_250, 1_250)]
        self.shape = self.levels[0]
        self.mpp, self.gray, self._overview = None, False, None

    def read(self, box: Box, level: int = 0) -> np.ndarray:
        self.read_boxes.append((box, level))
        return np.random.default_rng(1).integers(0, 256, (*box.shape, 3), dtype=np.uint8)


@pytest.mark.parametrize("field", [0.0, 1.75])
def test_of_a_slide_no_more_is_read_than_the_windows_and_a_coarse_level_once(field: float) -> None:
    slide = _Watched()
    drawn = sampler(slide, SamplerConfig(crop=CROP, batch_unlabeled=3, field=field), WHOLE)
    for step in range(4):
        drawn.batch(step)
    fine = [box.area for box, level in slide.read_boxes if level == 0]
    coarse = [box.area for box, level in slide.read_boxes if level == 1]

    assert max(fine) <= (3.2 * CROP) ** 2  # two crops side by side, turned and magnified
    assert sum(coarse) <= (1_250 + 10) ** 2
    assert bool(coarse) == (field == 0)


def test_on_a_device_pairs_and_whole_images_are_fractions() -> None:
    batch = sampler(coordinates(), STILL, WHOLE).batch(0).to(torch.device("cpu"))
    for image in (*batch.pair_u.images, batch.whole_u):
        assert image.dtype == torch.float32
        assert 0 <= image.min() <= image.max() <= 1
    assert batch.pair_u.offset.dtype == torch.int64


def test_a_grid_that_offsets_do_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="no grid"):
        sampler(coordinates()).batch(0).pair_u.overlap((4, 4))
