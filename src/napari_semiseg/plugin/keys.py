"""Keys of the layers that a person paints in.

Bound on our own layers only, so that they mean something exactly where they are useful, and taken back with them.
"""

from __future__ import annotations

from typing import Any

from napari_semiseg.project.tile_annotation import BACKGROUND

KEYS = {
    "n": "begin a new nucleus with the next stroke",
    "m": "the same (napari's key for it)",
    "b": "paint background, or nuclei again",
    "Shift-C": "mark the tile complete, or sparse again",
}
"""What each key does, for tooltips and the guide."""


def bind(layer: Any, tiles: Any) -> None:
    """Give a tile's layer its keys; `tiles` is the `TileLayers` it belongs to."""

    def new(_: Any) -> None:
        tiles.next_nucleus()

    def background(_: Any) -> None:
        tiles.choose_pen(BACKGROUND + 1 if tiles.pen == BACKGROUND else BACKGROUND)

    def complete(_: Any) -> None:
        project = tiles.session.project
        tile = project.tile(project.selected)
        if tile:
            project.set_status(tile.id, "sparse" if tile.status == "complete" else "complete")

    for key, call in zip(KEYS, (new, new, background, complete), strict=True):
        layer.bind_key(key, call, overwrite=True)


def unbind(layer: Any) -> None:
    """Take the keys back."""
    for key in KEYS:
        layer.bind_key(key, None, overwrite=True)
