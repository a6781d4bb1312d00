"""Fixtures for projects on real disks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from napari_semiseg.blocks import Box
from napari_semiseg.project.folder import ProjectFolder


@pytest.fixture
def project(tmp_path: Path) -> Iterator[ProjectFolder]:
    """A project with one image of 200 x 300 pixels."""
    opened = ProjectFolder.create(tmp_path / "breast-07")
    opened.add_image(tmp_path / "HE_0412.svs", shape=(200, 300), mpp=0.25)
    yield opened
    opened.close()


@pytest.fixture
def painted() -> Callable[..., np.ndarray]:
    """Draw random strokes (uint32) that differ by their seed."""

    def draw(shape: tuple[int, int] = (50, 60), seed: int = 0, strokes: int = 5) -> np.ndarray:
        random = np.random.default_rng(seed)
        array = np.zeros(shape, np.uint32)
        for value in range(1, strokes + 1):
            y, x = (int(random.integers(0, side - 5)) for side in shape)
            array[y : y + 5, x : x + 5] = value
        return array

    return draw


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A folder that every user of this computer can reach, which pytest's own is not."""
    folder = Path(tempfile.mkdtemp(prefix="semiseg-test-"))
    folder.chmod(0o777)
    yield folder
    for path in [folder, *folder.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o777)
    shutil.rmtree(folder)


@pytest.fixture
def as_ordinary_user(shared_folder: Path) -> Callable[[str], list[str]]:
    """Run a script's ``work(folder)`` as a user whom the system refuses things, and return the lines it printed.

    Nothing is forbidden to root, so as root the child gives its rights away, after importing what it needs: Python
    itself may lie where that user cannot go.
    """
    if os.name == "nt":
        pytest.skip("Windows has other rights")

    def run(script: str) -> list[str]:
        program = textwrap.dedent(script) + textwrap.dedent(
            """
            import encodings.ascii, encodings.cp437, encodings.utf_8_sig, os, sys
            from pathlib import Path
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            work(Path(sys.argv[1]))
            """
        )
        done = subprocess.run(
            [sys.executable, "-c", program, shared_folder], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run


@pytest.fixture
def tile_box() -> Box:
    return Box(10, 20, 60, 80)
