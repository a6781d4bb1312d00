"""What lies in `sample_data/`: tiles of a real image, annotated nucleus by nucleus. Never a network.

The same files are found in a source checkout (`sample_data/` beside `src/`) and in an installed package
(`napari_semiseg/sample_data/`).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import skimage.data
import tifffile
from numpy.typing import NDArray
from skimage.draw import polygon2mask

from napari_semiseg.blocks import Box
from napari_semiseg.errors import InputError
from napari_semiseg.synthetic import SyntheticField, synthetic_field

__all__ = [
    "IHC_CLASSES",
    "SampleTile",
    "SyntheticField",
    "immunohistochemistry",
    "immunohistochemistry_tiles",
    "rasterize",
    "sample_folder",
    "synthetic_field",
    "write_label_images",
]

IHC_CLASSES = ("epithelial", "stromal")
"""Classes of the annotated nuclei: value 1 is a nucleus of a DAB-positive gland cell, value 2 any other."""

Role = Literal["label", "score"]


@dataclass(frozen=True)
class SampleTile:
    """One annotated tile of the immunohistochemistry image. The tile is complete: what has no label is background.

    Attributes
    ----------
    name : str
        Position of the tile, such as ``"y256-x384"``.
    role : {"label", "score"}
        What it is for: to be learned from, or only to measure a result on.
    box : Box
        Where it lies in the whole image, in pixels.
    image : ndarray, uint8, (h, w, 3)
        The pixels, RGB.
    instances : ndarray, uint32, (h, w)
        0 background, 1..n the nuclei in the order of the file.
    classes : ndarray, uint8, (h, w)
        0 background, 1.. the names in `IHC_CLASSES`.
    """

    name: str
    role: Role
    box: Box
    image: NDArray[np.uint8]
    instances: NDArray[np.uint32]
    classes: NDArray[np.uint8]

    @property
    def count(self) -> int:
        """Number of nuclei, those cut by the tile's border included."""
        return int(self.instances.max())


def sample_folder() -> Path:
    """Find the folder of sample data, in a source checkout or in an installed package.

    Returns
    -------
    Path
        The folder `sample_data`.

    Raises
    ------
    InputError
        If it is in neither place.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "sample_data", package.parent.parent / "sample_data"):
        if (folder / "immunohistochemistry" / "tiles.json").is_file():
            return folder
    raise InputError(f"The sample data are missing beside '{package}': install napari-semiseg again.")


def immunohistochemistry() -> NDArray[np.uint8]:
    """Return the image that comes with scikit-image: colonic glands, hematoxylin and DAB.

    Returns
    -------
    ndarray, uint8, (512, 512, 3)
        RGB; the pixel size is not known.

    Raises
    ------
    InputError
        If this scikit-image brings other pixels than those that were annotated.
    """
    image: NDArray[np.uint8] = np.ascontiguousarray(skimage.data.immunohistochemistry())  # type: ignore[no-untyped-call]
    if hashlib.sha256(image.tobytes()).hexdigest() != _annotation()["image"]["sha256"]:
        raise InputError(
            "The immunohistochemistry image in the installed scikit-image is not the one that was annotated: "
            "install another version of scikit-image."
        )
    return image


def immunohistochemistry_tiles(role: Role | None = None) -> list[SampleTile]:
    """Load the annotated tiles.

    Parameters
    ----------
    role : {"label", "score"}, optional
        Only the tiles to learn from, or only those to score on; None for all.

    Returns
    -------
    list of SampleTile
        From top to bottom, then from left to right. They do not overlap.

    Raises
    ------
    InputError
        If the files are missing or the image is another.
    """
    whole = immunohistochemistry()
    return [_load(tile, whole) for tile in _annotation()["tiles"] if role in (None, tile["role"])]


def rasterize(polygons: list[NDArray[np.float64]], box: Box) -> NDArray[np.uint16]:
    """Paint outlines into a label image.

    Parameters
    ----------
    polygons : list of ndarray, (n, 2)
        Vertices (y, x) in pixels of the whole image; the center of its first pixel is (0, 0). They may leave the box.
    box : Box
        The tile, in pixels of the whole image.

    Returns
    -------
    ndarray, uint16, (h, w)
        0 background, 1.. the polygons in their order; where two overlap, the later one is on top. A pixel belongs to
        a polygon that holds its center.
    """
    labels = np.zeros(box.shape, np.uint16)
    for value, polygon in enumerate(polygons, start=1):
        inside = polygon2mask(box.shape, polygon - (box.y0, box.x0))  # type: ignore[no-untyped-call]
        labels[inside] = value
    return labels


def write_label_images() -> list[Path]:
    """Rasterize the outlines in `tiles.json` into the label images beside it: for use after an outline was changed.

    Returns
    -------
    list of Path
        The files written: TIFF, uint16, zlib.
    """
    written = []
    for tile in _annotation()["tiles"]:
        path = _label_path(tile["name"])
        tifffile.imwrite(path, rasterize(_polygons(tile), Box(*tile["box"])), compression="zlib")
        written.append(path)
    return written


@cache
def _annotation() -> dict[str, Any]:
    path = sample_folder() / "immunohistochemistry" / "tiles.json"
    annotation: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return annotation


def _polygons(tile: dict[str, Any]) -> list[NDArray[np.float64]]:
    return [np.asarray(nucleus["polygon"], np.float64) for nucleus in tile["nuclei"]]


def _label_path(name: str) -> Path:
    return sample_folder() / "immunohistochemistry" / "labels" / f"{name}.tif"


def _load(tile: dict[str, Any], whole: NDArray[np.uint8]) -> SampleTile:
    box = Box(*tile["box"])
    instances = tifffile.imread(_label_path(tile["name"])).astype(np.uint32)
    class_of = np.array([0, *(1 + IHC_CLASSES.index(nucleus["class"]) for nucleus in tile["nuclei"])], np.uint8)
    return SampleTile(tile["name"], tile["role"], box, whole[box.slices].copy(), instances, class_of[instances])
