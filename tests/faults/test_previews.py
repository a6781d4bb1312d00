"""Confidence maps on their way to the viewer: files, whole or not at all, and no shared memory."""

from __future__ import annotations

import ast
import inspect
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

import napari_semiseg
from napari_semiseg.app.run_record import Preview
from napari_semiseg.engine import preview as previews
from napari_semiseg.engine.requests import TrainRequest
from napari_semiseg.engine.train import train
from napari_semiseg.events import Finished, PreviewWritten

SOURCE = Path(inspect.getfile(napari_semiseg)).parent


@pytest.mark.fault
def test_a_reader_never_sees_half_of_one_map_and_half_of_another(tmp_path: Path) -> None:
    from napari_semiseg.plugin.confidence_layer import read_map

    path = tmp_path / "map.npy"
    writer = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("preview_writer.py"), path], stdout=subprocess.PIPE
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"writing\n"
    preview = Preview(1, str(path), 0, (0, 0, 512, 512), 1)
    values = []
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        seen = read_map(preview)
        assert seen.shape == (512, 512)
        assert seen.min() == seen.max()
        values.append(int(seen[0, 0]))
    if os.name == "posix":
        writer.send_signal(signal.SIGKILL)  # in the middle of whatever it does
    else:
        writer.kill()
    writer.wait()
    writer.stdout.close()

    assert len(set(values)) > 3  # they did run side by side
    last = read_map(preview)
    assert last.min() == last.max()


@pytest.mark.parametrize("damage", ["half", "empty", "pickle", "float", "huge"])
def test_a_map_that_is_none_is_not_shown(tmp_path: Path, damage: str) -> None:
    from napari_semiseg.plugin.confidence_layer import LARGEST, read_map

    path = tmp_path / "map.npy"
    shape = (1, LARGEST + 1) if damage == "huge" else (64, 64)
    array = np.ones(shape, {"float": np.float32, "pickle": object}.get(damage, np.uint8))
    np.save(path, array, allow_pickle=True)
    data = path.read_bytes()
    path.write_bytes({"half": data[: len(data) // 2], "empty": b""}.get(damage, data))

    with pytest.raises((OSError, ValueError, EOFError)):
        read_map(Preview(1, str(path), 0, (0, 0, *shape), 1))


@pytest.mark.usefixtures("one_thread")
def test_maps_that_a_reader_holds_open_do_not_end_a_training(
    ask: Callable[..., TrainRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Windows a file that is being read cannot be deleted."""
    monkeypatch.setattr(previews, "FIRST_STEP", 1)
    monkeypatch.setattr(previews, "KEPT", 3)
    monkeypatch.setattr(previews.Previewer, "due", lambda self, step: True)
    unlink = Path.unlink

    def held(path: Path, missing_ok: bool = False) -> None:
        if path.parent.name == "preview" and not path.name.startswith(".") and os.fspath(path).endswith(".npy"):
            raise PermissionError(13, "in use by another program")
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", held)
    events = list(train(ask(steps=6)))

    assert isinstance(events[-1], Finished)
    written = [event.path for event in events if isinstance(event, PreviewWritten)]
    assert len(written) == 6
    assert all(Path(path).exists() for path in written)


@pytest.mark.usefixtures("one_thread")
def test_no_shared_memory_is_used_so_that_none_can_be_full_or_left_behind(ask: Callable[..., TrainRequest]) -> None:
    modules = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                modules.add(node.module or "")
    assert not {name for name in modules if "shared_memory" in name or name == "mmap"}

    shared = Path("/dev/shm")
    if not shared.is_dir():
        pytest.skip("this system has no /dev/shm to look into")
    list(train(ask(steps=1)))
    opened = {file.path for file in psutil.Process().open_files()}
    assert not [path for path in opened if path.startswith(str(shared)) and "semiseg" in path]
