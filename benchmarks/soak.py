"""Repeat the fault tests, and keep the outcome where it can be committed.

First the kills, as often as they are promised: the writer of the journal 500 times, a training 20 times, napari 20
times, a prediction 50 times, and an export to each format 50 times. Then somebody paints beside a training for 20
minutes, or a night, and somebody else does everything in any order. Then every fault test some more times.

    python benchmarks/soak.py --repeat 5 --minutes 20 [pytest's own arguments]
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
TARGET = HERE / "results" / "soak.md"
KILLS = (
    "tests/project/test_kills.py",
    "tests/engine/test_kill.py",
    "tests/faults/test_killed_napari.py",
    "tests/faults/test_killed_predictions.py",
    "tests/faults/test_killed_exports.py",
)
LONG = ("tests/faults/test_soak.py", "tests/plugin/test_slow_sources.py", "tests/plugin/test_odd_order.py")
"""What takes long: it waits for seconds where it waits for tenths of one in the ordinary tests, and does in 60 random
orders what is done there in a few that are always the same."""


@dataclass
class Row:
    """What came of one test."""

    rounds: int = 0
    failed: int = 0
    skipped: int = 0
    longest_s: float = 0.0
    figures: dict[str, str] = field(default_factory=dict)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5, help="how often each fault test is made after the kills")
    parser.add_argument("--minutes", type=float, default=20, help="how long somebody paints; 480 for a night")
    options, more = parser.parse_known_args()
    begun = time.monotonic()
    kills, status = run([*KILLS, *more], {"NAPARI_SEMISEG_SOAK": "1"})
    asked = {"NAPARI_SEMISEG_SOAK": "1", "NAPARI_SEMISEG_MINUTES": str(options.minutes)}
    long, later = run([*LONG, *more], asked)
    status = status or later
    others: dict[str, Row] = {}
    if options.repeat:
        others, later = run(["-m", "fault", "--repeat", str(options.repeat), *more], {})
        status = status or later
    minutes = (time.monotonic() - begun) / 60
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(page(kills, long, others, options.repeat, minutes), encoding="utf-8")
    print(f"wrote {TARGET}")
    return status


def run(arguments: list[str], environment: dict[str, str]) -> tuple[dict[str, Row], int]:
    """Run pytest, and return a row a test and its exit status."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            f"--junitxml={report}",
            "-o",
            "junit_family=xunit1",
            *arguments,
        ]
        status = subprocess.run(command, cwd=HERE.parent, env={**os.environ, **environment}, check=False).returncode
        return (rows(report) if report.exists() else {}), status


def rows(report: Path) -> dict[str, Row]:
    """Read pytest's report; the rounds of a test are one row."""
    found: dict[str, Row] = defaultdict(Row)
    for case in ET.parse(report).getroot().iter("testcase"):
        row = found[f"{case.get('classname', '')}: {case.get('name', '').partition('[')[0]}"]
        row.rounds += 1
        row.failed += case.find("failure") is not None or case.find("error") is not None
        row.skipped += case.find("skipped") is not None
        row.longest_s = max(row.longest_s, float(case.get("time", 0)))
        row.figures |= {str(p.get("name")): str(p.get("value")) for p in case.iter("property")}
    return dict(found)


def page(kills: dict[str, Row], long: dict[str, Row], others: dict[str, Row], repeat: int, minutes: float) -> str:
    """Return the outcome as Markdown."""
    commit = subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], cwd=HERE, capture_output=True, text=True)
    where = (
        f"{time.strftime('%Y-%m-%d')}, commit {commit.stdout.strip()}, Python {platform.python_version()}, "
        f"{platform.system()}, {os.cpu_count()} cores, {minutes:.0f} minutes."
    )
    lines = [
        "# Fault tests, repeated",
        "",
        "Written by `make soak`.",
        "",
        where,
        "",
        "## Kills at random moments",
        "",
        *table(kills),
        "",
        "## For long, and from a slow disk",
        "",
        *table(long),
    ]
    if others:
        lines += ["", f"## Every fault test, {repeat} times", "", *table(others)]
    return "\n".join([*lines, ""])


def table(rows: dict[str, Row]) -> list[str]:
    """Return a table; tests that came to the same are counted, those with figures or failures are named."""
    named = {name: row for name, row in rows.items() if row.figures or row.failed}
    lines = ["| test | rounds | failed | longest, s | |", "|---|---:|---:|---:|---|"]
    for name, row in named.items():
        said = ", ".join(f"{key}: {value}" for key, value in row.figures.items())
        lines.append(
            f"| {name.rpartition(': ')[2].replace('_', ' ')} | {row.rounds} | {row.failed} | "
            f"{row.longest_s:.0f} | {said} |"
        )
    rest = [row for name, row in rows.items() if name not in named]
    if rest:
        rounds, skipped = sum(row.rounds for row in rest), sum(row.skipped for row in rest)
        lines.append(
            f"| {len(rest)} others | {rounds} | 0 | {max(row.longest_s for row in rest):.0f} | skipped: {skipped} |"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
