"""Two runs on the same image: the result in view, and that of another run beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psygnal import Signal

from napari_semiseg.app.accuracy import interval
from napari_semiseg.app.run_record import read_run
from napari_semiseg.app.session import Session
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
    """

    path: Path
    words: str


@dataclass(frozen=True)
class Difference:
    """Where two results differ: a ``.npy`` file, uint8 (h, w), 1 only the one in view, 2 both, 3 only the other."""

    path: Path
    box: Box
    facts: dict[str, Any]


class Comparison:
    """Segments the image in view with another run, and finds where the two results differ.

    Attributes
    ----------
    runs : list of OtherRun
        All usable runs of the project, the newest first.
    other : Path or None
        Result of the other run, once it is there.
    difference : Difference or None
    waiting : str
        What is waited for; "" for nothing.
    """

    changed = Signal()

    def __init__(self, session: Session) -> None:
        self.session = session
        self.runs: list[OtherRun] = []
        self.other: Path | None = None
        self.difference: Difference | None = None
        self.waiting = ""
        session.image_changed.connect(self.drop)
        session.project.closed.connect(self.drop)

    def look(self) -> None:
        """List the runs of the project, in the background."""
        folder = self.session.project.folder
        if folder is None:
            return
        runs = folder.runs_dir

        def done(found: list[OtherRun]) -> None:
            self.runs = found
            self.changed.emit()

        self.session.background.submit(lambda: list_runs(runs), done)

    def compare(self, run: Path) -> None:
        """Segment the image in view with a run, split as the sliders stand, and compare."""
        folder, index = self.session.project.folder, self.session.image_index
        if folder is None or index is None or self.session.review.result is None or self.waiting:
            return
        self.drop()
        out = folder.predictions_dir / "other" / folder.prediction_path(index).name
        out.parent.mkdir(parents=True, exist_ok=True)
        args: dict[str, Any] = {"run": str(run), "images": [folder.source_path(index)], "out": str(out)}
        mpp = self.session.project.images[index].mpp
        args |= {**self.session.review.split.args(), "overwrite": True} | ({"mpp": mpp} if mpp else {})
        self.waiting = "segmenting with the other run"
        self.session.ask("predict", args, lambda event: self._hear_result(out, index, event))
        self.changed.emit()

    def drop(self) -> None:
        """Compare no longer."""
        self.other = self.difference = None
        self.waiting = ""
        self.changed.emit()

    @property
    def words(self) -> str:
        """How much the two agree."""
        if self.difference is None:
            return self.waiting
        facts = self.difference.facts
        return (
            f"agree by Dice {facts['dice']:.2f} · only this one {facts['only_a']:,} px · "
            f"only the other {facts['only_b']:,} px"
        )

    def end(self) -> None:
        """Hear nothing more."""
        self.session.image_changed.disconnect(self.drop, missing_ok=True)
        self.session.project.closed.disconnect(self.drop, missing_ok=True)

    def _hear_result(self, out: Path, index: int, event: Event) -> None:
        if index != self.session.image_index or not self.waiting:
            return
        match event:
            case Finished(stopped=False):
                self.other = out
                self._find_difference()
            case Finished() | Failed():
                self.drop()
                if isinstance(event, Failed):
                    self.session.tell(event.message, "error", details=event.detail)

    def _find_difference(self) -> None:
        folder, result = self.session.project.folder, self.session.review.result
        if folder is None or result is None:
            return
        path = folder.predictions_dir / ".difference.npy"
        args: dict[str, Any] = {"a": str(result), "b": str(self.other), "out": str(path)}
        box = self.session.visible_box
        if box is not None and max(box.shape) <= WIDEST:
            args["box"] = [box.y0, box.x0, box.y1, box.x1]
        self.waiting = "comparing"
        self.session.ask("compare", args, self._hear_difference)
        self.changed.emit()

    def _hear_difference(self, event: Event) -> None:
        match event:
            case Written("difference", path, facts):
                self.waiting = ""
                self.difference = Difference(Path(path), Box(*facts["box"]), facts)
                self.changed.emit()
            case Failed(message, _, detail):
                self.drop()
                self.session.tell(message, "error", details=detail)


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
        found.append(OtherRun(path, " · ".join(parts)))
    return found
