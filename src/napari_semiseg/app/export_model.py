"""The export of a result and of the model it came from: which formats, where to, and what has been written."""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from psygnal import Signal

from napari_semiseg.errors import InputError
from napari_semiseg.events import Event, Failed, Finished, Progressed, Warned, Written

if TYPE_CHECKING:
    from napari_semiseg.app.session import Session


@dataclass(frozen=True)
class Format:
    """A format: the engine's name of it, what a person calls it, what it is for, and what is written in it."""

    name: str
    title: str
    help: str
    holds: Literal["nuclei", "model"] = "nuclei"


FORMATS = (
    Format("ome-zarr", "OME-Zarr", "Confidence and nuclei of any size, for napari and other viewers"),
    Format("ome-tiff", "OME-TIFF", "Confidence and nuclei with their pixel size, for QuPath, Fiji and OMERO"),
    Format("tiff", "TIFF", "The nuclei as one labeled image"),
    Format("geojson", "GeoJSON", "Nuclei as detections for QuPath, with class and measurements"),
    Format("csv", "CSV", "A table with a row for each nucleus: place, area, shape, stain"),
    Format("parquet", "Parquet", "The same table with the types of its columns, for Python and R"),
    Format("imagej-roi", "ImageJ ROI", "Nuclei as regions for the ROI Manager of ImageJ and Fiji"),
    Format("png", "PNG", "A picture of the image with the nuclei outlined"),
    Format("report", "Report", "A page with numbers and plots of the whole image and of each piece of tissue"),
    Format("safetensors", "safetensors", "The trained model with its card, for napari-semiseg elsewhere", "model"),
    Format("onnx", "ONNX", "The trained model for programs without torch", "model"),
    Format("bioimageio", "bioimage.io", "The trained model as a package for Fiji, ilastik and QuPath", "model"),
)


@dataclass(frozen=True)
class Outcome:
    """How the export to a format ended: the path that was written, or the sentence that says why not."""

    format: str
    path: str = ""
    problem: str = ""


class ExportModel:
    """The export of the result of the image in view, and of its model.

    Used from one thread; holds neither Qt nor torch.

    Parameters
    ----------
    session : Session

    Attributes
    ----------
    formats : set of str
        The formats that are ticked.
    replace : bool
        Whether earlier exports of the same names may be replaced.
    outcomes : list of Outcome
        Of the last export.
    doing : str
        The format that is being written; "" for none.
    """

    changed = Signal()

    def __init__(self, session: Session) -> None:
        self.session = session
        self.formats = {"ome-tiff", "csv"}
        self.replace = False
        self.outcomes: list[Outcome] = []
        self.doing = ""
        self.share_done = 0.0
        self._target: Path | None = None
        self._left: deque[tuple[str, Path]] = deque()  # formats that are still to be written, and of what
        self._job = ""
        session.review.changed.connect(self.changed)
        session.project.closed.connect(self._forget)
        session.image_changed.connect(self.changed)
        session.engine.events["lost_job"].connect(self._note_lost)

    # ---- what is asked for ----

    @property
    def target(self) -> Path:
        """The folder to write to: by default ``exports`` in the project."""
        if self._target is not None:
            return self._target
        path = self.session.project.path
        return path / "exports" if path else Path()

    @property
    def why_not(self) -> str:
        """Why nothing can be exported, in words; "" if it can."""
        session = self.session
        if session.project.folder is None:
            return "Begin with step 1: there is no project yet."
        if self.active:
            return "This export is running."
        if session.review.active:
            return "The segmentation is still running: export when it is over."
        if not self.formats:
            return "Tick at least one format."
        if session.review.result is None and self._wants("nuclei"):
            return "Segment first (step 4): there is no result of this image yet."
        if session.training.run is None and self._wants("model"):
            return "Train first (step 3): there is no model yet."
        if session.training.active:
            return "The training is still running: export when it is over, or stop it."
        if session.review.pending:
            return "The nuclei are being split as the sliders say: a moment."
        if session.project.read_only and self._target is None:
            return "The project is open read-only: choose another folder to write to."
        return ""

    @property
    def active(self) -> bool:
        """Whether an export runs or is about to."""
        return bool(self._job)

    @property
    def chosen(self) -> list[Format]:
        """The formats that are ticked, in their order."""
        return [form for form in FORMATS if form.name in self.formats]

    def tick_format(self, name: str, ticked: bool) -> None:
        """Tick a format, or not."""
        self.formats = self.formats | {name} if ticked else self.formats - {name}
        self.changed.emit()

    def set_replace(self, replace: bool) -> None:
        """Say whether earlier exports may be replaced."""
        self.replace = replace
        self.changed.emit()

    def choose_target(self, folder: str | Path | None) -> None:
        """Write to another folder; None for the usual one."""
        self._target = Path(folder) if folder else None
        self.changed.emit()

    def request_export(self) -> None:
        """Write every format that is ticked, one after the other. Does nothing where `why_not` says why."""
        if self.why_not:
            return
        try:
            self.target.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self.session.tell(
                f"The folder {self.target} cannot be made ({os.strerror(error.errno or 0)}): choose another one.",
                "error",
            )
            return
        self.outcomes = []
        of_holds = {"nuclei": self.session.review.result, "model": self.session.training.run}
        self._left = deque((form.name, source) for form in self.chosen if (source := of_holds[form.holds]) is not None)
        self._next()

    def stop(self) -> None:
        """End, and leave out what was not written yet."""
        self._left.clear()
        if self.active:
            self.session.engine.cancel(self._job)

    # ---- what is heard ----

    def receive(self, job: str, event: Event) -> None:
        """Take note of an event of the engine."""
        if not job or job != self._job:
            return
        match event:
            case Progressed(_, done, total):
                self.share_done = done / total if total else 0.0
                self.changed.emit()
            case Warned(message):
                self.session.tell(message, "warning")
            case Written(_, path, _):
                self._note(Outcome(self.doing, path=path))
            case Failed(message, _, _):
                self._note(Outcome(self.doing, problem=message))
                self._next()
            case Finished(canceled=canceled):
                if canceled:
                    self._left.clear()
                self._next()

    # ---- inner ----

    def _next(self) -> None:
        self._job, self.doing, self.share_done = "", "", 0.0
        if self._left:
            name, source = self._left.popleft()
            args = {"source": str(source), "to": name, "out": str(self.target), "overwrite": self.replace}
            try:
                self._job = self.session.engine.run("export", args, when_busy="wait")
                self.doing = name
            except InputError as error:
                self._left.clear()
                self.session.tell(str(error), "error")
        self.changed.emit()

    def _wants(self, holds: str) -> bool:
        return any(form.holds == holds for form in self.chosen)

    def _note(self, outcome: Outcome) -> None:
        self.outcomes = [*self.outcomes, outcome]
        self.changed.emit()

    def _note_lost(self) -> None:
        lost = self.session.engine.lost_job
        if lost is not None and lost.id == self._job:
            self._left.clear()
            self._note(Outcome(self.doing, problem="The engine ended during this export: export again."))
            self._next()

    def _forget(self) -> None:
        self.stop()
        self._job, self.doing, self.outcomes, self._target = "", "", [], None
        self.changed.emit()
