"""From *Train* to the first map that at least 20 optimizer steps have shaped, in a real napari window.

The child is warm, 1000 x 1000 pixels are in view, and four tiles of the sample image are labeled.

    python benchmarks/first_map.py --repeat 3 --out benchmarks/results/first_map.md
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from ui_latency import prepare, wait

LEAST_STEPS = 20
GOAL_S = 15.0
SIDE = 1000


def measure(dock) -> tuple[float, int, float, int]:
    """Train once; return seconds and step of the first map, and of the first that counts."""
    confidence, training = dock.train_panel.confidence, dock.session.training
    begun = time.monotonic()
    dock.train_panel.train.click()
    wait(lambda: confidence.shown is not None and training.active, 120, "the first map")
    first = time.monotonic() - begun, confidence.shown.step
    wait(lambda: confidence.shown.step >= LEAST_STEPS, 120, f"a map of {LEAST_STEPS} steps")
    counted = time.monotonic() - begun, confidence.shown.step
    training.cancel()
    wait(lambda: not training.active and dock.session.engine.job is None, 60, "the end of the training")
    return *first, *counted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3, help="how often it is measured, each time with a new window")
    parser.add_argument("--out", type=Path, help="file for the figures")
    options = parser.parse_args()
    rows = []
    for _ in range(options.repeat):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            viewer, dock = prepare(Path(folder), SIDE)
            rows.append(measure(dock))
            viewer.close()
            dock.supervisor.wait(5)
    where = (
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"napari {version('napari')}, torch {version('torch')}; {SIDE} x {SIDE} pixels in view, child warm, the "
        f"preset that is set when the dock opens. Goal: a map of at least {LEAST_STEPS} steps within {GOAL_S:g} s."
    )
    lines = [
        "# From *Train* to the first map",
        "",
        f"`python benchmarks/first_map.py --repeat {options.repeat}`",
        "",
        where,
        "",
        "| first map after, s | its step | map that counts after, s | its step |",
        "|---:|---:|---:|---:|",
        *(f"| {a:.1f} | {b} | {c:.1f} | {d} |" for a, b, c, d in rows),
        "",
        f"Mean {np.mean([row[2] for row in rows]):.1f} s, longest {max(row[2] for row in rows):.1f} s.",
    ]
    text = "\n".join(lines) + "\n"
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
