"""What this installation can do, what it lacks, and the command that mends it.

Whatever may crash a process (Qt without its system libraries, torch with a broken driver) is tried in a child, so that
the doctor survives to tell.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

PYTHON = (3, 11)
BINDINGS = ("PyQt6", "PySide6")
BROKEN_BINDINGS = {("PySide6", "6.12.0"): (3, 12)}
"""Releases that crash napari on a Python older than the one named.

PySide6 6.12.0 loses one reference to None with every event of napari's canvas, until None is freed and the process
aborts; since Python 3.12 None is never freed.
"""
CHILD_SECONDS = 180
ROOM = 5e9
"""Bytes that a run and its results should find free."""

QT_LIBRARIES = (
    "libegl1 libgl1 libxcb-cursor0 libxkbcommon-x11-0 libxcb-icccm4 libxcb-keysyms1 libxcb-shape0 libdbus-1-3"
)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    topic : str
    state : {"good", "note", "bad"}
        `note`: works, but something is worth knowing; `bad`: something will not work.
    found : str
        What was found, in one sentence.
    mend : str
        The command that mends it, or "".
    """

    topic: str
    state: Literal["good", "note", "bad"]
    found: str
    mend: str = ""


def examine(folder: Path) -> Iterator[Finding]:
    """Look at everything that a run needs.

    Parameters
    ----------
    folder : Path
        Where results would go; its disk is the one that is measured.

    Yields
    ------
    Finding
        As soon as each is known; trying torch takes some seconds.
    """
    yield _python()
    yield _package("napari", "napari>=0.9")
    yield from _qt()
    yield from _torch()
    yield _slides()
    yield _disk(folder)


def _pip(*what: str, anew: bool = False) -> str:
    how = "--force-reinstall" if anew else "--upgrade"
    return " ".join([_quoted(sys.executable), "-m pip install", how, *map(_quoted, what)])


def _quoted(word: str) -> str:
    return f'"{word}"' if any(mark in word for mark in " []<>=") else word


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _python() -> Finding:
    found = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info < PYTHON:
        wanted = ".".join(map(str, PYTHON))
        return Finding("Python", "bad", f"{found}, which is older than {wanted}", f"python{wanted} -m venv .venv")
    return Finding("Python", "good", found)


def _package(name: str, requirement: str) -> Finding:
    found = _installed(name)
    if found is None:
        return Finding(name, "bad", "not installed", _pip(requirement))
    least = tuple(int(part) for part in requirement.partition(">=")[2].split("."))
    if tuple(int(part) for part in found.split(".")[: len(least)] if part.isdigit()) < least:
        return Finding(name, "bad", f"{found} is too old", _pip(requirement))
    return Finding(name, "good", found)


def _qt() -> Iterator[Finding]:
    found = {binding: number for binding in BINDINGS if (number := _installed(binding))}
    if not found:
        yield Finding("Qt", "bad", "no binding is installed, so napari has no windows", _pip("napari-semiseg[all]"))
        return
    for binding, number in found.items():
        if sys.version_info < BROKEN_BINDINGS.get((binding, number), (0,)):
            words = f"{binding} {number} crashes napari after a while on Python {platform.python_version()}"
            yield Finding("Qt", "bad", words, _pip(f"{binding}!={number}"))
    names = ", ".join(f"{binding} {number}" for binding, number in found.items())
    answer, complaint = _child("from qtpy import API_NAME, QtWidgets\nprint(json.dumps(API_NAME))")
    if answer is None:
        apt = f"sudo apt-get install {QT_LIBRARIES}" if sys.platform == "linux" else _pip("PyQt6", anew=True)
        yield Finding("Qt", "bad", f"{names} cannot be loaded: {complaint}", apt)
        return
    more = f"; QT_API chooses, and {answer} is taken" if len(found) > 1 else ""
    yield Finding("Qt", "good", f"{names}{more}")
    yield _display()


def _display() -> Finding:
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return Finding(
            "display", "note", "none here: the command line works, napari's window does not", "xvfb-run -a napari"
        )
    answer, complaint = _child(
        "from qtpy.QtWidgets import QApplication\napp = QApplication([])\nprint(json.dumps(app.platformName()))"
    )
    if answer is None:
        mend = f"sudo apt-get install {QT_LIBRARIES}" if sys.platform == "linux" else ""
        return Finding("display", "bad", f"Qt cannot open it: {complaint}", mend)
    return Finding("display", "good", f"opened through Qt's platform {answer}")


_TORCH = """
import torch, torchvision
versions = {"torch": torch.__version__, "vision": torchvision.__version__}
print(json.dumps(versions | {"cuda": torch.version.cuda, "hip": torch.version.hip}))
"""
_DEVICES = """
import dataclasses
from napari_semiseg.engine.devices import available_devices
print(json.dumps([dataclasses.asdict(device) for device in available_devices()]))
"""


def _torch() -> Iterator[Finding]:
    build, complaint = _child(_TORCH)
    if build is None:
        yield Finding("torch", "bad", f"cannot be loaded: {complaint}", _pip("torch", "torchvision", anew=True))
        return
    kind = f"CUDA {build['cuda']}" if build["cuda"] else f"ROCm {build['hip']}" if build["hip"] else "CPU only"
    words = f"{build['torch']} for {kind}, torchvision {build['vision']}"
    if kind == "CPU only" and shutil.which("nvidia-smi"):
        yield Finding(
            "torch",
            "note",
            f"{words}, though this machine has an NVIDIA driver: see pytorch.org/get-started for the build to install",
        )
    else:
        yield Finding("torch", "good", words)
    devices, complaint = _child(_DEVICES)
    if devices is None:
        yield Finding("devices", "bad", f"the self-test broke off: {complaint}", "napari-semiseg train … --device cpu")
        return
    yield from map(_device, devices)


def _device(device: dict[str, Any]) -> Finding:
    topic = f"device {device['name']}"
    if not device["ok"]:
        # A machine without a GPU is no broken machine: the CPU is always among the devices.
        return Finding(
            topic, "bad" if device["name"] == "cpu" else "note", f"{device['title']} cannot be used: {device['note']}"
        )
    pace = f"{device['title']}, one test step in {1000 * device['step_s']:.0f} ms"
    return Finding(topic, "note" if device["note"] else "good", f"{pace}. {device['note']}".rstrip(". "))


def _slides() -> Finding:
    if find_spec("openslide") is None:
        return Finding(
            "slides",
            "note",
            "SVS, NDPI, MRXS and SCN need OpenSlide, which is not installed",
            _pip("napari-semiseg[wsi]"),
        )
    answer, complaint = _child("import openslide\nprint(json.dumps(openslide.__library_version__))")
    if answer is None:
        return Finding("slides", "bad", f"OpenSlide cannot be loaded: {complaint}", _pip("openslide-bin", anew=True))
    return Finding("slides", "good", f"OpenSlide {answer}")


def _disk(folder: Path) -> Finding:
    there = next((place for place in [folder.absolute(), *folder.absolute().parents] if place.exists()), Path("/"))
    free = shutil.disk_usage(there).free
    state: Literal["good", "bad"] = "good" if free >= ROOM else "bad"
    mend = "" if free >= ROOM else "napari-semiseg train … --out /another/disk"
    return Finding("disk", state, f"{free / 1e9:.1f} GB free at {there}", mend)


def _child(code: str) -> tuple[Any, str]:
    """Run code that prints one line of JSON. Returns (answer, "") or (None, why not)."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", "import json\n" + code],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=CHILD_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None, f"no answer within {CHILD_SECONDS} s"
    lines = done.stdout.strip().splitlines()
    if done.returncode == 0 and lines:
        return json.loads(lines[-1]), ""
    if done.returncode < 0:
        return None, f"the process was ended by signal {-done.returncode}"
    said = done.stderr.strip().splitlines()
    return None, (said[-1][:300] if said else f"status {done.returncode}").rstrip(".")
