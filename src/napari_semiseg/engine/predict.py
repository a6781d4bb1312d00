"""From a trained run and images to results: confidence and nuclei of whole slides, as OME-Zarr."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import Field

from napari_semiseg.config import Config
from napari_semiseg.engine.control import Control
from napari_semiseg.engine.devices import choose_device
from napari_semiseg.engine.infer import BlockwiseNetwork, evaluating
from napari_semiseg.engine.predict_image import Compute, ImagePrediction, Wanted
from napari_semiseg.engine.predictor import Predictor, load_predictor
from napari_semiseg.engine.progress import BlockProgress
from napari_semiseg.errors import InputError
from napari_semiseg.events import Cancel, Event, Finished, Started, Warned
from napari_semiseg.io.claims import check_target
from napari_semiseg.io.find_images import check_results, find_images
from napari_semiseg.io.images import Image, open_image
from napari_semiseg.nn.turned import Looks

BLOCK = {"cpu": 1024, "cuda": 2048, "mps": 1024}
"""Side of a block, in pixels, by kind of device. The largest is a whole file of the result."""


class PredictRequest(Config):
    """A prediction: with which run, of which images, and where to put the results."""

    run: str = Field(min_length=1, description="The folder of a training run.")
    images: tuple[str, ...] = Field(min_length=1, description="Images, slides, or folders of them.")
    out: str = Field(min_length=1, description="Folder of the results; for one image also a name in .ome.zarr.")
    threshold: float | None = Field(
        None, ge=0, le=1, description="Confidence above which a pixel is nucleus, instead of the run's own."
    )
    strength: float = Field(0.5, ge=0, le=1, description="How readily touching nuclei are parted: 0 never, 1 always.")
    min_area: int | None = Field(
        None, ge=1, le=1_000_000, description="Smallest nucleus, in pixels, instead of 3 µm² (50 pixels)."
    )
    min_area_um2: float | None = Field(
        None, gt=0, le=1e6, description="Smallest nucleus, in µm², where the pixel size is known."
    )
    semantic: bool = Field(False, description="Confidence and classes only: do not split nuclei.")
    block: int | None = Field(None, ge=64, le=8192, description="Side of a block of prediction, in pixels.")
    mpp: float | None = Field(
        None, gt=0.01, lt=100, description="Pixel size of the images, in µm, instead of what their files say."
    )
    turns: Looks = Field(
        "auto",
        description="Look at each block from 4 sides, or from 8 with mirror images, and average: that much slower; "
        "auto: from 4 in images of at most 4.2 megapixels, from 1 in larger ones.",
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:N or mps.")
    glass: bool = Field(False, description="Look for nuclei on the glass of slides too.")
    gaps: bool = Field(
        False, description="Complete a result although parts of its image cannot be read; these stay empty."
    )
    overwrite: bool = Field(False, description="Replace results of another run or another image.")
    scheduler: str | None = Field(
        None,
        description="Address of a Dask scheduler (tcp://host:8786), whose workers predict the blocks; local to start "
        "one worker on each graphics card of this machine, local:4 for four.",
    )


def predict_from_args(args: dict[str, Any], control: Control) -> Iterator[Event]:
    """Start a prediction from untrusted options: what `serve` calls."""
    return predict(PredictRequest.checked(args, "the request"), control)


def predict(request: PredictRequest, control: Control | None = None) -> Iterator[Event]:
    """Predict images into one OME-Zarr each, and yield what happens, in order.

    Reading, computing, writing and splitting overlap; memory does not grow with the image. A prediction that broke off
    goes on where it stopped when it is asked for again. One that is complete is kept, and only its nuclei are split
    anew where the request differs in threshold, strength, smallest area or `semantic`.

    Parameters
    ----------
    request : PredictRequest
    control : Control, optional
        The mailbox through which the job is paused, stopped (what was written stays, and can be gone on with), canceled
        (what this job began is removed), or told which rectangle is wanted first.

    Yields
    ------
    Event
        `Started`, then `BlockDone` once a block is in the result, `Progressed` for splitting and pyramids, `Warned`,
        and `Written` for each image; `Finished` as the last.

    Raises
    ------
    InputError
        If the request cannot be met, or parts of an image could not be read even at a second try, and `gaps` was not
        asked for. All that could be predicted is in the results then, which can be gone on with.
    """
    device = choose_device("cpu" if request.scheduler else request.device)
    predictor = load_predictor(Path(request.run), device, request.turns)
    images = [open_image(path, mpp=request.mpp) for path in find_images(request.images)]
    wanted = _wanted(request, predictor)
    progress = BlockProgress(control or Control())
    with _computing(request) as compute, evaluating(predictor.network):
        work = [
            ImagePrediction(image, index, path, predictor, wanted, progress, compute)
            for index, (image, path) in enumerate(_targets(images, Path(request.out)))
        ]
        progress.total = sum(item.blocks for item in work)
        yield Started("predict", request.run, progress.total, {"images": len(images), **_facts(predictor, wanted)})
        if predictor.reach is None:
            yield Warned(
                "This network sees a block as a whole: near the borders of blocks its confidence differs a little from "
                f"that with blocks of another size ({wanted.block} pixels here)."
            )
        if predictor.mpp is not None and (unknown := [image for image in images if image.mpp is None]):
            yield Warned(
                f"The pixel size of {_named(unknown)} is not known and taken for the {predictor.mpp:g} µm that the run "
                "works at: where it is another, nuclei are missed. Give it (--mpp)."
            )
        progress.restart_clock()
        for item in work:
            yield from item.events()
            if progress.ends():
                break
    yield _finished(request, work, progress)


def _named(images: Sequence[Image]) -> str:
    return f"'{images[0].name}'" if len(images) == 1 else f"{len(images)} images"


def _finished(request: PredictRequest, work: Sequence[ImagePrediction], progress: BlockProgress) -> Finished:
    canceled = isinstance(progress.ending, Cancel)
    if canceled:
        for item in work:
            item.discard()
    unread = [sentence for item in work for sentence in item.unread]
    if unread and not progress.ends():
        raise InputError(" ".join(unread))
    facts = {"images": sum(item.done for item in work), "nuclei": sum(item.nuclei for item in work)}
    return Finished("predict", request.out, progress.ends(), canceled, facts)


@contextmanager
def _computing(request: PredictRequest) -> Iterator[Compute]:
    """Give what predicts blocks: this process, or the workers of a cluster."""
    if request.scheduler is None:
        yield BlockwiseNetwork.predict
        return
    from napari_semiseg.engine.cluster import connected

    with connected(request.scheduler, request.run, request.device, request.turns) as cluster:
        yield cluster.predict


def _wanted(request: PredictRequest, predictor: Predictor) -> Wanted:
    return Wanted(
        run=request.run,
        threshold=predictor.threshold if request.threshold is None else request.threshold,
        strength=request.strength,
        min_area=request.min_area,
        min_area_um2=request.min_area_um2,
        semantic=request.semantic,
        block=request.block or BLOCK.get(predictor.device.type, 1024),
        glass=request.glass,
        gaps=request.gaps,
        overwrite=request.overwrite,
    )


def _targets(images: Sequence[Image], out: Path) -> list[tuple[Image, Path]]:
    """Return where the result of each image goes."""
    check_results(image.source for image in images)
    if not out.name.endswith(".ome.zarr"):
        targets = [(image, out / f"{image.name}.ome.zarr") for image in images]
    elif len(images) == 1:
        targets = [(images[0], out)]
    else:
        raise InputError(
            f"'{out}' is the name of one result and there are {len(images)} images: give a folder as --out."
        )
    if out.is_file():
        raise InputError(f"'{out}' is a file, and results are folders: name another --out.")
    for _, path in targets:
        check_target(path, [image.source for image in images])
    return targets


def _facts(predictor: Predictor, wanted: Wanted) -> dict[str, Any]:
    return {
        "step": predictor.step,
        "threshold": wanted.threshold,
        "device": str(predictor.device),
        "block": wanted.block,
    }
