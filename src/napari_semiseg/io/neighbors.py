"""How near nuclei lie to each other, for rows of a table that come from the top of a slide to its bottom."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from napari_semiseg.io.columns import Columns, joined, taken

RADIUS_UM = 50.0
"""How far neighbors are looked for, in µm."""

RADIUS_PX = 200.0
"""The same, in pixels, where the size of a pixel is not known."""


class Neighbors:
    """Adds to each nucleus the distance to the nearest other one, and how many there are around it.

    Rows wait until all that may lie within the radius is known, so memory holds a band of the slide and not all of it.

    Parameters
    ----------
    mpp : float or None
        Size of a pixel in µm. Without it distances are in pixels.
    """

    def __init__(self, mpp: float | None) -> None:
        self._mpp = mpp
        self._radius = RADIUS_PX if mpp is None else RADIUS_UM / mpp
        self._points: NDArray[np.float64] = np.empty((0, 2))
        self._waiting: list[Columns] = []

    def add(self, rows: Columns, known: float = np.inf) -> Columns:
        """Take more rows, and return those whose neighbors are all known.

        Parameters
        ----------
        rows : dict of ndarray
            With ``y_px`` and ``x_px``, in pixels.
        known : float
            Every nucleus whose centroid lies above this row of pixels has been given by now.

        Returns
        -------
        dict of ndarray
            The rows with ``nearest_um`` (between centroids; NaN where none lies within `RADIUS_UM`) and
            ``neighbors_50um`` (how many do); without `mpp` ``nearest_px`` and ``neighbors_200px``.
        """
        self._points = np.concatenate([self._points, np.stack([rows["y_px"], rows["x_px"]], axis=1)])
        self._waiting.append(rows)
        waiting = joined(self._waiting)
        sure = waiting["y_px"] + self._radius <= known
        self._waiting = [taken(waiting, ~sure)]
        ready = self._with_neighbors(taken(waiting, sure))
        highest = self._waiting[0]["y_px"].min(initial=known)
        self._points = self._points[self._points[:, 0] >= min(highest, known) - self._radius]
        return ready

    def _with_neighbors(self, rows: Columns) -> Columns:
        places = np.stack([rows["y_px"], rows["x_px"]], axis=1)
        nearest, around = np.full(len(places), np.nan), np.zeros(len(places), np.int64)
        if len(places):
            tree = cKDTree(self._points)
            distance, _ = tree.query(
                places, k=[2], distance_upper_bound=self._radius
            )  # the first is the nucleus itself
            nearest = np.where(np.isfinite(distance[:, 0]), distance[:, 0], np.nan)
            around = np.asarray(tree.query_ball_point(places, self._radius, return_length=True), np.int64) - 1
        if self._mpp is None:
            return rows | {"nearest_px": nearest, "neighbors_200px": around}
        return rows | {"nearest_um": nearest * self._mpp, "neighbors_50um": around}
