"""A nucleus as other programs know it: outlines, a class, measurements; and where its image lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat, PositiveInt

from napari_semiseg.config import Config


@dataclass(frozen=True)
class Nucleus:
    """One nucleus.

    Attributes
    ----------
    label : int
        Its number in the label image; 0 where none is known.
    polygons : sequence of sequence of ndarray, (n, 2)
        Its parts, each an outer ring and the rings of its holes; corners (y, x) in pixels of level 0, where the corner
        of the image is (0, 0).
    class_name : str
        "" for none.
    measurements : mapping of str to float
    annotation : bool
        Whether QuPath calls it one: drawn by a person, as a nucleus, or as a region to look for nuclei in.
    """

    label: int
    polygons: Sequence[Sequence[NDArray[np.number[Any]]]]
    class_name: str = ""
    measurements: Mapping[str, float] = field(default_factory=dict)
    annotation: bool = False


class Place(Config):
    """Which image outlines belong to, and what its pixels are.

    Attributes
    ----------
    name : str
        Of the image.
    shape : (int, int) or None
        Its rows and columns.
    mpp : float or None
        Size of a pixel, in µm.
    translation : (float, float)
        Place of its first pixel (y, x): in µm, or in pixels where `mpp` is None.
    classes : tuple of str
    """

    name: str = ""
    shape: tuple[PositiveInt, PositiveInt] | None = None
    mpp: PositiveFloat | None = None
    translation: tuple[float, float] = (0.0, 0.0)
    classes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, given: Any, where: str) -> Place:
        """Read what a file says; `where` names it.

        Raises
        ------
        InputError
            If it says something that cannot be. What a newer version says besides is passed over.
        """
        values = given if isinstance(given, dict) else {"place": given}
        return cls.checked({key: value for key, value in values.items() if key in cls.model_fields}, f"'{where}'")
