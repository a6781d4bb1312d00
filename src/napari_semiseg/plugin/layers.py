"""Our layers and the image they belong to: how they are told from others, and where they lie.

A layer is ours by ``layer.metadata["napari_semiseg"]``, never by its name. The roles are those of `ORDER`, from bottom
to top; ``image`` only where we opened it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from napari.layers import Image, Layer
from napari.utils.transforms import Affine
from numpy.typing import NDArray

from napari_semiseg.app.slide import MPP_RANGE, Slide, examine
from napari_semiseg.blocks import Box

KEY = "napari_semiseg"
ORDER = (
    "image",
    "proposal",
    "confidence",
    "look",
    "beside",
    "difference",
    "nuclei",
    "other",
    "tiles",
    "suggestion",
    "annotation",
    "region",
    "gesture",
)


def tag(layer: Any) -> Mapping[str, Any]:
    """Return what we noted on a layer; empty for one that is not ours."""
    found = layer.metadata.get(KEY)
    return found if isinstance(found, Mapping) else {}


def unwrapped(layer: Any) -> Any:
    """Return the layer itself where napari gave a proxy of it."""
    return getattr(layer, "__wrapped__", layer)


def role(layer: Any) -> str:
    """Return the role of a layer of ours, "" for any other."""
    return str(tag(layer).get("role", ""))


def of_role(viewer: Any, wanted: str) -> list[Any]:
    """List our layers of a role, from bottom to top."""
    return [layer for layer in viewer.layers if role(layer) == wanted]


def hide(viewer: Any, *roles: str, but: Any = None) -> None:
    """Close the eye of our layers of some roles, except of one layer."""
    for layer in viewer.layers:
        if role(layer) in roles and layer.visible and (but is None or layer != but):
            layer.visible = False


def insert(viewer: Any, layer: Layer) -> None:
    """Add a layer of ours at its height: below paint, above every image; what others added on top stays on top.

    The active layer stays active.
    """
    higher = ORDER[ORDER.index(role(layer)) + 1 :]
    ground = max((number for number, other in enumerate(viewer.layers) if is_image(other)), default=-1)
    places = (number for number, other in enumerate(viewer.layers) if number > ground and role(other) in higher)
    index = next(places, len(viewer.layers))
    active = viewer.layers.selection.active
    viewer.layers.insert(index, layer)
    viewer.layers.selection.active = active


def classes_of(layer: Any) -> dict[int, str]:
    """Return the name of the class of every nucleus of a labels layer, by its number, where its table tells classes."""
    rows = layer.features
    return dict(zip(rows["index"].tolist(), rows["class"].astype(str), strict=True)) if "class" in rows else {}


def image_layers(viewer: Any) -> list[Any]:
    """List the image layers that can be worked on, from bottom to top."""
    return [layer for layer in viewer.layers if is_image(layer)]


def is_image(layer: Any) -> bool:
    """Whether a layer is a picture and not one of our results."""
    return isinstance(layer, Image) and role(layer) in ("", "image")


@dataclass(frozen=True)
class Placement:
    """Where an image lies in the world: what every layer made for it carries.

    Attributes
    ----------
    scale, translate, rotate, shear, affine, units, axis_labels
        As napari's layers have them, for two axes.
    """

    scale: Any
    translate: Any
    rotate: Any
    shear: Any
    affine: Any
    units: Any
    axis_labels: Any

    @classmethod
    def of(cls, layer: Any) -> Placement:
        """Return the placement of a two-dimensional layer."""
        return cls(
            np.array(layer.scale),
            np.array(layer.translate),
            np.array(layer.rotate),
            np.array(layer.shear),
            np.array(layer.affine.affine_matrix),
            tuple(layer.units),
            tuple(layer.axis_labels),
        )

    def same(self, other: Placement | None) -> bool:
        """Whether another placement is this one."""
        return other is not None and all(
            np.array_equal(getattr(self, field.name), getattr(other, field.name)) for field in fields(self)
        )

    def at(self, y: float = 0.0, x: float = 0.0, downsample: float = 1.0) -> dict[str, Any]:
        """Return the keywords of a layer whose first pixel is pixel (y, x) of the image.

        Every pixel of that layer is `downsample` pixels of the image wide.
        """
        middle = (downsample - 1) / 2  # centers of pixels count in napari
        whole = Affine(scale=self.scale, translate=self.translate, rotate=self.rotate, shear=self.shear)
        return {
            "scale": self.scale * downsample,
            "translate": np.asarray(whole((y + middle, x + middle))),
            "rotate": self.rotate,
            "shear": self.shear,
            "affine": self.affine,
            "units": self.units,
            "axis_labels": self.axis_labels,
        }

    def to_image(self, world: Sequence[float]) -> tuple[float, float]:
        """Return the pixel (y, x) of the image at a point of the world."""
        y, x, _ = self._inverse @ (*np.asarray(world, float)[-2:], 1.0)
        return float(y), float(x)

    def to_world(self, y: float, x: float) -> tuple[float, float]:
        """Return the point of the world at a pixel of the image."""
        y, x, _ = self._matrix @ (y, x, 1.0)
        return float(y), float(x)

    @cached_property
    def side(self) -> float:
        """How long a side of a pixel is in the world."""
        return float(np.hypot(*np.subtract(self.to_world(0, 1), self.to_world(0, 0))))

    @cached_property
    def _matrix(self) -> NDArray[np.float64]:
        """From pixels to the world, (3, 3)."""
        whole = Affine(scale=self.scale, translate=self.translate, rotate=self.rotate, shear=self.shear)
        return Affine(affine_matrix=self.affine).affine_matrix @ whole.affine_matrix

    @cached_property
    def _inverse(self) -> NDArray[np.float64]:
        """From the world to pixels, (3, 3): asked for at every step of a moving view."""
        return np.linalg.inv(self._matrix)


def visible_box(viewer: Any, place: Placement, shape: tuple[int, int]) -> Box | None:
    """Return the part of an image that is in view, in its pixels; None if none of it is."""
    half = np.asarray(viewer.canvas.size, float) / 2 / max(float(viewer.scene.camera.zoom), 1e-12)
    middle = np.asarray(viewer.scene.camera.center, float)[-2:]
    corners = [place.to_image(middle + half * (dy, dx)) for dy in (-1, 1) for dx in (-1, 1)]
    (y0, x0), (y1, x1) = np.floor(np.min(corners, axis=0)), np.ceil(np.max(corners, axis=0))
    box = Box(int(y0), int(x0), int(y1) + 1, int(x1) + 1).intersect(Box.whole(shape))
    return box if box.area else None


def look_at(viewer: Any, place: Placement, box: Box, share: float = 0.5) -> None:
    """Move the view to a part of an image, and closer until it fills that share of the canvas; never farther away."""
    camera = viewer.scene.camera
    camera.center = (0.0, *place.to_world((box.y0 + box.y1 - 1) / 2, (box.x0 + box.x1 - 1) / 2))
    wanted = share * min(viewer.canvas.size) / (max(box.shape) * place.side)
    if camera.zoom < wanted:
        camera.zoom = wanted


def put(layer: Any, place: Mapping[str, Any]) -> None:
    """Move a layer to where `Placement.at` says. One that lies there is left alone: every change redraws it."""
    for name, value in place.items():
        if not _lies_at(getattr(layer, name), value):
            setattr(layer, name, value)


def _lies_at(present: Any, wanted: Any) -> bool:
    if isinstance(wanted, tuple):
        return tuple(present) == wanted
    present = np.asarray(getattr(present, "affine_matrix", present), float)
    wanted = np.asarray(wanted, float)
    return present.shape == wanted.shape and bool(np.allclose(present, wanted, rtol=1e-9, atol=1e-12))


def levels(layer: Any) -> list[Any]:
    """Return the arrays of an image layer, finest first."""
    return list(layer.data) if layer.multiscale else [layer.data]


def path_of(layer: Any) -> str:
    """Return the file that an image layer came from, "" for one that exists only in memory."""
    return str(layer.source.path or tag(layer).get("path", ""))


def slide_of(layer: Any) -> Slide:
    """Say of an image layer whether and as what it can be used."""
    arrays = levels(layer)
    path = path_of(layer)
    return examine(
        str(layer.name),
        [tuple(array.shape) for array in arrays],
        np.dtype(arrays[0].dtype),
        rgb=bool(layer.rgb),
        mpp=_mpp(layer),
        path=os.path.abspath(path) if path and "://" not in path else path,  # noqa: PTH100
    )


def _mpp(layer: Any) -> float | None:
    """Return the pixel size in µm, where the layer has a unit of length and square pixels."""
    if layer.ndim < 2:
        return None
    unit = layer.units[-1]
    if not (1 * unit).is_compatible_with("micrometer"):
        return None
    sizes = [abs(float(side)) * float((1 * unit).to("micrometer").magnitude) for side in layer.scale[-2:]]
    if not np.isclose(*sizes, rtol=0.02) or not MPP_RANGE[0] <= sizes[0] <= MPP_RANGE[1]:
        return None
    return float(np.sqrt(sizes[0] * sizes[1]))


def pixels(layer: Any, box: Box) -> np.ndarray:
    """Read a part of an image layer as it is shown: uint8 (h, w, 3). May take long: the data may be lazy."""
    return shown(np.asarray(levels(layer)[0][box.slices]), bool(layer.rgb), tuple(layer.contrast_limits))


def shown(part: np.ndarray, rgb: bool, limits: tuple[float, float]) -> np.ndarray:
    """Turn values into what is seen: uint8 (h, w, 3)."""
    if rgb and part.dtype == np.uint8:
        return np.ascontiguousarray(part[..., :3])
    low, high = (0.0, 1.0) if rgb and part.dtype.kind == "f" else limits
    if rgb and part.dtype.kind in "ui":
        low, high = 0.0, float(np.iinfo(part.dtype).max)
    scaled = np.nan_to_num((part.astype(np.float32) - low) / max(high - low, 1e-12))
    gray = (np.clip(scaled, 0, 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(gray[..., :3] if rgb else np.repeat(gray[..., None], 3, axis=2))
