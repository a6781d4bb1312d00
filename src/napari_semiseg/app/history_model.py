"""The kept confidence maps of a run, one of which is looked at: the newest, an older one, or each in turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psygnal import Signal

if TYPE_CHECKING:
    from napari_semiseg.app.run_record import Preview
    from napari_semiseg.app.training_model import TrainingModel


class HistoryModel:
    """Which map is looked at.

    Parameters
    ----------
    training : TrainingModel

    Attributes
    ----------
    chosen_step : int or None
        Step of the map that somebody chose; None follows the newest.
    playing : bool
        Whether the maps are shown one after the other.
    """

    changed = Signal()

    def __init__(self, training: TrainingModel) -> None:
        self._training = training
        self.chosen_step: int | None = None
        self.playing = False
        training.previews_changed.connect(self.changed)
        training.run_changed.connect(self._forget)
        training.session.image_changed.connect(self.changed)

    @property
    def maps(self) -> list[Preview]:
        """Maps of the image in view, in order of steps; only those that show the same part as the newest."""
        kept = self._training.previews(self._training.session.image_index)
        return [preview for preview in kept if preview.box == kept[-1].box] if kept else []

    @property
    def position(self) -> int:
        """Number of the map that is looked at among `maps`, from 0; -1 without any."""
        maps = self.maps
        if self.chosen_step is None:
            return len(maps) - 1
        return max((index for index, preview in enumerate(maps) if preview.step <= self.chosen_step), default=0)

    @property
    def current(self) -> Preview | None:
        """The map that is looked at."""
        maps = self.maps
        return maps[self.position] if maps else None

    @property
    def words(self) -> str:
        """The step of the map that is looked at: "step 1,240"."""
        current = self.current
        return f"step {current.step:,}" if current else ""

    def choose(self, position: int) -> None:
        """Look at a map by its number; the last one follows the newest from then on."""
        self._choose(position)
        self.playing = False
        self.changed.emit()

    def toggle_play(self) -> None:
        """Show the maps one after the other, from the first if the last is looked at; or hold."""
        self.playing = not self.playing and len(self.maps) > 1
        if self.playing and self.position >= len(self.maps) - 1:
            self._choose(0)
        self.changed.emit()

    def advance(self) -> None:
        """Go on to the next map while playing; the last one ends it."""
        if not self.playing:
            return
        self._choose(self.position + 1)
        self.playing = self.chosen_step is not None
        self.changed.emit()

    def _choose(self, position: int) -> None:
        maps = self.maps
        self.chosen_step = maps[max(0, position)].step if position < len(maps) - 1 else None

    def _forget(self) -> None:
        self.chosen_step, self.playing = None, False
        self.changed.emit()
