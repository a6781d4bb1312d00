"""Nuclei to begin with: from a threshold, there as soon as an image is open, or of a rectangle from a trained run.

Free of torch, unless a run is named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
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
from napari_semiseg.io.rescale import scale_of
from napari_semiseg.postprocess.classes import any_nucleus, nucleus_classes
from napari_semiseg.postprocess.instances import smallest_area
from napari_semiseg.postprocess.merge import SplitRule
from napari_semiseg.postprocess.single_stain import best_stain
from napari_semiseg.postprocess.threshold import REACH, Threshold, find_threshold
from napari_semiseg.postprocess.tissue import OVERVIEW, find_tissue

WINDOW = 2048
"""Side of the part of a larger image that is proposed where none is asked for, in pixels."""
_CELL = 512


@dataclass(frozen=True, eq=False)
class Proposed:
    """The nuclei of a rectangle.

    Attributes
    ----------
    box : Box
        The part of the rectangle inside the image.
    labels : ndarray, (h, w), uint32
        Its nuclei, numbered with gaps.
    kinds : tuple of int
        Class of each nucleus in the order of their numbers, 1 the first one; empty where there is but one class.
    """

    box: Box
    labels: NDArray[np.uint32]
    kinds: tuple[int, ...] = ()

    def write(self, path: str | Path, classes: Sequence[str], **facts: object) -> Written:
        """Write the nuclei as ``.npy``, and return the event that tells of them and of their `classes` by name.

        Raises
        ------
        InputError
            If the file cannot be written.
        """
        write_npy(path, self.labels)
        count = int(np.count_nonzero(np.unique(self.labels)))
        facts = {"box": list(self.box), "downsample": 1, "nuclei": count, **facts}
        if self.kinds:
            facts |= {"classes": list(classes), "kinds": list(self.kinds)}
        return Written("nuclei", str(path), facts)


class ProposeRequest(Config):
    """A proposal of nuclei by threshold."""

    image: str = Field(min_length=1, description="The image.")
    run: str = Field("", description="A trained run that finds the nuclei, instead of the threshold; needs `box`.")
    out: str = Field(min_length=1, description="Folder for confidence.npy and nuclei.npy.")
    box: tuple[int, int, int, int] | None = Field(
        None, description="The rectangle (y0, x0, y1, x1) in pixels; without it the image, or a part of a large one."
    )
    device: str = Field("auto", description="Where a run computes: auto, cpu, cuda, cuda:N or mps.")
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
        tell `box`, `stain`, `threshold` and for nuclei how many; of a run with several classes their names, `classes`,
        and in `kinds` the number of the class of each nucleus, from 1, in the order of the nuclei's own; `Finished`.

    Raises
    ------
    InputError
        If the image cannot be read, or the files cannot be written.
    """
    yield Started("propose")
    image = open_image(request.image, mpp=request.mpp)
    box = _rectangle(image, request.box)
    rule = SplitRule(0.5, request.strength, smallest_area(image.mpp, request.min_area), image.mpp)
    out = Path(request.out)
    out.mkdir(parents=True, exist_ok=True)
    if request.run:
        yield _of_run(request, image, box, rule)
        yield Finished("propose", str(out))
        return
    found = _threshold(image)
    confidence = _confidence(image, box, found)
    facts = {"box": list(box), "downsample": 1, "stain": found.stain, "threshold": found.value}
    if request.box is None:
        nuclei = Proposed(box, rule.apply(confidence))
    else:
        nuclei = nuclei_of(lambda part: _confidence(image, part, found)[None], box, image.shape, rule)
    write_npy(out / "confidence.npy", confidence)
    yield Written("confidence", str(out / "confidence.npy"), facts)
    written = nuclei.write(out / "nuclei.npy", (), stain=found.stain, threshold=found.value)
    yield written
    yield Finished("propose", str(out), facts=written.facts)


def nuclei_of(
    confidence: Callable[[Box], NDArray[np.uint8]], box: Box, shape: tuple[int, int], rule: SplitRule
) -> Proposed:
    """Split the nuclei of a rectangle as they would be split in the whole image; those on its border are cut there.

    Parameters
    ----------
    confidence : callable
        The map of a rectangle, uint8 (classes, h, w).
    box : Box
    shape : tuple of int
        Rows and columns of the image.
    rule : SplitRule

    Raises
    ------
    InputError
        If nothing of the rectangle lies in the image.
    """
    whole = Box.whole(shape)
    box = box.intersect(whole)
    if not box.area:
        raise InputError("The rectangle does not lie in the image: choose one that does.")
    seen = box.grown(rule.halo).intersect(whole)
    found = confidence(seen)
    whole_nuclei = rule.apply(any_nucleus(found))
    inside = box.shifted(-seen.y0, -seen.x0).slices
    labels = whole_nuclei[inside]
    return Proposed(box, labels, _kinds(nucleus_classes(found, whole_nuclei)[inside], labels) if len(found) > 1 else ())


def _kinds(classes: NDArray[np.uint8], labels: NDArray[np.uint32]) -> tuple[int, ...]:
    ids, first = np.unique(labels, return_index=True)
    return tuple(classes.ravel()[first[ids > 0]].tolist())


def by_threshold(image: Image) -> Callable[[Box], NDArray[np.uint8]]:
    """Return what tells the confidence of any rectangle of an image by the threshold, uint8 (1, h, w)."""
    found = _threshold(image)
    return lambda part: _confidence(image, part, found)[None]


def _of_run(request: ProposeRequest, image: Image, box: Box, rule: SplitRule) -> Written:
    if request.box is None:
        raise InputError("A run proposes the nuclei of a rectangle: name one, or predict the image.")
    from napari_semiseg.engine.devices import choose_device
    from napari_semiseg.engine.infer import confidence_map
    from napari_semiseg.engine.predictor import load_predictor

    found = load_predictor(Path(request.run), choose_device(request.device))

    def confidence(part: Box) -> NDArray[np.uint8]:
        return confidence_map(
            found.network,
            image,
            part,
            device=found.device,
            divisor=found.divisor,
            reach=found.reach,
            scale=scale_of(image, found.mpp),
        )

    nuclei = nuclei_of(confidence, box, image.shape, replace(rule, threshold=found.threshold))
    return nuclei.write(Path(request.out) / "nuclei.npy", found.classes[1:])


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
    return find_threshold(parts, best_stain(parts, look, gray=image.gray))


def _confidence(image: Image, box: Box, found: Threshold) -> NDArray[np.uint8]:
    """Apply the threshold part by part, as if to the whole image at once."""
    confidence = np.zeros(box.shape, np.uint8)
    for cell in cells(box.shape, 2 * _CELL):
        part = cell.shifted(box.y0, box.x0)
        seen = part.grown(REACH).intersect(Box.whole(image.shape))
        values = found.confidence(image.read(seen))
        confidence[cell.slices] = values[part.shifted(-seen.y0, -seen.x0).slices]
    return confidence
