"""What the nuclei of a slide come to, over the whole of it and piece by piece of its tissue.

Rows of a table go in, a band at a time; a few sums per piece and a small map stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from napari_semiseg.io.columns import Columns

SMALLEST_PIECE = 0.02
"""Pieces of tissue that hold a smaller part of all tissue than this are not listed on their own."""

MOST_PIECES = 20
"""Of the rest so many, the largest."""

MAP_SIDE = 160
"""Longer side of the map of density, in fields."""

_MEANS = {
    "area": ("area_um2", "area_px"),
    "circularity": ("circularity",),
    "eccentricity": ("eccentricity",),
    "hematoxylin": ("hematoxylin_od_mean",),
    "intensity": ("intensity_mean",),
    "confidence": ("confidence_mean",),
    "nearest": ("nearest_um", "nearest_px"),
}
_BINS = {"area": 60, "nearest": 50}
_TITLES = {
    "area": "area, µm² (pixels where their size is unknown)",
    "circularity": "circularity",
    "hematoxylin": "hematoxylin, optical density",
    "intensity": "intensity",
    "nearest": "nearest neighbor, µm (pixels where their size is unknown)",
    "confidence": "confidence",
}


@dataclass(frozen=True)
class Pieces:
    """Pieces of tissue in an overview of a slide.

    Attributes
    ----------
    labels : ndarray of int, (h, w)
        0 glass, 1 the first piece.
    names : tuple of str
        Of the pieces, largest first; what is too small to be listed is in the last, "smaller pieces".
    shape : (int, int)
        Rows and columns of the slide.
    """

    labels: NDArray[np.intp]
    names: tuple[str, ...]
    shape: tuple[int, int]

    @classmethod
    def of_tissue(cls, tissue: NDArray[np.bool_], shape: tuple[int, int]) -> Pieces:
        """Find the connected parts of a mask of tissue, (h, w), and number them by their size."""
        found, count = ndi.label(tissue, np.ones((3, 3)))
        area = np.bincount(found.ravel(), minlength=count + 1)[1:]
        order = [n for n in np.argsort(-area, kind="stable") if area[n] >= SMALLEST_PIECE * area.sum()][:MOST_PIECES]
        number = np.full(count + 1, len(order) + 1, np.intp)
        number[0] = 0
        number[np.array(order, np.intp) + 1] = np.arange(1, len(order) + 1)
        names = [f"piece {n}" for n in range(1, len(order) + 1)]
        return cls(number[found], (*names, *(["smaller pieces"] if count > len(order) else [])), shape)

    @property
    def pixels(self) -> NDArray[np.float64]:
        """Level-0 pixels of each piece."""
        each = self.shape[0] * self.shape[1] / self.labels.size
        return np.asarray(np.bincount(self.labels.ravel(), minlength=len(self.names) + 1)[1:] * each, np.float64)

    def at(self, y: NDArray[Any], x: NDArray[Any]) -> NDArray[np.intp]:
        """Return the pieces, from 0, in which level-0 pixels lie, -1 on glass."""
        rows = np.clip(y * self.labels.shape[0] / self.shape[0], 0, self.labels.shape[0] - 1).astype(np.intp)
        columns = np.clip(x * self.labels.shape[1] / self.shape[1], 0, self.labels.shape[1] - 1).astype(np.intp)
        return np.asarray(self.labels[rows, columns] - 1)


class Summary:
    """Sums over the nuclei of a slide and of each piece of its tissue.

    Parameters
    ----------
    pieces : Pieces
    mpp : float or None
        Size of a pixel in µm.
    """

    def __init__(self, pieces: Pieces, mpp: float | None) -> None:
        self.pieces, self.mpp = pieces, mpp
        size = len(pieces.names) + 1  # the last is the whole slide
        self.count = np.zeros(size, np.int64)
        self._sums = {name: np.zeros((size, 3)) for name in _MEANS}  # how many, sum, sum of squares
        self._classes: dict[str, NDArray[np.int64]] = {}
        self.field = max(1, -(-max(pieces.shape) // MAP_SIDE))
        self.map = np.zeros((-(-pieces.shape[0] // self.field), -(-pieces.shape[1] // self.field)), np.int64)
        self.edges = {
            "area": np.linspace(0, 300 if mpp is not None else 300 / 0.0625, _BINS["area"] + 1),
            "nearest": np.linspace(0, 50 if mpp is not None else 50 / 0.25, _BINS["nearest"] + 1),
        }
        self.histograms = {name: np.zeros(bins, np.int64) for name, bins in _BINS.items()}

    def add(self, rows: Columns) -> None:
        """Add rows of the table of nuclei: the columns of `Measurements` and `Neighbors`."""
        where = self.pieces.at(rows["y_px"], rows["x_px"])
        on_tissue = where >= 0
        self.count[-1] += len(where)
        self.count[:-1] += np.bincount(where[on_tissue], minlength=len(self.count) - 1)
        for name, columns in _MEANS.items():
            column = next((column for column in columns if column in rows), None)
            if column is None:
                continue
            values = np.asarray(rows[column], np.float64)
            known = np.isfinite(values)
            self._add(name, np.full(known.sum(), len(self.count) - 1), values[known])
            self._add(name, where[known & on_tissue], values[known & on_tissue])
            if name in self.histograms:
                last = np.nextafter(self.edges[name][-1], 0)
                self.histograms[name] += np.histogram(np.minimum(values[known], last), self.edges[name])[0]
        if "class" in rows:
            for title in np.unique(rows["class"].astype(str)):
                here = rows["class"].astype(str) == title
                found = self._classes.setdefault(str(title), np.zeros(len(self.count), np.int64))
                found[-1] += here.sum()
                found[:-1] += np.bincount(where[here & on_tissue], minlength=len(found) - 1)
        down, across = (np.asarray(rows[axis] // self.field, np.intp) for axis in ("y_px", "x_px"))
        np.add.at(self.map, (down, across), 1)

    def rows(self) -> list[dict[str, Any]]:
        """Return the whole slide first, then each piece: numbers by name, without those that nobody could measure."""
        areas = np.append(self.pieces.pixels, self.pieces.pixels.sum())
        names = (*self.pieces.names, "slide")
        order = [len(names) - 1, *range(len(names) - 1)]
        return [self._row(names[index], index, float(areas[index])) for index in order]

    def _row(self, name: str, index: int, pixels: float) -> dict[str, Any]:
        row: dict[str, Any] = {"name": name, "nuclei": int(self.count[index])}
        if self.mpp is not None:
            mm2 = pixels * self.mpp**2 / 1e6
            row |= {"tissue_mm2": mm2, "nuclei_per_mm2": int(self.count[index]) / mm2 if mm2 else None}
        for measure, sums in self._sums.items():
            many, total, squares = (float(value) for value in sums[index])
            if many:
                spread = max(0.0, squares / many - (total / many) ** 2) ** 0.5
                row |= {f"{measure}_mean": total / many, f"{measure}_sd": spread}
        if self._classes:
            row["classes"] = {title: int(found[index]) for title, found in sorted(self._classes.items())}
        return row

    def _add(self, name: str, where: NDArray[np.intp], values: NDArray[np.float64]) -> None:
        for place, what in enumerate((np.ones_like(values), values, values**2)):
            self._sums[name][:, place] += np.bincount(where, what, minlength=len(self.count))


def table_of(rows: Sequence[Mapping[str, Any]], *, first: str) -> tuple[list[str], list[list[str]]]:
    """Return heads and cells of a table of summaries, with means as "mean ± sd"."""
    measures = [name for name in _TITLES if any(f"{name}_mean" in row for row in rows)]
    classes = sorted({title for row in rows for title in row.get("classes", {})})
    heads = [first, "nuclei", "tissue, mm²", "nuclei per mm²", *(_TITLES[name] for name in measures)]
    heads += [title or "no class" for title in classes]
    cells = [
        [
            row["name"],
            f"{row['nuclei']:,}",
            _short(row.get("tissue_mm2")),
            _short(row.get("nuclei_per_mm2")),
            *(_spread(row, name) for name in measures),
            *(f"{row.get('classes', {}).get(title, 0):,}" for title in classes),
        ]
        for row in rows
    ]
    return heads, cells


def _spread(row: Mapping[str, Any], name: str) -> str:
    return f"{_short(row[f'{name}_mean'])} ± {_short(row[f'{name}_sd'])}" if f"{name}_mean" in row else ""


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
