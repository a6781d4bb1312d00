"""The demonstration, through the real command: short, but all of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import tifffile

from napari_semiseg.events import Finished, Saved, Started, decode_event
from napari_semiseg.io.result import Result
from napari_semiseg.project.folder import ProjectFolder
from napari_semiseg.samples import immunohistochemistry_tiles

DEMO = ["demo", "--steps", "2", "--device", "cpu", "--events", "jsonl"]


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "result"
    done = subprocess.run(
        [sys.executable, "-m", "napari_semiseg", *DEMO, "--out", str(out)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return out, [decode_event(line)[0] for line in done.stdout.splitlines()]


def test_nothing_but_events_is_on_stdout_and_the_last_names_the_report(shown):
    out, events = shown

    assert events[0] == Started("demo", str(out))
    assert isinstance(events[-1], Finished)
    assert events[-1].result == str(out / "report.html")
    assert 0 <= events[-1].facts["dice"] <= 1


def test_the_report_says_the_score_beside_that_of_the_threshold(shown):
    out, events = shown
    page = (out / "report.html").read_text(encoding="utf-8")

    assert f"the Dice is {events[-1].facts['dice']:.3f}" in page
    assert f"has {events[-1].facts['threshold_dice']:.3f}" in page
    assert page.count("data:image/png;base64,") == 4


def test_the_threshold_s_score_is_what_one_gets_by_hand(shown):
    from skimage.color import rgb2hed
    from skimage.filters import gaussian, threshold_otsu

    from napari_semiseg.samples import immunohistochemistry

    hematoxylin = gaussian(rgb2hed(immunohistochemistry())[..., 0], 1)
    mask = hematoxylin > threshold_otsu(hematoxylin)
    dice = []
    for tile in immunohistochemistry_tiles("score"):
        found, true = mask[tile.box.slices], tile.instances > 0
        dice.append(2 * (found & true).sum() / (found.sum() + true.sum()))

    # Nuclei are split and specks removed on the way to the report's figure.
    assert shown[1][-1].facts["threshold_dice"] == pytest.approx(np.mean(dice), abs=0.02)


def test_result_and_exports_hold_the_same_nuclei(shown):
    out, events = shown
    result = Result.open(out / "immunohistochemistry.ome.zarr")
    with tifffile.TiffFile(out / "immunohistochemistry.ome.tif") as tiff:
        nuclei = tiff.series[0].asarray()
    rows = (out / "immunohistochemistry.csv").read_text().splitlines()[1:]

    assert result.complete
    assert nuclei.shape == (512, 512)
    assert len(np.unique(nuclei[nuclei > 0])) == len(rows) == events[-1].facts["nuclei"]
    assert (out / "immunohistochemistry-nuclei.png").is_file()


def test_the_project_keeps_the_tiles_for_scoring_out_of_the_training(shown):
    out, _ = shown
    scored = {tuple(tile.box) for tile in immunohistochemistry_tiles("score")}
    with ProjectFolder.open(out / "demo.semiseg", read_only=True) as project:
        excluded = {tuple(tile.box) for tile in project.tiles if tile.status == "excluded"}
        complete = [tile.id for tile in project.tiles if tile.status == "complete"]
        [run] = project.runs_dir.iterdir()
        card = json.loads((run / "run.json").read_text())

    assert excluded == scored
    assert set(card["facts"]["labeled"]) | set(card["facts"]["validation"]) == set(complete)


def test_a_folder_with_something_else_in_it_is_left_alone(command, tmp_path):
    (tmp_path / "thesis.txt").write_text("chapter one")
    done = command("demo", "--out", tmp_path)

    assert done.returncode == 2
    assert "holds something else" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.skipif(os.name == "nt", reason="signals between processes are POSIX")
def test_one_interrupt_stops_it_keeps_the_training_and_gives_status_3(tmp_path):
    args = [argument if argument != "2" else "100000" for argument in DEMO]
    with subprocess.Popen(
        [sys.executable, "-m", "napari_semiseg", *args, "--out", str(tmp_path / "result")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        events = []
        for line in process.stdout:
            events.append(decode_event(line)[0])
            if isinstance(events[-1], Started) and events[-1].what == "train":
                process.send_signal(signal.SIGINT)
        process.wait()

    assert process.returncode == 3
    assert any(isinstance(event, Saved) for event in events)
    assert events[-1] == Finished("demo", str(tmp_path / "result"), stopped=True)
    assert not (tmp_path / "result" / "report.html").exists()
