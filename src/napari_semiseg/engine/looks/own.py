"""What a method shows of itself: patches, crops, prototypes."""

from __future__ import annotations

from napari_semiseg.engine.looks.seen import Found, Seen
from napari_semiseg.errors import InputError


def own(seen: Seen) -> Found:
    """Ask the method."""
    if not seen.method.shows:
        raise InputError(f"The method '{seen.method.name}' has nothing of its own to show: ask for its features.")
    return Found(seen.method.diagnostics(seen.image))
