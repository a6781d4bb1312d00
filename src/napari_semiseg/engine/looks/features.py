"""The feature map in color: its first three principal components as red, green and blue.

Like colors are like features, and no more than that: the colors of two looks cannot be compared.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semiseg.engine.looks.seen import Found, Seen
from napari_semiseg.io.diagnostics import Colors

ENDS = 2.0, 98.0
"""Percentiles that become dark and bright."""


def principal_components(seen: Seen) -> Found:
    """Show the feature map of the network that predicts."""
    features = seen.network.features(seen.image).float()[0].cpu().numpy()
    depth, height, width = features.shape
    projected, explained = projected_on_components(features.reshape(depth, -1).T, 3)
    share = " and ".join(", ".join(f"{100 * part:.0f}" for part in explained).rsplit(", ", 1))
    words = f"red, green and blue: principal components of {depth} features, with {share} % of their variance"
    colors = as_bytes(projected).reshape(height, width, 3)
    numbers = {f"variance of component {number + 1}": float(part) for number, part in enumerate(explained)}
    return Found({"features": Colors(colors, words)}, numbers)


def projected_on_components(
    rows: NDArray[np.floating[Any]], count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Project rows on their first principal components.

    Parameters
    ----------
    rows : ndarray, (N, D)
    count : int
        Components. Those beyond D are 0.

    Returns
    -------
    projected : ndarray, (N, count)
        The entry of each component that is largest by size is positive, so that the sign is not left to chance.
    explained : ndarray, (count,), in [0, 1]
        Share of the variance. All 0 where all rows are equal.
    """
    centered = rows.astype(np.float64) - rows.mean(0, dtype=np.float64)
    values, vectors = np.linalg.eigh(centered.T @ centered)
    values, vectors = values[::-1][:count].clip(min=0), vectors[:, ::-1][:, :count]
    vectors = vectors * np.where(np.take_along_axis(vectors, abs(vectors).argmax(0)[None], 0) < 0, -1, 1)
    total = float((centered**2).sum())
    explained = values / total if total > 0 else np.zeros_like(values)
    missing = count - vectors.shape[1]
    return np.pad(centered @ vectors, ((0, 0), (0, missing))), np.pad(explained, (0, missing))


def as_bytes(columns: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Stretch each column between `ENDS` to 0 … 255; a column of one value becomes 128."""
    low, high = np.percentile(columns, ENDS, axis=0)
    wide = high > low
    share = np.where(wide, (columns - low) / np.where(wide, high - low, 1), 0.5)
    stretched: NDArray[np.uint8] = np.rint(255 * share.clip(0, 1)).astype(np.uint8)
    return stretched
