"""*File → Save Selected Layers*: labels as OME-TIFF, with the size of a pixel and the place on the slide."""

from __future__ import annotations

from typing import Any

import numpy as np
import pint

from napari_semiseg.errors import InputError
from napari_semiseg.io.labels import as_labels
from napari_semiseg.io.tiff import Pixels, write_ome_tiff


def write_labels(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write a labels layer: its ids unchanged as uint32, readable by QuPath, Fiji and OMERO.

    Parameters
    ----------
    path : str
        Ends in ``.ome.tif`` or ``.ome.tiff``; replaced if it exists.
    data : array_like, (h, w), integer, or a list of them
        Of a multiscale layer the finest level is written.
    attributes : dict
        What napari says of the layer; `scale`, `units` and `translate` are kept, a rotation or shear is not.

    Returns
    -------
    list of str
        The path.

    Raises
    ------
    InputError
        If the layer has not two dimensions, whole numbers and square pixels, or the file cannot be written.
    """
    name = str(attributes.get("name", "labels"))
    finest = data[0] if attributes.get("multiscale") else data
    labels = as_labels(np.asarray(finest), name)
    mpp, translation = _place(attributes, name)
    image = Pixels(name, labels.dtype, [labels.shape], lambda box, level: labels[box.slices], (), mpp, translation)
    write_ome_tiff(path, [image])
    return [path]


def _place(attributes: dict[str, Any], name: str) -> tuple[float | None, tuple[float, float]]:
    """Return the pixel size in µm and the translation in µm, or None and the translation in pixels."""
    sizes = [abs(float(side)) for side in attributes.get("scale", (1.0, 1.0))]
    places = [float(place) for place in attributes.get("translate", (0.0, 0.0))]
    unit = pint.get_application_registry().Quantity(1.0, str(attributes.get("units", ("pixel",))[-1]))
    if not unit.is_compatible_with("micrometer"):
        return None, (places[0] / sizes[0], places[1] / sizes[1])
    um = float(unit.to("micrometer").magnitude)
    if not np.isclose(*sizes, rtol=1e-3):
        raise InputError(f"The pixels of the layer '{name}' are no squares: give both axes the same scale.")
    return sizes[0] * um, (places[0] * um, places[1] * um)
