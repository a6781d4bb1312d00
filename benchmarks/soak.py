"""Repeat the fault tests, and keep the outcome where it can be committed.

python benchmarks/soak.py --repeat 200 [pytest's own arguments]
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
TARGET = HERE / "results" / "soak.md"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=200, help="how often each test is made")
    options, more = parser.parse_known_args()
    command = [sys.executable, "-m", "pytest", "-q", "-m", "fault", "--repeat", str(options.repeat), *more]
    begun = time.monotonic()
    with subprocess.Popen(command, cwd=HERE.parent, stdout=subprocess.PIPE, text=True) as process:
        said = []
        for line in process.stdout:
            print(line, end="", flush=True)
            said.append(line.rstrip())
    minutes = (time.monotonic() - begun) / 60
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(_page(options.repeat, said, minutes), encoding="utf-8")
    print(f"wrote {TARGET}")
    return process.returncode


def _page(repeat: int, said: list[str], minutes: float) -> str:
    commit = subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], cwd=HERE, capture_output=True, text=True)
    failures = [line for line in said if line.startswith(("FAILED", "ERROR"))]
    lines = [
        "# Fault tests, repeated",
        "",
        "Written by `make soak`.",
        "",
        f"- {time.strftime('%Y-%m-%d')}, commit {commit.stdout.strip()}",
        f"- Python {platform.python_version()}, {platform.system()}",
        f"- each test {repeat} times, in {minutes:.0f} minutes",
        f"- {said[-1] if said else 'no output'}",
    ]
    if failures:
        lines += ["", "```text", *failures, "```"]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main())
