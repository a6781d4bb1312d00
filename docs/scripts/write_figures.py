"""Write the figures of README.md from `benchmarks/results/`: python docs/scripts/write_figures.py

Nothing is typed in by hand, so no figure stands there without its file; a test compares the two.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs"))
from _tables import RESULTS, default_beside_threshold  # noqa: E402

BEGIN = "<!-- figures: written by docs/scripts/write_figures.py -->"
END = "<!-- end of figures -->"
OLDER = "†: measured before what *Train* takes was changed last, and to be measured anew."


def figures() -> str:
    """Return what one click gave beside the threshold, then a line for each file of results, with its heading."""
    files = []
    for path in sorted(RESULTS.glob("*.md")):
        heading = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        files.append(f"- [{path.stem}](benchmarks/results/{path.name}): {heading}")
    table = default_beside_threshold()
    marked = [OLDER, ""] if "†" in table else []
    return "\n".join([table, "", *marked, *files])


def with_figures(readme: str) -> str:
    """Return the README with what stands between the two marks written anew."""
    before, _, rest = readme.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n\n{figures()}\n\n{END}{after}"


if __name__ == "__main__":
    page = ROOT / "README.md"
    page.write_text(with_figures(page.read_text(encoding="utf-8")), encoding="utf-8")
