"""The little that is read from OME-XML: size and place of a pixel, names of classes.

Without a DTD, and never from the network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException, ElementTree

from napari_semiseg.errors import InputError
from napari_semiseg.io import limits

CLASSES = "napari-semiseg/classes"
"""Namespace of the map annotation that names the values of a map of classes."""

_IN_MICRONS = {
    "µm": 1.0,
    "\u03bcm": 1.0,
    "um": 1.0,
    "nm": 1e-3,
    "mm": 1e3,
    "cm": 1e4,
    "m": 1e6,
    "pm": 1e-6,
    "Å": 1e-4,
    "in": 25_400.0,
}


def check_xml(text: str, where: str) -> None:
    """Refuse XML that is too long or declares entities.

    Parameters
    ----------
    text : str
        The XML; broken XML passes, since nobody will get anything from it.
    where : str
        The file, for the message.

    Raises
    ------
    InputError
    """
    if len(text) > limits.MAX_XML_BYTES:
        raise InputError(
            f"The description of '{where}' is longer than {limits.MAX_XML_BYTES / 2**20:g} MiB: export it again "
            "without it."
        )
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise InputError(
            f"The description of '{where}' declares XML entities, which are never expanded: export the file again "
            "without them."
        )


def ome_pixel_size(text: str, image: int) -> float | None:
    """Return the side of a pixel in µm, the mean of both sides where they differ, or None where it is not said.

    Parameters
    ----------
    text : str
        OME-XML.
    image : int
        Index of the Image element.
    """
    pixels = _pixels(text, image)
    if pixels is None:
        return None
    sides = [side for side in (_side(pixels, "X"), _side(pixels, "Y")) if side is not None]
    return sum(sides) / len(sides) if sides else None


def ome_position(text: str, image: int, *, in_pixels: bool) -> tuple[float, float] | None:
    """Return where the first plane lies (y, x), or None where it is not said in a unit that can be used.

    Parameters
    ----------
    text : str
        OME-XML.
    image : int
        Index of the Image element.
    in_pixels : bool
        Whether the position is wanted in pixels, for an image whose pixels have no size; else it is in µm.
    """
    pixels = _pixels(text, image)
    plane = None if pixels is None else next((child for child in pixels if child.tag.endswith("Plane")), None)
    if plane is None:
        return None
    units = {"pixel": 1.0} if in_pixels else _IN_MICRONS
    y, x = (_length(plane, f"Position{axis}", units, "reference frame") for axis in "YX")
    return None if y is None or x is None else (y, x)


def ome_class_map(text: str) -> tuple[int, dict[int, str]] | None:
    """Return which Image is a map of classes, and the names of its values; None where there is none of ours."""
    root = _root(text)
    if root is None:
        return None
    maps = {
        element.get("ID"): element
        for element in root.iter()
        if element.tag.endswith("MapAnnotation") and element.get("Namespace") == CLASSES
    }
    for number, image in enumerate(_images(root)):
        for reference in image:
            if reference.tag.endswith("AnnotationRef") and reference.get("ID") in maps:
                return number, _named_values(maps[reference.get("ID")])
    return None


def _named_values(annotation: Element) -> dict[int, str]:
    pairs = ((pair.get("K", ""), pair.text) for pair in annotation.iter() if pair.tag.endswith("}M"))
    return {int(key): name for key, name in pairs if key.isdecimal() and len(key) < 4 and name}


def _root(text: str) -> Element | None:
    try:
        return ElementTree.fromstring(text, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError):
        return None


def _images(root: Element) -> list[Element]:
    return [element for element in root if element.tag.endswith("Image")]


def _pixels(text: str, image: int) -> Element | None:
    root = _root(text)
    images = [] if root is None else _images(root)
    return (
        next((child for child in images[image] if child.tag.endswith("Pixels")), None) if image < len(images) else None
    )


def _side(pixels: Element, axis: str) -> float | None:
    side = _length(pixels, f"PhysicalSize{axis}", _IN_MICRONS, "µm")
    return side if side is not None and side > 0 else None


def _length(element: Element, name: str, units: Mapping[str, float], default: str) -> float | None:
    """Return an attribute times its unit; `default` is the unit where none is said."""
    factor = units.get(element.get(f"{name}Unit", default))
    try:
        value = float(element.get(name, "nan")) * (factor or math.nan)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
