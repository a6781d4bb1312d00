"""Hides our layers for as long as somebody wants to see the image alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from napari_semiseg.plugin.keys import Keys
from napari_semiseg.plugin.layers import role


class Peek:
    """Hides every layer of ours while `begin` holds, and brings back those that were visible with `finish`.

    The key is bound on our own layers as they come, never on the viewer.
    """

    def __init__(self, viewer: Any, keys: Keys) -> None:
        self._viewer, self._keys = viewer, keys
        self._hidden: list[Any] = []
        viewer.layers.events.inserted.connect(self._on_inserted)
        for layer in viewer.layers:
            self._bind(layer)

    @property
    def peeking(self) -> bool:
        """Whether our layers are hidden."""
        return bool(self._hidden)

    def begin(self) -> None:
        """Hide our layers."""
        if self._hidden:
            return
        self._hidden = [layer for layer in self._viewer.layers if role(layer) not in ("", "image") and layer.visible]
        for layer in self._hidden:
            layer.visible = False

    def finish(self) -> None:
        """Show them again."""
        hidden, self._hidden = self._hidden, []
        for layer in hidden:
            layer.visible = True

    def end(self) -> None:
        """Show them again; the owner of the keys takes them back."""
        self.finish()
        self._viewer.layers.events.inserted.disconnect(self._on_inserted)

    def _on_inserted(self, event: Any) -> None:
        self._bind(event.value)

    def _bind(self, layer: Any) -> None:
        if role(layer):
            self._keys.bind(layer, {"peek": self._hold})

    def _hold(self, _: Any) -> Iterator[None]:
        self.begin()
        try:
            yield
        finally:
            self.finish()
