"""Fixtures that more than one folder of tests uses."""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

# Before anything imports torch or numpy: with several workers on few cores, threads only get in each other's way.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Torch brings a compiler (triton) with an LLVM of its own. Loaded after the LLVM of a software OpenGL, it crashes the
# process; loaded before, both work. Only tests have torch and windows in one process.
with contextlib.suppress(ImportError):
    import triton  # noqa: F401

import numpy as np
import pytest

if TYPE_CHECKING:
    from torch import Tensor


def pytest_configure(config: pytest.Config) -> None:
    """Keep log files and napari's preferences of whoever runs the tests out of reach, of child processes too."""
    state = tempfile.TemporaryDirectory(prefix="semiseg-logs-", ignore_cleanup_errors=True)
    config.add_cleanup(state.cleanup)
    os.environ["XDG_STATE_HOME"] = state.name
    os.environ["XDG_CONFIG_HOME"] = str(Path(state.name) / "config")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--repeat", type=int, default=1, metavar="N", help="run every test marked `fault` N times")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    repeat = metafunc.config.getoption("repeat")
    if repeat > 1 and metafunc.definition.get_closest_marker("fault"):
        metafunc.fixturenames.append("_round")
        metafunc.parametrize("_round", range(repeat))


@pytest.fixture
def dataset() -> Callable[[str], Path]:
    """Find a development data set by name, or skip the test and say why."""

    def find(name: str) -> Path:
        root = os.environ.get("NAPARI_SEMISEG_DATA")
        if not root:
            pytest.skip("NAPARI_SEMISEG_DATA names no folder of data sets")
        folder = Path(root) / name
        if not folder.is_dir():
            pytest.skip(f"there is no data set {name} in NAPARI_SEMISEG_DATA")
        return folder

    return find


@pytest.fixture
def discs() -> Callable[..., np.ndarray]:
    """Draw labels: `count` disjoint discs of `radius` pixels in rows, numbered from 1 (uint32)."""

    def draw(count: int = 3, *, shape: tuple[int, int] = (64, 64), radius: int = 6) -> np.ndarray:
        labels = np.zeros(shape, np.uint32)
        rows, columns = np.indices(shape)
        pitch = 2 * radius + 3
        in_a_row = max(1, (shape[1] - 3) // pitch)
        for index in range(count):
            y = radius + 3 + pitch * (index // in_a_row)
            x = radius + 3 + pitch * (index % in_a_row)
            if y + radius >= shape[0]:
                raise ValueError(f"{count} discs of radius {radius} do not fit into {shape}")
            labels[(rows - y) ** 2 + (columns - x) ** 2 <= radius**2] = index + 1
        return labels

    return draw


@pytest.fixture
def agree() -> Callable[..., None]:
    """Return a function that asserts two losses to be equal, with their gradients for the inputs given after them.

    Equal to 1e-9 of the largest entry, each tensor on its own.
    """

    import torch  # tests of the window and of files do without

    def assert_agree(found: Tensor, expected: Tensor, *inputs: Tensor, relative: float = 1e-9) -> None:
        here = [found.detach(), *torch.autograd.grad(found, inputs, retain_graph=True)]
        there = [expected.detach(), *torch.autograd.grad(expected, inputs, retain_graph=True)]
        for a, b in zip(here, there, strict=True):
            scale = max(float(b.abs().max()), math.ulp(1.0))
            torch.testing.assert_close(a, b, rtol=0.0, atol=relative * scale)

    return assert_agree
