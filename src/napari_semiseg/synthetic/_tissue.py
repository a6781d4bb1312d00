"""What lies where: glands with a lumen, fibrous stroma, inflamed patches, fat, bare glass. All lengths in µm."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from napari_semiseg.synthetic._noise import Floats, SmoothField, normal, uniform

GLAND_SPACING = 125.0
FAT_SPACING = 46.0
_WAVY, _TURN = 0.35, 3.2  # how much the fibers wave within a bundle, and bundles turn
_ROUND = 2.5  # µm, radius of the corners of fat cells
FAR = 1e3  # depth of a point that no structure is near to
_LARGEST = 135.0  # reach of a gland from its center: half its long axis with the bumps, and the horizon
HORIZON = 40.0  # a gland farther than this does not matter, so that a point does not depend on which glands were tried

_GLANDS, _FAT, _REGION, _FATNESS, _INFLAMED, _FIBERS, _FOCUS, _GLASS, _DENSE = range(10, 19)


@dataclass
class Depths:
    """How deep points lie inside structures, in µm; negative outside.

    Attributes
    ----------
    gland, lumen, fat : ndarray, (n,)
        Depth below the surface of a gland, of its lumen, of a fat cell.
    axis : ndarray, (n,)
        Direction from the center of the nearest gland, in radians from the x axis towards y.
    """

    gland: Floats
    lumen: Floats
    fat: Floats
    axis: Floats


class Tissue:
    """The architecture of one slide.

    Parameters
    ----------
    seed : int
        The slide.
    extent : tuple of float
        Height and width of the slide, in µm.
    fraction : float
        Part of the slide that holds tissue, 0 to 1; the rest is bare glass.
    """

    def __init__(self, seed: int, extent: tuple[float, float], fraction: float) -> None:
        self._seed = seed
        self._region = SmoothField(seed, _REGION, 420.0)
        self._fatness = SmoothField(seed, _FATNESS, 520.0)
        self.inflamed = SmoothField(seed, _INFLAMED, 190.0)
        self.dense = SmoothField(seed, _DENSE, 120.0)
        self.focus = SmoothField(seed, _FOCUS, 350.0)
        self._fibers = SmoothField(seed, _FIBERS, 95.0)
        self._coarse_fibers = SmoothField(seed, _FIBERS + 100, 330.0)
        lean = 2 * np.pi * float(uniform(seed, _FIBERS, 0))
        self._ramp = np.sin(lean) / 22.0, np.cos(lean) / 22.0
        self.glass = SmoothField(seed, _GLASS, 0.55 * max(*extent, 1.0), waves=24)
        self._glass_level = NormalDist().inv_cdf(min(max(fraction, 1e-9), 1 - 1e-9))

    def bare(self, values: Floats) -> Floats:
        """Return how far values of the field `glass` lie beyond the edge of the tissue; positive is bare glass."""
        return np.asarray(values - self._glass_level)

    def fibers(self, y: Floats, x: Floats) -> Floats:
        """Return the potential (rows, columns) whose level lines the collagen follows, at rows `y` and columns `x`."""
        waves = _WAVY * self._fibers.grid(y, x) + _TURN * self._coarse_fibers.grid(y, x)
        return np.asarray(waves + self._ramp[0] * y[:, None] + self._ramp[1] * x)

    def fiber_angle(self, y: Floats, x: Floats) -> Floats:
        """Return the direction of the fibers (n,) at n points, in radians from the x axis towards y."""
        fine, coarse = self._fibers.gradient(y, x), self._coarse_fibers.gradient(y, x)
        dy, dx = (_WAVY * fine[i] + _TURN * coarse[i] + self._ramp[i] for i in (0, 1))
        return np.asarray(np.arctan2(-dx, dy))

    def depths(self, y: Floats, x: Floats) -> Depths:
        """Return how deep n points lie in the structures around them."""
        gland, lumen, axis = self._gland_depths(y, x)
        return Depths(gland, lumen, self._fat_depths(y, x, gland), axis)

    def _gland_depths(self, y: Floats, x: Floats) -> tuple[Floats, Floats, Floats]:
        gland, lumen, axis = np.full(y.shape, -HORIZON), np.full(y.shape, -FAR), np.zeros(y.shape)
        for one in self._glands_near(y, x):
            dy, dx = y - one.y, x - one.x
            u = (dx * np.cos(one.angle) + dy * np.sin(one.angle)) / one.long
            v = (dy * np.cos(one.angle) - dx * np.sin(one.angle)) / one.short
            rho = np.hypot(u, v)
            theta = np.arctan2(v, u)
            edge = 1 + _waves(theta, (2, 3, 7), one.bumps, one.phases)
            scale = np.sqrt(one.long * one.short)
            depth = (edge - rho) * scale
            deeper = depth > gland
            wavy = one.lumen * (1 + _waves(theta, (5, 11), (0.12, 0.07), one.phases))
            gland = np.where(deeper, depth, gland)
            lumen = np.where(deeper, (edge * wavy - rho) * scale if one.lumen else -FAR, lumen)
            axis = np.where(deeper, np.arctan2(dy, dx), axis)
        return gland, lumen, axis

    def _glands_near(self, y: Floats, x: Floats) -> list[_Gland]:
        rows, columns = _sites(y, x, GLAND_SPACING, margin=1)
        cy = (rows + 0.5 + 0.56 * (uniform(self._seed, _GLANDS, 1, rows, columns) - 0.5)) * GLAND_SPACING
        cx = (columns + 0.5 + 0.56 * (uniform(self._seed, _GLANDS, 2, rows, columns) - 0.5)) * GLAND_SPACING
        here = self._region.at(cy, cx) + 0.7 * normal(self._seed, _GLANDS, 3, rows, columns) > -0.35
        here &= (np.maximum(y.min() - cy, cy - y.max()) < _LARGEST) & (
            np.maximum(x.min() - cx, cx - x.max()) < _LARGEST
        )
        sites = zip(rows[here], columns[here], cy[here], cx[here], strict=True)
        return [self._gland(*site) for site in sites]

    def _gland(self, row: int, column: int, y: float, x: float) -> _Gland:
        u = uniform(self._seed, _GLANDS, row, column, np.arange(4, 14))
        long = 34.0 + 32.0 * u[0]
        lumen = 0.0 if u[2] < 0.15 else 0.34 + 0.30 * u[3]
        bumps = (0.10 * u[4], 0.09 * u[5], 0.035 * u[6])
        return _Gland(y, x, long, long * (0.62 + 0.36 * u[1]), np.pi * u[7], lumen, bumps, tuple(2 * np.pi * u[7:10]))

    def _fat_depths(self, y: Floats, x: Floats, gland: Floats) -> Floats:
        rows, columns = _sites(y, x, FAT_SPACING, margin=2)
        cy = (rows + 0.5 + 0.6 * (uniform(self._seed, _FAT, 1, rows, columns) - 0.5)) * FAT_SPACING
        cx = (columns + 0.5 + 0.6 * (uniform(self._seed, _FAT, 2, rows, columns) - 0.5)) * FAT_SPACING
        fat = self._fatness.at(cy, cx) > 1.0
        if fat.any():
            fat &= self._gland_depths(cy, cx)[0] < -12.0
        if not fat.any():
            return np.full(y.shape, -FAR)
        radius = FAT_SPACING * (0.50 + 0.14 * uniform(self._seed, _FAT, 3, rows, columns))
        first, depth = np.full(y.shape, FAR), np.full(y.shape, -FAR)
        crowd = np.zeros(y.shape)
        for py, px, r, is_fat in zip(cy, cx, radius, fat, strict=True):
            distance = np.hypot(y - py, x - px)
            depth = np.where(distance < first, r - distance if is_fat else -FAR, depth)
            first = np.minimum(first, distance)
            crowd += np.where(distance < 2 * FAT_SPACING, np.exp(-0.5 * distance / _ROUND), 0)
        # the walls lie halfway to the neighbors; a soft minimum over these rounds the corners
        others = np.maximum(crowd - np.exp(-0.5 * first / _ROUND), 1e-30)
        wall = -_ROUND * np.log(others) - 0.5 * first - 0.8
        free = -_ROUND * np.logaddexp(-wall / _ROUND, (gland + 3.0) / _ROUND)
        return np.where(depth > -FAR, np.minimum(free, depth), -FAR)


def _waves(theta: Floats, times: tuple[int, ...], heights: tuple[float, ...], phases: tuple[float, ...]) -> Floats:
    """Return the sum of some multiples of an angle's cosine, each with its height and phase."""
    total = np.zeros_like(theta)
    for number, height, phase in zip(times, heights, phases, strict=False):
        total += height * np.cos(number * theta + phase)
    return total


@dataclass
class _Gland:
    y: float
    x: float
    long: float
    short: float
    angle: float
    lumen: float
    bumps: tuple[float, float, float]
    phases: tuple[float, ...]


def _sites(y: Floats, x: Floats, spacing: float, margin: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows and columns (n,) of a lattice that may reach into the points' rectangle."""
    rows = np.arange(int(np.floor(y.min() / spacing)) - margin, int(np.floor(y.max() / spacing)) + margin + 1)
    columns = np.arange(int(np.floor(x.min() / spacing)) - margin, int(np.floor(x.max() / spacing)) + margin + 1)
    grid = np.meshgrid(rows, columns, indexing="ij")
    return grid[0].ravel(), grid[1].ravel()
