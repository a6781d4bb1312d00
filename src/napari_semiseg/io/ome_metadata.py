"""The metadata of our OME-Zarr files, written by the models of yaozarrs, which know the specification.

Reference: OME-Zarr 0.4 and 0.5, "multiscales", "omero", "labels" and "image-label" metadata.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from yaozarrs import v04, v05

Version = Literal["0.4", "0.5"]

CLASS_COLORS = ("F0E442", "56B4E9", "009E73", "E69F00", "0072B2", "D55E00", "CC79A7")
"""Colors that people with any color vision tell apart (Okabe and Ito, 2008; without black), in the order in which the
classes of a project take them: a class has one color in tiles and in files."""


def image_attributes(
    version: Version,
    name: str,
    levels: Sequence[tuple[int, int]],
    channels: Sequence[str],
    mpp: float | None,
    translation: tuple[float, float],
) -> dict[str, Any]:
    """Describe a (c, y, x) image.

    Parameters
    ----------
    version : "0.4" or "0.5"
    name : str
    levels : sequence of (int, int)
        Rows and columns, finest first; level k lies at path ``"k"``.
    channels : sequence of str
    mpp : float or None
        Size of a pixel in µm; without it scales are in pixels and no unit is said.
    translation : (float, float)
        Place of the first pixel (y, x), in µm or in pixels.

    Returns
    -------
    dict
        For 0.5 the value of the attribute ``ome``, for 0.4 all attributes.
    """
    windows = {"min": 0, "max": 255, "start": 0, "end": 255}
    omero = {
        "name": name,
        "channels": [
            {"label": label, "color": CLASS_COLORS[number % len(CLASS_COLORS)], "active": True, "window": windows}
            for number, label in enumerate(channels)
        ],
    }
    body = {"multiscales": [_multiscale(version, name, levels, "cyx", mpp, translation)], "omero": omero}
    if version == "0.4":
        return v04.Image.model_validate(body).model_dump(mode="json", exclude_none=True, by_alias=True)
    return v05.Image.model_validate({"version": "0.5", **body}).model_dump(
        mode="json", exclude_none=True, by_alias=True
    )


def label_attributes(
    version: Version,
    name: str,
    levels: Sequence[tuple[int, int]],
    mpp: float | None,
    translation: tuple[float, float],
    classes: Sequence[str] = (),
) -> dict[str, Any]:
    """Describe a (y, x) label image of the image two folders above; `classes` name and color the values from 1 on."""
    label: dict[str, Any] = {"source": {"image": "../../"}}
    if version == "0.4":
        label["version"] = "0.4"
    if classes:
        label["colors"] = [
            {"label-value": number, "rgba": [*bytes.fromhex(CLASS_COLORS[(number - 1) % len(CLASS_COLORS)]), 255]}
            for number, _ in enumerate(classes, start=1)
        ]
        label["properties"] = [{"label-value": number, "class": title} for number, title in enumerate(classes, start=1)]
    body = {"multiscales": [_multiscale(version, name, levels, "yx", mpp, translation)], "image-label": label}
    model = v04.LabelImage if version == "0.4" else v05.LabelImage
    checked = model.model_validate(body if version == "0.4" else {"version": "0.5", **body})
    described = checked.model_dump(mode="json", exclude_none=True, by_alias=True)
    described["image-label"] = label  # the model drops the free properties
    return described


def labels_attributes(version: Version, names: Sequence[str]) -> dict[str, Any]:
    """Describe the group that holds label images."""
    return {"labels": list(names)} if version == "0.4" else {"version": "0.5", "labels": list(names)}


def _multiscale(
    version: Version,
    name: str,
    levels: Sequence[tuple[int, int]],
    axes: str,
    mpp: float | None,
    translation: tuple[float, float],
) -> dict[str, Any]:
    unit = {} if mpp is None else {"unit": "micrometer"}
    named = [
        {"name": axis, "type": "channel"} if axis == "c" else {"name": axis, "type": "space", **unit} for axis in axes
    ]
    pixel = 1.0 if mpp is None else mpp
    lead = [1.0] * (len(axes) - 2)
    datasets = []
    for level in range(len(levels)):
        step = pixel * 2**level
        # The first pixel of a level is the mean of 2^level pixels, whose middle lies this far from the first one's:
        shift = pixel * (2**level - 1) / 2
        datasets.append(
            {
                "path": str(level),
                "coordinateTransformations": [
                    {"type": "scale", "scale": [*lead, step, step]},
                    {
                        "type": "translation",
                        "translation": [*(0.0 for _ in lead), *(value + shift for value in translation)],
                    },
                ],
            }
        )
    kind = "mean over 2 x 2 pixels" if "c" in axes else "most frequent of 2 x 2 pixels"
    scale: dict[str, Any] = {"name": name, "axes": named, "datasets": datasets, "metadata": {"method": kind}}
    return {"version": "0.4", **scale} if version == "0.4" else scale
