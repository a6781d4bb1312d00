"""Whatever kills the program, what was painted is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

TORTURE = Path(__file__).with_name("torture.py")
KILLS = 500 if "NAPARI_SEMISEG_SOAK" in os.environ else 20
ALLOWED_S = 2.0

pytestmark = [
    pytest.mark.fault,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork"),
    pytest.mark.timeout(120 + 2 * KILLS),
]


def tortured(*arguments):
    done = subprocess.run([sys.executable, TORTURE, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_no_stroke_older_than_two_seconds_is_lost_and_the_project_always_opens(tmp_path, request, record_property):
    reports = tortured("kills", tmp_path, "--count", KILLS, "--seed", zlib.crc32(request.node.name.encode()))
    record_property("kills", len(reports))
    record_property("oldest stroke lost, s", round(max(report["oldest_lost_s"] for report in reports), 2))
    assert len(reports) == KILLS
    assert all(report["killed"] for report in reports)
    assert [report for report in reports if not report["exact"]] == []
    assert [report for report in reports if report["damaged"]] == []
    assert max(report["oldest_lost_s"] for report in reports) <= ALLOWED_S
    assert sum(report["painted"] for report in reports) > 10 * KILLS


def test_a_kill_at_any_call_of_the_system_loses_nothing_that_was_saved_and_doubles_nothing(tmp_path):
    reports = tortured("steps", tmp_path)
    *killed, last = reports
    assert last["status"] == 0
    assert last["kept"] == last["said"] == 5
    assert len(killed) > 60
    assert all(report["killed"] for report in killed)
    assert [report for report in reports if not report["exact"]] == []
    assert [report for report in reports if report["damaged"] or report["leftovers"]] == []
    assert [report for report in reports if report["kept"] < report["said"]] == []
    assert {report["kept"] for report in reports} == set(range(6))
