"""Nuclei before any training, from a threshold: there as soon as an image is open. Free of torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from napari_semiseg.blocks import Box, cells
from napari_semiseg.config import Config
from napari_semiseg.engine.control import Control
from napari_semiseg.engine.npy import write_npy
from napari_semiseg.engine.typical import LARGEST, typical_of
from napari_semiseg.errors import InputError
from napari_semiseg.events import Event, Finished, Started, Written
from napari_semiseg.io.images import Image, open_image
from napari_semiseg.postprocess.instances import smallest_area
from napari_semiseg.postprocess.merge import SplitRule
from napari_semiseg.postprocess.threshold import REACH, Threshold, find_stain, find_threshold
from napari_semiseg.postprocess.tissue import OVERVIEW, find_tissue

WINDOW = 2048
"""Side of the part of a larger image that is proposed where none is asked for, in pixels."""
_CELL = 512


class ProposeRequest(Config):
    """A proposal of nuclei by threshold."""

    image: str = Field(min_length=1, description="The image.")
    out: str = Field(min_length=1, description="Folder for confidence.npy and nuclei.npy.")
    box: tuple[int, int, int, int] | None = Field(
        None, description="The rectangle (y0, x0, y1, x1) in pixels; without it the image, or a part of a large one."
    )
    mpp: float | None = Field(None, gt=0.01, lt=100, description="Pixel size of the image, in µm.")
    strength: float = Field(0.5, ge=0, le=1, description="How readily touching nuclei are parted: 0 never, 1 always.")
    min_area: int | None = Field(
        None, ge=1, le=1_000_000, description="Smallest nucleus, in pixels, instead of 3 µm² (50 pixels)."
    )


def propose_from_args(args: dict[str, Any], control: Control) -> Iterator[Event]:
    """Propose from untrusted options: what `serve` calls. A proposal is over too soon to be controlled."""
    return propose(ProposeRequest.checked(args, "the request"))


def propose(request: ProposeRequest) -> Iterator[Event]:
    """Propose the nuclei of an image by Otsu's threshold on its stain, or on intensity where nothing is stained.

    The threshold is that of the whole image where it is proposed whole, and of samples of its tissue where it is large,
    so that all parts of a slide have the same one.

    Parameters
    ----------
    request : ProposeRequest

    Yields
    ------
    Event
        `Started`; `Written` with what="confidence" (uint8, (h, w)) and with what="nuclei" (uint32, (h, w)), whose facts
        tell `box`, `stain`, `threshold` and for nuclei how many; `Finished`.

    Raises
    ------
    InputError
        If the image cannot be read, or the files cannot be written.
    """
    yield Started("propose")
    image = open_image(request.image, mpp=request.mpp)
    box = _rectangle(image, request.box)
    found = _threshold(image)
    confidence = _confidence(image, box, found)
    rule = SplitRule(0.5, request.strength, request.min_area or smallest_area(image.mpp), image.mpp)
    labels = rule.apply(confidence)
    out = Path(request.out)
    out.mkdir(parents=True, exist_ok=True)
    facts = {"box": list(box), "downsample": 1, "stain": found.stain, "threshold": found.value}
    write_npy(out / "confidence.npy", confidence)
    yield Written("confidence", str(out / "confidence.npy"), facts)
    write_npy(out / "nuclei.npy", labels)
    facts = {**facts, "nuclei": int(labels.max(initial=0))}
    yield Written("nuclei", str(out / "nuclei.npy"), facts)
    yield Finished("propose", str(out), facts=facts)


def _rectangle(image: Image, asked: tuple[int, int, int, int] | None) -> Box:
    whole = Box.whole(image.shape)
    if asked is not None:
        box = Box(*asked).intersect(whole)
        if not box.area:
            raise InputError(f"The rectangle {asked} does not lie in '{image.name}', which is {image.shape}.")
        if max(box.shape) > LARGEST:
            raise InputError(f"A proposal is for at most {LARGEST} x {LARGEST} pixels: ask for a smaller rectangle.")
        return box
    if max(image.shape) <= LARGEST:
        return whole
    windows = cells(image.shape, WINDOW)
    tissue = find_tissue(image.overview(OVERVIEW), image.shape)
    return max(windows, key=lambda window: tissue.part(window).sum())


def _threshold(image: Image) -> Threshold:
    parts, look = typical_of(image)
    return find_threshold(parts, find_stain(look, image.gray))


def _confidence(image: Image, box: Box, found: Threshold) -> NDArray[np.uint8]:
    """Apply the threshold part by part, as if to the whole image at once."""
    confidence = np.zeros(box.shape, np.uint8)
    for cell in cells(box.shape, 2 * _CELL):
        part = cell.shifted(box.y0, box.x0)
        seen = part.grown(REACH).intersect(Box.whole(image.shape))
        values = found.confidence(image.read(seen))
        confidence[cell.slices] = values[part.shifted(-seen.y0, -seen.x0).slices]
    return confidence
