"""napari itself, painted in and killed: what was painted is there, and no engine is left."""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tifffile

from napari_semiseg.engine.requests import TrainRequest
from napari_semiseg.project.folder import ProjectFolder

PROGRAM = Path(__file__).with_name("painting_napari.py")
KILLS = 20 if "NAPARI_SEMISEG_SOAK" in os.environ else 1
ROUNDS = 20
ALLOWED_S = 2.0

pytestmark = [
    pytest.mark.fault,
    pytest.mark.skipif(os.name != "posix", reason="POSIX signals"),
    pytest.mark.timeout(180 * KILLS),
]


def runs(process: psutil.Process) -> bool:
    """Whether a process is more than a number that nobody has asked about yet."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for_line(process: subprocess.Popen[str], start: str) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(start):
            return line
        assert not line.startswith("Failed"), line
    raise AssertionError(f"it ended before it said {start!r}: {process.wait()}")


def napari(folder: Path, request: dict[str, Any], errors: Any) -> subprocess.Popen[str]:
    home = folder / "home"
    home.mkdir(exist_ok=True)
    environment = {**os.environ, "HOME": str(home), "XDG_STATE_HOME": str(home), "XDG_CONFIG_HOME": str(home)}
    return subprocess.Popen(
        [
            sys.executable,
            str(PROGRAM),
            *(str(folder / name) for name in ("field.tif", "case.semiseg", "notes")),
            json.dumps(request),
        ],
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        env=environment,
    )


def test_napari_killed_while_it_paints_and_trains_loses_no_stroke_and_leaves_no_engine(
    tmp_path: Path,
    ask: Callable[..., TrainRequest],
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
) -> None:
    """The first kill comes while the real engine trains."""
    if getattr(request.node, "callspec", None) and request.node.callspec.params.get("_round", 0) >= ROUNDS:
        pytest.skip(f"napari is started in {ROUNDS} rounds only")
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or shutil.which("xvfb-run")):
        pytest.skip("there is neither a display nor xvfb-run")
    image = np.random.default_rng(0).integers(80, 220, (300, 300, 3)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "field.tif", image, photometric="rgb")
    ages = []
    for kill in range(KILLS):
        training = ask(steps=100_000).model_dump(mode="json") if kill == 0 else {}
        (tmp_path / "notes").unlink(missing_ok=True)
        with (tmp_path / "errors").open("w") as errors:
            process = napari(tmp_path, training, errors)
        assert process.stdout is not None
        try:
            assert wait_for_line(process, "painting"), (tmp_path / "errors").read_text()
            if training:
                wait_for_line(process, "StepDone")
        except AssertionError:
            process.kill()
            raise AssertionError((tmp_path / "errors").read_text()[-3000:]) from None
        time.sleep(random.uniform(2.0, 4.0))
        family = psutil.Process(process.pid).children(recursive=True)
        engines = [child for child in family if "serve" in child.cmdline()]
        at = time.monotonic()
        process.kill()
        process.wait()
        _, alive = psutil.wait_procs(family, timeout=2)
        alive = [child for child in alive if runs(child)]
        rest = process.stdout.read()
        process.stdout.close()

        assert len(engines) == 1
        assert alive == []
        assert "script" not in rest
        painted = list(struct.iter_unpack("<Id", (tmp_path / "notes").read_bytes()))
        assert len(painted) > 20
        with ProjectFolder.open(tmp_path / "case.semiseg") as project:
            assert project.recovery.damaged == ()
            kept = set(np.unique(project.annotation(project.tiles[0].id).instance).tolist())
        lost = [when for number, when in painted if number not in kept]
        ages.append(max((at - when for when in lost), default=0.0))
        assert ages[-1] <= ALLOWED_S
        assert len(kept) > 1
    record_property("kills", KILLS)
    record_property("oldest stroke lost, s", round(max(ages), 2))
