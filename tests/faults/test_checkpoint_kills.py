"""Whatever kills a process that saves, the newest checkpoint that counts is whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("killed_checkpoints.py")

pytestmark = [
    pytest.mark.fault,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork"),
]


def test_a_kill_at_any_moment_of_saving_leaves_a_whole_checkpoint_and_a_whole_model(tmp_path, request):
    """Every call of the system, and 50 writes broken off at a random byte."""
    seed = str(zlib.crc32(request.node.name.encode()))
    done = subprocess.run(
        [sys.executable, PROGRAM, tmp_path, "--offsets", "50", "--seed", seed], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    [whole] = [report for report in reports if not report["killed"]]
    killed = [report for report in reports if report["killed"]]

    assert whole["step"] == whole["model"] == 4
    assert len(killed) > 70
    assert [report for report in reports if not (report["exact"] and report["model exact"])] == []
    assert [report for report in reports if not report["LATEST verifies"]] == []
    assert [report for report in reports if min(report["step"], report["model"]) < report["said"]] == []
    assert {report["step"] for report in killed} == {2, 3, 4}
