"""Measuring nuclei: one row each, added up block by block over any image, without a loop over nuclei.

Everything measured is a sum, a maximum or a minimum over pixels, so the blocks may be of any size and a nucleus may lie
in several.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.color import rgb2hed

from napari_semiseg import atomic
from napari_semiseg.blocks import Box

MARGIN = 2
"""Pixels around a block that the perimeter looks at."""

_OD_PER_HED = 6.0  # rgb2hed divides the natural logarithm by that of 10^6, so 1 stands for an optical density of 6
_DIAGONAL = np.sqrt(2)
_WEIGHTS = np.zeros(64)
_WEIGHTS[[5, 7, 15, 17, 25, 27]] = 1
_WEIGHTS[[21, 33]] = _DIAGONAL
_WEIGHTS[[13, 23]] = (1 + _DIAGONAL) / 2

Columns = dict[str, NDArray[Any]]


class Measurements:
    """Sums over the nuclei of an image. Call `add` for parts that cover it exactly once, then `columns`.

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
        rows, columns = np.nonzero(inner)
        if not rows.size:
            return
        ids, which = np.unique(inner[rows, columns], return_inverse=True)
        part = _geometry(rows, columns, which, len(ids), box)
        part["label"] = ids
        part["perimeter"] = _perimeters(labels, which, len(ids))
        if confidence is not None:
            values = confidence[rows, columns]
            part["confidence"] = np.bincount(which, values, len(ids))
            part["confidence_max"] = _extreme(np.maximum, which, values, len(ids), 0)
        if rgb is not None:
            part["signal"] = np.bincount(which, _signal(rgb[rows, columns], gray), len(ids))
            self._gray = gray
        if class_map is not None:
            width = len(self._classes) + 1
            part["class"] = np.bincount(which * width + class_map[rows, columns], minlength=len(ids) * width).reshape(
                -1, width
            )
        self._parts.append(part)

    def columns(self) -> Columns:
        """Return one array per column, one row per nucleus, in the order of labels.

        Returns
        -------
        dict of ndarray
            ``label``; ``y_px``, ``x_px`` centroid, ``area_px``, ``perimeter_px`` (4-neighborhood, as
            `skimage.measure.perimeter`), ``eccentricity`` (0 circle, 1 line), ``bbox_y0`` … ``bbox_x1`` (half-open);
            with `mpp` also ``y_um``, ``x_um``, ``area_um2``, ``perimeter_um``; ``confidence_mean`` and
            ``confidence_max`` in [0, 1]; ``hematoxylin_od_mean`` (optical density, base 10, by color deconvolution
            after Ruifrok and Johnston, 2001) or, for gray images, ``intensity_mean`` in [0, 255]; ``class``.
        """
        if not self._parts:
            return self._named(_empty())
        keys = self._parts[0]
        stacked = {key: np.concatenate([part[key] for part in self._parts]) for key in keys}
        return self._named(_merged(stacked))

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
        columns["eccentricity"] = _eccentricity(sums)
        if "confidence" in sums:
            columns |= {
                "confidence_mean": sums["confidence"] / pixels / 255,
                "confidence_max": sums["confidence_max"] / 255,
            }
        if "signal" in sums:
            columns["intensity_mean" if self._gray else "hematoxylin_od_mean"] = sums["signal"] / pixels
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


def write_csv(path: str | Path, columns: Mapping[str, NDArray[Any]]) -> None:
    """Write columns as CSV (UTF-8, comma, point, one header line) and read them back.

    Parameters
    ----------
    path : str or Path
        Replaced if it exists, and only when everything is right.
    columns : mapping of str to ndarray, (n,)
        Floating point numbers are written with six significant digits, NaN as an empty field.

    Raises
    ------
    InputError
        If the disk is full or the place cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*(_texts(values) for values in columns.values()), strict=True))
    data = text.getvalue().encode()
    atomic.write_bytes(path, data)
    if Path(path).read_bytes() != data:
        raise atomic.said(OSError(5, "the disk gave back other bytes"), f"'{path}' cannot be read back")


def _geometry(rows: NDArray[Any], columns: NDArray[Any], which: NDArray[Any], count: int, box: Box) -> Columns:
    """Return number of pixels, centroid, central second moments and bounding box of each nucleus."""
    pixels = np.bincount(which, minlength=count).astype(np.float64)
    y, x = np.bincount(which, rows, count) / pixels, np.bincount(which, columns, count) / pixels
    dy, dx = rows - y[which], columns - x[which]
    return {
        "pixels": pixels, "y": y + box.y0, "x": x + box.x0,
        "yy": np.bincount(which, dy * dy, count), "xx": np.bincount(which, dx * dx, count), "xy": np.bincount(which, dy
        * dx, count), "y0": _extreme(np.minimum, which, rows, count, 2**40) + box.y0, "x0": _extreme(np.minimum, which,
        columns, count, 2**40) + box.x0, "y1": _extreme(np.maximum, which, rows, count, -1) + box.y0 + 1, "x1":
        _extreme(np.maximum, which, columns, count, -1) + box.x0 + 1,
    }  # fmt: skip


def _extreme(
    function: np.ufunc, which: NDArray[Any], values: NDArray[Any], count: int, start: int
) -> NDArray[np.int64]:
    found = np.full(count, start, np.int64)
    function.at(found, which, values)
    return found


def _perimeters(labels: NDArray[np.uint32], which: NDArray[Any], count: int) -> NDArray[np.float64]:
    """Return the perimeters of what lies inside the margin, as `skimage.measure.perimeter` gives for each label alone.

    A pixel is at the border if one of its four neighbors has another label. It counts by how many border pixels of its
    own label are beside it and diagonal to it (Benkrid, Crookes and Benkrid, 2000).
    """
    core = labels[1:-1, 1:-1]
    edge = core != labels[:-2, 1:-1]
    for other in (labels[2:, 1:-1], labels[1:-1, :-2], labels[1:-1, 2:]):
        edge |= core != other
    edge &= core != 0  # known one pixel around the block
    bordering = np.where(edge, core, 0)
    center = bordering[1:-1, 1:-1]
    rows, columns = np.nonzero(center)
    own = center[rows, columns]
    code = np.ones(len(own), np.intp)
    for dy in (0, 1, 2):
        for dx in (0, 1, 2):
            if (dy, dx) != (1, 1):
                code += (bordering[rows + dy, columns + dx] == own) * (2 if 1 in (dy, dx) else 10)
    position = np.zeros(center.shape, np.intp)
    position[labels[MARGIN:-MARGIN, MARGIN:-MARGIN] != 0] = which
    return np.asarray(np.bincount(position[rows, columns], _WEIGHTS[np.minimum(code, 63)], count), np.float64)


def _signal(rgb: NDArray[np.uint8], gray: bool) -> NDArray[np.float64]:
    if gray:
        return rgb[:, 0].astype(np.float64)
    return np.asarray(rgb2hed(rgb[:, None, :])[:, 0, 0] * _OD_PER_HED, np.float64)


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
    for key in ("perimeter", "confidence", "signal"):
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
