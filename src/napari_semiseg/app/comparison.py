"""Two runs on the same image: the result in view, and that of another run beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from psygnal import Signal

from napari_semiseg.app.accuracy import accuracy_words, interval
from napari_semiseg.app.review_model import Split
from napari_semiseg.app.run_record import read_run
from napari_semiseg.app.session import Session
from napari_semiseg.app.words import capital, count
from napari_semiseg.blocks import Box
from napari_semiseg.events import Event, Failed, Finished, Written

WIDEST = 4096
"""Side of the largest rectangle whose difference is shown, in pixels."""


@dataclass(frozen=True)
class OtherRun:
    """A run that can be compared with.

    Attributes
    ----------
    path : Path
    words : str
        What it is: "2026-11-21-1840 · 1,240 steps · 5 tiles · Dice 0.81 (0.74 to 0.88)".
    regions : mapping of str to float
        Its Dice on each tile that was set aside.
    threshold : float
        Mean Dice there of the threshold that needs no training; NaN where it is not known.
    """

    path: Path
    words: str
    regions: Mapping[str, float] = field(default_factory=dict)
    threshold: float = math.nan


@dataclass(frozen=True)
class Score:
    """One score of both.

    Attributes
    ----------
    name : str
        For a table: "Pixels (Dice)".
    means : str
        In words.
    this, other : str
    better : {"this", "other", ""}
        Which of them is better; "" where they are alike.
    """

    name: str
    means: str
    this: str
    other: str
    better: str


@dataclass(frozen=True)
class Scores:
    """The scores of both on some tiles.

    Attributes
    ----------
    title : str
        On which: "2 tiles set aside, 63 nuclei".
    judges : bool
        Whether neither run learned from these tiles.
    rows : tuple of Score
    """

    title: str
    judges: bool
    rows: tuple[Score, ...]


@dataclass(frozen=True)
class Difference:
    """Where two results differ: a ``.npy`` file, uint8 (h, w), 1 only the one in view, 2 both, 3 only the other."""

    path: Path
    box: Box
    facts: dict[str, Any]


class Comparison:
    """Segments the image in view with another run, and finds where the two results differ.

    Both are split as the sliders stand: when the result in view has other nuclei, the other one gets them, too.

    Attributes
    ----------
    compared : OtherRun or None
        The run that is compared with, or was asked for.
    other : Path or None
        Its result, once it is there.
    difference : Difference or None
    waiting : str
        What is waited for; "" for nothing.
    """

    changed = Signal()

    def __init__(self, session: Session) -> None:
        self.session = session
        self._every: list[OtherRun] = []
        self.compared: OtherRun | None = None
        self.other: Path | None = None
        self.difference: Difference | None = None
        self.waiting = ""
        self._where = ""
        self._asked = 0
        self._split: Split | None = None  # of the other result
        self._known: tuple[str, Path | None] | None = None
        session.image_changed.connect(self.drop)
        session.project.closed.connect(self.drop)
        session.review.result_changed.connect(self._follow)
        session.training.changed.connect(self._note_runs)

    @property
    def why_not(self) -> str:
        """Why nothing can be compared, in words; "" if it can."""
        if self.session.review.result is None or self.session.review.active:
            return "Segment first: there is no result to compare with yet."
        if self.session.project.read_only:
            return "The project is open read-only, so no other result can be written into it."
        if not self.runs:
            return "There is no other trained run in this project: train once more, then compare."
        return ""

    @property
    def accuracy(self) -> str:
        """How good the run is that made the result in view, said with what it is worth."""
        made_with, record = self.session.review.run, self.session.training.record
        own = next((run for run in self._every if run.path.name == made_with), None)
        if not made_with or own is None or (record.path is not None and record.path.name == made_with):
            return accuracy_words(record.regions, record.threshold_dice.last)
        return accuracy_words(own.regions, own.threshold)

    @property
    def runs(self) -> list[OtherRun]:
        """All usable runs of the project but the one whose result is in view, the newest first."""
        own = self.session.review.run
        return [run for run in self._every if run.path.name != own]

    def look(self) -> None:
        """List the runs of the project, in the background."""
        folder = self.session.project.folder
        if folder is None:
            self._every = []
            return
        runs = folder.runs_dir

        def done(found: list[OtherRun]) -> None:
            self._every = found
            self.changed.emit()

        self.session.background.submit(lambda: list_runs(runs), done)

    def compare(self, run: Path) -> None:
        """Segment the image in view with a run, split as the sliders stand, and compare."""
        folder, index = self.session.project.folder, self.session.image_index
        if folder is None or index is None or self.why_not or self.waiting:
            return
        self.drop()
        # Of each run its own, so that going back to a run that was compared before takes no time.
        out = folder.predictions_dir / "other" / run.name / folder.prediction_path(index).name
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self.session.tell(f"Nothing can be written into {out.parent} ({error.strerror}).", "error")
            return
        args: dict[str, Any] = {"run": str(run), "images": [folder.source_path(index)], "out": str(out)}
        mpp = self.session.project.images[index].mpp
        self._split = self.session.review.split
        args |= {**self._split.args(mpp), "overwrite": True} | ({"mpp": mpp} if mpp else {})
        self.waiting = "Segmenting with the other run…"
        self.compared = next((known for known in self._every if known.path == run), None)
        self.session.ask("predict", args, partial(self._hear_result, self._asked, out))
        self.changed.emit()

    def drop(self) -> None:
        """Compare no longer, and end what is being made for that."""
        job = self.session.engine.job
        if self.waiting and self.other is None:
            self.session.drop_errands("predict")
            if job is not None and job.verb == "predict" and not self.session.review.active:
                self.session.engine.stop(job.id)
        self._forget()

    def _forget(self) -> None:
        self._asked += 1
        self.other = self.difference = self.compared = None
        self.waiting = ""
        self.changed.emit()

    @property
    def words(self) -> str:
        """How much of the nuclei both find."""
        if self.waiting:
            return capital(self.session.waits("predict", "split", "compare")) or self.waiting
        if self.difference is None:
            return ""
        facts = self.difference.facts
        pixels = facts["only_a"] + facts["both"] + facts["only_b"]
        if not pixels:
            return "Neither of them finds a nucleus."
        both, this, other = (round(100 * facts[part] / pixels) for part in ("both", "only_a", "only_b"))
        return f"{self._where}: {both} % both, {this} % this run only, {other} % the other only"

    @property
    def scores(self) -> list[Scores]:
        """What both are worth on complete tiles: first on those set aside, as far as there are any."""
        found = [] if self.difference is None else self.difference.facts.get("scores", [])
        return [_scores(group) for group in found]

    def end(self) -> None:
        """Hear nothing more."""
        self._asked += 1
        self.session.image_changed.disconnect(self.drop, missing_ok=True)
        self.session.project.closed.disconnect(self.drop, missing_ok=True)
        self.session.review.result_changed.disconnect(self._follow, missing_ok=True)
        self.session.training.changed.disconnect(self._note_runs, missing_ok=True)

    def _note_runs(self) -> None:
        """List the runs again where there is another one, or another result."""
        known = self.session.review.run, self.session.training.run
        if known != self._known:
            self._known = known
            self.look()

    def _follow(self) -> None:
        """Compare again: the result in view has other nuclei, or is of another run."""
        self._note_runs()
        review, compared = self.session.review, self.compared
        if compared is None:
            self.changed.emit()
        elif review.result is None or review.run == compared.path.name:
            self.drop()
        elif self.other is not None:
            self._asked += 1
            self._split_other()

    def _hear_result(self, asked: int, out: Path, event: Event) -> None:
        if asked != self._asked:
            return
        match event:
            case Finished(stopped=False):
                self.other = out
                self._split_other()
            case Finished() | Failed():
                self._give_up(event)

    def _split_other(self) -> None:
        """Split the other result as the sliders stand, then compare."""
        split = self.session.review.split
        if split == self._split:
            self._find_difference()
            return
        self.waiting = "Splitting the nuclei of the other run…"
        args = {"source": str(self.other), "apply": True, **split.args(self.session.review.mpp)}
        self.session.ask("split", args, partial(self._hear_split, self._asked, split))
        self.changed.emit()

    def _hear_split(self, asked: int, split: Split, event: Event) -> None:
        if isinstance(event, Finished) and not event.stopped:
            self._split = split  # whether or not it is still waited for: so the result is now
        if asked != self._asked:
            return
        match event:
            case Finished(stopped=False):
                self._find_difference()
            case Finished() | Failed():
                self._give_up(event)

    def _find_difference(self) -> None:
        folder, result = self.session.project.folder, self.session.review.result
        if folder is None or result is None:
            return
        path = folder.predictions_dir / ".difference.npy"
        args: dict[str, Any] = {"a": str(result), "b": str(self.other), "out": str(path)}
        shape, box = self.session.project.images[self.session.image_index or 0].shape, self.session.visible_box
        self._where = "On this image"
        if shape is None or max(shape) > WIDEST:
            self._where = "In the middle of the image"
            if box is not None:
                part = box.middle(WIDEST)
                self._where = "In the part that was in view" if part == box else "In the middle of what was in view"
                args["box"] = list(part)
        args |= {"project": str(folder.path), "image": self.session.image_index}
        self.waiting = "Comparing…"
        self.session.ask("compare", args, partial(self._hear_difference, self._asked))
        self.changed.emit()

    def _hear_difference(self, asked: int, event: Event) -> None:
        if asked != self._asked:
            return
        match event:
            case Written("difference", path, facts):
                self.waiting = ""
                self.difference = Difference(Path(path), Box(*facts["box"]), facts)
                self.changed.emit()
            case Failed():
                self._give_up(event)

    def _give_up(self, event: Finished | Failed) -> None:
        self._forget()
        if isinstance(event, Failed):
            self.session.tell(event.message, "error", details=event.detail)


def _scores(group: dict[str, Any]) -> Scores:
    tiles, nuclei = count(group["tiles"], "tile"), count(group["nuclei"], "nucleus", "nuclei")
    kind = "set aside" if group["judges"] else "not set aside"
    one, other = group["results"]
    rows = []
    for key, name, means in _KINDS:
        values = one[key], other[key]
        worth = [-abs(value - group["nuclei"]) if key == "nuclei" else round(value, 2) for value in values]
        better = "" if worth[0] == worth[1] else "this" if worth[0] > worth[1] else "other"
        this, that = (f"{value:,}" if isinstance(value, int) else f"{value:.2f}" for value in values)
        rows.append(Score(name, means, this, that, better))
    return Scores(f"{tiles} {kind} · {nuclei}", group["judges"], tuple(rows))


_KINDS = (
    ("dice", "Pixels (Dice)", "How well nuclei are told from the rest, pixel by pixel; 1 is perfect"),
    ("aji", "Outlines (AJI)", "How well each nucleus is outlined and parted from its neighbors; 1 is perfect"),
    ("pq", "Found (PQ)", "How many nuclei are found, times how well those are outlined; 1 is perfect"),
    ("nuclei", "Nuclei", "How many are counted"),
    ("best_on", "Tiles ahead", "On how many of these tiles its Dice is the higher one, or the same"),
)


def list_runs(runs: Path) -> list[OtherRun]:
    """List the runs of a folder that something can be predicted with, the newest first. Not for the GUI thread."""
    try:
        folders = sorted((path for path in runs.iterdir() if (path / "run.json").is_file()), reverse=True)
    except OSError:
        return []
    found = []
    for path in folders:
        record = read_run(path)
        if record is None or not record.usable:
            continue
        parts = [path.name, f"{record.step:,} steps", f"{record.tiles} tiles"]
        if record.regions:
            mean, low, high = interval(record.regions)
            parts.append(f"Dice {mean:.2f}" + (f" ({low:.2f} to {high:.2f})" if low == low else ""))
        found.append(OtherRun(path, " · ".join(parts), record.regions, record.threshold_dice.last))
    return found
