"""Export a result, or a trained model, to the formats of other programs, each read back before it has its name.

A broken-off export never looks complete. The single files get their name only at the end; an OME-Zarr is marked
unfinished until then, and the same export goes on where it stopped.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from napari_semiseg import atomic
from napari_semiseg.blocks import Box, cells
from napari_semiseg.engine import export_job
from napari_semiseg.engine.control import Control
from napari_semiseg.engine.export_job import ANOTHER, ExportRequest, Job
from napari_semiseg.engine.export_outlines import to_geojson, to_imagej_roi
from napari_semiseg.engine.export_report import to_report
from napari_semiseg.engine.export_tables import to_csv, to_parquet
from napari_semiseg.engine.watched import watched
from napari_semiseg.errors import InputError
from napari_semiseg.events import Cancel, Event, Finished, Started, Stop, Warned, Written
from napari_semiseg.io import overlay, tiff
from napari_semiseg.io.claims import Claim, check_target
from napari_semiseg.io.fingerprint import fingerprint_of
from napari_semiseg.io.images import Image, open_image
from napari_semiseg.io.locate import is_folder, locate, stem
from napari_semiseg.io.result import Result
from napari_semiseg.io.result_card import Kind, result_state
from napari_semiseg.io.result_writer import SHARD, ResultWriter, discard_result
from napari_semiseg.io.tiff import Pixels, Report

_READ = 4
"""Side of what a picture reads of an image that has no smaller levels, in blocks."""


@dataclass(frozen=True)
class _Format:
    endings: tuple[str, ...]
    write: Callable[[Job, Report], dict[str, Any]]
    wants_image: Literal["no", "if there", "yes"] = "no"


def export_from_args(args: Mapping[str, Any], control: Control) -> Iterator[Event]:
    """Export with the options of `ExportRequest` by name; see `export`."""
    return export(ExportRequest.checked(args, "the request"), control)


def export(request: ExportRequest, control: Control | None = None) -> Iterator[Event]:
    """Export a result or a trained model, and yield what happens.

    Parameters
    ----------
    request : ExportRequest
    control : Control, optional
        Answers `Pause`, `Resume`, `Stop` (an OME-Zarr stays, to be gone on with) and `Cancel` (nothing stays) within a
        part of the work.

    Yields
    ------
    Started, Progressed, Warned, Paused, Resumed, Written, Finished

    Raises
    ------
    InputError
        If the result or model is missing, unfinished or broken, the target is being read or written by someone, exists
        already, or cannot be written, or what is read back is not what was written.
    """
    work = _model_work(request) if request.to in MODEL_FORMATS else _result_work(request)
    target = work.target
    check_target(target, work.reads)
    atomic.make_folder(target.parent)
    claim = None if request.to == "ome-zarr" else Claim(target)  # a ResultWriter has its own
    try:
        _check_existing(request, target)
        if claim is not None:
            atomic.remove_temporaries(target)
        yield Started("export", facts={"format": request.to, "out": str(target)})
        if work.warning:
            yield Warned(work.warning)
        outcome = yield from watched(work.write, control or Control(), "export")
        if isinstance(outcome, dict):
            yield Written(request.to, str(target), outcome)
        elif outcome is Cancel and request.to == "ome-zarr":
            discard_result(target)
        yield Finished("export", str(target), stopped=outcome is Stop, canceled=outcome is Cancel)
    finally:
        if claim is not None:
            claim.release()


@dataclass(frozen=True)
class _Work:
    """What is to be done: write to `target`, while `reads` are being read."""

    target: Path
    reads: list[str | Path]
    write: Callable[[Report], dict[str, Any]]
    warning: str = ""


def _result_work(request: ExportRequest) -> _Work:
    form = FORMATS[request.to]
    result = Result.open(request.source)
    if not result.complete:
        raise InputError(
            f"'{request.source}' is not finished: let the prediction end, or run it again, and it goes on."
        )
    target = _target(request, form.endings, result.card.name or stem(result.path))
    image, warning = _image(request, result, form)
    reads: list[str | Path] = [request.source, *([locate(image.source).path] if image is not None else [])]
    return _Work(target, reads, partial(form.write, Job(request, result, image, target)), warning)


def _model_work(request: ExportRequest) -> _Work:
    from napari_semiseg.engine.export_model import writer_of  # torch is loaded for models only

    target = _target(request, MODEL_FORMATS[request.to], stem(request.source))
    return _Work(target, [request.source], writer_of(request, target))


# ---- formats


def _to_ome_zarr(job: Job, report: Report) -> dict[str, Any]:
    result, card = job.result, job.result.card
    origin = {"exported_from": str(result.path.resolve()), "fingerprint": fingerprint_of(result.path)}
    with _zarr_writer(job, {**card.facts, **origin}) as writer:
        parts = [(kind, cell) for kind in result.kinds for cell in cells(result.shape, SHARD)]
        for done, (kind, cell) in enumerate(parts, start=1):
            if not writer.is_written(kind, cell):
                _copy(result, writer, kind, cell)
            report(done, 2 * len(parts))
        for done, total in writer.finishing():
            report(total + done, 2 * total)
    copied = Result.open(job.target)
    if copied.card.shape != card.shape or copied.kinds != result.kinds or not copied.complete:
        raise InputError(f"'{job.target}' is not what was written when read back: try another disk.")
    return {"version": job.request.version, "holds": list(copied.kinds), "levels": len(copied.levels)}


def _zarr_writer(job: Job, facts: dict[str, Any]) -> ResultWriter:
    """Go on with the same export that was broken off, or begin."""
    if result_state(job.target) == "unfinished":
        writer = ResultWriter.open(job.target)
        if writer.card.facts == facts and writer.card.version == job.request.version:
            return writer
        writer.close()
        if not job.request.overwrite:
            raise InputError(f"'{job.target}' is an unfinished export of something else: {ANOTHER}.")
    if result_state(job.target) != "missing":
        discard_result(job.target)
    card = job.result.card
    return ResultWriter.create(
        job.target, card.shape, card.classes, mpp=card.mpp, name=card.name, translation=card.translation,
        image=card.image, facts=facts, version=job.request.version,
    )  # fmt: skip


def _copy(result: Result, writer: ResultWriter, kind: Kind, cell: Box) -> None:
    values = result.read(kind, cell)
    writer.write(kind, cell, values)
    if not np.array_equal(writer.read(kind, cell), values):
        raise InputError(f"'{writer.path}' is not what was written when read back: try another disk.")


def _to_ome_tiff(job: Job, report: Report) -> dict[str, Any]:
    order: tuple[Kind, ...] = ("nuclei", "classes", "confidence")
    images = [_pixels(job.result, kind) for kind in order if kind in job.result.kinds]
    _require_space(job.target, images)
    tiff.write_ome_tiff(job.target, images, report)
    return {"series": [image.name for image in images], "levels": len(images[0].levels)}


def _to_tiff(job: Job, report: Report) -> dict[str, Any]:
    largest = max((int(job.result.nuclei(cell).max()) for cell in cells(job.result.shape, export_job.BLOCK)), default=0)
    image = _pixels(job.result, "nuclei", np.dtype(np.uint16 if largest < 2**16 else np.uint32))
    _require_space(job.target, [image])
    tiff.write_tiff(job.target, image, report)
    return {"type": image.dtype.name, "levels": len(image.levels)}


def _to_png(job: Job, report: Report) -> dict[str, Any]:
    result, image = job.result, job.image
    assert image is not None
    level = next(
        (n for n, shape in enumerate(result.levels) if max(shape) <= job.request.max_side), len(result.levels) - 1
    )
    picture = np.zeros((*result.levels[level], 3), np.uint8)
    side = min(export_job.BLOCK, max(1, _READ * export_job.BLOCK >> level))
    blocks = cells(result.levels[level], side)
    for done, cell in enumerate(blocks, start=1):
        seen = cell.grown(1).intersect(Box.whole(picture.shape))  # outlines depend on the neighbors
        class_map = result.pixel_classes(seen, level) if "classes" in result.kinds else None
        drawn = overlay.draw_outlines(reduced(image, seen, 2**level), result.nuclei(seen, level), class_map)
        picture[cell.slices] = drawn[cell.shifted(-seen.y0, -seen.x0).slices]
        report(done, len(blocks) + 1)
    overlay.write_png(job.target, picture)
    report(len(blocks) + 1, len(blocks) + 1)
    return {"reduced": 2**level, "size": list(picture.shape[:2])}


FORMATS: Mapping[str, _Format] = {
    "ome-zarr": _Format((".zarr",), _to_ome_zarr),
    "ome-tiff": _Format((".ome.tif", ".ome.tiff"), _to_ome_tiff),
    "tiff": _Format((".tif", ".tiff"), _to_tiff),
    "geojson": _Format((".geojson", ".json"), to_geojson, "if there"),
    "csv": _Format((".csv",), to_csv, "if there"),
    "parquet": _Format((".parquet",), to_parquet, "if there"),
    "imagej-roi": _Format((".zip",), to_imagej_roi),
    "png": _Format((".png",), _to_png, "yes"),
    "report": _Format((".html",), to_report, "yes"),
}
"""The formats of results by name: what their files end in, and how they are written."""

MODEL_FORMATS: Mapping[str, tuple[str, ...]] = {
    "safetensors": (".safetensors",),
    "onnx": (".onnx",),
    "bioimageio": (".bioimageio.zip", ".zip"),
}
"""The formats of trained models by name, and what their files end in."""


def _pixels(result: Result, kind: Kind, dtype: np.dtype | None = None) -> Pixels:
    kinds = {"confidence": np.uint8, "nuclei": np.uint32, "classes": np.uint8}
    wanted = dtype or np.dtype(kinds[kind])
    channels = result.classes if kind == "confidence" else ()

    def read(box: Box, level: int) -> NDArray[Any]:
        return result.read(kind, box, level).astype(wanted, copy=False)

    values = result.classes if kind == "classes" else ()
    return Pixels(kind, wanted, result.levels, read, channels, result.mpp, result.translation, values)


def reduced(image: Image, cell: Box, factor: int) -> NDArray[np.uint8]:
    """Read a part of an image that is `factor` times smaller.

    Parameters
    ----------
    image : Image
    cell : Box
        In pixels of the smaller image.
    factor : int
        Level-0 pixels per pixel, at least 1.

    Returns
    -------
    ndarray, uint8, (h, w, 3)
        Means of the finest level that is not finer than needed.
    """
    if factor == 1:
        return image.read(cell)
    level = max(number for number, (down, across) in enumerate(image.downsamples) if max(down, across) <= factor * 1.01)
    down, across = (factor / value for value in image.downsamples[level])
    box = Box(
        math.floor(cell.y0 * down), math.floor(cell.x0 * across), math.ceil(cell.y1 * down), math.ceil(cell.x1 * across)
    )
    picture = Pillow.fromarray(image.read(box, level))
    return np.asarray(picture.resize((cell.width, cell.height), Pillow.Resampling.BOX))


# ---- before the work


def _target(request: ExportRequest, endings: tuple[str, ...], name: str) -> Path:
    out = Path(request.out)
    named_as_folder = request.out.endswith(("/", os.sep))
    if (is_folder(out) or named_as_folder) and not (request.to == "ome-zarr" and out.name.lower().endswith(".zarr")):
        return out / f"{name}{'.ome.zarr' if request.to == 'ome-zarr' else endings[0]}"
    if not out.name.lower().endswith(endings):
        raise InputError(
            f"'{out}' does not end in {' or '.join(endings)}, as {request.to} files do: choose such a name or a folder."
        )
    return out


def _image(request: ExportRequest, result: Result, form: _Format) -> tuple[Image | None, str]:
    """Open the image where the format wants it. Return also a warning where it does without."""
    if form.wants_image == "no":
        return None, ""
    source = request.image or result.card.image
    if not source:
        if form.wants_image == "yes":
            raise InputError(f"'{result.path}' does not know its image: name the image with --image.")
        return None, f"'{result.path}' does not know its image, so no stain is measured: name the image with --image."
    try:
        image = open_image(source)
    except InputError as error:
        if form.wants_image == "yes" or request.image:
            raise
        return None, f"No stain is measured, because the image is not there: {error}"
    if image.shape != result.shape:
        raise InputError(
            f"The image '{source}' has {image.shape[0]} x {image.shape[1]} pixels and the result {result.shape[0]} x "
            f"{result.shape[1]}: "
            "name the image that was predicted."
        )
    image.gaps = bool(result.card.facts.get("gaps"))  # there are no nuclei in them
    return image, ""


def _check_existing(request: ExportRequest, target: Path) -> None:
    if request.to != "ome-zarr":
        if target.exists() and not (request.overwrite and target.is_file()):
            raise InputError(f"'{target}' is there already: {ANOTHER}.")
        return
    state = result_state(target)
    if state == "foreign" or (state == "complete" and not request.overwrite):
        way = "choose another name" if state == "foreign" else ANOTHER
        raise InputError(f"'{target}' is there already: {way}.")


def _require_space(target: Path, images: list[Pixels]) -> None:
    raw = sum(math.prod(image.levels[0]) * image.dtype.itemsize * max(1, len(image.channels)) for image in images)
    atomic.require_space(target.parent, raw // 4, f"'{target.name}'")
