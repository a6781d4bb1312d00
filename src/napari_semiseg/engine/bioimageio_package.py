"""Models as packages of bioimage.io (model description 0.5), which Fiji, ilastik, QuPath and others run."""

from __future__ import annotations

import gc
import tempfile
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_semiseg import __version__
from napari_semiseg.engine.infer import halo
from napari_semiseg.engine.onnx_file import INPUT, OPSET, OUTPUT, Example, write_onnx
from napari_semiseg.engine.watched import Report
from napari_semiseg.errors import InputError

if TYPE_CHECKING:
    from napari_semiseg.engine.export_model import ModelJob


def write_package(path: Path, job: ModelJob, report: Report) -> dict[str, Any]:
    """Write a package, and let bioimage.io's own test run it.

    Parameters
    ----------
    path : Path
        A ``.zip``, written over.
    job : ModelJob
    report : callable

    Returns
    -------
    dict
        ``status`` that the test gave, beside what `write_onnx` returns.

    Raises
    ------
    InputError
        If bioimage.io's library is not installed, the model is no network, or the test fails.
    """
    if find_spec("bioimageio.core" if find_spec("bioimageio") else "bioimageio") is None:
        raise InputError('bioimageio.core is not installed: run pip install "napari-semiseg[onnx]", and export again.')
    from bioimageio.core import test_description
    from bioimageio.spec import save_bioimageio_package

    with tempfile.TemporaryDirectory(prefix="semiseg-bioimageio-") as made:
        folder = Path(made)
        facts = write_onnx(folder / "model.onnx", job.predictor, job.text, lambda done, total: report(done, 6))
        example = Example.of(job.predictor)
        (folder / "README.md").write_text(job.text, encoding="utf-8")
        np.save(folder / "test_input.npy", np.moveaxis(example.pixels, -1, 0)[None])
        np.save(folder / "test_output.npy", example.probabilities(job.predictor.network).numpy())
        save_bioimageio_package(_described(job, folder), output_path=path)
    report(5, 6)
    summary = test_description(path, devices=["cpu"])
    if summary.status != "passed":  # "valid-format": described well, but the model does not run
        wrong = next((error.msg for detail in summary.details for error in detail.errors), "no reason given")
        raise InputError(f"'{job.target}' does not pass the test of bioimage.io ({wrong[:120]}): report this, please.")
    gc.collect()  # the library leaves the package open, and Windows moves no open file
    report(6, 6)
    return {**facts, "status": summary.status, "bytes": path.stat().st_size}


def _described(job: ModelJob, folder: Path) -> Any:
    spec: Any = import_module("bioimageio.spec.model.v0_5")

    def file(name: str) -> Any:
        return spec.FileDescr(source=folder / name)

    predictor = job.predictor
    as_float = spec.EnsureDtypeDescr(kwargs=spec.EnsureDtypeKwargs(dtype="float32"))
    image = spec.InputTensorDescr(
        id=spec.TensorId(INPUT),
        description="An RGB image, 0 to 255",
        axes=[
            spec.BatchAxis(),
            spec.ChannelAxis(channel_names=["red", "green", "blue"]),
            *(_input_axis(spec, name, predictor) for name in "yx"),
        ],
        data=spec.IntervalOrRatioDataDescr(type="uint8", range=(0, 255)),
        test_tensor=file("test_input.npy"),
        preprocessing=[as_float, spec.ScaleLinearDescr(kwargs=spec.ScaleLinearKwargs(gain=1 / 255)), as_float],
    )
    probabilities = spec.OutputTensorDescr(
        id=spec.TensorId(OUTPUT),
        description="The probability of each class",
        axes=[
            spec.BatchAxis(),
            spec.ChannelAxis(channel_names=[_identifier(name) for name in predictor.classes]),
            *(_output_axis(spec, name, predictor) for name in "yx"),
        ],
        data=spec.IntervalOrRatioDataDescr(type="float32", range=(0, 1)),
        test_tensor=file("test_output.npy"),
    )
    optional: dict[str, Any] = {}
    if job.author:
        optional["authors"] = [spec.Author(name=job.author)]
    if job.license:
        optional["license"] = spec.LicenseId(job.license)
    return spec.ModelDescr(
        name=_title(job.name),
        description=f"Segments nuclei; trained with napari-semiseg {__version__}.",
        documentation=file("README.md"),
        tags=["nuclei", "segmentation", "histology", "semi-supervised"],
        inputs=[image],
        outputs=[probabilities],
        weights=spec.WeightsDescr(onnx=spec.OnnxWeightsDescr(source=folder / "model.onnx", opset_version=OPSET)),
        **optional,
    )


def _space(spec: Any, name: str, predictor: Any) -> dict[str, Any]:
    unit = {} if predictor.mpp is None else {"unit": "micrometer", "scale": predictor.mpp}
    return {"id": spec.AxisId(name), **unit}


def _input_axis(spec: Any, name: str, predictor: Any) -> Any:
    side = Example.of(predictor).pixels.shape[0]
    size = spec.ParameterizedSize(min=side, step=predictor.divisor)
    return spec.SpaceInputAxis(size=size, **_space(spec, name, predictor))


def _output_axis(spec: Any, name: str, predictor: Any) -> Any:
    size = spec.SizeReference(tensor_id=spec.TensorId(INPUT), axis_id=spec.AxisId(name))
    # What a program that works in tiles has to leave out at their borders.
    return spec.SpaceOutputAxisWithHalo(size=size, halo=halo(predictor.reach), **_space(spec, name, predictor))


def _title(name: str) -> str:
    """Return a name of the length and the characters that bioimage.io takes."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "_-() ") else "_" for c in name)
    return f"Nuclei {plain}"[:128].strip()


def _identifier(name: str) -> str:
    """Return a class's name as bioimage.io takes it: letters, digits and underscores."""
    plain = "".join(c if c.isascii() and c.isalnum() else "_" for c in name.lower()).strip("_")
    return plain if plain[:1].isalpha() else f"class_{plain}"
