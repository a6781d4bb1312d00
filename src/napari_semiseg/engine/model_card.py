"""What a reader should know of a trained model, as a page of Markdown. Nothing of it names an image or a folder."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from napari_semiseg import __version__
from napari_semiseg.engine.checkpoint import RunFolder
from napari_semiseg.errors import InputError
from napari_semiseg.events import Validated
from napari_semiseg.io.event_log import read_events


def model_card(name: str, run: Path, card: Mapping[str, Any], *, author: str = "", license: str = "") -> str:  # noqa: A002
    """Write the card of a model.

    Parameters
    ----------
    name : str
    run : Path
        Its run folder; of an exported model only what lies beside it is known.
    card : mapping
        What is saved beside its weights: choices, threshold, step.
    author, license : str
        "" for none.
    """
    choices = card["choices"]
    size = f"{choices['mpp']:g} µm" if choices.get("mpp") else "not known"
    images = _images(run)
    rows = {
        "method": choices["method"],
        "network": choices["network"],
        "classes": ", ".join(choices["classes"]),
        "pixel size": size,
        "threshold": f"{card['threshold']:g}",
        "step": f"{card['step']:,} of {choices['steps']:,}",
        "seed": choices["seed"],
        "images it learned from": images or "not known",
        "author": author or "not said",
        "license": license or "not said",
    }
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    return f"""# {name}

Segments nuclei. Trained and exported with napari-semiseg {__version__}.

| | |
|---|---|
{table}

## Input and output

Input: RGB, (batch, 3, height, width), 0 to 1. Output: the probability of each class (the first is the background).
Nuclei are pixels whose probability of not being background is at least the threshold, split where they touch.

## Validation

{_judged(run, int(card["step"]))}
Compare its nuclei with labels of your own, made on images that it has not learned from, before you rely on them:
`napari-semiseg evaluate PREDICTED LABELS` prints every score with its definition.

## Limits

It knows tissue, stain, scanner and pixel size of the images that it learned from, and no others. Research only: it is
not a medical device and must not be used for diagnosis.
"""


def _images(run: Path) -> int:
    try:
        return len(RunFolder(run).read_config().get("images", []))
    except InputError:  # an exported model has no run folder
        return 0


def _judged(run: Path, step: int) -> str:
    """Say how the run judged this step on tiles that were set aside, if it could."""
    scores: dict[str, float] = {}
    with contextlib.suppress(OSError):  # an exported model has no run folder
        for event in read_events(run / "events.jsonl"):
            if isinstance(event, Validated) and event.step == step:
                scores = event.scores
    dice, threshold = scores.get("dice", math.nan), scores.get("threshold_dice", math.nan)
    if math.isnan(dice):
        return "The run could not judge this model itself: no labels were set aside for that."
    beside = "" if math.isnan(threshold) else f", beside {threshold:.3f} of the hematoxylin threshold"
    return f"On the tiles that were set aside the run measured a Dice of {dice:.3f}{beside}."
