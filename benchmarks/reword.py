"""Write the kept tables of `results/` anew from their figures, as the report words them today.

    python benchmarks/reword.py

No figure that was measured changes, and what was said of the machine stays. It is to be run where the report's words or
the papers' rows beside ours have changed; a test says so.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from napari_semiseg.engine.benchmark_report import write_report

RESULTS = Path(__file__).parent / "results"


def kept(folder: Path = RESULTS) -> Iterator[Path]:
    """Yield the results of benchmarks; other measurements have no papers beside them."""
    for path in sorted(folder.glob("*.json")):
        results = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(results, dict) and "papers" in results:
            yield path


def reworded(path: Path) -> tuple[str, str]:
    """Return the results and the table of a kept benchmark, in the words of today."""
    results = json.loads(path.read_text(encoding="utf-8"))
    _, _, conditions, _ = path.with_suffix(".md").read_text(encoding="utf-8").split("\n", 3)
    dataset = results["rows"][0]["scored_on"]["dataset"]
    with tempfile.TemporaryDirectory() as folder:
        parts = (results["rows"], results["request"], results["rows_planned"], results["failed"])
        written, table = write_report(Path(folder), *parts, dataset)
        again = json.loads(written.read_text(encoding="utf-8"))
        heading, _, _, rest = table.read_text(encoding="utf-8").split("\n", 3)
    return json.dumps(again, indent=1) + "\n", f"{heading}\n\n{conditions}\n{rest}"


def main() -> None:
    """Go through the files."""
    for path in kept():
        results, table = reworded(path)
        path.write_text(results, encoding="utf-8")
        path.with_suffix(".md").write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main()
