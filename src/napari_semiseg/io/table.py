"""Measuring nuclei: one row each, added up block by block over any image, without a loop over nuclei.

Everything measured is a sum, a maximum or a minimum over pixels, so the blocks may be of any size and a nucleus may lie
in several.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semiseg import atomic
from napari_semiseg.blocks import Box
from napari_semiseg.io.columns import Columns, joined, taken
from napari_semiseg.io.stains import OD_PER_UNIT, separated

MARGIN = 2
"""Pixels around a block that the perimeter looks at."""

_LUMINANCE = np.array([0.2125, 0.7154, 0.0721])  # as skimage.color.rgb2gray
_SUMMED = ("perimeter", "confidence", "intensity", "intensity²", "hematoxylin_od", "hematoxylin_od²", "eosin_od")
_DIAGONAL = np.sqrt(2)
_WEIGHTS = np.zeros(64)
_WEIGHTS[[5, 7, 15, 17, 25, 27]] = 1
_WEIGHTS[[21, 33]] = _DIAGONAL
_WEIGHTS[[13, 23]] = (1 + _DIAGONAL) / 2


class Measurements:
    """Sums over the nuclei of an image. Call `add` for parts that cover it exactly once, then `columns`.

    Of a large image call `take` after each row of parts, so that memory holds the nuclei of one such row only.

    Parameters
    ----------
    mpp : float or None
        Size of a pixel in µm; without it there are no columns in µm.
    translation : (float, float)
        Place of the image's first pixel (y, x) in µm, added to the centroids in µm.
    classes : sequence of str
        Names of the values 1, 2, … of class maps.
    """

    def __init__(
        self, *, mpp: float | None = None, translation: tuple[float, float] = (0.0, 0.0), classes: Sequence[str] = ()
    ) -> None:
        self._mpp, self._translation, self._classes = mpp, translation, tuple(classes)
        self._parts: list[Columns] = []
        self._none = _empty()

    def add(
        self,
        box: Box,
        labels: NDArray[np.uint32],
        *,
        confidence: NDArray[np.uint8] | None = None,
        rgb: NDArray[np.uint8] | None = None,
        gray: bool = False,
        class_map: NDArray[np.uint8] | None = None,
    ) -> None:
        """Add a part of the image.

        Parameters
        ----------
        box : Box
            The part, in pixels.
        labels : ndarray, uint32, (h + 2 * MARGIN, w + 2 * MARGIN)
            Labels of the part grown by `MARGIN`, 0 outside of the image.
        confidence : ndarray, uint8, (h, w)
            Probability of nucleus, 0 to 255.
        rgb : ndarray, uint8, (h, w, 3)
            The image.
        gray : bool
            Whether the image has no stain: its intensity is measured instead of hematoxylin.
        class_map : ndarray, uint8, (h, w)
            Class of each labeled pixel; 0 none.
        """
        box = Box(*box)
        inner = labels[MARGIN:-MARGIN, MARGIN:-MARGIN]
        if inner.shape != box.shape:
            raise ValueError(f"labels of {labels.shape} do not hold {box} and a margin of {MARGIN}")
        at = np.flatnonzero(inner != 0)
        if not at.size:  # a table without rows has the same columns
            self._none = _empty() | self._unmeasured(confidence, rgb, gray, class_map)
            return
        rows, columns = np.divmod(at, box.width)
        ids, which = _numbered(np.take(inner, at))
        runs = np.flatnonzero(np.diff(which, prepend=-1))
        part = _geometry(rows, columns, which, runs, len(ids), box)
        part["label"] = ids
        part["perimeter"] = _perimeters(labels, ids)
        if confidence is not None:
            values = np.take(confidence, at)
            part["confidence"] = np.bincount(which, values, len(ids))
            highest = np.maximum.reduceat(values, runs)
            part["confidence_max"] = _extreme(np.maximum, which[runs], highest, len(ids), 0)
        if rgb is not None:
            for name, values in _signals(np.take(rgb.reshape(-1, 3), at, axis=0), gray).items():
                part[name] = np.bincount(which, values, len(ids))
        if class_map is not None:
            width = len(self._classes) + 1
            part["class"] = np.bincount(which * width + np.take(class_map, at), minlength=len(ids) * width).reshape(
                -1, width
            )
        self._parts.append(part)

    def _unmeasured(
        self,
        confidence: NDArray[np.uint8] | None,
        rgb: NDArray[np.uint8] | None,
        gray: bool,
        class_map: NDArray[np.uint8] | None,
    ) -> Columns:
        """Return what would be added up of a part that has nuclei, without rows."""
        none: Columns = {}
        if confidence is not None:
            none |= {"confidence": np.zeros(0), "confidence_max": np.zeros(0, np.int64)}
        if rgb is not None:
            none |= {name: np.zeros(0) for name in _signals(np.zeros((0, 3), np.uint8), gray)}
        if class_map is not None:
            none["class"] = np.zeros((0, len(self._classes) + 1), np.int64)
        return none

    def columns(self) -> Columns:
        """Return one array per column, one row per nucleus, in the order of labels, without those already taken.

        Returns
        -------
        dict of ndarray
            ``label``; ``y_px``, ``x_px`` centroid, ``area_px``, ``perimeter_px`` (4-neighborhood, as
            `skimage.measure.perimeter`), ``major_axis_px`` and ``minor_axis_px`` (of the ellipse of equal second
            moments), ``eccentricity`` (0 circle, 1 line), ``circularity`` (4 π area / perimeter²; 1 circle; NaN for
            what is too small to have a perimeter), ``orientation_deg`` (of the major axis against the rows, above -90
            to 90, counterclockwise as seen), ``bbox_y0`` … ``bbox_x1`` (half-open); with `mpp` also ``y_um``,
            ``x_um``, ``area_um2``, ``perimeter_um``, ``major_axis_um``, ``minor_axis_um``; ``confidence_mean`` and
            ``confidence_max`` in [0, 1]; ``intensity_mean`` and ``intensity_sd`` in [0, 255] (luminance of colors); for
            color images ``hematoxylin_od_mean``, ``hematoxylin_od_sd`` and ``eosin_od_mean`` (optical density, base 10,
            by color deconvolution after Ruifrok and Johnston, 2001); ``class``.
        """
        return self.take()[0]

    def take(self, above: float = np.inf) -> tuple[Columns, float]:
        """Hand out the nuclei that end above a row of pixels; see `columns`.

        Parameters
        ----------
        above : float
            Rows of pixels that were added over their whole width. Nuclei that reach the last of them may go on below
            and are kept.

        Returns
        -------
        columns : dict of ndarray
        known : float
            The centroid of every nucleus that is still to come lies at this row of pixels or below.
        """
        if not self._parts:
            return self._named(self._none), above
        sums = _merged(joined(self._parts))
        self._none = taken(sums, slice(0))
        ended = sums["y1"] < above
        self._parts = [] if ended.all() else [taken(sums, ~ended)]
        known = min(above, float(sums["y0"][~ended].min())) if self._parts else above
        return self._named(taken(sums, ended)), known

    def _named(self, sums: Columns) -> Columns:
        pixels = sums["pixels"]
        columns: Columns = {"label": sums["label"], "y_px": sums["y"], "x_px": sums["x"]}
        if self._mpp is not None:
            columns |= {
                "y_um": sums["y"] * self._mpp + self._translation[0],
                "x_um": sums["x"] * self._mpp + self._translation[1],
            }
        columns["area_px"] = pixels.astype(np.int64)
        if self._mpp is not None:
            columns["area_um2"] = pixels * self._mpp**2
        columns["perimeter_px"] = sums["perimeter"]
        if self._mpp is not None:
            columns["perimeter_um"] = sums["perimeter"] * self._mpp
        long, short, angle = _ellipse(sums)
        columns |= {"major_axis_px": long, "minor_axis_px": short}
        if self._mpp is not None:
            columns |= {"major_axis_um": long * self._mpp, "minor_axis_um": short * self._mpp}
        columns["eccentricity"] = _eccentricity(sums)
        perimeter = np.where(sums["perimeter"] > 0, sums["perimeter"], np.nan)
        columns["circularity"] = 4 * np.pi * pixels / perimeter**2
        columns["orientation_deg"] = angle
        if "confidence" in sums:
            columns |= {
                "confidence_mean": sums["confidence"] / pixels / 255,
                "confidence_max": sums["confidence_max"] / 255,
            }
        if "intensity" in sums:
            columns |= _mean_and_spread("intensity", sums)
        if "hematoxylin_od" in sums:
            columns |= _mean_and_spread("hematoxylin_od", sums)
            columns["eosin_od_mean"] = sums["eosin_od"] / pixels
        columns |= {f"bbox_{side}": sums[side] for side in ("y0", "x0", "y1", "x1")}
        if "class" in sums:
            votes = sums["class"]
            titles = np.array(["", *self._classes], dtype=object)
            columns["class"] = titles[np.where(votes[:, 1:].any(1), votes[:, 1:].argmax(1) + 1, 0)]
        return columns


def measure(
    labels: NDArray[np.uint32],
    image: NDArray[np.uint8] | None = None,
    confidence: NDArray[np.uint8] | None = None,
    mpp: float | None = None,
    *,
    gray: bool = False,
    class_map: NDArray[np.uint8] | None = None,
    classes: Sequence[str] = (),
    translation: tuple[float, float] = (0.0, 0.0),
) -> Columns:
    """Measure every nucleus of an image that is in memory; see `Measurements` for what is given and returned.

    Parameters
    ----------
    labels : ndarray, uint32, (h, w)
    image : ndarray, uint8, (h, w, 3), optional
    confidence : ndarray, uint8, (h, w), optional
    mpp : float, optional
    """
    sums = Measurements(mpp=mpp, translation=translation, classes=classes)
    sums.add(
        Box.whole(labels.shape),
        np.pad(labels, MARGIN),
        confidence=confidence,
        rgb=image,
        gray=gray,
        class_map=class_map,
    )
    return sums.columns()


def write_csv(path: str | Path, bands: Iterable[Mapping[str, NDArray[Any]]]) -> int:
    """Write columns as CSV (UTF-8, comma, point, one header line) and read them back, a band of rows at a time.

    Parameters
    ----------
    path : str or Path
        Replaced if it exists, and only when everything is right.
    bands : iterable of mappings of str to ndarray, (n,)
        One at least, asked for one by one; all with the same columns. Floating point numbers are written with six
        significant digits, NaN as an empty field.

    Returns
    -------
    int
        Rows.

    Raises
    ------
    InputError
        If the disk is full or the place cannot be written.
    """
    rows = 0
    written, read = hashlib.sha256(), hashlib.sha256()
    with atomic.staged(path) as temporary:
        with temporary.open("wb") as file:
            for number, band in enumerate(bands):
                text = io.StringIO(newline="")
                writer = csv.writer(text, lineterminator="\n")
                if not number:
                    writer.writerow(band)
                writer.writerows(zip(*(_texts(values) for values in band.values()), strict=True))
                data = text.getvalue().encode()
                file.write(data)
                written.update(data)
                rows += len(next(iter(band.values())))
        with temporary.open("rb") as file:
            while piece := file.read(1 << 20):
                read.update(piece)
        if read.digest() != written.digest():
            raise OSError(5, "the disk gave back other bytes")
    return rows


def _numbered(labels: NDArray[np.uint32]) -> tuple[NDArray[np.uint32], NDArray[np.intp]]:
    """Do what `np.unique` does with its inverse; without sorting where labels lie close together, as in a cell."""
    low = int(labels.min())
    span = int(labels.max()) - low + 1
    if span > 4 * len(labels) + 1024:
        ids, which = np.unique(labels, return_inverse=True)
        return ids, which
    away = (labels - np.uint32(low)).astype(np.intp)
    present = np.zeros(span, bool)
    present[away] = True
    found = (np.flatnonzero(present) + low).astype(np.uint32)
    return found, (np.cumsum(present) - 1)[away]


def _geometry(
    rows: NDArray[Any], columns: NDArray[Any], which: NDArray[Any], runs: NDArray[Any], count: int, box: Box
) -> Columns:
    """Return number of pixels, centroid, central second moments and bounding box of each nucleus.

    Pixels come row by row; `runs` says where one of another nucleus than the one before comes.
    """
    pixels = np.bincount(which, minlength=count).astype(np.float64)
    y, x = np.bincount(which, rows, count) / pixels, np.bincount(which, columns, count) / pixels
    dy, dx = rows - y[which], columns - x[which]
    top, bottom = np.empty(count, np.int64), np.empty(count, np.int64)
    top[which[::-1]], bottom[which] = rows[::-1], rows  # pixels come row by row, and the last assignment stays
    return {
        "pixels": pixels,
        "y": y + box.y0,
        "x": x + box.x0,
        "yy": np.bincount(which, dy * dy, count),
        "xx": np.bincount(which, dx * dx, count),
        "xy": np.bincount(which, dy * dx, count),
        "y0": top + box.y0,
        "x0": _extreme(np.minimum, which[runs], np.minimum.reduceat(columns, runs), count, 2**40) + box.x0,
        "y1": bottom + box.y0 + 1,
        "x1": _extreme(np.maximum, which[runs], np.maximum.reduceat(columns, runs), count, -1) + box.x0 + 1,
    }


def _extreme(
    function: np.ufunc, which: NDArray[Any], values: NDArray[Any], count: int, start: int
) -> NDArray[np.int64]:
    found = np.full(count, start, np.int64)
    function.at(found, which, values)
    return found


def _perimeters(labels: NDArray[np.uint32], ids: NDArray[np.uint32]) -> NDArray[np.float64]:
    """Return the perimeters of what lies inside the margin, as `skimage.measure.perimeter` gives for each label alone.

    A pixel is at the border if one of its four neighbors has another label. It counts by how many border pixels of its
    own label are beside it and diagonal to it (Benkrid, Crookes and Benkrid, 2000).
    """
    height, width = labels.shape
    flat = labels.ravel()
    known = np.zeros(labels.shape, bool)
    known[1:-1, 1:-1] = labels[1:-1, 1:-1] != 0  # borders are known one pixel around the block
    at = np.flatnonzero(known)
    own = flat[at]
    edge = flat[at - 1] != own
    for step in (1, -width, width):
        edge |= flat[at + step] != own
    at, own = at[edge], own[edge]
    bordering = np.zeros_like(flat)
    bordering[at] = own
    rows, columns = np.divmod(at, width)
    inner = (rows >= MARGIN) & (rows < height - MARGIN) & (columns >= MARGIN) & (columns < width - MARGIN)
    at, own = at[inner], own[inner]
    code = np.ones(len(own), np.intp)
    for dy in (-width, 0, width):
        for dx in (-1, 0, 1):
            if (dy, dx) != (0, 0):
                code += (bordering[at + dy + dx] == own) * (10 if dy and dx else 2)
    weights = _WEIGHTS[np.minimum(code, 63)]
    return np.asarray(np.bincount(np.searchsorted(ids, own), weights, len(ids)), np.float64)


def _signals(rgb: NDArray[np.uint8], gray: bool) -> Columns:
    """Return what is added up over the colors of pixels, (n, 3): each value, and the squares of some."""
    if gray:
        intensity = rgb[:, 0].astype(np.float64)
        return {"intensity": intensity, "intensity²": intensity**2}
    intensity = rgb @ _LUMINANCE
    stains = separated(rgb) * OD_PER_UNIT
    hematoxylin = stains[:, 0]
    return {
        "intensity": intensity,
        "intensity²": intensity**2,
        "hematoxylin_od": hematoxylin,
        "hematoxylin_od²": hematoxylin**2,
        "eosin_od": stains[:, 1],
    }


def _mean_and_spread(name: str, sums: Columns) -> Columns:
    mean = sums[name] / np.maximum(sums["pixels"], 1)
    variance = sums[f"{name}²"] / np.maximum(sums["pixels"], 1) - mean**2
    return {f"{name}_mean": mean, f"{name}_sd": np.sqrt(np.maximum(variance, 0))}


def _merged(parts: Columns) -> Columns:
    """Add up the rows of equal labels; second moments about the common centroid (Chan, Golub and LeVeque, 1983)."""
    ids, which = np.unique(parts["label"], return_inverse=True)
    count = len(ids)
    pixels = np.bincount(which, parts["pixels"], count)
    merged: Columns = {"label": ids, "pixels": pixels}
    for axis in "yx":
        merged[axis] = np.bincount(which, parts["pixels"] * parts[axis], count) / pixels
    away = {axis: parts[axis] - merged[axis][which] for axis in "yx"}
    for pair in ("yy", "xx", "xy"):
        merged[pair] = np.bincount(which, parts[pair] + parts["pixels"] * away[pair[0]] * away[pair[1]], count)
    for key in _SUMMED:
        if key in parts:
            merged[key] = np.bincount(which, parts[key], count)
    for key in ("y0", "x0", "y1", "x1", "confidence_max"):
        if key in parts:
            least = key in ("y0", "x0")
            function, start = (np.minimum, 2**40) if least else (np.maximum, -1)
            merged[key] = _extreme(function, which, parts[key], count, start)
    if "class" in parts:
        votes = np.zeros((count, parts["class"].shape[1]), np.int64)
        np.add.at(votes, which, parts["class"])
        merged["class"] = votes
    return merged


def _ellipse(sums: Columns) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return major and minor axis in pixels, as `skimage.measure.regionprops` has them, and the angle in degrees."""
    pixels = np.maximum(sums["pixels"], 1)
    yy, xx, xy = (sums[pair] / pixels for pair in ("yy", "xx", "xy"))
    middle, spread = (yy + xx) / 2, np.hypot((yy - xx) / 2, xy)
    away = np.abs(xy) > 1e-9 * middle  # less is rounding, which must not turn what stands upright by 180 degrees
    angle = np.degrees(np.arctan2(np.where(away, -2 * xy, 0.0), np.where(spread > 1e-9 * middle, xx - yy, 1.0))) / 2
    return 4 * np.sqrt(middle + spread), 4 * np.sqrt(np.maximum(middle - spread, 0)), angle


def _eccentricity(sums: Columns) -> NDArray[np.float64]:
    """Return sqrt(1 - l2 / l1) of the eigenvalues of the second moments; 0 for a single pixel."""
    yy, xx, xy = (sums[pair] / np.maximum(sums["pixels"], 1) for pair in ("yy", "xx", "xy"))
    middle, spread = (yy + xx) / 2, np.hypot((yy - xx) / 2, xy)
    long = middle + spread
    ratio = np.divide(2 * spread, long, out=np.zeros_like(long), where=long > 1e-12)
    return np.asarray(np.sqrt(np.where(ratio > 1e-12, np.minimum(ratio, 1), 0)))  # less is rounding


def _empty() -> Columns:
    whole = ("y0", "x0", "y1", "x1")
    sums: Columns = {key: np.zeros(0) for key in ("pixels", "y", "x", "yy", "xx", "xy", "perimeter")}
    return sums | {key: np.zeros(0, np.int64) for key in whole} | {"label": np.zeros(0, np.uint32)}


def _texts(values: NDArray[Any]) -> list[str]:
    if values.dtype.kind == "f":
        return ["" if value != value else format(value, ".6g") for value in values.tolist()]
    return [str(value) for value in values.tolist()]
