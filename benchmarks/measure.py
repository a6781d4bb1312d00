"""Run the asv benchmarks in this environment, and keep the figures where they can be committed.

python benchmarks/measure.py [--quick]
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
TARGET = HERE / "results" / "speed.md"
CONFIG = ["--config", str(HERE / "asv.conf.json")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="run each once: says whether they run, not how fast")
    options = parser.parse_args()
    commit = _output("git", "-C", str(HERE), "rev-parse", "HEAD").strip()
    asv = [sys.executable, "-m", "asv"]
    subprocess.run([*asv, "machine", "--yes", *CONFIG], check=True, stdout=subprocess.DEVNULL)
    run = [*asv, "run", "--set-commit-hash", commit, "--show-stderr", *CONFIG]
    subprocess.run(run + (["--quick"] if options.quick else []), check=True)
    if options.quick:
        return
    figures = _output(*asv, "show", *CONFIG, commit)
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(_page(figures, commit), encoding="utf-8")
    print(f"wrote {TARGET}")


def _page(figures: str, commit: str) -> str:
    import torch

    head = [
        "# Speed and memory",
        "",
        "Written by `make bench`.",
        "",
        f"- {time.strftime('%Y-%m-%d')}, commit {commit[:10]}",
        f"- {platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, {platform.system()}",
        f"- Python {platform.python_version()}, torch {torch.__version__}",
        "",
    ]
    return "\n".join([*head, "```text", figures.strip(), "```", ""])


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
