"""The feature map as a landscape: cells that are alike lie together, and each place of the landscape has its color.

L. van der Maaten, G. Hinton, "Visualizing data using t-SNE", Journal of Machine Learning Research 2008, from
scikit-learn. Distances within a group say something, those between groups little. Why it is not UMAP:
docs/decisions/landscape.md.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.manifold import TSNE

from napari_semiseg.engine.looks.features import as_bytes
from napari_semiseg.engine.looks.seen import Found, Seen
from napari_semiseg.errors import InputError
from napari_semiseg.io.diagnostics import Colors, Plot

FITTED = 1_000
"""Cells that the landscape is made of; the others take the place of the one that is most like them."""
WIDEST = 256
"""Cells along a side of the map, at most: larger feature maps are pooled."""
PERPLEXITY = 30
ITERATIONS = 500
CORNERS = np.array([[[0, 114, 178], [240, 228, 66]], [[204, 121, 167], [0, 158, 115]]], np.float64)
"""Colors of the corners of the landscape; between them they are mixed."""
SIDE = 320


def likeness(seen: Seen) -> Found:
    """Show the feature map of the network that predicts, and the landscape."""
    features = seen.network.features(seen.image).float()
    factor = -(-max(features.shape[-2:]) // WIDEST)
    if factor > 1:
        features = F.avg_pool2d(features, factor)
    height, width = features.shape[-2:]
    rows = features[0].flatten(1).T.contiguous()
    drawn = torch.randperm(len(rows))[:FITTED].to(rows.device)
    placed = as_bytes(embedded(rows[drawn].cpu().numpy())) / 255
    nearest = torch.cat([torch.cdist(part, rows[drawn]).argmin(1) for part in torch.split(rows, 8_192)]).cpu().numpy()
    colors = color_at(placed)
    found = (seen.probs[1:].sum(0) > 0.5).astype(np.float32)
    nuclei = F.adaptive_avg_pool2d(torch.from_numpy(found)[None], (height, width))[0].flatten()[drawn.cpu()].numpy()
    words = f"each of {len(drawn)} cells by its features; larger points: found to be nucleus"
    return Found(
        {
            "likeness of features": Colors(
                colors[nearest].reshape(height, width, 3), "color of the place in the landscape"
            ),
            "landscape": Plot(scattered(placed, colors, nuclei > 0.5), words),
        }
    )


def color_at(places: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return the color, (N, 3), of places (N, 2) in the unit square."""
    y, x = places[:, 0, None], places[:, 1, None]
    top = (1 - x) * CORNERS[0, 0] + x * CORNERS[0, 1]
    bottom = (1 - x) * CORNERS[1, 0] + x * CORNERS[1, 1]
    mixed: NDArray[np.uint8] = np.rint((1 - y) * top + y * bottom).astype(np.uint8)
    return mixed


def scattered(places: NDArray[np.float64], colors: NDArray[np.uint8], large: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Draw points on white, (320, 320, 3): places in the unit square, large ones on top."""
    picture = np.full((SIDE, SIDE, 3), 255, np.uint8)
    at = np.rint(places * (SIDE - 17)).astype(int) + 8
    for radius, chosen in ((1, ~large), (3, large)):
        for dy in range(-radius, radius + 1):
            for dx in range(-radius, radius + 1):
                if dy**2 + dx**2 <= radius**2 + 1:
                    picture[at[chosen, 0] + dy, at[chosen, 1] + dx] = colors[chosen]
    return picture


def embedded(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return places, (N, 2), for rows of features, (N, D), by t-SNE; the same rows give the same places.

    Raises
    ------
    InputError
        If there are too few rows.
    """
    if len(rows) < 2 * PERPLEXITY:
        raise InputError(f"A landscape needs at least {2 * PERPLEXITY} cells: look at a larger rectangle.")
    spread = rows.std()
    scaled = (rows - rows.mean(0)) / (spread if spread > 0 else 1.0)
    jittered = scaled + 1e-6 * np.random.default_rng(0).standard_normal(scaled.shape, np.float32)  # alike is no tie
    # Iterations are what takes time: after 500 the groups stand, and more only spread them.
    found = TSNE(2, perplexity=PERPLEXITY, init="pca", random_state=0, max_iter=ITERATIONS, n_jobs=1)
    placed: NDArray[np.float64] = np.asarray(found.fit_transform(jittered.astype(np.float32)), np.float64)
    return placed
