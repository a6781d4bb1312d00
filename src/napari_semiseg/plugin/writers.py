"""*File → Save Selected Layers*: labels with the size of a pixel and the place on the slide, for other programs.

Every file is read back before it has its name, and a file of the same name is replaced: napari asks before.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pint
from numpy.typing import NDArray

from napari_semiseg.blocks import Box
from napari_semiseg.errors import InputError
from napari_semiseg.io.labels import as_labels
from napari_semiseg.io.nucleus import Nucleus, Place
from napari_semiseg.io.outline_files import GEOJSON, ROIS, OutlineFormat, write_outlines
from napari_semiseg.io.outlines import trace
from napari_semiseg.io.result_card import result_state
from napari_semiseg.io.result_writer import ResultWriter, discard_result
from napari_semiseg.io.table import measure
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
    name, labels, mpp, translation = _layer(data, attributes)
    image = Pixels(name, labels.dtype, [labels.shape], lambda box, level: labels[box.slices], (), mpp, translation)
    write_ome_tiff(path, [image])
    return [path]


def write_geojson(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write a labels layer as detections for QuPath, with area and shape of each; see `write_labels`."""
    return _write_outlined(path, data, attributes, GEOJSON)


def write_rois(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write a labels layer as regions for the ROI Manager of ImageJ and Fiji; see `write_labels`."""
    return _write_outlined(path, data, attributes, ROIS)


def write_ome_zarr(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write a labels layer as OME-Zarr 0.5: ``labels/nuclei``, over an image that is 255 where there is a label.

    See `write_labels`. Nothing that is not ours is replaced.
    """
    name, labels, mpp, translation = _layer(data, attributes)
    if result_state(path) != "missing":
        discard_result(path)
    whole = Box.whole(labels.shape)
    with ResultWriter.create(path, labels.shape, ["nucleus"], mpp=mpp, name=name, translation=translation) as writer:
        writer.write_confidence(whole, (labels > 0) * np.uint8(255))
        writer.write_nuclei(whole, labels)
        result = writer.finish()
    if not np.array_equal(result.nuclei(whole), labels):
        raise InputError(f"'{path}' is not what was written when read back: try another disk.")
    return [path]


def _write_outlined(path: str, data: Any, attributes: dict[str, Any], form: OutlineFormat) -> list[str]:
    name, labels, mpp, translation = _layer(data, attributes)
    columns = measure(labels, mpp=mpp, translation=translation if mpp else (0.0, 0.0))
    names = [column for column in columns if column != "label" and not column.startswith("bbox_")]
    rows = {int(label): row for row, label in enumerate(columns["label"])}
    nuclei = (
        Nucleus(label, polygons, "", {column: float(columns[column][rows[label]]) for column in names})
        for label, polygons in trace(labels).items()
    )
    write_outlines(path, form, nuclei, Place(name=name, shape=labels.shape, mpp=mpp, translation=translation))
    return [path]


def _layer(data: Any, attributes: dict[str, Any]) -> tuple[str, NDArray[np.uint32], float | None, tuple[float, float]]:
    """Return name, labels, pixel size and place of a layer."""
    name = str(attributes.get("name", "labels"))
    labels = as_labels(np.asarray(data[0] if attributes.get("multiscale") else data), name)
    return name, labels, *_place(attributes, name)


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
