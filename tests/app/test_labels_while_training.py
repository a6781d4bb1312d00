"""What is labeled while the real engine trains reaches the training in time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import tifffile

from napari_semiseg.app.engine_log import EngineLog
from napari_semiseg.app.engine_model import ChildStarted
from napari_semiseg.app.engine_watch import EngineWatch
from napari_semiseg.app.session import Session
from napari_semiseg.blocks import Box
from napari_semiseg.events import Event, Failed, LabelsRead
from napari_semiseg.io.images import open_image
from napari_semiseg.project.annotations import digests

PROMISED_S = 5.0


class Desk:
    """A session and its engine, without a window: what the dock's timers do is done here while something is awaited."""

    def __init__(self, session: Session, log: Path) -> None:
        self.session, self.watch = session, EngineWatch(log=EngineLog(log))
        self.heard: list[tuple[float, Event]] = []
        self.pids: list[int] = []
        session.engine.commanded.connect(self.watch.send)
        session.engine.received.connect(lambda _, event: self.heard.append((time.monotonic(), event)))
        self._batches = self.watch.batches()

    def until(self, done: Callable[[], object], what: str, within_s: float) -> None:
        """Go on until something is so."""
        deadline = time.monotonic() + within_s
        while not done():
            batch = next(self._batches)
            self.pids += [item.pid for item in batch if isinstance(item, ChildStarted)]
            if batch:
                self.session.engine.apply(batch)
                self.watch.acknowledge()
            self.session.deliver()
            self.session.tick()
            failed = [event.message for _, event in self.heard if isinstance(event, Failed)]
            assert not failed, failed
            assert time.monotonic() < deadline, f"not in {within_s:g} s: {what}"

    def read(self) -> list[tuple[float, LabelsRead]]:
        """When the run has read labels, and what it said of them."""
        return [(at, event) for at, event in self.heard if isinstance(event, LabelsRead)]

    def paint(self, tile: str, nuclei: int) -> None:
        """Paint squares in a tile, one after the other, as strokes come in."""
        labels = np.zeros((60, 60), np.int64)
        for number in range(1, nuclei + 1):
            labels[4 : 4 + 8, 9 * number : 9 * number + 6] = number
            self.session.project.submit(tile, labels.copy(), dict.fromkeys(range(1, number + 1), 2))

    def close(self) -> None:
        self.session.end()
        self.watch.close()
        for _ in self._batches:
            self.watch.acknowledge()
        assert not [pid for pid in self.pids if psutil.pid_exists(pid)]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A project with one image and two empty tiles, and the real engine."""
    image = np.random.default_rng(0).integers(80, 220, (160, 160, 3), np.uint8)
    tifffile.imwrite(tmp_path / "field.tif", image, photometric="rgb")
    session = Session()
    session.project.create(tmp_path / "field.semiseg")
    session.project.add_image(open_image(tmp_path / "field.tif"))
    session.show_image(0)
    for x in (0, 80):
        session.project.add_tile(0, box=Box(0, x, 60, x + 60))
    opened = Desk(session, tmp_path / "log")
    yield opened
    opened.close()


@pytest.mark.flaky(reruns=2)
@pytest.mark.timeout(600)  # the engine loads torch, which takes minutes where others compute too
def test_a_tile_that_is_completed_is_learned_from_by_the_running_training_within_five_seconds(desk: Desk) -> None:
    project, training = desk.session.project, desk.session.training
    first, second = (tile.id for tile in project.tiles)
    desk.paint(first, 2)
    project.set_status(first, "complete")
    desk.until(training.setup.groups, "the description of the engine", 300)
    training.setup.choose(method="supervised")
    for name, value in {"steps": 100_000, "crop": 64, "batch_labeled": 2}.items():
        training.setup.set_option(name, value)
    training.request_train()
    desk.until(lambda: training.record.step >= 3, "the first steps", 200)
    desk.heard.clear()

    desk.paint(second, 3)
    project.set_status(second, "complete")
    completed = time.monotonic()
    desk.until(desk.read, "the tile in the training", 60)
    desk.until(lambda: not training.unseen, "the word that it was seen", 60)

    at, labels = desk.read()[0]
    assert at - completed < PROMISED_S
    assert (labels.tiles, labels.nuclei) == (2, 5)
    assert labels.seen == digests(project.folder)
    assert set(labels.seen) == {first, second}
    assert training.seen_words == "learns from 2 tiles · 5 nuclei"
    step = training.record.step
    desk.until(lambda: training.record.step > step, "a step with it", 60)
