"""Run folders, results and images in places that refuse or that have odd names."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from napari_semiseg.engine.checkpoint import RunFolder
from napari_semiseg.engine.predict import PredictRequest, predict
from napari_semiseg.engine.requests import TrainRequest
from napari_semiseg.engine.train import train
from napari_semiseg.errors import InputError
from napari_semiseg.events import Finished
from napari_semiseg.io.result import Result

pytestmark = pytest.mark.usefixtures("one_thread")

Ask = Callable[..., TrainRequest]


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that every user of this computer can reach, which pytest's own is not."""
    folder = Path(tempfile.mkdtemp(prefix="semiseg-test-"))
    folder.chmod(0o777)
    yield folder
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o777)
    shutil.rmtree(folder)


def test_places_that_cannot_be_written_are_refused_before_a_training_starts(
    ask: Ask, fields: Path, shared: Path, as_ordinary_user: Callable[..., list[str]]
) -> None:
    """A folder without the right to write, a run whose checkpoints are read-only, and a run of somebody else."""
    shutil.copytree(fields, shared / "fields")
    images, labels = (str(shared / "fields" / name) for name in ("images", "labels"))
    for name in ("frozen", "of-root"):
        list(train(ask(images=(images,), labels=labels, out=str(shared / name))))
        for path in [shared / name, *(shared / name).rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)
            if os.geteuid() == 0 and name == "frozen":
                os.chown(path, 65534, 65534)
    (shared / "frozen" / "checkpoints").chmod(0o555)
    (shared / "locked").mkdir(mode=0o555)
    request = ask(images=(images,), labels=labels, out="OUT").model_dump(mode="json")
    before = {path: path.stat().st_mtime_ns for path in shared.rglob("*.safetensors")}
    said = as_ordinary_user(
        f"""
import json
from napari_semiseg.engine.predict import PredictRequest, predict
from napari_semiseg.engine.requests import TrainRequest
from napari_semiseg.engine.train import train
from napari_semiseg.errors import InputError
from napari_semiseg.events import BlockDone, StepDone
request = json.loads({json.dumps(request)!r})

def attempt(make):
    begun = False
    try:
        for event in make():
            begun = begun or isinstance(event, StepDone | BlockDone)
        print("done")
    except InputError as error:
        print(("late: " if begun else "") + str(error))

def work(folder):
    for name in ("locked/run", "locked"):
        attempt(lambda: train(TrainRequest.checked({{**request, "out": str(folder / name)}}, "x")))
    for name in ("frozen", "of-root"):
        attempt(lambda: train(TrainRequest.checked({{**request, "out": str(folder / name), "resume": True}}, "x")))
    ask = {{"run": str(folder / "of-root"), "images": [str(folder / "fields/images/0.tif")], "device": "cpu"}}
    attempt(lambda: predict(PredictRequest.checked({{**ask, "out": str(folder / "locked" / "a.ome.zarr")}}, "x")))
    attempt(lambda: predict(PredictRequest.checked({{**ask, "out": str(folder / "own.ome.zarr")}}, "x")))
""",
        shared,
    )

    if os.geteuid() != 0:  # then the run "of-root" is this user's own
        said[3:4] = []
    *refusals, last = said
    assert last == "done"
    assert [line for line in refusals if line == "done" or line.startswith("late")] == []
    assert all("choose another place" in line for line in refusals), refusals
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize(
    "name",
    ["Übersicht ñ 😀", unicodedata.normalize("NFD", "é"), "two  words", "-leading", "trailing.", "CON", "a" * 200],
    ids=["emoji", "decomposed", "spaces", "dash", "dot", "reserved", "long"],
)
def test_runs_and_results_of_any_name_are_written_and_found_again(
    ask: Ask, fields: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    image = fields / "images" / f"{name}.tif"
    shutil.move(fields / "images" / "0.tif", image)
    shutil.move(fields / "labels" / "0.tif", fields / "labels" / f"{name}.tif")
    deep = Path(*["deep" * 12] * 4) / name  # relative, and beyond 240 characters with what is below it
    list(train(ask(images=(str(image),), out=str(deep), steps=1)))
    assert RunFolder(deep).latest() is not None

    *_, last = predict(PredictRequest(run=str(deep), images=(str(image),), out=name, device="cpu"))
    assert isinstance(last, Finished)
    [result] = Path(name).glob("*.ome.zarr")
    assert result.name == f"{name}.ome.zarr"
    assert Result.open(result).complete


def test_a_name_that_is_too_long_is_refused_in_one_sentence(ask: Ask, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="choose") as refusal:
        next(train(ask(out=str(tmp_path / ("a" * 300)))))
    assert "\n" not in str(refusal.value)


def test_a_training_that_is_refused_leaves_no_folder_behind(ask: Ask, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    for out in (tmp_path / "new", mine):
        with pytest.raises(InputError, match="no method"):
            next(train(ask(out=str(out), method="magic")))

    assert not (tmp_path / "new").exists()
    assert list(mine.iterdir()) == []


@pytest.mark.parametrize("what", ["file", "pipe", "loop"])
def test_a_run_folder_that_is_none_is_refused_without_waiting(ask: Ask, tmp_path: Path, what: str) -> None:
    path = tmp_path / "odd"
    if what == "file":
        path.write_text("x")
    elif what == "loop":
        path.symlink_to(path)
    elif hasattr(os, "mkfifo"):
        os.mkfifo(path)
    else:
        pytest.skip("no named pipes here")

    with pytest.raises(InputError):
        next(train(ask(out=str(path))))


def test_the_command_line_takes_names_with_a_leading_dash_after_two_dashes(tmp_path: Path, fields: Path) -> None:
    shutil.copy(fields / "labels" / "0.tif", tmp_path / "-labels.tif")
    command = [sys.executable, "-m", "napari_semiseg", "evaluate", "--json", "-out.json", "--"]
    done = subprocess.run(
        [*command, "-labels.tif", "-labels.tif"], cwd=tmp_path, capture_output=True, text=True, timeout=100
    )

    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "-out.json").read_text())
