"""Putting another annotation in a tile's place: one from before a recovery, set aside, or of an import."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from napari_semiseg.app.session import Session
from napari_semiseg.errors import InputError
from napari_semiseg.plugin.tile_layers import TileLayers
from napari_semiseg.project.recovery import Recovery
from napari_semiseg.project.tile_annotation import TileAnnotation


class TileExchange:
    """Puts other annotations in the place of tiles' own.

    Parameters
    ----------
    session : Session
    layers : TileLayers
    """

    def __init__(self, session: Session, layers: TileLayers) -> None:
        self.session, self.layers = session, layers

    def put_back(self, recovery: Recovery, tile_ids: list[str]) -> None:
        """Put tiles back as they were before strokes of them were recovered; those are kept."""
        folder = self.session.project.folder
        if folder is None or folder.recovery is not recovery:  # the dialog outlived its project
            return
        earlier = {found.tile: found.earlier for found in recovery.tiles}
        back: list[str] = []
        problems: dict[str, str] = {}

        def tell() -> None:
            if len(back) + len(problems) < len(tile_ids):
                return
            said = [*problems.values()]
            if back:
                said.append(
                    f"As they were before: {', '.join(back)}. What was in them is kept: “Bring back what was put "
                    "aside” in the menu ⋯ of the tile."
                )
            again = (("Try again", lambda: self.put_back(recovery, [*problems])),) if problems else ()
            self.session.tell(" ".join(said), "error" if problems else "info", actions=again)

        for tile_id in tile_ids:
            self._exchange(
                tile_id,
                lambda tile_id=tile_id: self._instead(tile_id, earlier[tile_id]),
                done=lambda tile_id=tile_id: (back.append(tile_id), tell()),
                failed=lambda why, tile_id=tile_id: (problems.update({tile_id: why}), tell()),
            )

    def bring_back(self) -> None:
        """Bring back what was set aside of the selected tile."""
        project, tile_id = self.session.project, self.session.project.selected
        self._exchange(
            tile_id,
            lambda: self._instead(tile_id, project.folder.kept_aside(tile_id)),
            done=lambda: None,
            failed=lambda why: self.session.tell(why, "error"),
        )

    # ---- for an import: see `app.last_import.PaintedTiles` ----

    def hand_over(self) -> None:
        """Submit what is painted and was not submitted yet."""
        self.layers.tick()

    def fill(
        self, tile_id: str, found: TileAnnotation, done: Callable[[], object], failed: Callable[[str], object]
    ) -> None:
        """Put an annotation into a tile in which nothing is painted; where something is, say that it failed."""
        project = self.session.project
        words = f"Something was painted in tile {tile_id} meanwhile: nothing was brought into it."

        def read() -> TileAnnotation:
            now = project.newest_annotation(tile_id)
            if now.instance.any() or now.classes.any():
                raise InputError(words)
            return found

        self._exchange(tile_id, read, done, failed, lambda: words if project.painted.get(tile_id) else "")

    def empty(self, tile_id: str, done: Callable[[], object], failed: Callable[[str], object]) -> None:
        """Take away what is painted in a tile."""
        tile = self.session.project.tile(tile_id)
        self._exchange(tile_id, lambda: TileAnnotation.empty(tile.box.shape), done, failed)

    def _instead(self, tile_id: str, other: TileAnnotation) -> TileAnnotation:
        """Return another annotation, after setting aside the one whose place it takes."""
        self.session.project.set_aside(tile_id)
        return other

    def _exchange(
        self,
        tile_id: str,
        read: Callable[[], TileAnnotation],
        done: Callable[[], object],
        failed: Callable[[str], object],
        why_not: Callable[[], str] = lambda: "",
    ) -> None:
        """Put another annotation in the place of a tile's own, as soon as it has been read in the background.

        Where the tile has a layer, as those of the image in view have, undo takes it back there; any other is written.
        """
        self.layers.tick()
        project, folder = self.session.project, self.session.project.folder

        def put(found: TileAnnotation) -> None:
            if project.folder is not folder:
                return
            self.layers.tick()
            if why := why_not():
                failed(why)
                return
            painted = self.layers.painted(tile_id)
            if painted is None:
                write = partial(folder.write_annotation, tile_id, found.instance, found.classes)
                self.session.background.submit(write, lambda _: written(found), unable)
                return
            if not painted.layer.editable:
                failed(f"Tile {tile_id} is not in view: show its image first, then try again.")
                return
            try:
                painted.exchange(found)
            except InputError as error:
                unable(error)
            else:
                self.layers.tick()  # so that it is no part of what is painted from now on
                done()

        def written(found: TileAnnotation) -> None:
            if project.folder is not folder:
                return
            if self.layers.painted(tile_id) is not None:  # it was read before that
                put(found)
                return
            project.note_written(tile_id, found)
            done()

        def unable(error: Exception) -> None:
            if not isinstance(error, InputError):
                raise error
            failed(str(error))

        self.session.background.submit(read, put, unable)
