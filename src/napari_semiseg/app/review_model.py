"""The result of the image in view: predicted, split again with other sliders, and judged."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, Self

from psygnal import Signal

from napari_semiseg.app import words
from napari_semiseg.blocks import Box
from napari_semiseg.errors import InputError
from napari_semiseg.events import (
    BlockDone,
    Event,
    Failed,
    Finished,
    Paused,
    Progressed,
    Resumed,
    Started,
    Warned,
    Written,
)
from napari_semiseg.io.locate import stem
from napari_semiseg.io.result import Result
from napari_semiseg.io.result_card import result_state
from napari_semiseg.project.folder import ProjectFolder

if TYPE_CHECKING:
    from napari_semiseg.app.session import Session

State = Literal["idle", "waiting", "running", "paused", "stopping"]

FOCUS_S = 0.3
"""Seconds that the view must rest before a running prediction is told to go on there."""
REST_S = 0.8
"""Seconds that the sliders must rest before the whole result is split as they say."""
LIVE_SIDE = 2048
"""Side of the largest rectangle that is split while a slider moves, in pixels: of more, only the middle of the view."""
_LIVE_FILES = 4
_VIEW = "what is in view"
_BUSY = {"train": "The training is still running: segment when it is over, or stop it and keep the best."}


@dataclass(frozen=True)
class Split:
    """How nuclei are made of confidence.

    Attributes
    ----------
    threshold : float
        Confidence above which a pixel is nucleus, 0 to 1.
    strength : float
        How readily touching nuclei are parted: 0 never, 1 always.
    min_area : int or None
        Smallest nucleus, in pixels, for images whose pixel size is not known; None for what is usual.
    min_area_um2 : float or None
        The same in µm², for all other images.
    """

    threshold: float = 0.5
    strength: float = 0.5
    min_area: int | None = None
    min_area_um2: float | None = None

    @classmethod
    def of_result(cls, facts: Mapping[str, Any], mpp: float | None) -> Self:
        """Return how a result was split; it keeps the smallest nucleus in its own pixels, which are of `mpp` µm."""
        known = {name: facts[name] for name in ("threshold", "strength", "min_area") if name in facts}
        if mpp and "min_area" in known:
            known["min_area_um2"] = known.pop("min_area") * mpp**2
        return cls(**known)

    def args(self, mpp: float | None) -> dict[str, Any]:
        """Return the options of a request for an image whose pixels are of `mpp` µm; None where that is not known."""
        names = ("threshold", "strength", "min_area_um2" if mpp else "min_area")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


@dataclass(frozen=True)
class LiveNuclei:
    """Nuclei of a rectangle as the sliders stand: a ``.npy`` file, uint32 (h, w)."""

    path: Path
    box: Box
    nuclei: int


class ReviewModel:
    """What there is to review of the image in view. Used from one thread; holds neither Qt nor torch.

    Parameters
    ----------
    session : Session
    clock : callable
        Seconds, monotonic.

    Attributes
    ----------
    split : Split
        How the sliders stand.
    state : State
        Of the prediction.
    result : Path or None
        The result of the image in view.
    mpp : float or None
        Size of its pixels, in µm; None where that is not known.
    run : str
        Name of the run that it was made with; "" where that is not known.
    nuclei : int
        Nuclei in all of it.
    gaps : bool
        Whether parts of the image could not be read, so that their nuclei are missing.
    live : LiveNuclei or None
        What is in view as the sliders stand, while `result` is not yet split so.
    applying : bool
        Whether the whole result is being split.
    only_in_view : bool
        Whether a slider was moved in a project that is open read-only: what is in view follows, the result does not.
    growing : Path or None
        The result that is being written, once something of it can be looked at; None while another image is in view.
    table : Path or None
        The measured nuclei of the result, as Parquet.
    measuring : bool
        Whether that table is being made.
    """

    changed = Signal()
    split_changed = Signal()
    result_changed = Signal()
    """There is another result, or it has other nuclei."""
    live_changed = Signal()
    table_changed = Signal()
    """The nuclei were measured, or what was measured no longer holds."""
    grown = Signal()
    """More of `growing` is on the disk."""

    def __init__(self, session: Session, clock: Callable[[], float] = time.monotonic) -> None:
        self.session = session
        self.split = Split()
        self.state: State = "idle"
        self.result: Path | None = None
        self.mpp: float | None = None
        self.run = ""
        self.nuclei = 0
        self.gaps = False
        self.live: LiveNuclei | None = None
        self.applying = self.only_in_view = False
        self.growing: Path | None = None
        self.table: Path | None = None
        self.measuring = False
        self.done = self.total = 0
        self.rate = self.eta_s = math.nan
        self._clock = clock
        self._job = self._split_job = self._table_job = ""
        self._out: Path | None = None
        self._image: int | None = None  # that is being segmented
        self._moved_at: float | None = None
        self._later: dict[Path, Split] = {}  # how results that are no longer looked at are yet to be split
        self._splitting: tuple[Path, Split] | None = None  # the result that is being split as a whole, and how
        self._viewed_at: float | None = None
        self._count = 0
        self._elsewhere: TemporaryDirectory[str] | None = None  # for what is in view of a project that is read only
        session.image_changed.connect(self.look)
        session.visible_changed.connect(self._note_view)
        session.project.closed.connect(self._forget)
        session.training.changed.connect(self.changed)
        session.engine.events["job"].connect(self._on_engine)
        session.engine.events["lost_job"].connect(self._note_lost)

    # ---- what is asked for ----

    @property
    def why_not(self) -> str:
        """Why nothing can be segmented, in words; "" if it can."""
        session = self.session
        if session.project.folder is None or session.image_index is None:
            return "Begin with step 1: there is no image of a project in view."
        if session.project.read_only:
            return "The project is open read-only, so nothing can be segmented in it."
        if self.active:
            return "This segmentation is running."
        if session.training.active:
            return _BUSY["train"]
        if session.training.run is None:
            return "Train first (step 3): there is nothing to segment with yet."
        if any(job.verb == "export" for job in session.engine.jobs):
            return "An export is still running: wait for its end."
        return ""

    @property
    def run_path(self) -> Path | None:
        """Folder of the run that the result was made with; None where that is not known or not there any longer."""
        folder = self.session.project.folder
        path = folder.runs_dir / self.run if folder is not None and self.run else None
        return path if path is not None and (path / "run.json").is_file() else None

    @property
    def active(self) -> bool:
        """Whether a prediction runs or is about to."""
        return self.state != "idle"

    def request_predict(self, run: Path | None = None) -> None:
        """Segment the image in view with a run, by default the newest. Does nothing where `why_not` says why."""
        project, index = self.session.project, self.session.image_index
        folder, run = project.folder, run or self.session.training.run
        if self.why_not or folder is None or index is None or run is None:
            return
        try:
            out = folder.prediction_path(index)
            args: dict[str, Any] = {"run": str(run), "images": [folder.source_path(index)], "out": str(out)}
            mpp = project.images[index].mpp
            args |= {**self.split.args(mpp), "overwrite": True, "gaps": True} | ({"mpp": mpp} if mpp else {})
            if (device := self.session.training.setup.device) != "auto":
                args["device"] = device
            self._job = self.session.engine.run("predict", args, when_busy="wait")
        except InputError as error:
            self.session.tell(str(error), "error")
            return
        self.done = self.total = 0
        self.rate = self.eta_s = math.nan
        self._moved_at = None
        self._take_up(out)
        self._out, self._image = out, index
        self._set("waiting")

    @property
    def smallest(self) -> float | None:
        """Smallest nucleus of the result, in µm² where its pixel size is known, else in pixels; None where unknown."""
        return self.split.min_area_um2 if self.mpp else self.split.min_area

    def set_smallest(self, area: float) -> None:
        """Move the slider of the smallest nucleus: in µm² where the pixel size is known, else in pixels."""
        if self.mpp:
            self.set_split(min_area_um2=area)
        else:
            self.set_split(min_area=round(area))

    def set_split(self, **values: float | int | None) -> None:
        """Move a slider: a field of `Split`. What is in view is split again at once."""
        split = Split(**{**vars(self.split), **values})
        if split == self.split:
            return
        self.split = split
        self.split_changed.emit()
        if self.result is not None and not self.active:
            if self.session.project.read_only:
                self.only_in_view = True
            else:
                self._moved_at = self._clock()
            self._split_view()
            self.changed.emit()

    @property
    def why_not_measure(self) -> str:
        """Why nothing can be measured, in words; "" if it can."""
        if self.result is None or self.active:
            return "Segment first: there are no nuclei to measure yet."
        if self.session.project.read_only:
            return "The project is open read-only, so no table can be written into it."
        if self.pending or self.measuring:
            return "The nuclei are still being made or measured."
        job = self.session.engine.job
        return "" if job is None else "The engine is at work: measure when it has ended."

    def measure(self) -> None:
        """Measure all nuclei of the result, into a table beside it. Does nothing where `why_not_measure` says why."""
        if self.why_not_measure or self.result is None:
            return
        out = str(_table_of(self.result))
        args = {"source": str(self.result), "to": "parquet", "out": out, "overwrite": True}
        try:
            self._table_job = self.session.engine.run("export", args)
        except InputError as error:
            self.session.tell(str(error), "error")
            return
        self.measuring = True
        self.changed.emit()

    def pause(self) -> None:
        """Hold, or go on if it holds."""
        if self.state == "running":
            self.session.engine.pause()
        elif self.state == "paused":
            self.session.engine.resume()

    def stop(self) -> None:
        """End; what was predicted stays, and asking again goes on from there."""
        if self.active:
            self._set("stopping")
            self.session.engine.stop(self._job)

    def look(self) -> None:
        """Find the result of the image in view, in the background."""
        self._drop_live()
        self.session.drop_errands("split", _VIEW)
        folder, index = self.session.project.folder, self.session.image_index
        path = None if folder is None or index is None else folder.prediction_path(index)
        if path != self.result:  # else it was written anew, and the sliders begin with what it says
            self._split_later()
        self._moved_at, self.only_in_view = None, False
        if self.growing is not None:  # and another image may be in view
            self._grow()
        if path is None:
            self._take(None)
            return
        splitting = self._splitting

        def work() -> Result | None:
            return Result.open(path) if result_state(path) == "complete" else None

        def end(then: Callable[[Any], object], found: Any) -> None:
            if (self.session.project.folder, self.session.image_index) != (folder, index):
                return
            if splitting != self._splitting:  # it may have been split while it was read
                self.look()
            else:
                then(found)

        self.session.background.submit(work, partial(end, self._take), partial(end, self._fail))

    def tick(self) -> None:
        """Tell the engine where one looks, and have the result split once the sliders rest.

        Called a few times a second.
        """
        self._tell_view()
        rests = self._moved_at is not None and self._clock() - self._moved_at >= REST_S
        if not rests or self.result is None or self.session.engine.job is not None:
            return
        self._moved_at = None
        args = {"source": str(self.result), "apply": True, **self.split.args(self.mpp)}
        try:
            self._split_job = self.session.engine.run("split", args)
        except InputError as error:
            self.session.tell(str(error), "error")
            return
        self.applying = True
        self._splitting = self.result, self.split
        self.changed.emit()

    # ---- what is heard ----

    def receive(self, job: str, event: Event) -> None:
        """Take note of an event of the engine."""
        if job and job == self._job:
            self._note_prediction(event)
        elif job and job == self._table_job:
            self._note_table(event)
        elif job and job == self._split_job:
            self._note_split(event)

    @property
    def pending(self) -> bool:
        """Whether the result on the disk is not yet what the sliders say."""
        return self._moved_at is not None or self.applying

    @property
    def share_done(self) -> float:
        """How much of the prediction is done, 0 to 1."""
        return min(1.0, self.done / self.total) if self.total else 0.0

    @property
    def time_words(self) -> str:
        """How the prediction stands."""
        match self.state:
            case "idle":
                return ""
            case "waiting":
                return self.session.engine.start_words(self._job)
            case "paused":
                return "paused"
            case "stopping":
                return "ending after this block"
        left = words.clock(self.eta_s)
        parts = [f"{left} left" if left else "", words.rate(self.rate, "block")]
        return " · ".join(part for part in parts if part) or "reading the image"

    @property
    def count_words(self) -> str:
        """How many nuclei there are: "1,240 nuclei", or "37 nuclei in view" while the sliders move."""
        if self.live is not None:
            view = self.session.visible_box
            whole = view is None or max(view.shape) <= LIVE_SIDE
            where = "in view" if whole else "in the middle of the view"
            return f"{words.count(self.live.nuclei, 'nucleus', 'nuclei')} {where}"
        if self.result is None:
            return ""
        return words.count(self.nuclei, "nucleus", "nuclei") + (", with gaps" if self.gaps else "")

    @property
    def wait_words(self) -> str:
        """What the result waits for before all of it is as the sliders say; "" for nothing."""
        if self.only_in_view:
            return "The project is open read-only: what is in view follows the sliders, the saved result stays."
        waits = self.session.wait_words if self._moved_at is not None else ""
        return waits and f"The saved result {waits}"

    # ---- inner ----

    def _note_prediction(self, event: Event) -> None:
        match event:
            case Started(_, _, total, _):
                self.total = total
                self._viewed_at = -math.inf
                self._set("stopping" if self.state == "stopping" else "running")
            case BlockDone(_, _, done, total, rate, eta_s):
                self.done, self.total, self.rate, self.eta_s = done, total, rate, eta_s
                self._grow()
                self.changed.emit()
            case Progressed(_, done, total, rate, eta_s):
                self.done, self.total, self.rate, self.eta_s = done, total, rate, eta_s
                self.grown.emit()
                self.changed.emit()
            case Paused():
                self._set("paused")
            case Resumed():
                self._set("running")
            case Warned(message):
                self.session.tell(message, "warning")
            case Finished() | Failed():
                self._end_prediction()

    def _end_prediction(self) -> None:
        """Look at what was written, if its image is in view: the sliders of another one stay as they are."""
        here = self._here
        self._job, self.state = "", "idle"
        self._grow_no_more()
        if here:
            self.look()
        self.changed.emit()

    def _note_table(self, event: Event) -> None:
        match event:
            case Written("parquet", path, _) if self.result is not None and Path(path) == _table_of(self.result):
                self.table = Path(path)
                self.table_changed.emit()
            case Warned(message):
                self.session.tell(message, "warning")
            case Finished() | Failed():
                self._table_job = ""
                self.measuring = False
                self.changed.emit()

    def _drop_table(self) -> None:
        if self.table is not None:
            self.table = None
            self.table_changed.emit()

    def _note_view(self) -> None:
        self._viewed_at = self._clock()

    def _tell_view(self) -> None:
        box = self.session.visible_box
        if self._viewed_at is None or self._clock() - self._viewed_at < FOCUS_S:
            return
        if self.state in ("running", "paused") and self._here and box is not None and box.area:
            self.session.engine.focus(0, (box.y0, box.x0, box.y1, box.x1))  # its only image
        if self.only_in_view:
            self._split_view()
        self._viewed_at = None

    @property
    def _here(self) -> bool:
        """Whether the prediction is that of the image in view."""
        return self._out is not None and self.session.image_index == self._image

    def _grow(self) -> None:
        """Let what is being written be looked at, as long as its image is in view."""
        self.growing = self._out if self._here else None
        self.grown.emit()

    def _grow_no_more(self) -> None:
        self._out = None
        if self.growing is not None:
            self.growing = None
            self.grown.emit()

    def _note_split(self, event: Event) -> None:
        match event:
            case Written("ome-zarr", path, facts) if self.result is not None and Path(path) == self.result:
                self.nuclei = int(facts.get("nuclei", 0))
            case Warned(message):
                self.session.tell(message, "warning")
            case Finished():
                self._applied()
            case Failed():
                self._not_applied()

    def _note_view_split(self, source: Path, event: Event) -> None:
        match event:
            case Written("nuclei", path, facts) if source == self.result and (self.pending or self.only_in_view):
                self.live = LiveNuclei(Path(path), Box(*facts["box"]), int(facts.get("nuclei", 0)))
                self.live_changed.emit()
                self.changed.emit()
            case Warned(message):
                self.session.tell(message, "warning")

    def _split_later(self) -> None:
        """Have a result split as the sliders were left, once the engine is free: another image may be in view."""
        if self._moved_at is None or self.result is None:
            return
        self._later[self.result] = self.split
        if self.session.project.folder is None:  # it is being closed: see `_forget`
            return
        args = {"source": str(self.result), "apply": True, **self.split.args(self.mpp)}
        listen = partial(self._note_later_split, self.result)
        self.session.ask("split", args, listen, purpose=str(self.result))

    def _take_up(self, path: Path) -> Split | None:
        """Return how a result is yet to be split, and see to it no longer."""
        self.session.drop_errands("split", str(path))
        return self._later.pop(path, None)

    def _note_later_split(self, source: Path, event: Event) -> None:
        match event:
            case Warned(message):
                self.session.tell(message, "warning")
            case Failed(message):
                self.session.tell(message, "error")
        if isinstance(event, Finished | Failed):
            self._later.pop(source, None)

    def _not_applied(self) -> None:
        """Let the sliders stand where the saved result has them, unless they were moved since."""
        self._split_job, self._splitting = "", None
        self.applying = False
        if self._moved_at is None:
            self.look()
        self.changed.emit()

    def _applied(self) -> None:
        self._split_job, self._splitting = "", None
        self.applying = False
        self._drop_table()
        if self._moved_at is None:
            self._drop_live()
        self.result_changed.emit()
        self.changed.emit()

    def _split_view(self) -> None:
        folder, box = self.session.project.folder, self.session.visible_box
        if folder is None or self.result is None or box is None or not box.area:
            return
        box = box.middle(LIVE_SIDE)
        self._count += 1
        out = self._place_for_views(folder) / f".split-{self._count % _LIVE_FILES}.npy"
        args = {"source": str(self.result), "out": str(out), "box": [box.y0, box.x0, box.y1, box.x1]}
        args |= self.split.args(self.mpp)
        self.session.ask("split", args, partial(self._note_view_split, self.result), purpose=_VIEW)

    def _place_for_views(self, folder: ProjectFolder) -> Path:
        """Return where what is in view may be written: not into a project that is only read."""
        if not self.session.project.read_only:
            return folder.predictions_dir
        if self._elsewhere is None:
            self._elsewhere = TemporaryDirectory(prefix="napari-semiseg-", ignore_cleanup_errors=True)
        return Path(self._elsewhere.name)

    def _take(self, found: Result | None) -> None:
        facts: Mapping[str, Any] = found.card.facts if found else {}
        self.result, self.mpp = (found.path, found.mpp) if found else (None, None)
        self.run = Path(str(facts.get("run", ""))).name
        self._drop_table()
        self.nuclei, self.gaps = int(facts.get("nuclei", 0)), bool(facts.get("gaps"))
        if found is not None:
            self.split = Split.of_result(facts["split"], self.mpp) if facts.get("split") else self.split
            left = self._take_up(found.path)
            if left is not None:
                self.split, self._moved_at = left, self._clock()
            elif self._splitting is not None and self._splitting[0] == found.path:
                self.split = self._splitting[1]
            self.split_changed.emit()
        self.result_changed.emit()
        self.changed.emit()

    def _drop_live(self) -> None:
        if self.live is not None:
            self.live = None
            self.live_changed.emit()

    def _forget(self) -> None:
        if self.active:
            self.session.engine.stop(self._job)
        self.session.drop_errands("split", _VIEW)
        self._forget_sliders()
        self._job = self._split_job = self._table_job = ""
        self._splitting = None
        self._moved_at, self.applying, self.measuring, self.only_in_view = None, False, False, False
        self.state = "idle"
        if self._elsewhere is not None:
            self._elsewhere.cleanup()
            self._elsewhere = None
        self._grow_no_more()
        self._drop_live()
        self._take(None)

    def _forget_sliders(self) -> None:
        """Say which results are not as their sliders were left, and wait for none of them any longer."""
        left = list(self._later)
        for path in left:
            self._take_up(path)
        if left:
            whose = f"“{stem(left[0])[:80]}”" if len(left) == 1 else f"{len(left)} images"
            self.session.tell(
                f"The project was closed before the saved result of {whose} followed the sliders: "
                "move them again when it is open.",
                "warning",
            )

    def _note_lost(self) -> None:
        lost = self.session.engine.lost_job
        if lost is None:
            return
        if lost.id == self._job:
            self._end_prediction()
        elif lost.id == self._table_job:
            self._table_job = ""
            self.measuring = False
            self.changed.emit()
        elif lost.id == self._split_job:
            self._not_applied()

    def _fail(self, error: Exception) -> None:
        if not isinstance(error, InputError):
            raise error
        self._take(None)
        self.session.tell(str(error), "error")

    def _on_engine(self) -> None:
        self.changed.emit()

    def _set(self, state: State) -> None:
        self.state = state
        self.changed.emit()


def _table_of(result: Path) -> Path:
    """Return where the measured nuclei of a result lie."""
    return result.with_name(result.name.removesuffix(".ome.zarr") + ".nuclei.parquet")
