"""Confusion density: how much of its probability a prediction gives to other classes than the true one.

H. Mai et al., "DualRel: Semi-Supervised Mitochondria Segmentation from A Prototype Perspective", CVPR 2023, supplement:
1 - p_b on background and 1 - p_f on foreground, averaged over pixels. With several classes, 1 - p of the true one.
"""

from __future__ import annotations

import numpy as np

from napari_semiseg.data.batch import IGNORE
from napari_semiseg.engine.looks.seen import Found, Seen
from napari_semiseg.io.diagnostics import Amount


def confusion_density(seen: Seen) -> Found:
    """Show the density where something is known, and its means over all, over background and over nuclei."""
    truth = seen.known
    known = truth != IGNORE
    of_truth = np.take_along_axis(seen.probs, np.where(known, truth, 0)[None].astype(np.intp), 0)[0]
    density = np.where(known, 1 - of_truth, np.nan)
    numbers = {"confusion density": float(density[known].mean())}
    for words, where in (("background", known & (truth == 0)), ("nuclei", known & (truth > 0))):
        if where.any():
            numbers[f"confusion density of {words}"] = float(density[where].mean())
    return Found({"confusion density": Amount(density, 0.0, 1.0, "probability of other classes")}, numbers)
