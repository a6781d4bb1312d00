"""A session on a real project folder, with an engine that only listens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from napari_semiseg.app.session import Session
from napari_semiseg.blocks import Box
from napari_semiseg.events import Described, Event, Ready
from napari_semiseg.io.images import open_image

_OPTIONS = {
    "type": "object",
    "properties": {"weight_sup": {"type": "number", "minimum": 0, "default": 1.0, "description": "Weight."}},
}
DESCRIPTION: dict[str, Any] = {
    "complete": True,
    "methods": [
        {"name": "cdcl", "title": "Contrast", "labels": "needed", "classes": "two", "network": None,
         "options": _OPTIONS},
        {"name": "supervised", "title": "Labels only", "labels": "needed", "classes": "any", "network": None,
         "options": {"type": "object", "properties": {"ema_decay": {"type": "number", "default": 0.99}}}},
        {"name": "stain_guided", "title": "Stain", "labels": "used", "classes": "any", "network": None,
         "options": {"type": "object", "properties": {"ema_decay": {"type": "number", "default": 0.99}}}},
        {"name": "csl", "title": "No labels", "labels": "unused", "classes": "two", "network": "csl", "options": {}},
    ],
    "networks": [{"name": "small_unet", "title": "Small U-Net"}],
    "presets": [{"name": "quick", "minutes": 3.0}, {"name": "standard", "minutes": 10.0},
                {"name": "best", "minutes": 40.0}],
    "devices": [
        {"name": "cuda:0", "title": "RTX 4060", "ok": False, "note": "A test step failed.", "step_s": None},
        {"name": "cpu", "title": "CPU, 2 threads", "ok": True, "note": "", "step_s": 0.2},
    ],
    "requests": {
        "train": {
            "type": "object",
            "properties": {
                "project": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
                "minutes": {"anyOf": [{"exclusiveMinimum": 0, "type": "number"}, {"type": "null"}], "default": None},
                "seed": {"type": "integer", "minimum": 0, "default": 0},
            },
        }
    },
    "sampler": {"type": "object", "properties": {"crop": {"type": "integer", "default": 160, "multipleOf": 32}}},
    "optimizer": {"type": "object", "properties": {"lr": {"type": "number", "exclusiveMinimum": 0, "default": 0.001}}},
}  # fmt: skip


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """A session, what it tells the engine, and a way to play the engine."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.sent: list[Any] = []
        self.clock = Clock()
        session.training._clock = session.review._clock = self.clock  # time passes by hand
        session.engine.commanded.connect(self.sent.append)
        session.engine.apply([(Ready(1, {}), ""), (Described(DESCRIPTION), "")])

    def say(self, *events: Event) -> None:
        """Play the engine: say something in its present job."""
        for event in events:
            job = self.session.engine.job
            assert job is not None, f"no job for {event}"
            self.session.engine.apply([(event, job.id)])

    def aside(self, *events: Event) -> None:
        """Play the engine: say something in the small job that it does beside a training."""
        for event in events:
            job = self.session.engine.aside
            assert job is not None, f"no small job for {event}"
            self.session.engine.apply([(event, job.id)])

    def complete_tile(self, y: int, x: int, *, nuclei: int = 2) -> str:
        """Add a tile with nuclei, saved, and mark it complete."""
        project = self.session.project
        tile = project.add_tile(0, box=Box(y, x, y + 40, x + 40))
        labels = np.zeros((40, 40), np.int64)
        for number in range(nuclei):
            labels[4 + 8 * number : 10 + 8 * number, 5:12] = number + 1
        project.submit(tile.id, labels, {number + 1: 2 for number in range(nuclei)})
        self.settle()
        project.set_status(tile.id, "complete")
        return tile.id

    def settle(self) -> None:
        """Wait until saving and reading are done."""
        project = self.session.project
        assert project._saver.drain(5)
        project.tick()
        for _ in range(500):
            if not project.saved_words.startswith("saving"):
                break
            project._saver.drain(0.02)
            time.sleep(0.01)
            project.tick()
        assert self.session.background.drain(5)
        self.session.background.deliver()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A session with one image of 200 x 200 pixels in a project, and an engine that is ready."""
    image = np.random.default_rng(0).integers(80, 220, (200, 200, 3), np.uint8)
    tifffile.imwrite(tmp_path / "field.tif", image, photometric="rgb")
    session = Session()
    session.project.create(tmp_path / "field.semiseg")
    session.project.add_image(open_image(tmp_path / "field.tif"))
    session.show_image(0)
    yield Bench(session)
    session.end()


@pytest.fixture
def reopen(tmp_path: Path) -> Iterator[Callable[[], Bench]]:
    """Open the project of `bench` again in another session, once that one has closed it."""
    opened: list[Session] = []

    def again() -> Bench:
        session = Session()
        opened.append(session)
        session.project.open(tmp_path / "field.semiseg")
        session.show_image(0)
        bench = Bench(session)
        bench.settle()
        return bench

    yield again
    for session in opened:
        session.end()
