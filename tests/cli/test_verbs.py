"""The verbs that answer without computing much, through the real command."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import tifffile

from napari_semiseg.project.folder import ProjectFolder
from napari_semiseg.samples import immunohistochemistry


@pytest.fixture
def project(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", immunohistochemistry(), photometric="rgb")
    with ProjectFolder.create(tmp_path / "a.semiseg") as folder:
        folder.add_image(tmp_path / "a.tif", shape=(512, 512))
    return tmp_path / "a.semiseg"


def test_evaluate_says_every_score_in_words_and_writes_them_for_programs(command, discs, tmp_path):
    labels = discs(4)
    for folder, values in (("predicted", np.where(labels == 4, 0, labels)), ("true", labels)):
        (tmp_path / folder).mkdir()
        tifffile.imwrite(tmp_path / folder / "a.tif", values)
    done = command("evaluate", tmp_path / "predicted", tmp_path / "true", "--json", tmp_path / "scores.json")
    scores = json.loads((tmp_path / "scores.json").read_text())["scores"]

    assert done.returncode == 0, done.stderr
    assert scores["dice"] == pytest.approx(6 / 7), "three of four equal discs were found"
    assert f"{scores['dice']:.4f}  foreground Dice of each image, mean over images" in done.stdout


def test_evaluate_without_labels_of_that_name_is_wrong_input(command, discs, tmp_path):
    for folder, name in (("predicted", "a"), ("true", "b")):
        (tmp_path / folder).mkdir()
        tifffile.imwrite(tmp_path / folder / f"{name}.tif", discs(2))
    done = command("evaluate", tmp_path / "predicted", tmp_path / "true")

    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


def test_methods_are_listed_for_people_and_for_programs(command):
    said, data = command("methods"), command("methods", "--json")
    listed = json.loads(data.stdout)

    assert {"cdcl", "supervised"} <= {method["name"] for method in listed}
    for method in listed:
        assert f"{method['name']}: {method['title']}" in said.stdout
        assert all(work in said.stdout for work in method["references"])
        for option in method["options"]["properties"]:
            assert f"--set {option}=" in said.stdout
        assert "; ".join(method["variants"]) in said.stdout
    assert "table 2, scheme 4; " in said.stdout


def test_suggestions_stand_on_stdout_ranked_and_with_their_reason(command, project):
    done = command("suggest", project, "--n", "2", "--side", "128")
    lines = done.stdout.splitlines()

    assert done.returncode == 0, done.stderr
    assert [line[:3] for line in lines[:2]] == ["1. ", "2. "]
    assert all("image 0, rectangle (" in line for line in lines[:2])


def test_serve_speaks_json_lines_and_ends_with_its_stdin(command):
    done = command("serve")
    first = json.loads(done.stdout.splitlines()[0])

    assert done.returncode == 0
    assert first["event"] == "Ready"


def test_serve_refuses_to_speak_anything_else(command):
    done = command("serve", "--events", "text")

    assert done.returncode == 2
    assert done.stdout == ""


def test_a_run_prints_its_methods_paragraph_with_each_work_numbered_once(command, project, tmp_path):
    trained = command(
        "train", tmp_path / "a.tif", "--method", "csl", "--steps", "2", "--set", "crop=64", "--out", tmp_path / "run"
    )
    assert trained.returncode == 0, trained.stderr
    done = command("cite", tmp_path / "run")
    text, _, works = done.stdout.partition("\n\n")

    assert done.returncode == 0, done.stderr
    assert "It saw 1 image and no label." in text
    assert "2 steps of 6 unlabeled crops of 64 x 64 pixels" in text
    assert "a.tif" not in done.stdout, "a manuscript names nobody's files"
    numbers = [line.partition("]")[0][1:] for line in works.splitlines()]
    assert numbers == [str(place) for place in range(1, len(numbers) + 1)]
    assert set(re.findall(r"\[(\d+)\]", text)) == set(numbers), "what is listed is cited, and the other way round"
    assert "Boserup" in works


def test_what_is_no_run_has_no_methods_paragraph(command, tmp_path):
    done = command("cite", tmp_path)

    assert done.returncode == 2
    assert "no run folder" in done.stderr
