"""A slide that is computed where it is looked at."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from napari_semiseg.errors import InputError
from napari_semiseg.synthetic._files import write_image, write_instances
from napari_semiseg.synthetic._noise import Floats, Grain, Map, normal
from napari_semiseg.synthetic._nuclei import NATURAL_DENSITY, SITE, Painted, debris_near, nuclei_near, paint
from napari_semiseg.synthetic._stain import Stain
from napari_semiseg.synthetic._tissue import Tissue

PIECE = 512  # side of the pieces that are rendered, in pixels
HALO = 16  # pixels rendered around a piece, for the blur
COLLAGEN = 4096  # steps across the period of the collagen profile
KEPT = 16  # rendered pieces kept for the next reading

_FINE, _MEDIUM, _COARSE, _CAMERA = range(90, 94)


@dataclass(frozen=True)
class SyntheticField:
    """A rendered rectangle.

    Attributes
    ----------
    image : ndarray, uint8, (h, w, 3)
        RGB.
    instances : ndarray, uint32, (h, w)
        0 background; a nucleus has the same number wherever the slide is read.
    classes : ndarray, uint8, (h, w)
        0 background, 1.. the names in `CLASSES`.
    mpp : float
        µm for each pixel.
    """

    image: NDArray[np.uint8]
    instances: NDArray[np.uint32]
    classes: NDArray[np.uint8]
    mpp: float


class SyntheticSlide:
    """A slide stained with hematoxylin and eosin, of any size, whose every nucleus is known.

    Nothing is stored: a rectangle is computed when it is read, from the seed and its position alone, so that it equals
    the same rectangle of the whole slide. Memory does not grow with the slide.

    Parameters
    ----------
    shape : tuple of int
        Height and width, in pixels, at least 1; at most 422 mm each.
    seed : int
        Everything follows from it: tissue, nuclei, stains.
    mpp : float
        µm for each pixel, 0.1 to 2.
    density_mm2 : float
        Nuclei for each mm² of tissue, about, as a mean over large slides; a single field holds half or twice as many.
        Above 9000 there is hardly room for more; at most 12,000.
    tissue_fraction : float
        Part of the slide that holds tissue, about, 0 to 1; the rest is bare glass.
    stain_variation : float
        How far the stains of this slide may depart from the textbook: 0 not, 1 as between laboratories.

    Raises
    ------
    InputError
        If a parameter is out of its range.

    Examples
    --------
    >>> slide = SyntheticSlide((40_000, 40_000), seed=1)
    >>> image, instances, classes = slide.read(20_000, 20_000, 64, 64)
    >>> image.shape, instances.dtype.name
    ((64, 64, 3), 'uint32')
    """

    def __init__(
        self,
        shape: tuple[int, int],
        seed: int = 0,
        *,
        mpp: float = 0.25,
        density_mm2: float = NATURAL_DENSITY,
        tissue_fraction: float = 1.0,
        stain_variation: float = 1.0,
    ) -> None:
        _check_range("mpp", mpp, 0.1, 2)
        _check_shape(shape, mpp)
        _check_range("density_mm2", density_mm2, 0, 12_000)
        _check_range("tissue_fraction", tissue_fraction, 0, 1)
        _check_range("stain_variation", stain_variation, 0, 3)
        self.shape = int(shape[0]), int(shape[1])
        self.seed = int(seed)
        self.mpp = float(mpp)
        self._extent = self.shape[0] * self.mpp, self.shape[1] * self.mpp
        self._chance = float(density_mm2) / NATURAL_DENSITY
        self._tissue = Tissue(self.seed, self._extent, float(tissue_fraction))
        self._stain = Stain.of_slide(self.seed, float(stain_variation))
        self._step = 4 if self.mpp <= 0.5 else 2 if self.mpp <= 1 else 1  # between points where tissue is asked for
        side = PIECE + 2 * HALO
        self._fine = Grain(self.seed, _FINE, 0.30 / self.mpp, 757, side)
        self._medium = Grain(self.seed, _MEDIUM, 0.6 / self.mpp, 641, side)
        self._coarse = Grain(self.seed, _COARSE, 2.2 / self.mpp, 887, side)
        self._camera = Grain(self.seed, _CAMERA, 0.5, 523, side)
        self._collagen = _collagen(self.seed)
        self._kept: OrderedDict[tuple[int, int], SyntheticField] = OrderedDict()

    def read(self, y0: int, x0: int, h: int, w: int) -> tuple[NDArray[np.uint8], NDArray[np.uint32], NDArray[np.uint8]]:
        """Render a rectangle.

        Parameters
        ----------
        y0, x0 : int
            Its first row and column, in pixels.
        h, w : int
            Its height and width, in pixels, at least 1.

        Returns
        -------
        image : ndarray, uint8, (h, w, 3)
            RGB.
        instances : ndarray, uint32, (h, w)
            0 background, else the number of the nucleus, unique over the slide.
        classes : ndarray, uint8, (h, w)
            0 background, 1.. the names in `CLASSES`.

        Raises
        ------
        InputError
            If the rectangle is empty or leaves the slide.
        """
        if h < 1 or w < 1 or y0 < 0 or x0 < 0 or y0 + h > self.shape[0] or x0 + w > self.shape[1]:
            raise InputError(
                f"The rectangle of {h} x {w} pixels at row {y0}, column {x0} is not inside the synthetic slide of "
                f"{self.shape[0]} x {self.shape[1]} pixels: choose one that is."
            )
        image = np.empty((h, w, 3), np.uint8)
        instances = np.empty((h, w), np.uint32)
        classes = np.empty((h, w), np.uint8)
        for row in range(y0 // PIECE, (y0 + h - 1) // PIECE + 1):
            for column in range(x0 // PIECE, (x0 + w - 1) // PIECE + 1):
                piece = self._piece(row, column)
                rows, columns = _overlap(row, y0, h), _overlap(column, x0, w)
                target, source = (rows[0], columns[0]), (rows[1], columns[1])
                image[target] = piece.image[source]
                instances[target] = piece.instances[source]
                classes[target] = piece.classes[source]
        return image, instances, classes

    def write(self, path: str | Path) -> None:
        """Write the image as a pyramidal, tiled OME-TIFF; see `write_image`."""
        write_image(self, path)

    def write_labels(self, path: str | Path) -> None:
        """Write the instances as a tiled TIFF; see `write_instances`."""
        write_instances(self, path)

    def _piece(self, row: int, column: int) -> SyntheticField:
        key = row, column
        if key in self._kept:
            self._kept.move_to_end(key)
        else:
            self._kept[key] = self._render(row * PIECE - HALO, column * PIECE - HALO)
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return self._kept[key]

    def _render(self, y0: int, x0: int) -> SyntheticField:
        """Render one piece with its halo, and cut the halo off."""
        painted = self._nuclei(y0, x0)
        hematoxylin, eosin = self._stained(painted, y0, x0)
        side = PIECE + 2 * HALO
        rgb = self._stain.color(hematoxylin, eosin, self._camera.window(y0, x0, side, side))
        core = slice(HALO, HALO + PIECE), slice(HALO, HALO + PIECE)
        return SyntheticField(rgb[core].copy(), painted.instances[core].copy(), painted.classes[core].copy(), self.mpp)

    def _nuclei(self, y0: int, x0: int) -> Painted:
        side = PIECE + 2 * HALO
        rectangle = y0 * self.mpp, x0 * self.mpp, (y0 + side) * self.mpp, (x0 + side) * self.mpp
        nuclei = nuclei_near(self._tissue, self.seed, self._extent, rectangle, self._chance)
        chromatin = self._fine.window(y0, x0, side, side)
        return paint(nuclei, y0, x0, chromatin, self.mpp)

    def _debris(self, y0: int, x0: int) -> Map:
        side = PIECE + 2 * HALO
        rectangle = y0 * self.mpp, x0 * self.mpp, (y0 + side) * self.mpp, (x0 + side) * self.mpp
        specks = np.zeros((side, side), np.float32)
        for y, x, radius, stain in zip(*debris_near(self.seed, rectangle), strict=True):
            _speck(specks, y / self.mpp - y0, x / self.mpp - x0, radius / self.mpp, stain)
        return specks

    def _stained(self, painted: Painted, y0: int, x0: int) -> tuple[Map, Map]:
        """Lay nuclei over tissue and blur both: amounts of hematoxylin and eosin (side, side)."""
        side = PIECE + 2 * HALO
        steps = self._step * np.arange(side // self._step + 1, dtype=np.float64) + 0.5
        y, x = (y0 + steps) * self.mpp, (x0 + steps) * self.mpp
        fine, medium, coarse = (grain.window(y0, x0, side, side) for grain in (self._fine, self._medium, self._coarse))
        tissue = self._tissue
        dense = tissue.dense.grid(y, x)
        gland, lumen, gaps = self._covers(y, x, dense)
        solid = 1 - gaps

        eosin = self._stroma(y, x, medium, coarse)
        eosin += gland * (np.float32(0.52) + np.float32(0.07) * coarse + np.float32(0.05) * medium - eosin)
        eosin = solid * eosin + lumen * np.clip(np.float32(0.05) + np.float32(0.05) * coarse, 0, None)
        blue = np.clip(self._full(dense), -1, 2)  # mucin and ribosomes take up hematoxylin too
        basophilic = np.float32(0.09) + np.float32(0.05) * blue + np.float32(0.03) * medium
        basophilic += gland * (np.float32(0.22) + np.float32(0.10) * blue + np.float32(0.05) * coarse)

        cover = np.clip(painted.stain * 2, 0, 1)
        hematoxylin = painted.stain + solid * np.maximum((1 - cover) * basophilic, self._debris(y0, x0))
        eosin = np.maximum(eosin * (1 - np.float32(0.45) * cover), np.float32(0.18) * cover)
        return self._blurred(hematoxylin, eosin * (1 + np.float32(0.04) * fine), y, x)

    def _covers(self, y: Floats, x: Floats, dense: Floats) -> tuple[Map, Map, Map]:
        """Return how much of each pixel is gland, is lumen, and is open (lumen, fat, cleft or bare glass), 0 to 1."""
        grid = np.meshgrid(y, x, indexing="ij")
        depths = self._tissue.depths(grid[0].ravel(), grid[1].ravel())
        gland = self._full(depths.gland.reshape(dense.shape))
        lumen = _ramp(self._full(depths.lumen.reshape(dense.shape)), 2.0)
        fat = _ramp(self._full(depths.fat.reshape(dense.shape)), 0.8)
        glass = _ramp(self._full(self._tissue.bare(self._tissue.glass.grid(y, x))), 0.02)
        gaps = np.maximum(np.maximum(lumen, fat), np.maximum(_cleft(gland, self._full(dense)), glass))
        return _ramp(gland, 1.2), lumen * (1 - glass), gaps

    def _stroma(self, y: Floats, x: Floats, medium: Map, coarse: Map) -> Map:
        """Return the eosin of wavy collagen."""
        across = self._full(self._tissue.fibers(y, x)) + np.float32(0.035) * coarse
        stroma = self._collagen[(across * np.float32(COLLAGEN / 9)).astype(np.int32) % COLLAGEN]
        return np.asarray(stroma * (1 + np.float32(0.12) * medium + np.float32(0.16) * coarse))

    def _full(self, values: Floats) -> Map:
        return _enlarged(values, self._step)

    def _blurred(self, hematoxylin: Map, eosin: Map, y: Floats, x: Floats) -> tuple[Map, Map]:
        """Blur by the optics, and more where the section is out of focus."""
        sharp = [gaussian_filter(stain, 0.17 / self.mpp, truncate=3) for stain in (hematoxylin, eosin)]
        defocus = np.clip(self._full(self._tissue.focus.grid(y, x)) * np.float32(0.7) - np.float32(0.35), 0, 1)
        if not defocus.any():
            return sharp[0], sharp[1]
        soft = [gaussian_filter(stain, 0.5 / self.mpp, truncate=2.5) for stain in sharp]
        return sharp[0] + defocus * (soft[0] - sharp[0]), sharp[1] + defocus * (soft[1] - sharp[1])


def synthetic_field(size: int = 1000, seed: int = 0, *, mpp: float = 0.25) -> SyntheticField:
    """Render a square field.

    Parameters
    ----------
    size : int
        Side, in pixels.
    seed : int
        The slide it is the whole of.
    mpp : float
        µm for each pixel.

    Returns
    -------
    SyntheticField
        Image and truth.
    """
    return SyntheticField(*SyntheticSlide((size, size), seed, mpp=mpp).read(0, 0, size, size), mpp)


def _check_shape(shape: tuple[int, int], mpp: float) -> None:
    longest = 65_000 * SITE / mpp  # squared, as many places for nuclei as uint32 has numbers
    if len(shape) != 2 or not all(1 <= side <= longest for side in shape):
        raise InputError(
            f"A synthetic slide cannot have the shape {tuple(shape)}: give height and width in pixels, "
            f"from 1 to {longest:,.0f}."
        )


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise InputError(f"The option {name} of a synthetic slide is {value}: give a number from {low} to {high}.")


def _overlap(piece: int, start: int, length: int) -> tuple[slice, slice]:
    """Return where a piece lies in the rectangle, and where the rectangle lies in the piece, along one axis."""
    first, last = max(start, piece * PIECE), min(start + length, (piece + 1) * PIECE)
    return slice(first - start, last - start), slice(first - piece * PIECE, last - piece * PIECE)


def _enlarged(values: Floats, step: int) -> Map:
    """Interpolate linearly from every `step`-th pixel (n + 1, n + 1) to all of them (step n, step n)."""
    coarse = values.astype(np.float32)
    weights = np.arange(step, dtype=np.float32) / np.float32(step)
    rows = coarse[:-1, None, :] + (coarse[1:, None, :] - coarse[:-1, None, :]) * weights[:, None]
    rows = rows.reshape(-1, coarse.shape[1])
    both = rows[:, :-1, None] + (rows[:, 1:, None] - rows[:, :-1, None]) * weights
    return np.asarray(both.reshape(len(rows), -1))


def _ramp(values: Map, width: float) -> Map:
    """Turn a depth into a cover from 0 to 1 that rises over `width` around 0."""
    return np.asarray(np.clip(values * np.float32(1 / width) + np.float32(0.5), 0, 1))


def _cleft(gland: Map, dense: Map) -> Map:
    """Return the white gap, 0 to 1, by which stroma has shrunk away from a gland in some places."""
    near = np.clip(np.float32(1.2) - np.abs(gland + np.float32(2.2)) / np.float32(1.6), 0, 1)
    return np.asarray(near * np.clip(np.float32(1.4) * dense - np.float32(0.7), 0, 1))


def _collagen(seed: int) -> Map:
    """Return the eosin across bundles of collagen, one period of it: dense strands with pale gaps between."""
    profile = np.zeros(COLLAGEN)
    for stream, sigma, weight in ((121, 3.0, 0.35), (122, 11.0, 0.8), (123, 40.0, 0.7)):
        strands = gaussian_filter1d(normal(seed, stream, np.arange(COLLAGEN)), sigma, mode="wrap")
        profile += weight * strands / strands.std()
    return np.asarray(np.clip(0.36 + 0.12 * profile, 0.03, 0.95), np.float32)


def _speck(stain: Map, cy: float, cx: float, radius: float, amount: float) -> None:
    """Add a small dark dot."""
    top, bottom = max(0, int(cy - radius - 2)), min(stain.shape[0], int(cy + radius + 3))
    left, right = max(0, int(cx - radius - 2)), min(stain.shape[1], int(cx + radius + 3))
    if top >= bottom or left >= right:
        return
    distance = np.hypot(np.arange(top, bottom)[:, None] - cy, np.arange(left, right) - cx).astype(np.float32)
    window = stain[top:bottom, left:right]
    np.maximum(window, np.clip(radius - distance + 0.5, 0, 1) * np.float32(amount), out=window)
