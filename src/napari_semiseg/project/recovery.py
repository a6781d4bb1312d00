"""What was found on opening a project that was not closed as it should have been, and what was done about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from napari_semiseg.project.lock import Holder
from napari_semiseg.project.tile_annotation import TileAnnotation


@dataclass(frozen=True)
class Recovered:
    """A tile with strokes that only a journal held: they are all there.

    Attributes
    ----------
    tile : str
    strokes : int
    until : datetime
        When the last of them was written, in local time.
    earlier : TileAnnotation
        What was painted before them.
    before, now : int
        Nuclei before and with them.
    """

    tile: str
    strokes: int
    until: datetime
    earlier: TileAnnotation
    before: int
    now: int


@dataclass(frozen=True)
class Recovery:
    """What was found on opening. Nothing here needs an answer; a dialog shows it.

    Attributes
    ----------
    stopped : Holder or None
        The process that held the project and ended without closing it, or from which it was taken over.
    tiles : tuple of Recovered
        Tiles with strokes that were in a journal only.
    torn : mapping of str to int
        Bytes by tile at the end of a journal that could not be read: a stroke of the very last moment.
    damaged : tuple of str
        One sentence for each tile whose files cannot be read. The others are not concerned.
    leftovers : tuple of str
        Half-written files that were deleted, by their path inside the project.
    adopted : tuple of str
        Tiles that were annotated but not listed, and are now.
    missing_images : tuple of str
        Names of images whose file is not where it was.
    """

    stopped: Holder | None = None
    tiles: tuple[Recovered, ...] = ()
    torn: Mapping[str, int] = field(default_factory=dict)
    damaged: tuple[str, ...] = ()
    leftovers: tuple[str, ...] = ()
    adopted: tuple[str, ...] = ()
    missing_images: tuple[str, ...] = ()

    @property
    def strokes(self) -> dict[str, int]:
        """Strokes by tile that were in a journal only."""
        return {found.tile: found.strokes for found in self.tiles}

    @property
    def clean(self) -> bool:
        """Whether there is nothing to tell."""
        return not self.sentences()

    def sentences(self) -> list[str]:
        """Return what to tell the user, most important first, one plain sentence each."""
        said = list(self.damaged)
        said += [
            f"The last {count} bytes of the journal of tile {tile} could not be "
            "read, so look whether a stroke of the last moment is missing there."
            for tile, count in self.torn.items()
        ]
        if self.stopped is not None:
            said.append(
                "The project was not closed by the program that had it open "
                f"since {self.stopped.since:.40} (process {self.stopped.pid})."
            )
        if self.strokes:
            total = sum(self.strokes.values())
            said.append(
                f"{_count(total, 'stroke')} in {_count(len(self.strokes), 'tile')} ({', '.join(self.strokes)}) "
                f"{'was' if total == 1 else 'were'} brought back from the journal."
            )
        if self.adopted:
            said.append(f"Tiles that were painted but not listed are listed again: {', '.join(self.adopted)}.")
        if self.leftovers:
            said.append(f"{len(self.leftovers)} half-written files were deleted.")
        if self.missing_images:
            said.append(
                f"Not found where they were: {', '.join(self.missing_images)}; show where these images lie now."
            )
        return said


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
