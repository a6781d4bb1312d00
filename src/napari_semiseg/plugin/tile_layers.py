"""The layers that a person paints in: one small labels layer per tile, saved as it is painted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from napari.layers import Labels, LayerLock
from psygnal import Signal

from napari_semiseg.app import corrections
from napari_semiseg.app.corrections import Correction
from napari_semiseg.app.session import Session
from napari_semiseg.blocks import Box
from napari_semiseg.errors import InputError
from napari_semiseg.plugin.brush import Brush
from napari_semiseg.plugin.layers import Placement, insert, put, role, tag
from napari_semiseg.plugin.painted_tile import PaintedTile
from napari_semiseg.plugin.pen import Pen
from napari_semiseg.plugin.tile_frames import TileFrames
from napari_semiseg.plugin.tiles_in_view import TilesInView
from napari_semiseg.project.schema import Tile
from napari_semiseg.project.tile_annotation import BACKGROUND, TileAnnotation


class TileLayers:
    """Keeps one labels layer for each tile of the image in view.

    Painting is saved by comparing layers with what was saved last, whatever changed them. While nuclei are corrected,
    the mouse makes gestures (`plugin/corrector.py`) in the place of strokes (`plugin/brush.py`).

    Parameters
    ----------
    session : Session
    viewer : napari viewer

    Attributes
    ----------
    pen : Pen
        What is painted with; `choose_pen` takes another one.
    """

    pen_changed = Signal()
    correcting_changed = Signal()
    added = Signal(object)
    """A tile that can be painted in has a layer."""

    def __init__(self, session: Session, viewer: Any) -> None:
        self.session = session
        self.viewer = viewer
        self.in_view = TilesInView(session, viewer, self._insert)
        self.frames = TileFrames(session, viewer)
        self.placement: Placement | None = None
        self.pen = Pen()
        self.brush = Brush(self.pen, lambda layer: self._tiles.get(str(tag(layer).get("tile"))))
        self._correcting = False
        self.order: Callable[[], list[str]] = list  # in which tiles are gone through, where somebody sorted them
        self._tiles: dict[str, PaintedTile] = {}
        self._loading: set[str] = set()
        self._unreadable: set[str] = set()  # tiles of which that was said
        self._lost: list[Any] = []
        self._removing = self._adding = False
        self._ended = False
        project = session.project
        project.tiles_changed.connect(self._arrange)
        project.classes_changed.connect(self._follow_classes)
        project.selected_changed.connect(self._select)
        project.closing.connect(self.tick)
        project.closed.connect(self.clear)
        viewer.layers.events.removed.connect(self._on_removed)
        viewer.layers.selection.events.active.connect(self._on_active)

    # ---- what the panels ask for ----

    def show(self, placement: Placement | None) -> None:
        """Show the tiles of the image in view, which lies there."""
        moved = placement is not None and not placement.same(self.placement)
        self.placement = placement
        if moved or placement is None:
            self.in_view.lie_at(placement)
        if self._tiles and moved:  # every layer that is added or chosen asks: with many tiles moving all is slow
            self._move()
        self._arrange()

    def painted(self, tile_id: str) -> PaintedTile | None:
        """Return what is painted in a tile, if it is one of the image in view and was read already."""
        return self._tiles.get(tile_id)

    def layer(self, tile_id: str) -> Labels | None:
        """Return a tile's layer."""
        painted = self._tiles.get(tile_id)
        return painted.layer if painted else None

    def annotation_of(self, tile_id: str) -> tuple[np.ndarray, dict[int, int]] | None:
        """Return what is painted in a tile now, and the classes of its nuclei: not to be changed."""
        painted = self._tiles.get(tile_id)
        return (painted.layer.data, painted.class_of) if painted else None

    @property
    def correcting(self) -> bool:
        """Whether the mouse makes gestures that correct nuclei."""
        return self._correcting

    def correct(self, on: bool) -> None:
        """Begin to correct nuclei by gestures, or paint again."""
        if on == self._correcting:
            return
        self._correcting = on
        painted = self._tiles.get(self.session.project.selected)
        if painted and painted.layer.editable:
            self._make_ready(painted)
        self.correcting_changed.emit()

    def apply(self, tile_id: str, correction: Correction | None, kind: int = 0) -> bool:
        """Write a correction into a tile's layer, with one entry in its undo history; whether there was one.

        What is new in it is of the class `kind`, as on disk; 0 for the one that is painted with.
        """
        painted = self._tiles.get(tile_id)
        return painted is not None and painted.apply(correction, kind)

    def decide(
        self, tile_id: str, box: Box, mask: np.ndarray, accepted: bool, kind: int = 0
    ) -> Callable[[], None] | None:
        """Write a word on a nucleus of the result into a tile; see `corrections.decide`.

        Parameters
        ----------
        tile_id : str
        box : Box
            In pixels of the tile; may reach outside.
        mask : array, (h, w) of `box`, bool
        accepted : bool
        kind : int
            Its class, as on disk, if it is one; 0 for the one that is painted with.

        Returns
        -------
        callable or None
            What takes the word back, wherever nothing was painted since; None where nothing was written.

        Raises
        ------
        InputError
            If the tile was not read yet, or cannot be.
        """
        painted = self._tiles.get(tile_id)
        if painted is None:
            raise InputError(
                f"Your word is not written, since tile {tile_id} around that nucleus is not read yet, or cannot be: "
                "go back to the nucleus (◂) and say it again."
            )
        inside = box.intersect(Box.whole(painted.layer.data.shape))
        whole = np.zeros(painted.layer.data.shape, bool)
        whole[inside.slices] = mask[inside.shifted(-box.y0, -box.x0).slices]
        word = corrections.decide(painted.layer.data, whole, accepted)
        before = word and word.reversed(painted.layer.data)
        if word is None or before is None or not painted.apply(word, kind):
            return None

        def take_back() -> None:
            now = self._tiles.get(tile_id)
            if now is not None:
                now.apply(before.only(now.layer.data[word.where] == word.numbers))

        return take_back

    def make_ready(self, tile_id: str) -> None:
        """Give a tile's layer the brush, or the gestures, also where it was chosen before and another layer since.

        Its eye is opened; another of napari's tools that was taken up in it stays.
        """
        painted = self._tiles.get(tile_id)
        if painted is None:
            return
        layer, active = painted.layer, self.viewer.layers.selection.active
        calm = layer.mode == "pan_zoom" and not self._correcting and not self.session.project.read_only
        if active is None or active != layer or not layer.visible or calm:
            self._select(tile_id)

    def step_to(self, by: int) -> str:
        """Select the next tile of the image in view, or with -1 the one before; return its id."""
        project, ids = self.session.project, self._in_order()
        if not ids:
            return ""
        place = ids.index(project.selected) + by if project.selected in ids else 0
        project.select(ids[place % len(ids)])
        return project.selected

    def _in_order(self) -> list[str]:
        image = self.session.image_index
        return self.order() or [tile.id for tile in self.session.project.tiles if tile.image == image]

    def _next_to_selected(self) -> list[str]:
        ids, selected = self._in_order(), self.session.project.selected
        if selected not in ids:
            return []
        place = ids.index(selected)
        return [ids[(place + by) % len(ids)] for by in (1, -1)]

    def choose_pen(self, kind: int) -> None:
        """Paint nuclei of a class from now on, or background; a nucleus that is picked gets that class."""
        self.pen.take(kind)
        self.correct(False)
        painted = self._tiles.get(self.session.project.selected)
        if painted:
            if painted.layer.mode == "pick":
                painted.layer.selected_label = painted.reclass(int(painted.layer.selected_label), kind)
            else:
                if painted.layer.mode == "pan_zoom":
                    painted.layer.mode = "paint"
                painted.take_number()
        self.pen_changed.emit()

    def swap_background(self) -> None:
        """Paint background from now on, or again nuclei of the class that was painted before."""
        self.choose_pen(self.pen.nucleus_kind if self.pen.kind == BACKGROUND else BACKGROUND)

    def next_nucleus(self) -> None:
        """Begin a new nucleus with the next stroke, wherever that begins."""
        self.brush.next_nucleus(self._tiles.get(self.session.project.selected))

    def tick(self) -> None:
        """Hand over what changed since the last call. The dock calls it about once a second."""
        if self.session.project.read_only:
            return
        for tile_id, painted in self._tiles.items():
            self._submit(tile_id, painted)

    def _submit(self, tile_id: str, painted: PaintedTile) -> None:
        data = self._sound_data(tile_id, painted)
        if not np.array_equal(data, painted.saved):
            painted.saved = np.array(data)
            self.session.project.submit(tile_id, painted.saved, dict(painted.class_of))

    def settle(self) -> None:
        """Draw the tiles that have come into view, and no longer those that have left it. The dock calls it often."""
        self.in_view.settle(
            {tile_id: painted.layer for tile_id, painted in self._tiles.items()}, self._next_to_selected
        )

    def clear(self) -> None:
        """Take our layers out of the viewer."""
        self._remove([painted.layer for painted in self._tiles.values()])
        self._tiles.clear()
        self._loading.clear()
        self._unreadable.clear()
        if self.frames.layer is not None:
            self._remove([self.frames.layer])
        self.frames.forget()

    def end(self) -> None:
        """Let go of the viewer. Where it lives on, `clear` comes first: nobody saves what is painted from now on."""
        self._ended = True
        self.viewer.layers.events.removed.disconnect(self._on_removed)
        self.viewer.layers.selection.events.active.disconnect(self._on_active)
        self._tiles.clear()
        self._lost.clear()
        self.frames.forget()

    # ---- layers follow the project ----

    def _arrange(self) -> None:
        if self.placement is None or self._ended:
            return
        image = self.session.image_index
        tiles = {tile.id: tile for tile in self.session.project.tiles if tile.image == image}
        self.in_view.look_again()
        for tile_id in [tile_id for tile_id in self._tiles if tile_id not in tiles]:
            painted = self._tiles.pop(tile_id, None)
            if painted is None:  # to take out the layer before it made another one active, which had us arrange them
                continue
            if self.session.project.tile(tile_id) and not self.session.project.read_only:  # it is of another image
                self._submit(tile_id, painted)
            self._remove([painted.layer])
        for tile in tiles.values():
            if tile.id not in self._tiles and tile.id not in self._loading:
                self._load(tile)
        self.frames.show(self.placement)

    def _load(self, tile: Tile) -> None:
        """Read a tile in the background, but make a new one at once."""
        project = self.session.project
        folder = project.folder
        if tile.status == "empty" and project.painted.get(tile.id) is False:
            self._add(tile, TileAnnotation.empty(tile.box.shape))
            return
        self._loading.add(tile.id)

        def done(annotation: TileAnnotation) -> None:
            now = project.tile(tile.id)
            if project.folder is folder and now and now.image == self.session.image_index:
                project.note_annotation(tile.id, annotation)  # which has us arrange the tiles, this one not yet
                if tile.id not in self._tiles:
                    self._add(now, annotation)
            self._loading.discard(tile.id)
            self._unreadable.discard(tile.id)

        def failed(error: Exception) -> None:
            self._loading.discard(tile.id)
            if project.folder is folder and tile.id not in self._unreadable:  # it is tried again with every change
                self._unreadable.add(tile.id)
                self.session.tell(str(error), "error")

        self.session.background.submit(lambda: project.newest_annotation(tile.id), done, failed)

    def _add(self, tile: Tile, annotation: TileAnnotation) -> None:
        project = self.session.project
        painted = self._tiles[tile.id] = PaintedTile(self.session, self.pen, tile, annotation, self.placement)
        layer = painted.layer
        self.in_view.watch(layer)
        if self.in_view.shows(tile):
            self._insert(layer)
        if project.read_only:
            layer.editable = False
        else:
            self.brush.watch(layer)
            layer.events.mode.connect(self._on_mode)
            self.added.emit(layer)
        if tile.id == project.selected:
            self._select(tile.id)

    def _insert(self, layer: Labels) -> None:
        self._adding = True  # a new layer is the active one for a moment: nobody has chosen its tile by that
        try:
            insert(self.viewer, layer)
        finally:
            self._adding = False

    def _select(self, tile_id: str) -> None:
        """Make one layer ready for the brush, and the others calm; undo histories stay."""
        for other, painted in self._tiles.items():
            if other != tile_id:
                _give(painted.layer, contour=1)
                painted.show_opaque(False)
                if painted.layer.editable:
                    _give(painted.layer, mode="pan_zoom")
        painted = self._tiles.get(tile_id)
        if painted and painted.layer not in self.viewer.layers:
            self._insert(painted.layer)
        if painted:
            _give(painted.layer, visible=True)
            self.viewer.layers.selection.active = painted.layer
            if not self.session.project.read_only:
                self._make_ready(painted)
        self.frames.show(self.placement)

    def _make_ready(self, painted: PaintedTile) -> None:
        """Give a tile's layer the brush, or make it ready for gestures: then nuclei are contours, to be judged."""
        _give(painted.layer, contour=1 if self._correcting else 0)
        painted.show_opaque(self._correcting)
        painted.layer.mode = "pan_zoom" if self._correcting else "paint"
        if not self._correcting:
            painted.take_number()

    def _move(self) -> None:
        for tile_id, painted in self._tiles.items():
            tile = self.session.project.tile(tile_id)
            if tile:
                put(painted.layer, self.placement.at(tile.box.y0, tile.box.x0))
        self.frames.move(self.placement)

    def _follow_classes(self) -> None:
        last = BACKGROUND + len(self.session.project.classes)
        self.pen.nucleus_kind = min(self.pen.nucleus_kind, last)
        if self.pen.kind > last:  # the class painted with was removed, or another project has fewer
            self.choose_pen(last)
        for painted in self._tiles.values():
            painted.recolor()

    # ---- what others do to our layers ----

    def _sound_data(self, tile_id: str, painted: PaintedTile) -> np.ndarray:
        """Return a layer's data; where somebody put other data there that are no annotation, put the old ones back."""
        data = painted.layer.data
        if isinstance(data, np.ndarray) and data.shape == painted.saved.shape and data.dtype.kind in "iu":
            return data
        painted.layer.data = painted.saved.copy()
        self.session.tell(
            f"The layer of tile {tile_id} was given data of another size or type, which cannot be its annotation: "
            "what was painted is back.",
            "warning",
        )
        return painted.layer.data

    def _on_mode(self, event: Any) -> None:
        """Paint again where napari's own button was pressed while nuclei were corrected: the mode is what it says."""
        selected = self._tiles.get(self.session.project.selected)
        if self._correcting and event.source.mode != "pan_zoom" and selected and event.source == selected.layer:
            self._correcting = False
            selected.layer.contour = 0
            selected.show_opaque(False)
            self.correcting_changed.emit()

    def _on_removed(self, event: Any) -> None:
        """Bring back a tile or the frames that somebody deleted with other means than ours."""
        if self._removing or self._ended:
            return
        lost = event.value
        if any(lost == layer for layer in self._layers()):
            self._lost.append(lost)

    def bring_back(self) -> None:
        """Put back what was deleted; not while it is being deleted, and not when the whole viewer goes."""
        lost, self._lost = self._lost, []
        ours = self._layers()
        for layer in lost:
            if any(layer == other for other in ours) and layer not in self.viewer.layers:
                insert(self.viewer, layer)
                if str(tag(layer).get("tile", "")) == self.session.project.selected:
                    self._select(self.session.project.selected)
                self.session.tell(
                    "Annotations are not lost by deleting their layer, so it is back: "
                    "remove the tile in the dock instead."
                )

    def _layers(self) -> list[Any]:
        return [painted.layer for painted in self._tiles.values()] + (
            [self.frames.layer] if self.frames.layer is not None else []
        )

    def _on_active(self, event: Any) -> None:
        """Follow the layer list: whoever selects a tile's layer there selects the tile."""
        active = self.viewer.layers.selection.active
        if active is not None and role(active) == "annotation" and not self._adding:
            tile_id = str(tag(active).get("tile", ""))
            if tile_id in self._tiles and tile_id != self.session.project.selected:
                self.session.project.select(tile_id)

    def _remove(self, layers: list[Any]) -> None:
        self._removing = True
        try:
            for layer in layers:
                if layer in self.viewer.layers:
                    layer.locked = LayerLock.NONE
                    self.viewer.layers.remove(layer)
        finally:
            self._removing = False


def _give(layer: Any, **looks: Any) -> None:
    """Set what is different: napari draws a layer anew for what is said again, too, and there may be many."""
    for name, value in looks.items():
        if getattr(layer, name) != value:
            setattr(layer, name, value)
