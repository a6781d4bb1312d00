"""Strokes that are read while they are painted, and strokes that are taken back after they were learned from."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from napari_semiseg.blocks import Box
from napari_semiseg.engine.learning_data import read_project
from napari_semiseg.project.folder import ProjectFolder

BOX = Box(10, 10, 40, 50)


@pytest.fixture
def project(tmp_path):
    with ProjectFolder.create(tmp_path / "case") as folder:
        folder.add_array(np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8), "field", 0.5)
        folder.add_tile(0, (50, 50, 114, 114))
        folder.set_status("t0001", "complete")
        yield folder


@pytest.mark.fault
def test_a_reader_never_sees_a_part_of_a_stroke_however_fast_they_come(project):
    """A painter gives a rectangle one number after the other; who reads sees one of them, and its class."""
    stop = threading.Event()

    def paint() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            ids = np.full(BOX.shape, number, np.uint32)
            kinds = np.full(BOX.shape, 2 + number % 100, np.uint8)
            project.journal.record_stroke("t0001", [("instance", BOX, ids), ("class", BOX, kinds)])
            if number % 50 == 0:
                project.journal.compact("t0001")

    painter = threading.Thread(target=paint)
    painter.start()
    seen: list[int] = []
    try:
        while len(seen) < 60:
            found = ProjectFolder.open(project.path, read_only=True).annotation("t0001")
            (number,) = np.unique(found.instance[BOX.slices]).tolist()
            (kind,) = np.unique(found.classes[BOX.slices]).tolist()
            if number:
                assert kind == 2 + number % 100
                seen.append(number)
    finally:
        stop.set()
        painter.join()
    assert seen == sorted(seen)
    assert seen[-1] > seen[0]


def test_a_stroke_that_is_undone_leaves_what_a_training_learns_from(project):
    def digest() -> str:
        return read_project(project.path).digest()

    labels = np.zeros((64, 64), np.uint32)
    labels[5:20, 5:20] = 1
    project.write_annotation("t0001", labels, np.where(labels, 2, 0))
    before, learned = digest(), read_project(project.path).labeled[0].label.copy()
    stroke = labels.copy()
    stroke[30:50, 30:50] = 2
    project.write_annotation("t0001", stroke, np.where(stroke, 2, 0))
    assert digest() != before
    assert read_project(project.path).labeled[0].label[40, 40] == 1

    project.write_annotation("t0001", labels, np.where(labels, 2, 0))
    assert digest() == before
    np.testing.assert_array_equal(read_project(project.path).labeled[0].label, learned)


def test_pixels_of_a_proposal_are_not_learned_from_before_it_is_accepted(project):
    ids = np.zeros((64, 64), np.uint32)
    ids[5:20, 5:20] = 45_000
    project.write_annotation("t0001", ids, np.where(ids, 254, 0))
    (region,) = read_project(project.path).labeled
    assert np.unique(region.label[5:20, 5:20]).tolist() == [255]
    assert region.nuclei == 0
