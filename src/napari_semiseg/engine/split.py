"""Splitting nuclei again after a slider has moved: what is in view first. Free of torch, so that it answers at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from napari_semiseg.blocks import Box
from napari_semiseg.config import Config
from napari_semiseg.engine.control import Control
from napari_semiseg.engine.npy import map_npy, write_npy
from napari_semiseg.engine.objects import Nuclei, forget_objects, note, split_facts
from napari_semiseg.errors import InputError
from napari_semiseg.events import Cancel, Event, Finished, Progressed, Started, Stop, Warned, Written
from napari_semiseg.io.result import Result
from napari_semiseg.io.result_writer import ResultWriter
from napari_semiseg.postprocess.classes import any_nucleus
from napari_semiseg.postprocess.instances import smallest_area
from napari_semiseg.postprocess.merge import SplitRule


class SplitRequest(Config):
    """A new split of the nuclei in a map of confidence."""

    source: str = Field(min_length=1, description="A result (.ome.zarr), or a map of confidence (.npy).")
    out: str = Field("", description="File (.npy) for the nuclei of the rectangle.")
    box: tuple[int, int, int, int] | None = Field(
        None, description="The rectangle (y0, x0, y1, x1) in pixels of the image; without it everything."
    )
    origin: tuple[int, int] = Field((0, 0), description="Where a .npy map begins in its image (y, x), in pixels.")
    mpp: float | None = Field(None, gt=0.01, lt=100, description="Pixel size of a .npy map, in µm.")
    threshold: float = Field(0.5, ge=0, le=1, description="Confidence above which a pixel is nucleus.")
    strength: float = Field(0.5, ge=0, le=1, description="How readily touching nuclei are parted: 0 never, 1 always.")
    min_area: int | None = Field(
        None, ge=1, le=1_000_000, description="Smallest nucleus, in pixels, instead of 3 µm² (50 pixels)."
    )
    min_area_um2: float | None = Field(
        None, gt=0, le=1e6, description="Smallest nucleus, in µm², where the pixel size is known."
    )
    apply: bool = Field(False, description="Also split the whole image and write the nuclei into the result.")


def split_from_args(args: dict[str, Any], control: Control) -> Iterator[Event]:
    """Split from untrusted options: what `serve` calls."""
    return split(SplitRequest.checked(args, "the request"), control)


def split(request: SplitRequest, control: Control | None = None) -> Iterator[Event]:
    """Split the nuclei of a rectangle, and with `apply` then those of the whole result.

    Parameters
    ----------
    request : SplitRequest
    control : Control, optional
        Stop and Cancel end `apply` between two cells; the result is then unfinished until it is split or predicted
        again.

    Yields
    ------
    Event
        `Started`; `Written` with what="nuclei", the ``.npy`` file (uint32, (h, w), ids from 1) and the facts `box` and
        `nuclei`; with `apply`, `Progressed` and `Written` with what="ome-zarr"; `Finished`.

    Raises
    ------
    InputError
        If the map cannot be read, or the nuclei cannot be written.
    """
    yield Started("split")
    if not request.out and not request.apply:
        raise InputError("A split needs a file for its nuclei: give out, or apply it to the whole result.")
    if request.out:
        box, labels = _split_rectangle(request)
        write_npy(request.out, labels)
        facts = {"box": list(box), "downsample": 1, "nuclei": int(labels.max(initial=0))}
        yield Written("nuclei", request.out, facts)
    stopped = False
    if request.apply:
        for event in _applied(request, control or Control()):
            stopped = stopped or isinstance(event, Warned)
            yield event
    yield Finished("split", request.source if request.apply else request.out, stopped=stopped)


def _split_rectangle(request: SplitRequest) -> tuple[Box, NDArray[np.uint32]]:
    """Return the rectangle, in pixels of the image, and its nuclei; those on its border are cut there."""
    if request.source.endswith(".npy"):
        confidence = map_npy(request.source)
        whole, mpp = Box.whole(confidence.shape[1:]).shifted(*request.origin), request.mpp
    else:
        result = Result.open(request.source)
        whole, mpp = Box.whole(result.shape), result.mpp
    box = (whole if request.box is None else Box(*request.box)).intersect(whole)
    if not box.area:
        raise InputError(
            f"The rectangle {request.box} does not lie in '{request.source}', which covers {tuple(whole)}."
        )
    rule = _rule(request, mpp)
    seen = box.grown(rule.halo).intersect(whole)
    if request.source.endswith(".npy"):
        part = confidence[(slice(None), *seen.shifted(-whole.y0, -whole.x0).slices)]
    else:
        part = result.confidence(seen)
    labels = rule.apply(any_nucleus(part))
    return box, _from_one(labels[box.shifted(-seen.y0, -seen.x0).slices])


def _applied(request: SplitRequest, control: Control) -> Iterator[Event]:
    if request.source.endswith(".npy"):
        raise InputError(f"'{request.source}' is a single map: only a result (.ome.zarr) can be split as a whole.")
    card = Result.open(request.source).card
    if not card.complete:
        raise InputError(
            f"'{request.source}' is not finished: let the prediction end, or run it again, and it goes on."
        )
    gaps = [Box(*gap) for gap in card.facts.get("gaps", [])]  # known to whoever goes on where this breaks off
    with ResultWriter.open(request.source, gaps) as writer:
        rule = _rule(request, writer.card.mpp)
        forget_objects(writer)
        with Nuclei(writer, rule) as nuclei:
            nuclei.expect(())
            for _ in nuclei.finish():
                yield Progressed("splitting nuclei", nuclei.done, nuclei.total)
                if any(isinstance(command, Stop | Cancel) for command in control.take()):
                    yield Warned(f"The nuclei of '{request.source}' are not complete: split them again.")
                    return
        note(writer, {"split": split_facts(rule), "nuclei": nuclei.count})
        for done, total in writer.finishing():
            yield Progressed("building pyramids", done, total)
    Result.open(request.source)
    yield Written("ome-zarr", request.source, {"image": Path(request.source).name, "nuclei": nuclei.count})


def _rule(request: SplitRequest, mpp: float | None) -> SplitRule:
    least = smallest_area(mpp, request.min_area, request.min_area_um2)
    return SplitRule(request.threshold, request.strength, least, mpp)


def _from_one(labels: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Give the nuclei numbers from 1, without gaps, in the order they had."""
    present = np.bincount(labels.ravel()) > 0
    present[0] = False
    number = (np.cumsum(present) * present).astype(np.uint32)
    return np.asarray(number[labels])
