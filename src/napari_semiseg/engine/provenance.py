"""Where a figure comes from: versions, commit, device."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

PACKAGES = ("napari-semiseg", "torch", "torchvision", "numpy", "scipy", "scikit-image", "scikit-learn")


def versions() -> dict[str, str]:
    """Return the versions of Python and of what computes; "unknown" for what is not installed as a package."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def commit() -> str:
    """Return the commit that the program runs from, with a "+" where files were changed since; else "unknown"."""
    here = Path(__file__).parent
    try:
        head, changed = (
            subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=False, timeout=20).stdout
            for words in (("rev-parse", "--short", "HEAD"), ("status", "--porcelain", "--untracked-files=no", "."))
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return f"{head.strip()}{'+' if changed.strip() else ''}" or "unknown"


def device_words(device: torch.device) -> str:
    """Return what computes, in words: the card, or the processor and how many threads of it."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    if device.type == "mps":
        return f"{platform.processor()} (MPS)"
    return f"{_processor()}, {torch.get_num_threads()} threads"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
