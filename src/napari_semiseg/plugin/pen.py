"""What is painted with."""

from __future__ import annotations

from dataclasses import dataclass

from napari_semiseg.app.painting import FIRST_CLASS
from napari_semiseg.project.tile_annotation import BACKGROUND


@dataclass
class Pen:
    """Paints nuclei of a class, or background.

    Attributes
    ----------
    kind : int
        Class, as on disk, of what is painted; `BACKGROUND` for background.
    nucleus_kind : int
        Class of the nuclei that were painted last.
    """

    kind: int = FIRST_CLASS
    nucleus_kind: int = FIRST_CLASS

    def take(self, kind: int) -> None:
        """Paint nuclei of a class from now on, or background."""
        self.kind = kind
        if kind > BACKGROUND:
            self.nucleus_kind = kind
