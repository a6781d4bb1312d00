"""How a prediction compares with the labels, pixel by pixel, in the colors of the papers' figures."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from napari_semiseg import metrics
from napari_semiseg.data.batch import IGNORE
from napari_semiseg.engine.looks.seen import Found, Seen
from napari_semiseg.engine.pictures import AGREEMENT
from napari_semiseg.io.diagnostics import Categories, Meaning

MEANINGS: Mapping[int, Meaning] = {
    number: Meaning(words, color) for number, (words, color) in enumerate(AGREEMENT.items(), 1)
}


def agreement(seen: Seen) -> Found:
    """Show what prediction and labels have in common, what only one of them has, and the Dice."""
    truth = seen.known
    known, wanted = truth != IGNORE, (truth > 0) & (truth != IGNORE)
    found = 1 - seen.probs[0] > 0.5
    both, predicted, missed = AGREEMENT
    kinds = np.zeros(truth.shape, np.uint8)
    numbers = {words: number for number, words in enumerate(AGREEMENT, 1)}
    kinds[found & wanted] = numbers[both]
    kinds[found & ~wanted & known] = numbers[predicted]
    kinds[~found & wanted] = numbers[missed]
    dice = metrics.dice(metrics.confusion(found[known], wanted[known]))
    return Found({"agreement": Categories(kinds, MEANINGS)}, {"Dice": float(dice)})
