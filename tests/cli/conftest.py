from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Finished = subprocess.CompletedProcess[str]


@pytest.fixture
def command() -> Callable[..., Finished]:
    """Run the real command in a process of its own and return how it ended."""

    def run(*args: str | Path, timeout: float = 120, **environment: str) -> Finished:
        return subprocess.run(
            [sys.executable, "-m", "napari_semiseg", *map(str, args)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env=os.environ | environment,
        )

    return run
