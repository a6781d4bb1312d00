"""Painting beside a training for a long time: memory, file handles and threads stay what they were.

`make soak` takes 20 minutes for it, and as long as `NAPARI_SEMISEG_MINUTES` says where that is set: 480 for a night.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import tifffile
from tests.faults.memory_slope import Slope, slope

from napari_semiseg.project.folder import ProjectFolder

PROGRAM = Path(__file__).with_name("soaking_napari.py")
MINUTES = float(os.environ.get("NAPARI_SEMISEG_MINUTES", 20)) if "NAPARI_SEMISEG_SOAK" in os.environ else 0.1
SAMPLES = 240
WARM = 0.25
"""Share of the time in which memory may still grow: things are loaded, and histories filled, for the first time."""
MOST_MB_PER_HOUR = 1.0
SEEN_AFTER_MIN = 240
"""Minutes from which a slope of that size is more than noise."""
SHORT_MB_PER_HOUR = 60.0
"""Of a shorter time, a slope that is surely above this one is refused. It finds a leak of 100 MB an hour, and vouches
for no less than itself: the twenty minutes that `benchmarks/results/soak.md` tells of had 52 and 56 MB an hour, of
which Python holds next to nothing (`benchmarks/what_grows.py`)."""
TOLD_AFTER_MIN = 15
"""Minutes from which a slope is looked at, at all."""
MOST_MB = 60.0
"""How much more memory there may be at the end of a shorter time than when it was warm."""
SHARED = Path("/dev/shm")

pytestmark = [
    pytest.mark.fault,
    pytest.mark.skipif(os.name != "posix", reason="POSIX signals"),
    pytest.mark.timeout(60 * MINUTES + 400),
]


class Watched:
    """A process, and what was seen of it over time."""

    def __init__(self, process: psutil.Process) -> None:
        self.process = process
        self.at: list[float] = []
        self.mb: list[float] = []
        self.handles: list[int] = []
        self.threads: list[int] = []

    def look(self) -> None:
        self.at.append(time.monotonic() / 3600)
        self.mb.append(self.process.memory_info().rss / 2**20)
        self.handles.append(self.process.num_fds())
        self.threads.append(self.process.num_threads())

    @property
    def warm(self) -> slice:
        return slice(int(WARM * len(self.at)), None)

    @property
    def slope(self) -> Slope:
        """MB an hour, since it was warm."""
        return slope(self.at[self.warm], self.mb[self.warm])

    @property
    def grown(self) -> float:
        """MB from when it was warm to the end, each the median of a tenth of the time."""
        warm = self.mb[self.warm]
        tenth = max(1, len(warm) // 10)
        return float(np.median(warm[-tenth:]) - np.median(warm[:tenth]))


def test_painting_beside_a_training_for_long_takes_no_more_memory_handles_or_threads(
    tmp_path, request, record_property
):
    if getattr(request.node, "callspec", None) and request.node.callspec.params.get("_round", 0):
        pytest.skip("one round is long enough")
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or shutil.which("xvfb-run")):
        pytest.skip("there is neither a display nor xvfb-run")
    image = np.random.default_rng(0).integers(80, 220, (300, 300, 3)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "field.tif", image, photometric="rgb")
    shared = set(SHARED.iterdir()) if SHARED.is_dir() else set()
    home = {name: str(tmp_path) for name in ("HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME")}
    with (tmp_path / "errors").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM), str(tmp_path / "field.tif"), str(tmp_path / "case.semiseg")],
            stdout=subprocess.PIPE, stderr=errors, text=True, env={**os.environ, **home},
        )  # fmt: skip
    try:
        assert process.stdout.readline() == "soaking\n", (tmp_path / "errors").read_text()[-3000:]
        family = psutil.Process(process.pid).children(recursive=True)
        (engine,) = [child for child in family if "serve" in child.cmdline()]
        viewer, child = Watched(psutil.Process(process.pid)), Watched(engine)
        for _ in range(SAMPLES):
            time.sleep(60 * MINUTES / SAMPLES)
            assert process.poll() is None, (tmp_path / "errors").read_text()[-3000:]
            viewer.look()
            child.look()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    _, alive = psutil.wait_procs(family, timeout=5)

    record_property("minutes", MINUTES)
    for name, watched in (("viewer", viewer), ("engine", child)):
        record_property(f"{name}, MB", round(watched.mb[-1]))
        record_property(f"{name}, MB an hour (95 %)", str(watched.slope))
        record_property(f"{name}, handles", f"{watched.handles[watched.warm][0]} to {watched.handles[-1]}")
        if MINUTES >= SEEN_AFTER_MIN:
            assert watched.slope.mb_per_hour < MOST_MB_PER_HOUR, f"{name}: {watched.slope} MB an hour"
        elif MINUTES >= TOLD_AFTER_MIN:
            assert not watched.slope.surely_above(SHORT_MB_PER_HOUR), f"{name}: {watched.slope} MB an hour"
        assert watched.grown < MOST_MB, name
        assert max(watched.handles[watched.warm]) <= watched.handles[watched.warm][0] + 8, name
        assert max(watched.threads[watched.warm]) <= watched.threads[watched.warm][0] + 4, name
    assert alive == []
    assert (set(SHARED.iterdir()) if SHARED.is_dir() else set()) <= shared
    with ProjectFolder.open(tmp_path / "case.semiseg") as project:
        assert project.recovery.damaged == ()
        assert (project.annotation(project.tiles[0].id).instance > 0).any()
