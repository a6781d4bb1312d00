"""Two results of one image: where they differ, and which agrees better with what was painted."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile

from napari_semiseg.blocks import Box
from napari_semiseg.engine.compare import CompareRequest, compare
from napari_semiseg.errors import InputError
from napari_semiseg.events import Written
from napari_semiseg.io.images import open_image
from napari_semiseg.io.result_writer import ResultWriter
from napari_semiseg.project.folder import ProjectFolder

SHAPE = (200, 300)


def squares(*corners: tuple[int, int]) -> np.ndarray:
    """Nuclei of 16 x 16 pixels."""
    labels = np.zeros(SHAPE, np.uint32)
    for number, (y, x) in enumerate(corners, start=1):
        labels[y : y + 16, x : x + 16] = number
    return labels


@pytest.fixture
def write(tmp_path):
    """Write nuclei as a result."""

    def write(name: str, labels: np.ndarray, **facts: str) -> str:
        path = tmp_path / f"{name}.ome.zarr"
        with ResultWriter.create(path, labels.shape, ["nucleus"], mpp=0.5, facts=facts) as writer:
            whole = Box.whole(labels.shape)
            writer.write_confidence(whole, (labels > 0).astype(np.uint8)[None] * 255)
            writer.write_nuclei(whole, labels)
            writer.finish()
        return str(path)

    return write


def facts_of(request: CompareRequest) -> dict:
    (written,) = [event for event in compare(request) if isinstance(event, Written)]
    return written.facts


def test_two_results_are_compared_pixel_by_pixel(write, tmp_path):
    one, other = write("one", squares((20, 20), (120, 120))), write("other", squares((20, 28)))
    facts = facts_of(CompareRequest(a=one, b=other, out=str(tmp_path / "difference.npy"), box=(10, 10, 50, 60)))

    found = np.load(tmp_path / "difference.npy")
    assert found[20 - 10, [20 - 10, 30 - 10, 40 - 10, 50 - 10]].tolist() == [1, 2, 3, 0]
    assert (facts["only_a"], facts["both"], facts["only_b"]) == (128, 128, 128)
    assert facts["dice"] == pytest.approx(0.5)
    assert facts["box"] == [10, 10, 50, 60]
    assert "scores" not in facts


def test_results_of_other_sizes_are_not_compared(write, tmp_path):
    one, other = write("one", squares((20, 20))), write("other", np.zeros((20, 30), np.uint32))
    with pytest.raises(InputError, match="compare two of the same image"):
        list(compare(CompareRequest(a=one, b=other, out=str(tmp_path / "difference.npy"))))


def test_a_tile_set_aside_that_one_of_the_runs_has_learned_from_is_no_fair_judge(write, tmp_path):
    truth = squares((20, 20), (20, 120))
    tifffile.imwrite(tmp_path / "field.tif", np.zeros((*SHAPE, 3), np.uint8), photometric="rgb")
    with ProjectFolder.create(tmp_path / "case") as project:
        project.add_image(open_image(tmp_path / "field.tif"))
        for x in (0, 100):
            tile = project.add_tile(0, (0, x, 100, x + 100))
            project.write_annotation(tile.id, truth[0:100, x : x + 100])
            project.set_status(tile.id, "complete")
            project.set_role(tile.id, "validation")
        runs = [project.new_run_dir() for _ in range(2)]
        path = str(project.path)
    for run, learned in zip(runs, ([], [{"image": 0, "box": [0, 50, 80, 100]}]), strict=True):
        (run / "run.json").write_text(json.dumps({"learned": learned}))
    fair, taught = (write(name, truth, run=str(run)) for name, run in zip("ab", runs, strict=True))

    def groups(a: str, b: str) -> list[tuple[bool, int]]:
        facts = facts_of(CompareRequest(a=a, b=b, out=str(tmp_path / "d.npy"), project=path))
        return [(group["judges"], group["tiles"]) for group in facts["scores"]]

    assert groups(fair, taught) == groups(taught, fair) == [(True, 1), (False, 1)]
    assert groups(fair, fair) == groups(fair, write("unknown", truth, run="gone")) == [(True, 2)]


def test_both_are_scored_on_complete_tiles_those_set_aside_apart_from_the_others(write, tmp_path):
    truth = squares((20, 20), (60, 60), (20, 120), (60, 160))
    tifffile.imwrite(tmp_path / "field.tif", np.zeros((*SHAPE, 3), np.uint8), photometric="rgb")
    with ProjectFolder.create(tmp_path / "case") as project:
        project.add_image(open_image(tmp_path / "field.tif"))
        for box, role, status in (
            ((0, 0, 100, 100), "training", "complete"),
            ((0, 100, 100, 200), "validation", "complete"),
            ((100, 0, 200, 100), "auto", "sparse"),
        ):
            tile = project.add_tile(0, box)
            instance = truth[Box(*box).slices]
            project.write_annotation(tile.id, instance, (instance > 0).astype(np.uint8) * 2)
            project.set_status(tile.id, status)
            project.set_role(tile.id, role)
        path = str(project.path)
    missing_one = write("missing", squares((20, 20), (60, 60), (20, 120)))
    facts = facts_of(
        CompareRequest(a=write("same", truth), b=missing_one, out=str(tmp_path / "d.npy"), project=path, image=0)
    )

    judging, learned = facts["scores"]
    assert (judging["judges"], judging["tiles"], judging["nuclei"]) == (True, 1, 2)
    assert judging["results"] == [
        {"dice": 1.0, "aji": 1.0, "pq": 1.0, "nuclei": 2, "best_on": 1},
        {"dice": pytest.approx(2 / 3), "aji": 0.5, "pq": pytest.approx(2 / 3), "nuclei": 1, "best_on": 0},
    ]
    assert (learned["judges"], learned["tiles"], learned["nuclei"]) == (False, 1, 2)
    assert [result["best_on"] for result in learned["results"]] == [1, 1]
