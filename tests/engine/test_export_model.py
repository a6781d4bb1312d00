"""Models that leave the program: run again by others, and the same as before."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from napari_semiseg import atomic
from napari_semiseg.engine.checkpoint import RunFolder
from napari_semiseg.engine.export import export
from napari_semiseg.engine.export_job import ExportRequest
from napari_semiseg.engine.predictor import load_predictor
from napari_semiseg.engine.recipe import Choices
from napari_semiseg.errors import InputError
from napari_semiseg.events import Event, Finished, Validated, Written

CPU = torch.device("cpu")


def saved(folder: Path, network: str, method: str = "supervised") -> Path:
    """Save a model that has learned nothing, as a run does."""
    values = {
        "method": method, "network": network, "stain": "hematoxylin", "weights": "none", "mpp": 0.5,
        "classes": ("background", "tumor cell"), "sampler": {}, "optim": {}, "options": {}, "steps": 8, "seed": 3,
    }  # fmt: skip
    choices = Choices.checked(values, "the test")
    run = RunFolder(folder)
    run.begin()
    run.write_config({"images": ["/home/doe/patient-7.svs"], "choices": choices.model_dump(mode="json")})
    card = {"choices": choices.model_dump(mode="json"), "threshold": 0.4}
    run.save_model(choices.build(CPU).predictor(), 8, card)
    with run.log() as log:
        log.write(Validated(8, {"dice": 0.8125, "threshold_dice": 0.7}))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("models") / "first", "csl")


@pytest.fixture(scope="module")
def stained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the network that is shown the stain of the whole picture."""
    return saved(tmp_path_factory.mktemp("models") / "stained", "stain_unet", "stain_guided")


@pytest.fixture(scope="module")
def elsewhere(run: Path, stained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ONNX and package, made by another process: what checks a package leaves files open."""
    for name in ("bioimageio.core", "onnxruntime"):
        pytest.importorskip(name, reason="models for other programs are an extra")
    folder = tmp_path_factory.mktemp("elsewhere")
    script = f"""
from napari_semiseg.engine import onnx_file
from napari_semiseg.engine.export import export
from napari_semiseg.engine.export_job import ExportRequest
translate, kept = onnx_file._exported, {{}}
def once(predictor):  # it takes long, and is the same each time
    name = type(predictor.network).__name__
    if name not in kept:
        kept[name] = translate(predictor)
    return kept[name]
onnx_file._exported = once
for source, to in (({str(run)!r}, "onnx"), ({str(run)!r}, "bioimageio"), ({str(stained)!r}, "onnx")):
    asked = {{"source": source, "to": to, "out": {str(folder)!r}, "author": "Jane Doe", "license": "CC-BY-4.0"}}
    written = list(export(ExportRequest(**asked)))[-2]
    print(to, written.facts)
from bioimageio.core import test_description
print("again", test_description({str(folder / "first.bioimageio.zip")!r}, devices=["cpu"]).status)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (folder / "said.txt").write_text(done.stdout)
    return folder


def exported(run: Path, to: str, out: Path, **options: Any) -> list[Event]:
    return list(export(ExportRequest.checked({"source": str(run), "to": to, "out": str(out), **options}, "the test")))


def fields(predictor: Any) -> list[torch.Tensor]:
    """Images of two sizes that no export was tried on."""
    side, generator = 4 * predictor.divisor + 64, torch.Generator().manual_seed(1)
    return [torch.rand(shape, generator=generator) for shape in ((1, 3, side, side), (3, 3, side, 2 * side))]


def test_safetensors_with_its_card_predicts_as_the_run_does(run: Path, tmp_path: Path) -> None:
    events = exported(run, "safetensors", tmp_path / "m.safetensors", author="Jane Doe", license="CC-BY-4.0")
    here, there = load_predictor(run, CPU), load_predictor(tmp_path / "m.safetensors", CPU)

    assert isinstance(events[-2], Written)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.json", "m.md", "m.safetensors"]
    with torch.inference_mode():
        assert all(torch.equal(here.network(image), there.network(image)) for image in fields(here))
    assert (there.classes, there.mpp, there.threshold, there.step) == (("background", "tumor cell"), 0.5, 0.4, 8)
    page = (tmp_path / "m.md").read_text()
    for said in ("Jane Doe", "CC-BY-4.0", "tumor cell", "Dice of 0.812", "0.700", "## Validation", "| 1 |"):
        assert said in page
    assert "patient" not in page + (tmp_path / "m.json").read_text()


def test_a_torn_line_among_what_a_run_has_said_does_not_keep_its_model_from_leaving(tmp_path: Path) -> None:
    run = saved(tmp_path / "run", "small_unet")
    log = run / "events.jsonl"
    log.write_text('{"event": "Validated", "step": 8, "sco\n' + log.read_text())

    exported(run, "safetensors", tmp_path / "m.safetensors")

    assert "Dice of 0.812" in (tmp_path / "m.md").read_text()


def test_an_exported_model_without_its_card_does_not_count(run: Path, tmp_path: Path) -> None:
    exported(run, "safetensors", tmp_path / "m.safetensors")
    (tmp_path / "m.json").unlink()

    with pytest.raises(InputError, match=r"m\.json is missing"):
        load_predictor(tmp_path / "m.safetensors", CPU)


@pytest.mark.timeout(1200)  # translating a network takes half a minute of a processor that has nothing else to do
def test_onnx_runs_elsewhere_and_says_the_same(run: Path, elsewhere: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(elsewhere / "first.onnx"), providers=["CPUExecutionProvider"])
    predictor = load_predictor(run, CPU)

    for image in fields(predictor):
        with torch.inference_mode():
            wanted = predictor.network(image).softmax(1).numpy()
        np.testing.assert_allclose(session.run(None, {"image": image.numpy()})[0], wanted, atol=1e-4)
    written = (elsewhere / "first.onnx").read_bytes()
    assert b"stack_trace" not in written  # nor the folders of this machine in it
    assert b".py" not in written
    said = session.get_modelmeta().custom_metadata_map
    assert json.loads(said["classes"]) == ["background", "tumor cell"]
    assert (json.loads(said["mpp"]), json.loads(said["threshold"])) == (0.5, 0.4)


@pytest.mark.timeout(1200)
def test_a_network_that_is_shown_the_stain_says_the_same_in_onnx(stained: Path, elsewhere: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(elsewhere / "stained.onnx"), providers=["CPUExecutionProvider"])
    predictor = load_predictor(stained, CPU)

    for image in fields(predictor):
        with torch.inference_mode():
            wanted = predictor.network(image).softmax(1).numpy()
        np.testing.assert_allclose(session.run(None, {"image": image.numpy()})[0], wanted, atol=1e-4)


@pytest.mark.timeout(1200)
def test_the_package_passes_the_test_of_bioimage_io(elsewhere: Path) -> None:
    package = elsewhere / "first.bioimageio.zip"
    with zipfile.ZipFile(package) as archive:
        names = set(archive.namelist())
        described = archive.read("rdf.yaml" if "rdf.yaml" in names else "bioimageio.yaml").decode()

    assert sorted(path.name for path in elsewhere.iterdir()) == [
        "first.bioimageio.zip", "first.onnx", "said.txt", "stained.onnx",
    ]  # fmt: skip
    assert "again passed" in (elsewhere / "said.txt").read_text()
    assert {"model.onnx", "README.md", "test_input.npy", "test_output.npy"} <= names
    assert "Jane Doe" in described
    assert "tumor_cell" in described
    assert "patient" not in described


def test_what_has_no_network_is_refused_as_onnx(tmp_path: Path) -> None:
    threshold = saved(tmp_path / "run", "small_unet", "hematoxylin_threshold")

    for to, name in (("onnx", "m.onnx"), ("bioimageio", "m.zip")):
        with pytest.raises(InputError, match="no network that could be written as ONNX"):
            exported(threshold, to, tmp_path / name)
    assert isinstance(exported(threshold, "safetensors", tmp_path / "m.safetensors")[-1], Finished)


def test_a_model_where_a_result_is_wanted_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no result"):
        exported(run, "csv", tmp_path / "x.csv")
    with pytest.raises(InputError, match="does not end in"):
        exported(run, "onnx", tmp_path / "x.pt")


@pytest.mark.fault
def test_broken_off_at_any_write_a_model_is_whole_or_not_there_and_the_same_export_makes_it(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    move, wanted = atomic._move, load_predictor(run, CPU).network.state_dict()
    whole = []
    for last in range(6):
        moved: list[Path] = []

        def move_until(source: Path, target: Path, moved: list[Path] = moved, last: int = last) -> None:
            if len(moved) == last:
                raise KeyboardInterrupt
            moved.append(target)
            move(source, target)

        target = tmp_path / f"{last}" / "m.safetensors"
        with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
            patch.setattr(atomic, "_move", move_until)
            exported(run, "safetensors", target)
        whole.append(target.exists())
        if not whole[-1]:
            exported(run, "safetensors", target)
        found = load_predictor(target, CPU).network.state_dict()
        assert all(torch.equal(value, wanted[key]) for key, value in found.items())
        assert sorted(path.name for path in target.parent.iterdir()) == ["m.json", "m.md", "m.safetensors"]

    assert whole == [False] * 5 + [True]  # tensors and card under other names, card, page, and then the tensors


@pytest.mark.parametrize("name", ["m.json", "m.md"])
def test_a_file_of_the_user_where_card_or_page_would_lie_is_not_written_over(
    run: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text('{"mine": 1}')
    with pytest.raises(InputError, match=f"{name}' is there already.*--overwrite"):
        exported(run, "safetensors", tmp_path / "m.safetensors")
    assert (tmp_path / name).read_text() == '{"mine": 1}'
    assert not (tmp_path / "m.safetensors").exists()
    exported(run, "safetensors", tmp_path / "m.safetensors", overwrite=True)
    load_predictor(tmp_path / "m.safetensors", CPU)
