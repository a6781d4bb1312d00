"""The table of faults names tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
TABLE = TESTS.parent / "docs" / "decisions" / "fault-matrix.md"
CASES = [*range(1, 13), 14, *range(15, 66)]


def test_every_case_has_a_row_and_every_test_it_names_is_there() -> None:
    if not TABLE.exists():
        pytest.skip("the documentation is not part of this copy")
    rows = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if line.startswith("|") and "::" in line]
    assert [int(row.split("|")[1]) for row in rows if row.split("|")[1].strip().isdigit()][: len(CASES)] == CASES
    for row in rows:
        named = re.findall(r"`([\w/]+\.py)::(?:\w+::)?(test_\w+)`", row)
        assert named
        for path, name in named:
            assert f"def {name}(" in (TESTS / path).read_text(encoding="utf-8"), f"{path}::{name}"
