"""Small images, labels and requests for training, for tests of what goes wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from napari_semiseg.engine.requests import TrainRequest


def stained(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Paint a field: pink tissue, purple nuclei, noise."""
    rng = np.random.default_rng(seed)
    image = np.where(labels[..., None] > 0, [90, 60, 140], [225, 170, 205])
    return np.clip(image + rng.normal(0, 12, image.shape), 0, 255).astype(np.uint8)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Keep torch to one thread, as where several tests run at once."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def fields(tmp_path: Path, discs: Callable[..., np.ndarray]) -> Path:
    """A folder with two images of 128 x 128 in ``images`` and their labels in ``labels``."""
    folder = tmp_path / "fields"
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for number in range(2):
        labels = np.roll(discs(12, shape=(128, 128), radius=9), 7 * number, axis=1)
        tifffile.imwrite(folder / "images" / f"{number}.tif", stained(labels, number), photometric="rgb")
        tifffile.imwrite(folder / "labels" / f"{number}.tif", labels.astype(np.uint16))
    return folder


@pytest.fixture
def ask(fields: Path, tmp_path: Path) -> Callable[..., TrainRequest]:
    """Ask for a training of a few steps on `fields`; everything can be overridden."""

    def request(**changes: Any) -> TrainRequest:
        options = {"crop": 64, "batch_labeled": 2, "batch_unlabeled": 2, **changes.pop("set", {})}
        values = {
            "images": (str(fields / "images"),),
            "labels": str(fields / "labels"),
            "out": str(tmp_path / "run"),
            "method": "supervised",
            "network": "small_unet",
            "subimage": 64,
            "steps": 2,
            "device": "cpu",
            "set": options,
        }
        values |= changes
        if values["method"] == "csl":
            values |= {"network": "auto", "set": {k: v for k, v in options.items() if k != "batch_labeled"}}
        return TrainRequest.model_validate(values)

    return request


@pytest.fixture
def as_ordinary_user(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[str]]:
    """Run a script's ``work(folder)`` as a user whom the system refuses things, and return the lines it printed.

    Nothing is forbidden to root, so as root the child gives its rights away, after importing what it needs: Python
    itself may lie where that user cannot go.
    """
    if os.name == "nt":
        pytest.skip("Windows has other rights")

    def run(script: str, folder: Path) -> list[str]:
        program = (
            script
            + """
import encodings.ascii, encodings.cp437, encodings.utf_8_sig, os, sys
from pathlib import Path
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
work(Path(sys.argv[1]))
"""
        )
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-c", program, folder], capture_output=True, text=True, timeout=120, env=environment
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run
