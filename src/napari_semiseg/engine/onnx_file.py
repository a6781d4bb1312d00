"""Networks as ONNX, for programs without torch: exported, checked, run again, and compared."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_semiseg.engine.infer import halo
from napari_semiseg.engine.predictor import Predictor
from napari_semiseg.engine.watched import Report
from napari_semiseg.errors import InputError
from napari_semiseg.nn.network import Network
from napari_semiseg.synthetic import synthetic_field

OPSET = 18
TOLERANCE = 1e-4
"""Largest difference of a probability between torch and ONNX Runtime."""

INPUT, OUTPUT = "image", "probabilities"
_SEEN = 64
_NEEDED = ("onnx", "onnxruntime", "onnxscript")


class Probabilities(nn.Module):
    """A network whose answer is probabilities: (B, 3, H, W) in [0, 1] → (B, classes, H, W), background first."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """Return probabilities."""
        probabilities: Tensor = self.network(image).float().softmax(1)
        return probabilities


@dataclass(frozen=True)
class Example:
    """A generated field that a model is tried on.

    Attributes
    ----------
    pixels : ndarray, uint8, (side, side, 3)
        Its side is a multiple of the network's divisor, and longer than what it sees around a pixel.
    """

    pixels: NDArray[np.uint8]

    @classmethod
    def of(cls, predictor: Predictor, multiples: int = 0) -> Example:
        """Draw a field that suits a model; `multiples` of its divisor larger than it has to be."""
        least = 2 * halo(predictor.reach) + _SEEN
        side = (-(-least // predictor.divisor) + multiples) * predictor.divisor
        return cls(synthetic_field(side, seed=7).image)

    def tensor(self) -> Tensor:
        """Return it as networks take it: (1, 3, side, side), in [0, 1]."""
        return torch.from_numpy(self.pixels).permute(2, 0, 1)[None].float() / 255

    def probabilities(self, network: nn.Module) -> Tensor:
        """Return what a network says of it."""
        with torch.inference_mode():
            answer: Tensor = Probabilities(network)(self.tensor())
        return answer


def write_onnx(path: Path, predictor: Predictor, text: str, report: Report) -> dict[str, Any]:
    """Write a network as ONNX with free batch, height and width, and compare it with itself.

    Parameters
    ----------
    path : Path
        Written over.
    predictor : Predictor
    text : str
        Its card, kept as the description of the model.
    report : callable

    Returns
    -------
    dict
        ``opset``, and ``largest_difference`` of a probability on two generated fields of different size.

    Raises
    ------
    InputError
        If ONNX is not installed, the model is no network, or ONNX Runtime gives other probabilities.
    """
    _require(predictor)
    import onnx
    import onnxruntime

    exported = _exported(predictor)
    report(1, 4)
    model = exported.model_proto
    _without_traces(model)
    model.producer_name, model.doc_string = "napari-semiseg", text
    for key, value in _facts(predictor).items():
        model.metadata_props.add(key=key, value=json.dumps(value))
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    report(2, 4)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    apart = [_difference(session, predictor, Example.of(predictor, more)) for more in (0, 3)]
    report(3, 4)
    if max(apart) > TOLERANCE:
        raise InputError(
            f"The network '{type(predictor.network).__name__}' gives probabilities that are up to {max(apart):.2g} off "
            "as ONNX: export it as safetensors."
        )
    report(4, 4)
    return {"opset": OPSET, "largest_difference": max(apart), "bytes": path.stat().st_size}


def _require(predictor: Predictor) -> None:
    if not isinstance(predictor.network, Network):
        raise InputError(
            "This method has no network that could be written as ONNX: choose safetensors, or train a method that has."
        )
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise InputError(f'{missing[0]} is not installed: run pip install "napari-semiseg[onnx]", and export again.')


def _exported(predictor: Predictor) -> Any:
    example = Example.of(predictor).tensor()
    free = torch.export.Dim.DYNAMIC
    batch = torch.cat([example, example.flip(-1)])[..., : -predictor.divisor]  # no side like another
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, on its own future
        exported = torch.onnx.export(
            Probabilities(predictor.network).eval(), (batch,), dynamo=True, verbose=False, opset_version=OPSET,
            input_names=[INPUT], output_names=[OUTPUT], dynamic_shapes=({0: free, **_sides(predictor.divisor)},),
        )  # fmt: skip
    assert exported is not None
    return exported


def _without_traces(model: Any) -> None:
    """Remove what the exporter notes for its own debugging: paths of this machine, and text in an order of its own."""
    graph = model.graph
    for part in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")


def _sides(divisor: int) -> dict[int, Any]:
    """Return height and width as free multiples of the divisor."""
    height, width = torch.export.Dim("rows"), torch.export.Dim("columns")
    return {2: height, 3: width} if divisor == 1 else {2: divisor * height, 3: divisor * width}


def _difference(session: Any, predictor: Predictor, example: Example) -> float:
    wanted = example.probabilities(predictor.network).numpy()
    given = session.run([OUTPUT], {INPUT: example.tensor().numpy()})[0]
    return float(np.abs(given - wanted).max())


def _facts(predictor: Predictor) -> dict[str, Any]:
    """Return what a program has to know to use the model, kept in its metadata."""
    return {
        "classes": predictor.classes, "mpp": predictor.mpp, "threshold": predictor.threshold,
        "divisor": predictor.divisor, "reach": predictor.reach,
    }  # fmt: skip
