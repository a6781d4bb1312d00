"""What happened, as a person would say it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from napari_semiseg.events import (
    BlockDone,
    Event,
    Failed,
    Finished,
    LabelsRead,
    Paused,
    Progressed,
    Resumed,
    Started,
    StepDone,
    Suggested,
    Unanswered,
    Validated,
    Warned,
    Written,
)

DOING = {
    "benchmark": "the benchmark",
    "demo": "the demonstration",
    "export": "export",
    "inspect": "the look inside",
    "predict": "prediction",
    "run": "the whole run",
    "train": "training",
}


@dataclass(frozen=True)
class Progress:
    """How far something is: `done` of `total` `unit`, at `rate` a second, with `eta_s` seconds left (NaN: unknown)."""

    label: str
    done: int
    total: int
    unit: str
    rate: float
    eta_s: float
    detail: str = ""

    @property
    def pace(self) -> str:
        """Rate and time of arrival in words, as far as they are known: ``2.4 steps/s · 1:32 left``."""
        parts = []
        if math.isfinite(self.rate):
            parts.append(f"{self.rate:.3g} {self.unit}/s")
        if math.isfinite(self.eta_s):
            parts.append(f"{clock(self.eta_s)} left")
        return " · ".join(parts)


def progress_of(event: Event, total_steps: int) -> Progress | None:
    """Return how far an event says the job is, or None where it says nothing of that.

    Parameters
    ----------
    event : Event
    total_steps : int
        Steps of the training, as its `Started` said; a `StepDone` may know better.
    """
    match event:
        case StepDone(step, losses, _, rate, eta_s, total):
            detail = "  ".join(f"{name} {value:.3g}" for name, value in losses.items())
            return Progress("training", step + 1, total or total_steps, "steps", rate, eta_s, detail)
        case BlockDone(image, _, done, total, rate, eta_s):
            return Progress(f"predicting image {image + 1}", done, total, "blocks", rate, eta_s)
        case Progressed(what, done, total, rate, eta_s):
            return Progress(what, done, total, "units", rate, eta_s)
    return None


def sentence_of(event: Event) -> str | None:
    """Return an event in words, or None for those that only matter to machines or as progress."""
    match event:
        case Started(what, run, _, facts):
            where = f" in {run}" if run else ""
            return f"{_doing(what).capitalize()} begins{where}{_in_brackets(facts)}."
        case Validated(step, scores, best):
            return f"Step {step}: {_scores(scores)}{', kept' if best else ''}."
        case LabelsRead(tiles, nuclei, _):
            return f"Labels were read: {tiles} tiles with {nuclei} nuclei."
        case Paused(step):
            return f"Paused at step {step}."
        case Resumed(step):
            return f"Going on at step {step}."
        case Warned(message) | Unanswered(_, message):
            return message
        case Written(what, path, facts):
            return f"Wrote {what}: {path}{_in_brackets(facts)}."
        case Suggested(tiles):
            return "\n".join(f"{rank}. {_tile(tile)}" for rank, tile in enumerate(tiles, 1)) or "No tile is suggested."
        case Finished(what, result, stopped, canceled, facts):
            end = "was canceled; its result is discarded" if canceled else "was stopped" if stopped else "is done"
            where = f": {result}" if result and not canceled else ""
            return f"{_doing(what).capitalize()} {end}{where}{_in_brackets(facts)}."
        case Failed(message):
            return message
    return None


def clock(seconds: float) -> str:
    """Return a duration as ``m:ss`` or ``h:mm:ss``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _doing(what: str) -> str:
    return DOING.get(what, what)


def _scores(scores: Mapping[str, float]) -> str:
    words = f"Dice {scores.get('dice', math.nan):.3f} on the validation tiles"
    threshold = scores.get("threshold_dice", math.nan)
    return words if math.isnan(threshold) else f"{words} (threshold alone {threshold:.3f})"


def _tile(tile: Mapping[str, Any]) -> str:
    return f"image {tile['image']}, rectangle {tuple(tile['box'])}: {tile['reason']}"


def _in_brackets(facts: Mapping[str, Any]) -> str:
    shown = [
        f"{name.replace('_', ' ')} {_short(value)}"
        for name, value in facts.items()
        if value not in (None, "", []) and not isinstance(value, dict)  # a table is for machines
    ]
    return f" ({' · '.join(shown)})" if shown else ""


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_short, value))
    return str(value)
