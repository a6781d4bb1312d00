"""Exports that are killed at random: whole, or not there, or marked as unfinished; then made, whatever was left."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image as Pillow

from napari_semiseg.atomic import temporaries
from napari_semiseg.blocks import Box
from napari_semiseg.engine import onnx_file
from napari_semiseg.engine.checkpoint import RunFolder
from napari_semiseg.engine.export import export
from napari_semiseg.engine.export_job import ExportRequest
from napari_semiseg.engine.predictor import Predictor, load_predictor
from napari_semiseg.engine.recipe import Choices
from napari_semiseg.io.result import Result
from napari_semiseg.io.result_card import result_state
from napari_semiseg.io.result_writer import ResultWriter

SOAK = "NAPARI_SEMISEG_SOAK" in os.environ
KILLS = int(os.environ.get("NAPARI_SEMISEG_KILLS", 50)) if SOAK else 2
SHAPE = (700, 900)
RESULTS = {
    "ome-zarr": "x.ome.zarr", "ome-zarr 0.4": "x.ome.zarr", "ome-tiff": "x.ome.tif", "tiff": "x.tif",
    "geojson": "x.geojson", "csv": "x.csv", "parquet": "x.parquet", "imagej-roi": "x.zip", "png": "x.png",
}  # fmt: skip
MODELS = {"safetensors": "x.safetensors"} | (
    {"onnx": "x.onnx", "bioimageio": "x.bioimageio.zip"} if SOAK else {}  # half a minute before the first byte
)
pytestmark = [
    pytest.mark.fault,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked"),
]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small result of two classes, with its image."""
    folder = tmp_path_factory.mktemp("made")
    rows, columns = np.indices(SHAPE)
    labels = ((rows % 30 - 15) ** 2 + (columns % 30 - 15) ** 2 <= 100) * (1 + (rows // 30) * 30 + columns // 30)
    pixels = np.where(labels[..., None] > 0, (90, 60, 140), (220, 170, 210)).astype(np.uint8)
    Pillow.fromarray(pixels).save(folder / "field.png")
    whole, classes = Box.whole(SHAPE), ((labels > 0) * (1 + labels % 2)).astype(np.uint8)
    options: dict[str, Any] = {"mpp": 0.5, "image": str(folder / "field.png")}
    with ResultWriter.create(folder / "field.ome.zarr", SHAPE, ["tumor", "stroma"], **options) as writer:
        writer.write_confidence(whole, np.stack([(classes == kind) * np.uint8(204) for kind in (1, 2)]))
        writer.write_nuclei(whole, labels.astype(np.uint32))
        writer.write_classes(whole, classes)
        writer.finish()
    return folder / "field.ome.zarr"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose model has learned nothing."""
    folder = tmp_path_factory.mktemp("models") / "run"
    values = {
        "method": "supervised", "network": "small_unet", "stain": "hematoxylin", "weights": "none", "mpp": 0.5,
        "classes": ("background", "nucleus"), "sampler": {}, "optim": {}, "options": {}, "steps": 8, "seed": 3,
    }  # fmt: skip
    choices = Choices.checked(values, "the test")
    saved = RunFolder(folder)
    saved.begin()
    saved.write_config({"images": [], "choices": choices.model_dump(mode="json")})
    card = {"choices": choices.model_dump(mode="json"), "threshold": 0.5}
    saved.save_model(choices.build(torch.device("cpu")).predictor(), 8, card)
    with saved.log():
        return folder


def asked(to: str, source: Path) -> dict[str, Any]:
    form, _, version = to.partition(" ")
    out = {**RESULTS, **MODELS}[to]
    return {"source": str(source), "to": form, "out": out, "version": version or "0.5", "author": "A", "license": "MIT"}


def kill(folder: Path, jobs: dict[str, Path]) -> dict[str, dict[str, Any]]:
    """Have every job done and killed; return what the server said of each."""
    spec = {
        "kills": KILLS, "seed": int.from_bytes(os.urandom(4)), "folder": str(folder),
        "jobs": [{"name": to, "asked": asked(to, source)} for to, source in jobs.items()],
    }  # fmt: skip
    (folder / "spec.json").write_text(json.dumps(spec))
    server = Path(__file__).with_name("exporting_server.py")
    command = [sys.executable, "-W", "ignore", str(server), str(folder / "spec.json")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [one["status"] for one in said] == [0] * len(jobs), done.stderr
    return {one["name"]: one for one in said}


def left(target: Path) -> str:
    """Say what a killed export has left at its place: nothing, something that says that it is unfinished, or a file."""
    if target.name.endswith(".zarr"):
        return {"missing": "nothing", "unfinished": "unfinished", "complete": "complete"}[result_state(target)]
    return "complete" if target.exists() else "nothing"


def holds(target: Path) -> Any:
    """Return what is in a finished export, without dates and random identifiers."""
    name = target.name
    if name.endswith(".ome.zarr"):
        found = Result.open(target)
        levels = range(len(found.levels))
        return [found.read(kind, Box.whole(found.levels[n]), n).tobytes() for kind in found.kinds for n in levels]
    if name.endswith(".tif"):
        with tifffile.TiffFile(target) as tif:
            return [level.asarray().tobytes() for series in tif.series for level in series.levels]
    if name.endswith(".bioimageio.zip"):
        with zipfile.ZipFile(target) as archive:
            assert archive.testzip() is None
            return {name: archive.read(name) for name in archive.namelist() if name.endswith((".npy", ".onnx"))}
    if name.endswith(".safetensors"):
        state = load_predictor(target, torch.device("cpu")).network.state_dict()
        return {name: tensor.numpy().tobytes() for name, tensor in state.items()}
    return target.read_bytes()


def check_all(folder: Path, jobs: dict[str, Path], note: Callable[[str, object], None]) -> None:
    said = kill(folder, jobs)
    for to, source in jobs.items():
        request = asked(to, source)
        wanted = holds(folder / to / "whole" / request["out"])
        states: Counter[str] = Counter()
        for number in range(KILLS):
            target = folder / to / str(number) / request["out"]
            state = left(target)
            states[state] += 1
            if state != "complete":
                list(export(ExportRequest(**{**request, "out": str(target)})))
                assert temporaries(target.parent) == []
            assert holds(target) == wanted, f"{to}, killed the {number + 1}. time"
        note(f"{to}: killed before the end", f"{said[to]['before_the_end']} of {KILLS} ({dict(states)})")


def test_results_that_are_killed_while_they_are_exported_are_whole_or_say_that_they_are_not(
    result: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    check_all(tmp_path, dict.fromkeys(RESULTS, result), record_property)


def test_models_that_are_killed_while_they_are_exported_are_whole_or_say_that_they_are_not(
    run: Path,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    translate_once(monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # what tests a package for bioimage.io leaves files open
        check_all(tmp_path, dict.fromkeys(MODELS, run), record_property)
        gc.collect()


def translate_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a network be translated to ONNX a single time for all exports: that takes half a minute each."""
    translate, kept = onnx_file._exported, []

    def once(predictor: Predictor) -> Any:
        import onnx

        kept.extend([] if kept else [translate(predictor).model_proto.SerializeToString()])
        return SimpleNamespace(model_proto=onnx.load_from_string(kept[0]))

    monkeypatch.setattr(onnx_file, "_exported", once)
