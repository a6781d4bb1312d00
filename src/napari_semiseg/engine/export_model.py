"""Export a trained model: as safetensors with a card, as ONNX, or as a bioimage.io package that carries the ONNX.

Each is run again from what was written and compared with the model that it came from, before it has its name. What a
model is tried on is a generated field, so that no image of a patient travels with it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from napari_semiseg import atomic
from napari_semiseg.engine.checkpoint import RunFolder, read_card, write_tensors
from napari_semiseg.engine.export_job import ANOTHER, ExportRequest
from napari_semiseg.engine.model_card import model_card
from napari_semiseg.engine.onnx_file import Example, write_onnx
from napari_semiseg.engine.predictor import Predictor, load_predictor
from napari_semiseg.engine.watched import Report
from napari_semiseg.errors import InputError
from napari_semiseg.io.locate import stem

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class ModelJob:
    """A model that is to be written: its name, where it comes from, what is saved beside it, and the model itself."""

    name: str
    run: Path
    target: Path
    card: dict[str, Any]
    text: str
    predictor: Predictor
    author: str
    license: str


def writer_of(request: ExportRequest, target: Path) -> Callable[[Report], dict[str, Any]]:
    """Load the model that is asked for, and return what writes it.

    Raises
    ------
    InputError
        If there is no usable model, its method has none that can be written in that format, or other files lie where
        it will write beside the target.
    """
    run = Path(request.source)
    predictor = load_predictor(run, _CPU)
    card = RunFolder.read_model_file(run)[1] if run.is_file() else RunFolder(run).read_model()[1]
    name = stem(target).removesuffix(".bioimageio")
    if request.to == "safetensors" and not request.overwrite:
        _check_beside(target)
    text = model_card(name, run, card, author=request.author, license=request.license)
    job = ModelJob(name, run, target, card, text, predictor, request.author, request.license)
    return partial({"safetensors": _to_safetensors, "onnx": _to_onnx, "bioimageio": _to_bioimageio}[request.to], job)


def _to_safetensors(job: ModelJob, report: Report) -> dict[str, Any]:
    """Write card and page, and then the tensors: without these there is no model."""
    card, page = _beside(job.target)
    with atomic.staged(job.target) as temporary:
        written = temporary.with_suffix(".json")
        try:
            write_tensors(temporary, job.predictor.network.state_dict(), job.card, copies=1)
            report(1, 3)
            example, again = Example.of(job.predictor), load_predictor(temporary, _CPU)
            if not torch.equal(example.probabilities(again.network), example.probabilities(job.predictor.network)):
                raise InputError(f"'{job.target}' is not what was written when read back: try another disk.")
            report(2, 3)
            atomic.replace(written, card)
        finally:
            written.unlink(missing_ok=True)
        atomic.write_text(page, job.text)
    report(3, 3)
    return {"card": str(card), "page": str(page), "bytes": job.target.stat().st_size}


def _beside(target: Path) -> tuple[Path, Path]:
    """Return where the card and the page of a model lie."""
    return target.with_suffix(".json"), target.with_suffix(".md")


def _check_beside(target: Path) -> None:
    """Refuse to write over files that lie where card and page will, unless a killed export of ours has left them."""
    card, page = _beside(target)
    if card.exists():
        with contextlib.suppress(InputError):
            read_card(target)
            return
    for path in (card, page):
        if path.exists():
            raise InputError(f"'{path}' is there already, where something about the model will be written: {ANOTHER}.")


def _to_onnx(job: ModelJob, report: Report) -> dict[str, Any]:
    with atomic.staged(job.target) as temporary:
        return write_onnx(temporary, job.predictor, job.text, report)


def _to_bioimageio(job: ModelJob, report: Report) -> dict[str, Any]:
    from napari_semiseg.engine.bioimageio_package import write_package

    with atomic.staged(job.target) as temporary:
        return write_package(temporary, job, report)
