"""The colors of nuclei: those of their classes, neighbors in different shades, proposed ones pale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from napari.utils.colormaps import DirectLabelColormap

from napari_semiseg.app.painting import BACKGROUND_ID, FIRST_CLASS, is_proposed

BACKGROUND_COLOR = "#9a9a9a"
PROPOSED_SHADE = 0.7
"""How far the color of a nucleus that is proposed with its class is from that of the class to white."""
_SHADES = (0.0, 0.35, -0.25)  # neighbors of one class differ in lightness


def tile_colormap(class_of: Mapping[int, int], colors: Sequence[str]) -> DirectLabelColormap:
    """Return the table of colors of a tile's layer.

    Parameters
    ----------
    class_of : mapping of int to int
        Number in the layer to class, as on disk. Any other number gets the color of the first class.
    colors : sequence of str
        Of the project's classes, #rrggbb.
    """
    table: dict[Any, Any] = {
        None: _shade(colors[0], 0.0),
        0: np.zeros(4),
        BACKGROUND_ID: _shade(BACKGROUND_COLOR, 0),
    }
    table |= {number: nucleus_color(number, kind, colors) for number, kind in class_of.items()}
    return DirectLabelColormap(color_dict=table)


def nucleus_color(number: int, kind: int, colors: Sequence[str]) -> np.ndarray:
    """Return the color of a nucleus, RGBA in [0, 1]: that of its class, paler where it is proposed.

    Parameters
    ----------
    number : int
        In the layer.
    kind : int
        Its class, as on disk; 0 where it is proposed without one.
    colors : sequence of str
        Of the project's classes, #rrggbb.
    """
    color = colors[min(max(kind, FIRST_CLASS) - FIRST_CLASS, len(colors) - 1)]
    if not is_proposed(number):
        return _shade(color, _SHADES[number % len(_SHADES)])
    return _shade(color, PROPOSED_SHADE if kind and len(colors) > 1 else 1.0)


def _shade(color: str, amount: float) -> np.ndarray:
    """Return a color as RGBA, lighter or darker by a part."""
    rgb = np.array([int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)])
    rgb = rgb + (1 - rgb) * amount if amount >= 0 else rgb * (1 + amount)
    return np.array([*rgb, 1.0])
