"""A tile's layer: the numbers in it, the class of each, and the color of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from napari.layers import Labels, LayerLock

from napari_semiseg.app import corrections
from napari_semiseg.app.corrections import Correction
from napari_semiseg.app.painting import BACKGROUND_ID, FIRST_CLASS, is_proposed, next_id, proposed_numbers, to_layer
from napari_semiseg.app.session import Session
from napari_semiseg.plugin.layers import KEY, Placement
from napari_semiseg.plugin.nucleus_colors import tile_colormap
from napari_semiseg.plugin.pen import Pen
from napari_semiseg.project.schema import Tile
from napari_semiseg.project.tile_annotation import ACCEPTED_FROM, BACKGROUND, TileAnnotation

BRUSH = 8
COLORED_AHEAD = 32
"""Numbers that have their color before anything is painted with them."""


class PaintedTile:
    """What is painted in a tile.

    Parameters
    ----------
    session : Session
    pen : Pen
    tile : Tile
    annotation : TileAnnotation
        What it holds on disk.
    placement : Placement
        Of its image.

    Attributes
    ----------
    layer : Labels
    class_of : dict of int to int
        Number in the layer to class, as on disk; 0 for what is proposed without one.
    saved : array, (h, w), integer
        What was handed over for saving last.
    """

    def __init__(
        self, session: Session, pen: Pen, tile: Tile, annotation: TileAnnotation, placement: Placement
    ) -> None:
        self.session, self.pen = session, pen
        labels, self.class_of = to_layer(annotation)
        self.saved: np.ndarray = labels.copy()
        self.layer = _layer(labels, tile, str(session.project.path), placement)
        self._opacity: float | None = None  # what somebody chose for painting, while contours are opaque
        self._colored: dict[int, int] = {}  # number to class, as they are shown
        self._color()

    def number_at(self, position: Sequence[float]) -> int:
        """Return the number at a point of the world; 0 outside of the tile."""
        data = self.layer.data
        y, x = np.rint(self.layer.world_to_data(position)[-2:]).astype(int)
        return int(data[y, x]) if 0 <= y < data.shape[0] and 0 <= x < data.shape[1] else 0

    # ---- what is painted ----

    def take_number(self) -> None:
        """Paint a new nucleus from now on, or background."""
        if self.pen.kind == BACKGROUND:
            self.layer.selected_label = BACKGROUND_ID
            return
        number = next_id(self.layer.data, self.class_of, self.pen.kind)
        self.class_of[number] = self.pen.kind
        self._color()
        self.layer.selected_label = number

    def apply(self, correction: Correction | None, kind: int = 0) -> bool:
        """Write a correction into the layer, with one entry in its undo history; whether there was one.

        What is new in it is of the class `kind`, as on disk; 0 for the one that is painted with.
        """
        if correction is None or not self.layer.editable:
            return False
        kind = kind or self.pen.nucleus_kind
        class_of = {
            number: self.class_of.get(correction.heirs.get(number, 0), 0) or kind
            for number in np.unique(correction.numbers).tolist()
            if corrections.is_nucleus(number) and not is_proposed(number)  # which is what it was proposed as
        }
        correction, class_of = corrections.apart(correction, class_of, self.layer.data, self.class_of)
        self.class_of.update(class_of)
        self._color()
        self.layer.data_setitem(correction.where, correction.numbers.astype(self.layer.data.dtype))
        return True

    def reclass(self, number: int, kind: int) -> int:
        """Make a nucleus one of another class, and return its number, which is another one then."""
        correction = corrections.reclass(self.layer.data, number)
        if kind <= BACKGROUND or self.class_of.get(number) == kind or correction is None:
            return number
        self.apply(correction, kind)
        return int(self.layer.data[tuple(axis[0] for axis in correction.where)])

    def propose(self, labels: np.ndarray, kinds: Mapping[int, int]) -> int:
        """Put proposed nuclei into the layer with one entry in its undo history, and return how many.

        Parameters
        ----------
        labels : array, (h, w), integer
            Nuclei; 0 where nothing changes.
        kinds : mapping of int to int
            Class, as on disk, that one of them is proposed with. One that is not in it is proposed without.
        """
        where = np.nonzero(labels)
        ids, places = np.unique(labels[where], return_inverse=True)
        numbers = proposed_numbers(self.layer.data, ids.size)
        self.class_of |= {n: kinds.get(old, 0) for n, old in zip(numbers.tolist(), ids.tolist(), strict=True)}
        self._colored.clear()
        self.apply(Correction("draw", where, numbers[places]))
        return int(ids.size)

    def exchange(self, annotation: TileAnnotation) -> None:
        """Put another annotation in the place of what is painted; undo takes it back."""
        data = self.layer.data
        labels, class_of = to_layer(annotation)
        other = {number for number, kind in class_of.items() if self.class_of.get(number, kind) != kind}
        where = np.nonzero((labels != data) | np.isin(labels, [*other]))
        new, class_of = corrections.apart(
            Correction("redraw", where, labels[where].astype(np.int64)), class_of, data, self.class_of
        )
        self.class_of.update(class_of)
        self.recolor()
        if where[0].size:
            self.layer.data_setitem(where, new.numbers.astype(data.dtype))

    # ---- how it looks ----

    def show_opaque(self, opaque: bool) -> None:
        """Make the contours opaque, or give the layer back the opacity that it had."""
        if opaque and self._opacity is None:
            self._opacity, self.layer.opacity = float(self.layer.opacity), 1.0
        elif not opaque and self._opacity is not None:
            self.layer.opacity, self._opacity = self._opacity, None

    def recolor(self) -> None:
        """Color all nuclei anew: the colors of classes may have changed."""
        self._colored.clear()
        self._color()

    def _color(self) -> None:
        """Give every known number the color of its class, neighbors in different shades."""
        if self._colored and self.class_of.items() <= self._colored.items():
            return
        self._colored = self._ahead() | self.class_of
        colors = [spec.color for spec in self.session.project.classes]
        self.layer.colormap = tile_colormap(self._colored, colors)

    def _ahead(self) -> dict[int, int]:
        """Return the class of numbers to come: another table of colors takes napari longer than a stroke may wait."""
        if self.pen.kind < FIRST_CLASS:
            return {}
        first = next_id(self.layer.data, self.class_of, self.pen.kind)
        return dict.fromkeys(range(first, min(first + COLORED_AHEAD, ACCEPTED_FROM)), self.pen.kind)


def _layer(labels: np.ndarray, tile: Tile, project: str, placement: Placement) -> Any:
    layer = Labels(
        labels,
        name=f"Tile {tile.id}",
        metadata={KEY: {"role": "annotation", "project": project, "tile": tile.id, "image": tile.image}},
        opacity=0.6,
        **placement.at(tile.box.y0, tile.box.x0),
    )
    layer.brush_size = BRUSH
    layer.contour = 1
    layer.locked = LayerLock.DELETION
    return layer
