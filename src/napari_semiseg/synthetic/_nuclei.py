"""Nuclei: which there are near a rectangle, what each looks like, and how they are painted. Lengths in µm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_semiseg.synthetic._noise import Floats, Map, normal, uniform
from napari_semiseg.synthetic._tissue import Tissue

CLASSES = ("epithelial", "inflammatory", "spindle")
"""Names of the classes with the values 1, 2, 3."""

SITE = 6.5  # one nucleus at most for each square of this side
REACH = 14.0  # no nucleus reaches farther than this from its center
NATURAL_DENSITY = 7000.0  # nuclei for each mm², mean over tissue, where the chances below are not scaled

_PRESENCE, _JITTER, _KIND, _SHAPE, _STAIN, _ORDER, _DEBRIS = range(40, 47)


@dataclass(frozen=True)
class _Look:
    """Distribution of one class: mean and standard deviation of half axes (µm), and of the amount of stain."""

    long: tuple[float, float]
    short: tuple[float, float]
    stain: tuple[float, float]
    pale_center: float  # part of the stain missing in the middle: vesicular chromatin
    texture: float  # contrast of the chromatin
    bend: float


_LOOKS = (
    _Look((4.5, 0.6), (2.9, 0.4), (0.86, 0.22), 0.42, 0.19, 0.05),
    _Look((2.9, 0.3), (2.6, 0.25), (1.40, 0.22), 0.05, 0.20, 0.0),
    _Look((6.6, 1.5), (1.3, 0.25), (1.05, 0.24), 0.10, 0.14, 0.12),
)


@dataclass
class Nuclei:
    """A table of nuclei in the order in which they are painted; all arrays (n,).

    Attributes
    ----------
    identity : ndarray, int64
        Unique over the slide, at least 1.
    kind : ndarray, int64
        Index in `CLASSES`.
    y, x, long, short : ndarray, float64
        Center and half axes, in µm.
    angle : ndarray, float64
        Direction of the long axis, in radians from the x axis towards y.
    stain, softness : ndarray, float64
        Amount of hematoxylin, and width of the edge in µm.
    bend, two, three, phase : ndarray, float64
        How the outline departs from an ellipse.
    """

    identity: NDArray[np.int64]
    kind: NDArray[np.int64]
    y: Floats
    x: Floats
    long: Floats
    short: Floats
    angle: Floats
    stain: Floats
    softness: Floats
    bend: Floats
    two: Floats
    three: Floats
    phase: Floats


def nuclei_near(
    tissue: Tissue, seed: int, extent: tuple[float, float], rectangle: tuple[float, float, float, float], chance: float
) -> Nuclei:
    """Return all nuclei that may reach into a rectangle.

    Parameters
    ----------
    tissue : Tissue
        Where they live.
    seed : int
        The slide.
    extent : tuple of float
        Height and width of the slide, in µm; no center lies outside.
    rectangle : tuple of float
        Top, left, bottom, right, in µm.
    chance : float
        Factor on the natural density.

    Returns
    -------
    Nuclei
        The same nucleus has the same properties whatever rectangle is asked for.
    """
    rows, columns, last = _sites_near(extent, rectangle)
    y = (rows + 0.5 + 0.8 * (uniform(seed, _JITTER, 1, rows, columns) - 0.5)) * SITE
    x = (columns + 0.5 + 0.8 * (uniform(seed, _JITTER, 2, rows, columns) - 0.5)) * SITE
    kind, axis = _kinds(tissue, seed, rows, columns, y, x, chance)
    here = (kind >= 0) & (y < extent[0]) & (x < extent[1])
    rows, columns = rows[here], columns[here]
    table = _looks(tissue, seed, rows, columns, y[here], x[here], kind[here], axis[here])
    table.identity = rows * last + columns + 1
    order = np.lexsort((table.identity, uniform(seed, _ORDER, rows, columns)))
    return Nuclei(**{name: values[order] for name, values in vars(table).items()})


def _sites_near(
    extent: tuple[float, float], rectangle: tuple[float, float, float, float]
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    top, left, bottom, right = rectangle
    number = [int(np.ceil(side / SITE)) for side in extent]
    rows = np.arange(max(0, int((top - REACH) / SITE) - 1), min(number[0], int((bottom + REACH) / SITE) + 2))
    columns = np.arange(max(0, int((left - REACH) / SITE) - 1), min(number[1], int((right + REACH) / SITE) + 2))
    grid = np.meshgrid(rows, columns, indexing="ij")
    return grid[0].ravel(), grid[1].ravel(), number[1]


def _kinds(
    tissue: Tissue,
    seed: int,
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    y: Floats,
    x: Floats,
    chance: float,
) -> tuple[NDArray[np.int64], Floats]:
    """Draw the class of each site, -1 for none, and return the axes of the glands around."""
    if not len(y):
        return np.zeros(0, np.int64), np.zeros(0)
    depths = tissue.depths(y, x)
    in_gland = (depths.gland > 1.2) & (depths.lumen < -3.0)
    hollow = depths.lumen > -900
    basal = np.where(hollow, np.exp(-((np.abs(depths.gland - 6.5) / 6.0) ** 3)), 0.8)
    inflamed = np.clip(np.exp(1.5 * tissue.inflamed.at(y, x) - 1.75), 0.02, 0.85)
    in_stroma = (depths.gland < -1.0) & (depths.fat < -2.5)
    chances = np.stack(
        [
            np.where(in_gland, 0.96 * basal, 0.0),
            np.where(in_stroma, 0.62 * inflamed, np.where(in_gland, 0.035, 0.0)),
            np.where(in_stroma & (depths.fat < -4.5), 0.10 + 0.05 * np.clip(tissue.dense.at(y, x), -1.5, 2), 0.0),
        ]
    )
    chances *= chance * (tissue.bare(tissue.glass.at(y, x)) < 0)
    total = chances.sum(axis=0)
    bounds = np.cumsum(chances / np.maximum(1.0, total / 0.96), axis=0)
    draw = uniform(seed, _PRESENCE, rows, columns)
    kind = (draw[None] >= bounds).sum(axis=0)
    return np.where(kind < len(CLASSES), kind, -1), depths.axis


def _looks(
    tissue: Tissue,
    seed: int,
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    y: Floats,
    x: Floats,
    kind: NDArray[np.int64],
    axis: Floats,
) -> Nuclei:
    def drawn(stream: int, number: int) -> Floats:
        return normal(seed, stream, number, rows, columns)

    def of_class(name: str) -> Floats:
        return np.array([getattr(look, name) for look in _LOOKS])[kind]

    def sized(name: str, number: int) -> Floats:
        mean, spread = of_class(name).T
        return np.asarray(mean * np.exp(spread / mean * drawn(_SHAPE, number)))

    along = np.where(kind == 0, axis + 0.30 * drawn(_SHAPE, 5), tissue.fiber_angle(y, x) + 0.22 * drawn(_SHAPE, 5))
    angle = np.where(kind == 1, 2 * np.pi * uniform(seed, _SHAPE, 6, rows, columns), along)
    out_of_focus = uniform(seed, _STAIN, 2, rows, columns) < 0.20
    return Nuclei(
        identity=np.zeros(len(y), np.int64),
        kind=kind,
        y=y,
        x=x,
        long=np.minimum(sized("long", 1), 0.7 * REACH),
        short=sized("short", 2),
        angle=angle,
        stain=sized("stain", 3) * np.where(out_of_focus, 0.45, 1.0),
        softness=np.where(out_of_focus, 1.3, 0.45),
        bend=of_class("bend") * drawn(_SHAPE, 7),
        two=0.06 * drawn(_SHAPE, 8),
        three=0.05 * drawn(_SHAPE, 9),
        phase=2 * np.pi * uniform(seed, _SHAPE, 10, rows, columns),
    )


@dataclass
class Painted:
    """Nuclei on pixels: amount of hematoxylin, instances, classes; all (height, width)."""

    stain: Map
    instances: NDArray[np.uint32]
    classes: NDArray[np.uint8]


def paint(nuclei: Nuclei, y0: int, x0: int, chromatin: Map, mpp: float) -> Painted:
    """Paint nuclei onto pixels; where they overlap, the later one owns the pixel and the stain adds up in part.

    Parameters
    ----------
    nuclei : Nuclei
        In the order of painting.
    y0, x0 : int
        Pixel of the slide at the corner of the window.
    chromatin : ndarray, float32, (height, width)
        Texture of mean 0 and variance 1, of the size of the window.
    mpp : float
        µm for each pixel.

    Returns
    -------
    Painted
        The window.
    """
    height, width = chromatin.shape
    painted = Painted(
        np.zeros((height, width), np.float32), np.zeros((height, width), np.uint32), np.zeros((height, width), np.uint8)
    )
    for index in range(len(nuclei.identity)):
        _paint_one(painted, nuclei, index, y0, x0, chromatin, mpp)
    return painted


def _paint_one(painted: Painted, nuclei: Nuclei, index: int, y0: int, x0: int, chromatin: Map, mpp: float) -> None:
    height, width = chromatin.shape
    cy, cx = nuclei.y[index] / mpp - 0.5 - y0, nuclei.x[index] / mpp - 0.5 - x0
    long, short = nuclei.long[index] / mpp, nuclei.short[index] / mpp
    reach = 1.3 * long + 3
    top, bottom = max(0, int(cy - reach)), min(height, int(cy + reach) + 2)
    left, right = max(0, int(cx - reach)), min(width, int(cx + reach) + 2)
    if top >= bottom or left >= right:
        return
    look = _LOOKS[nuclei.kind[index]]
    window = slice(top, bottom), slice(left, right)
    depth = _depth(nuclei, index, np.arange(top, bottom) - cy, np.arange(left, right) - cx, long, short)
    edge = np.clip(depth * np.float32(mpp / nuclei.softness[index]) + np.float32(0.5), 0, 1)
    inner = np.clip(depth * np.float32(1.6 / short), 0, 1)
    stain = np.float32(1) - np.float32(look.pale_center) * inner + np.float32(look.texture) * chromatin[window]
    stain *= edge * np.float32(nuclei.stain[index])
    below = painted.stain[window]
    painted.stain[window] = np.maximum(below, stain) + np.float32(0.35) * np.minimum(below, stain)
    inside = depth > 0
    painted.instances[window][inside] = nuclei.identity[index]
    painted.classes[window][inside] = nuclei.kind[index] + 1


def _depth(nuclei: Nuclei, index: int, dy: Floats, dx: Floats, long: float, short: float) -> Map:
    """Return the depth below the outline of one nucleus (rows, columns), in pixels, negative outside."""
    cos, sin = np.cos(nuclei.angle[index]), np.sin(nuclei.angle[index])
    u = ((dx * (cos / long))[None, :] + (dy * (sin / long))[:, None]).astype(np.float32)
    v = ((dx * (-sin / short))[None, :] + (dy * (cos / short))[:, None]).astype(np.float32)
    if nuclei.bend[index]:
        v -= np.float32(nuclei.bend[index] * long / short) * (u * u - np.float32(0.4))
    uu, vv = u * u, v * v
    square = uu + vv + np.float32(1e-6)
    rho = np.sqrt(square)
    phase = nuclei.phase[index]
    # 1 + a cos(2t + p) + b cos(3t + p), with the cosines of the multiple angles written in u and v
    two = (np.float32(np.cos(phase)) * (uu - vv) - np.float32(2 * np.sin(phase)) * (u * v)) / square
    three = u * (uu - 3 * vv) / (square * rho)
    outline = np.float32(nuclei.two[index]) * two + np.float32(nuclei.three[index]) * three
    return np.asarray((np.float32(1) + outline - rho) * np.float32(short))


def debris_near(seed: int, rectangle: tuple[float, float, float, float]) -> tuple[Floats, Floats, Floats, Floats]:
    """Return specks that take up hematoxylin and are no nuclei: y, x, radius (µm) and amount of stain, all (n,)."""
    spacing = 26.0
    top, left, bottom, right = rectangle
    grid = np.meshgrid(
        np.arange(int(top // spacing) - 1, int(bottom // spacing) + 2),
        np.arange(int(left // spacing) - 1, int(right // spacing) + 2),
        indexing="ij",
    )
    rows, columns = grid[0].ravel(), grid[1].ravel()
    draws = [uniform(seed, _DEBRIS, number, rows, columns) for number in range(5)]
    here = draws[0] < 0.22
    y, x = (rows + draws[1]) * spacing, (columns + draws[2]) * spacing
    return y[here], x[here], (0.5 + 1.1 * draws[3] ** 2)[here], (0.5 + 0.8 * draws[4])[here]
