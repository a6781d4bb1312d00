"""What can be looked at inside a method: one file per idea.

An idea is a function of what was `Seen` that returns maps by name. To add one, write a file and list it here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from napari_semiseg.engine.looks.agreement import agreement
from napari_semiseg.engine.looks.confusion import confusion_density
from napari_semiseg.engine.looks.features import principal_components
from napari_semiseg.engine.looks.landscape import likeness
from napari_semiseg.engine.looks.own import own
from napari_semiseg.engine.looks.seen import Found, Seen


@dataclass(frozen=True)
class Idea:
    """Something to look at.

    Attributes
    ----------
    title : str
        For a menu.
    look : callable
        `Seen` → `Found`. Raises `InputError` where there is nothing to see.
    needs_truth : bool
        Whether labels are needed.
    """

    title: str
    look: Callable[[Seen], Found]
    needs_truth: bool = False


IDEAS: Mapping[str, Idea] = MappingProxyType(
    {
        "method": Idea("What the method makes of it", own),
        "features": Idea("Features, as principal components", principal_components),
        "landscape": Idea("Features, by their likeness", likeness),
        "agreement": Idea("Agreement with the labels", agreement, needs_truth=True),
        "confusion": Idea("Confusion density", confusion_density, needs_truth=True),
    }
)
"""By the name that `inspect` takes. Where a method has something of its own to show, its words are the title."""

__all__ = ["IDEAS", "Found", "Idea", "Seen"]
