"""The nuclei of each kept confidence map of a run, to be seen beside it: how they came about over its history."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_semiseg.app.review_model import Split
from napari_semiseg.app.run_record import Preview
from napari_semiseg.app.words import count
from napari_semiseg.events import Event, Failed, Written

if TYPE_CHECKING:
    from napari_semiseg.app.session import Session

KEPT = 80
"""Maps whose nuclei are remembered, so that playing them again waits for nothing."""


@dataclass(frozen=True)
class NucleiOfMap:
    """The nuclei of a map, uint32 of its shape, as the sliders stood."""

    preview: Preview
    split: Split
    labels: NDArray[np.uint32]


class HistoryNuclei:
    """Has the nuclei found of the map that the history points at, as the sliders stand.

    Attributes
    ----------
    on : bool
        Whether somebody wants to see them.
    found : NucleiOfMap or None
        Those of the map that is looked at, or of the one before while they are being found.
    """

    changed = Signal()

    def __init__(self, session: Session) -> None:
        self.session = session
        self.history = session.training.history
        self.on = False
        self.found: NucleiOfMap | None = None
        self._known: dict[tuple[Preview, Split], NucleiOfMap] = {}
        self._asked: tuple[Preview, Split] | None = None
        self._count = 0
        self.history.changed.connect(self._look)
        session.review.split_changed.connect(self._look)
        session.training.run_changed.connect(self._forget)
        session.image_changed.connect(self._forget)

    @property
    def why_not(self) -> str:
        """Why nothing can be shown, in words; "" if something can."""
        if self.session.project.read_only:
            return "The project is open read-only, so no nuclei can be found in it."
        if not self.history.maps:
            return "No map of this image was kept: train with this image in view."
        return ""

    @property
    def words(self) -> str:
        """What is seen: "step 1,240 · 412 nuclei"."""
        current = self.history.current
        if not self.on or current is None:
            return ""
        if self.found is None or (self.found.preview, self.found.split) != self._wanted:
            return f"{self.history.words} · {self.session.waits('split', purpose='history') or 'finding nuclei…'}"
        return f"{self.history.words} · {count(len(np.unique(self.found.labels)) - 1, 'nucleus', 'nuclei')}"

    def switch(self, on: bool) -> None:
        """Begin to show nuclei beside the maps, or end it."""
        on = on and not self.why_not
        if on == self.on:
            self.changed.emit()
            return
        self.on = on
        if not on:
            self.found = self._asked = None
            self.changed.emit()
        else:
            self._look()

    def end(self) -> None:
        """Hear nothing more."""
        self.on = False
        self.history.changed.disconnect(self._look, missing_ok=True)
        self.session.review.split_changed.disconnect(self._look, missing_ok=True)
        self.session.training.run_changed.disconnect(self._forget, missing_ok=True)
        self.session.image_changed.disconnect(self._forget, missing_ok=True)

    @property
    def _wanted(self) -> tuple[Preview, Split] | None:
        current = self.history.current
        return None if current is None else (current, self.session.review.split)

    def _look(self) -> None:
        wanted = self._wanted
        if self.on and wanted is not None:
            known = self._known.get(wanted)
            if known is not None:
                self.found = known
            elif wanted != self._asked:
                self._ask(wanted)
        self.changed.emit()

    def _ask(self, wanted: tuple[Preview, Split]) -> None:
        folder, index = self.session.project.folder, self.session.image_index
        if folder is None or index is None:
            return
        preview, split = wanted
        self._asked = wanted
        self._count += 1
        mpp = self.session.project.images[index].mpp
        args: dict[str, Any] = {"source": str(preview.path), **split.args(mpp)}
        args["out"] = str(folder.predictions_dir / f".history-{self._count % 4}.npy")
        if "min_area" in args:  # in pixels of the image
            args["min_area"] = max(1, round(args["min_area"] / preview.downsample**2))
        if mpp:
            args["mpp"] = mpp * preview.downsample
        self.session.ask("split", args, partial(self._hear, wanted), purpose="history")

    def _hear(self, wanted: tuple[Preview, Split], event: Event) -> None:
        match event:
            case Written("nuclei", path, _):
                read = partial(np.load, path, allow_pickle=False)
                self.session.background.submit(read, partial(self._take, wanted), self._fail)
            case Failed():
                self.switch(False)

    def _take(self, wanted: tuple[Preview, Split], labels: NDArray[np.uint32]) -> None:
        while len(self._known) >= KEPT:
            del self._known[next(iter(self._known))]
        self._known[wanted] = NucleiOfMap(*wanted, labels)
        if self.on:
            self.found = self._known[wanted]
            self._look()

    def _fail(self, error: Exception) -> None:
        self._asked = None  # what was written has been replaced: the next look asks again

    def _forget(self) -> None:
        self._known.clear()
        self.switch(False)
