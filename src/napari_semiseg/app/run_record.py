"""What is known of a training run: kept up with its events while it goes on, read from its folder afterwards."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_semiseg.app.curves import Curve
from napari_semiseg.events import (
    REGION,
    Event,
    Failed,
    Finished,
    Fitted,
    LabelsRead,
    PatchesCounted,
    Paused,
    PreviewWritten,
    Resumed,
    Saved,
    Skipped,
    Started,
    StepDone,
    Validated,
    Warned,
)
from napari_semiseg.io.event_log import read_events

_MOST_WARNINGS = 50
_MOST_HISTOGRAMS = 200


@dataclass(frozen=True)
class Preview:
    """A confidence map on disk; the fields are those of `PreviewWritten`."""

    step: int
    path: Path
    image: int
    box: tuple[int, int, int, int]
    downsample: int


@dataclass(frozen=True)
class Patches:
    """Patches of a map by mean confidence and by mean entropy, in equal bins of [0, 1]."""

    step: int
    confidence: tuple[int, ...]
    entropy: tuple[int, ...]


@dataclass
class RunRecord:
    """What has happened in a run.

    Attributes
    ----------
    path : Path or None
        Its folder.
    facts : dict
        What was chosen, as `Started` says it.
    step, total : int
    losses : dict of str to Curve
        Weighted terms by name.
    dice, threshold_dice : Curve
        Scores on the validation tiles, of the predictor and of the threshold that needs no training.
    counters : dict of str to Curve
        What the method counted, by name.
    patches : dict of int to list of Patches
        Histograms of the maps, by image, in order of steps.
    best_step : int
        Step of the network that is kept, -1 without any score.
    regions : dict of str to float
        Its Dice on each validation tile.
    fits : dict of str to float
        Dice on tiles that it learns from, each as it was scored last.
    previews : dict of int to list of Preview
        By image, in order of steps.
    warnings : list of str
        Plain sentences, each once.
    labels : LabelsRead or None
        The newest labels that came in while it ran.
    end : Finished, Failed or None
    """

    path: Path | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    step: int = 0
    total: int = 0
    losses: dict[str, Curve] = field(default_factory=dict)
    dice: Curve = field(default_factory=Curve)
    threshold_dice: Curve = field(default_factory=Curve)
    best_step: int = -1
    regions: dict[str, float] = field(default_factory=dict)
    fits: dict[str, float] = field(default_factory=dict)
    rate: float = math.nan
    eta_s: float = math.nan
    counters: dict[str, Curve] = field(default_factory=dict)
    patches: dict[int, list[Patches]] = field(default_factory=dict)
    previews: dict[int, list[Preview]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    labels: LabelsRead | None = None
    saved_step: int = -1
    end: Finished | Failed | None = None

    def note(self, event: Event) -> None:
        """Take note of an event."""
        match event:
            case Started("train", run, total, facts):
                self.path, self.total, self.facts, self.end = Path(run), total, facts, None
                self.labels = None  # a run that goes on has read them anew
                self.rate = self.eta_s = math.nan
            case StepDone(step, losses, counters, rate, eta_s, total):
                self._note_step(step + 1, losses, counters)
                self.total = total or self.total
                self.rate, self.eta_s = rate, eta_s
            case Skipped(step, _):
                self.step = step + 1
            case Validated(step, scores, best):
                self.step = max(self.step, step)
                self.dice.add(step, scores.get("dice", math.nan))
                self.threshold_dice.add(step, scores.get("threshold_dice", math.nan))
                self.best_step = step if best else self.best_step
                if best:
                    self.regions = {
                        name.removeprefix(REGION): score for name, score in scores.items() if name.startswith(REGION)
                    }
            case Fitted(_, scores):
                self.fits = {**self.fits, **scores}
            case PreviewWritten(step, path, image, box, downsample):
                self._note_preview(Preview(step, Path(path), image, box, downsample))
            case PatchesCounted(step, image, confidence, entropy):
                self._note_patches(image, Patches(step, tuple(confidence), tuple(entropy)))
            case LabelsRead():
                self.labels = event
            case Saved(step, _):
                self.saved_step = step
            case Paused() | Resumed():
                self.rate = self.eta_s = math.nan
            case Warned(message):
                if message not in self.warnings:
                    self.warnings = [*self.warnings, message][-_MOST_WARNINGS:]
            case Finished() | Failed():
                self.end = event

    @property
    def tiles(self) -> int:
        """Tiles that it learned from last."""
        return self.labels.tiles if self.labels else len(self.facts.get("labeled", ()))

    @property
    def nuclei(self) -> int:
        """Nuclei in them."""
        return self.labels.nuclei if self.labels else int(self.facts.get("nuclei", 0))

    @property
    def seen(self) -> dict[str, str] | None:
        """Tiles as it read them last, each with its hash; None where that is not known."""
        return self.labels.seen if self.labels else self.facts.get("seen")

    def unseen(self, tiles: Mapping[str, str]) -> set[str]:
        """Return the tiles that it has not seen as they are, and those that it has seen and that are no more.

        Parameters
        ----------
        tiles : mapping of str to str
            What `project.annotations.digests` says of the project as it is.
        """
        return set() if self.seen is None else {tile for tile, _ in self.seen.items() ^ tiles.items()}

    @property
    def usable(self) -> bool:
        """Whether something can be predicted with it."""
        return self.path is not None and any((self.path / "checkpoints").glob("best-*.safetensors"))

    @property
    def shares(self) -> set[str]:
        """Names of the counters that have stayed between 0 and 1."""
        return {name for name, curve in self.counters.items() if all(0 <= value <= 1 for value in curve.values)}

    def _note_step(self, step: int, losses: dict[str, float], counters: dict[str, float]) -> None:
        self.step = step
        for curves, values in ((self.losses, losses), (self.counters, counters)):
            for name, value in values.items():
                curves.setdefault(name, Curve()).add(step, value)

    def _note_patches(self, image: int, patches: Patches) -> None:
        kept = self.patches.setdefault(image, [])
        while kept and kept[-1].step >= patches.step:
            kept.pop()
        kept.append(patches)
        if len(kept) > _MOST_HISTOGRAMS:
            del kept[1:-1:2]

    def _note_preview(self, preview: Preview) -> None:
        kept = self.previews.setdefault(preview.image, [])
        while kept and kept[-1].step >= preview.step:  # a resumed run goes over some steps again
            kept.pop()
        kept.append(preview)


def read_run(path: Path) -> RunRecord | None:
    """Read what happened in a run from its folder; None where there is none. Takes a while: not for the GUI thread.

    Lines that are no event (a torn last one) are passed over. Maps are those that are still there, wherever the
    project has been moved to.
    """
    record = RunRecord(path=path)
    try:
        for event in read_events(path / "events.jsonl"):
            record.note(event)
    except OSError:
        return None
    record.path = path
    for image, previews in record.previews.items():
        here = [
            Preview(kept.step, path / "preview" / kept.path.name, image, kept.box, kept.downsample) for kept in previews
        ]
        record.previews[image] = [preview for preview in here if preview.path.is_file()]
    return record


def newest_run(runs: Path) -> RunRecord | None:
    """Read the newest run of a project; None where there is none that began. Not for the GUI thread."""
    try:
        folders = sorted((folder for folder in runs.iterdir() if (folder / "run.json").is_file()), reverse=True)
    except OSError:
        return None
    for folder in folders:
        record = read_run(folder)
        if record is not None and record.total:
            return record
    return None
